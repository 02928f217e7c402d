//! The log: who did what and when, read from the signed journals.
//!
//! All journals are walked side by side, by the clock of their batches, and each batch is checked
//! (its signature, and that it follows the one before) before anything of it is told. So a line
//! that was told is proven, and the walk ends at the first that cannot be.

mod wording;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::epochs::Epochs;
use super::journal::context;
use super::replica::device_names;
use super::{EngineError, Workspace};
use crate::chunk::Sealer;
use crate::codec::{decode_batch, decode_ops};
use crate::env::Env;
use crate::keys::{Chain, DeviceKey};
use crate::store::{Base, Store};
use crate::types::limits::BATCH_BYTES_HARD_MAX;
use crate::types::{Batch, DeviceId, DeviceNames, FileId, Hlc, Op, OpId, VersionId};
use wording::Wording;

/// One change, as its author signed it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LogLine {
    /// When, in microseconds since 1970: the author's clock.
    pub unix_us: u64,
    /// The author's id, in hexadecimal digits.
    pub device: String,
    /// What the author is called.
    pub name: String,
    /// The number of the change in its author's journal.
    pub seq: u64,
    /// What was done, in a word.
    pub action: &'static str,
    /// What it was done to, by the name that it then had.
    pub path: Option<String>,
    /// Of a move: where it stood before.
    pub from: Option<String>,
    /// The rest: how long, which role.
    pub detail: String,
    /// Of a write: the name of the version that it made.
    pub version: Option<VersionName>,
    /// Of a write: the file was still being written, and this is a state on the way.
    pub interim: bool,
    /// What it was done to.
    #[serde(skip)]
    pub file: Option<FileId>,
    /// It was not allowed, or rests on what was not, and has no effect on any device.
    pub void: bool,
}

impl LogLine {
    /// By which names it calls what it was done to.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.path.iter().chain(&self.from).map(String::as_str)
    }
}

/// A version, by the op that made it: the first digits of its device's id, and the op's number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionName {
    device: String,
    /// The version, by this device's numbering.
    pub id: VersionId,
}

impl VersionName {
    /// Does this text name it? The device's digits may be cut short.
    pub fn is(&self, text: &str) -> bool {
        let parts = text.split_once('.');
        parts.is_some_and(|(device, seq)| {
            self.device.starts_with(device) && seq.parse() == Ok(self.id.0.seq())
        })
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.device, self.id.0.seq())
    }
}

impl Serialize for VersionName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a walk over the journals ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum LogEnd {
    /// Each chain is whole.
    Whole {
        /// Journals.
        journals: u64,
        /// Batches, each signed by its device.
        batches: u64,
        /// Changes in them.
        ops: u64,
        /// Changes from before this device joined that have not come to it (yet).
        absent: u64,
    },
    /// A batch is not what its author signed, or is missing.
    Broken {
        /// Whose journal, in hexadecimal digits.
        device: String,
        /// What its device is called.
        name: String,
        /// The first change that is not proven.
        seq: u64,
        /// What is wrong.
        why: String,
    },
}

/// Tells each change in the workspace in `dir`, which may be mounted meanwhile: all journals
/// together, by their clocks. Ends early, as if all were told, once `tell` breaks.
///
/// # Errors
/// [`EngineError::Missing`], or the store's.
pub fn log(
    dir: &Path,
    env: &Env,
    tell: &mut dyn FnMut(LogLine) -> ControlFlow<()>,
) -> Result<LogEnd, EngineError> {
    let settings = Workspace::settings(dir, env)?;
    let store = Store::look(dir, env)?;
    let devices: BTreeMap<u16, DeviceId> = store.journals()?.into_iter().collect();
    let names = device_names(&store)?;
    let sealer = Arc::new(Workspace::sealer(dir, &settings, env)?);
    let key = DeviceKey::from_seed(&*Workspace::device_seed(dir, env)?);
    let epochs = Epochs::new(Arc::clone(&sealer), key.opener(), key.device());
    for (epoch, wrapped) in store.epochs()? {
        epochs.open(epoch, &wrapped);
    }
    let numbers = devices.iter().map(|(number, device)| (*device, *number)).collect();
    let wording = Wording::new(names.clone(), devices.clone());
    let bases = store.bases()?.into_iter().collect();
    let walk = Walk { wording, names, numbers, store, sealer, bases, absent: 0 };
    walk.run(devices, tell)
}

struct Walk {
    store: Store,
    sealer: Arc<Sealer>,
    names: DeviceNames,
    numbers: BTreeMap<DeviceId, u16>,
    wording: Wording,
    bases: BTreeMap<u16, Base>,
    absent: u64,
}

/// A journal, up to where it was told.
struct Reading {
    chain: Chain,
    /// The next batch, if there is one.
    next: Option<Batch>,
}

/// Why a journal cannot be read on.
struct Break {
    device: DeviceId,
    seq: u64,
    why: String,
}

impl Walk {
    fn run(
        mut self,
        devices: BTreeMap<u16, DeviceId>,
        tell: &mut dyn FnMut(LogLine) -> ControlFlow<()>,
    ) -> Result<LogEnd, EngineError> {
        let (mut batches, mut ops) = (0, 0);
        let journals = devices.len() as u64;
        let mut readings = BTreeMap::new();
        let mut heard = BTreeMap::new();
        for (number, device) in devices {
            let mut reading = Reading { chain: Chain::new(device), next: None };
            if let Err(broken) = self.read_on(number, &mut reading)? {
                return Ok(self.broken(broken));
            }
            readings.insert(number, reading);
        }
        loop {
            let waiting = readings.iter().filter_map(|(number, reading)| {
                reading.next.as_ref().map(|batch| ((batch.hlc, batch.journal), *number))
            });
            let Some((_, number)) = waiting.min() else { break };
            let reading = readings.get_mut(&number).expect("it was just found");
            let batch = reading.next.take().expect("it was just found");
            (batches, ops) = (batches + 1, ops + u64::from(batch.count));
            for (device, seq) in &batch.frontier_delta {
                let most = heard.entry(*device).or_insert(0_u64);
                *most = (*most).max(*seq);
            }
            match self.tell(number, &batch, tell)? {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => {
                    return Ok(LogEnd::Whole { journals, batches, ops, absent: self.absent });
                }
                Err(broken) => return Ok(self.broken(broken)),
            }
            if let Err(broken) = self.read_on(number, reading)? {
                return Ok(self.broken(broken));
            }
        }
        Ok(match self.cut_short(&readings, &heard) {
            Some(broken) => self.broken(broken),
            None => LogEnd::Whole { journals, batches, ops, absent: self.absent },
        })
    }

    /// Reads a journal's next batch, and checks that it follows.
    fn read_on(
        &mut self,
        number: u16,
        reading: &mut Reading,
    ) -> Result<Result<(), Break>, EngineError> {
        let expected = reading.chain.next_seq();
        let page = self.store.batches(number, expected, 1)?;
        let Some((seq, bytes)) = page.into_iter().next() else { return Ok(Ok(())) };
        let device = reading.chain.device();
        let broken = |why: String| Ok(Err(Break { device, seq: expected, why }));
        let batch = match decode_batch(&bytes) {
            Ok(batch) => batch,
            Err(error) => return broken(error.to_string()),
        };
        let base = self.bases.get(&number).filter(|base| base.upto + 1 == expected);
        if base.is_some_and(|base| base.seq == seq && seq > expected) {
            // What lies between was not here when this device joined, and is not yet.
            self.absent += seq - expected;
            reading.chain = Chain::before(&batch);
        }
        if let Err(error) = reading.chain.accept(&batch) {
            return broken(error.to_string());
        }
        if batch.seq != seq {
            return broken(format!("the batch stands at {seq} and says {}", batch.seq));
        }
        reading.next = Some(batch);
        Ok(Ok(()))
    }

    /// A journal that ends before what another device's batch says to have heard of it.
    fn cut_short(
        &self,
        readings: &BTreeMap<u16, Reading>,
        heard: &BTreeMap<DeviceId, u64>,
    ) -> Option<Break> {
        let mut cut = heard.iter().filter_map(|(device, most)| {
            let number = self.numbers.get(device)?;
            let seq = readings[number].chain.next_seq();
            let why = format!("the journal ends here, and others have heard it up to {most}");
            (*most >= seq).then_some(Break { device: *device, seq, why })
        });
        cut.next()
    }

    fn tell(
        &mut self,
        number: u16,
        batch: &Batch,
        tell: &mut dyn FnMut(LogLine) -> ControlFlow<()>,
    ) -> Result<Result<ControlFlow<()>, Break>, EngineError> {
        let ops = match self.open(batch) {
            Ok(ops) => ops,
            Err(why) => return Ok(Err(Break { device: batch.journal, seq: batch.seq, why })),
        };
        for (index, op) in ops.into_iter().enumerate() {
            let seq = batch.seq + index as u64;
            let id = OpId::new(number, seq);
            let void = self.store.void(id)?.is_some();
            let Some(said) = self.wording.say(id, &op, void) else { continue };
            let device = batch.journal.to_string();
            let version = matches!(op, Op::Write { .. })
                .then(|| VersionName { device: device[..8].to_owned(), id: VersionId(id) });
            let line = LogLine {
                unix_us: Hlc(batch.hlc.0 + index as u64).0,
                device,
                name: self.names.label(&batch.journal),
                seq,
                action: said.action,
                path: said.path,
                from: said.from,
                detail: said.detail,
                version,
                interim: matches!(op, Op::Write { interim: true, .. }),
                file: said.file,
                void,
            };
            if tell(line).is_break() {
                return Ok(Ok(ControlFlow::Break(())));
            }
        }
        Ok(Ok(ControlFlow::Continue(())))
    }

    fn open(&self, batch: &Batch) -> Result<Vec<Op>, String> {
        let context = context(&batch.journal, batch.seq);
        let plain = self
            .sealer
            .open_record(&context, (batch.epoch, &batch.sealed_ops), BATCH_BYTES_HARD_MAX)
            .map_err(|error| error.to_string())?;
        let ops = decode_ops(&plain, |device| self.numbers.get(device).copied())
            .map_err(|error| error.to_string())?;
        if ops.len() != batch.count as usize {
            return Err(format!("the batch says {} changes and holds {}", batch.count, ops.len()));
        }
        Ok(ops)
    }

    fn broken(&self, Break { device, seq, why }: Break) -> LogEnd {
        LogEnd::Broken { name: self.names.label(&device), device: device.to_string(), seq, why }
    }
}
