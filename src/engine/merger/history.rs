//! Every batch that is here, causes first: what a fold anew reads.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::MergeError;
use crate::codec::decode_batch;
use crate::store::{Store, StoreError};
use crate::types::{Batch, DeviceId};

/// Batches of one journal that are read at once; each has up to a mebibyte.
const PAGE_BATCHES: usize = 4;

/// The journals as they are in the store, and behind them the batches of the round under way.
pub struct History<'a> {
    store: &'a Store,
    fresh: &'a [(u16, u64, Vec<u8>)],
    numbers: &'a HashMap<DeviceId, u16>,
    journals: BTreeMap<u16, Place>,
    /// The journal that the last batch was of.
    at: u16,
}

/// How far a journal was read.
#[derive(Default)]
struct Place {
    last_seq: u64,
    ahead: VecDeque<Batch>,
    heard: BTreeMap<u16, u64>,
}

/// A batch with all that its author had heard of others by then.
pub struct Past {
    pub number: u16,
    pub batch: Batch,
    pub frontier: BTreeMap<u16, u64>,
}

impl<'a> History<'a> {
    pub fn new(
        store: &'a Store,
        fresh: &'a [(u16, u64, Vec<u8>)],
        numbers: &'a HashMap<DeviceId, u16>,
    ) -> Self {
        let journals = numbers.values().map(|number| (*number, Place::default())).collect();
        Self { store, fresh, numbers, journals, at: 0 }
    }

    /// The next batch whose past has been read; the journal of the last one goes on while it can.
    pub fn next(&mut self) -> Result<Option<Past>, MergeError> {
        let order: Vec<u16> = self.journals.range(self.at..).map(|(number, _)| *number).collect();
        let before = self.journals.range(..self.at).map(|(number, _)| *number);
        let order: Vec<u16> = order.into_iter().chain(before).collect();
        let mut waits = None;
        for number in order {
            self.read_ahead(number)?;
            let Some(batch) = self.journals[&number].ahead.front() else { continue };
            if self.is_due(batch) {
                self.at = number;
                return Ok(Some(self.take(number)));
            }
            waits = Some((batch.journal, batch.seq));
        }
        let Some((journal, seq)) = waits else { return Ok(None) };
        let why = format!("what op {seq} of journal {journal} rests on is not here");
        Err(StoreError::Corrupt(why).into())
    }

    fn is_due(&self, batch: &Batch) -> bool {
        batch.frontier_delta.iter().all(|(device, seq)| {
            let number = self.numbers.get(device);
            number.is_some_and(|number| self.journals[number].last_seq >= *seq)
        })
    }

    fn take(&mut self, number: u16) -> Past {
        let place = self.journals.get_mut(&number).expect("every journal has a place");
        let batch = place.ahead.pop_front().expect("it was looked at");
        place.last_seq = last_seq(&batch);
        for (device, seq) in &batch.frontier_delta {
            place.heard.insert(self.numbers[device], *seq);
        }
        Past { number, batch, frontier: place.heard.clone() }
    }

    fn read_ahead(&mut self, number: u16) -> Result<(), StoreError> {
        let place = self.journals.get_mut(&number).expect("every journal has a place");
        if !place.ahead.is_empty() {
            return Ok(());
        }
        let next = place.last_seq + 1;
        let page = self.store.batches(number, next, PAGE_BATCHES)?;
        let fresh = self.fresh.iter().filter(|(of, seq, _)| *of == number && *seq >= next);
        let fresh = fresh.take(if page.is_empty() { PAGE_BATCHES } else { 0 });
        let stored = page.iter().map(|(_, bytes)| bytes);
        for bytes in stored.chain(fresh.map(|(_, _, bytes)| bytes)) {
            place.ahead.push_back(decode_batch(bytes)?);
        }
        Ok(())
    }
}

/// The number of a batch's last op.
pub fn last_seq(batch: &Batch) -> u64 {
    batch.seq + u64::from(batch.count) - 1
}
