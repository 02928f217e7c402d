//! Segment files: chunks, one behind the other, only ever appended.
//!
//! A file starts with [`HEADER`]; each chunk is framed by its length and id, so that a lost
//! database can be told what is where.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::StoreError;
use super::upkeep::ChunkPlace;
use crate::env::{DiskFile, Env};
use crate::types::ChunkId;
use crate::types::limits::{SEALED_BYTES_MAX, SEGMENT_BYTES_MAX};

/// The first bytes of each segment file; the last is the format.
pub const HEADER: [u8; 8] = *b"tidesg\0\x01";
/// Length (4 bytes, little-endian) and id in front of each chunk.
pub const FRAME_BYTES: u64 = 36;
const OPEN_FILES_MAX: usize = 64;

/// All segment files of a workspace.
pub struct Segments {
    dir: PathBuf,
    env: Env,
    open: Mutex<LruCache<u64, Arc<dyn DiskFile>>>,
    /// Chunks appended that no commit has named.
    pending: Mutex<HashMap<ChunkId, ChunkPlace>>,
    tail: Mutex<Tail>,
}

/// Where the next chunk goes.
struct Tail {
    number: u64,
    end: u64,
    /// Files with bytes that are not synced.
    unsynced: Vec<u64>,
    /// A file was made whose name is not synced.
    new_name: bool,
}

/// What a commit is to name, all of it on the disk if it was synced.
#[derive(Debug, Default)]
pub struct Named {
    /// Chunks.
    pub chunks: Vec<(ChunkId, ChunkPlace)>,
    /// Segment lengths in bytes.
    pub ends: Vec<(u64, u64)>,
}

impl Segments {
    /// Opens for appending, and cuts off what no commit has named.
    pub fn open(dir: &Path, env: &Env, known: &[(u64, u64)]) -> Result<Self, StoreError> {
        let (number, end) = known.last().copied().unwrap_or((0, 0));
        let this = Self::over(dir, env, number, end);
        for name in env.disk.list(dir)? {
            let name = name.to_string_lossy().into_owned();
            let Some(found) = name.strip_suffix(".seg").and_then(|n| n.parse::<u64>().ok()) else {
                continue;
            };
            if found > number {
                env.disk.remove(&dir.join(&name))?;
            }
        }
        if number > 0 {
            let file = this.file(number)?;
            let len_bytes = file.len_bytes()?;
            if len_bytes > end {
                file.set_len(end)?;
            }
            // A last segment that is too short is left alone: reading its chunks will tell.
            this.tail.lock().end = if len_bytes < end { SEGMENT_BYTES_MAX } else { end };
        }
        Ok(this)
    }

    /// Opens for reading alone.
    pub fn look(dir: &Path, env: &Env) -> Self {
        Self::over(dir, env, 0, 0)
    }

    fn over(dir: &Path, env: &Env, number: u64, end: u64) -> Self {
        let files = std::num::NonZeroUsize::new(OPEN_FILES_MAX).expect("not zero");
        Self {
            dir: dir.to_owned(),
            env: env.clone(),
            open: Mutex::new(LruCache::new(files)),
            pending: Mutex::default(),
            tail: Mutex::new(Tail { number, end, unsynced: Vec::new(), new_name: false }),
        }
    }

    /// Where a chunk is that no commit has named.
    pub fn pending(&self, id: &ChunkId) -> Option<ChunkPlace> {
        self.pending.lock().get(id).copied()
    }

    /// Appends a chunk.
    pub fn append(&self, id: &ChunkId, sealed: &[u8]) -> Result<(), StoreError> {
        assert!(sealed.len() <= SEALED_BYTES_MAX, "a chunk is cut to its bound");
        let bytes = u32::try_from(sealed.len()).expect("the bound fits");
        let mut tail = self.tail.lock();
        if tail.number == 0 || tail.end >= SEGMENT_BYTES_MAX {
            self.begin(&mut tail)?;
        }
        let mut frame = Vec::with_capacity(sealed.len() + 36);
        frame.extend_from_slice(&bytes.to_le_bytes());
        frame.extend_from_slice(&id.0);
        frame.extend_from_slice(sealed);
        let needed_bytes = frame.len() as u64;
        self.file(tail.number)?
            .write_at(&frame, tail.end)
            .map_err(|error| StoreError::from(error).or_full(needed_bytes, 0))?;
        let place = ChunkPlace { segment: tail.number, offset: tail.end + FRAME_BYTES, bytes };
        tail.end += needed_bytes;
        let number = tail.number;
        if !tail.unsynced.contains(&number) {
            tail.unsynced.push(number);
        }
        self.pending.lock().insert(*id, place);
        Ok(())
    }

    fn begin(&self, tail: &mut Tail) -> Result<(), StoreError> {
        let number = tail.number + 1;
        let full = |error: std::io::Error| StoreError::from(error).or_full(HEADER.len() as u64, 0);
        let file: Arc<dyn DiskFile> = self.env.disk.open(&self.path(number)).map_err(full)?.into();
        file.write_at(&HEADER, 0).map_err(full)?;
        self.open.lock().put(number, file);
        (tail.number, tail.end, tail.new_name) = (number, HEADER.len() as u64, true);
        Ok(())
    }

    /// Makes all that was appended before durable; what is appended meanwhile does not wait. After
    /// an error nothing may be named any more. One call runs at a time.
    pub fn sync(&self) -> Result<(), StoreError> {
        let (unsynced, new_name) = {
            let mut tail = self.tail.lock();
            (std::mem::take(&mut tail.unsynced), std::mem::take(&mut tail.new_name))
        };
        for number in unsynced {
            self.file(number)?.sync()?;
        }
        if new_name {
            self.env.disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// What the next commit is to name.
    pub fn to_name(&self) -> Named {
        let chunks: Vec<(ChunkId, ChunkPlace)> =
            self.pending.lock().iter().map(|(id, place)| (*id, *place)).collect();
        let mut ends = HashMap::new();
        for (_, place) in &chunks {
            let end = ends.entry(place.segment).or_insert(0);
            *end = (*end).max(place.offset + u64::from(place.bytes));
        }
        Named { chunks, ends: ends.into_iter().collect() }
    }

    /// The commit has named these.
    pub fn named(&self, named: &Named) {
        let mut pending = self.pending.lock();
        for (id, _) in &named.chunks {
            pending.remove(id);
        }
    }

    /// A chunk's sealed bytes, as they are.
    pub fn read(&self, place: ChunkPlace) -> Result<Vec<u8>, StoreError> {
        if place.bytes as usize > SEALED_BYTES_MAX {
            return Err(StoreError::Corrupt(format!("a chunk of {} bytes", place.bytes)));
        }
        let mut sealed = vec![0; place.bytes as usize];
        match self.file(place.segment)?.read_at(&mut sealed, place.offset) {
            Ok(()) => Ok(sealed),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                let path = self.path(place.segment);
                Err(StoreError::Corrupt(format!("{} is cut short", path.display())))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives back the room of a chunk that nothing names any more.
    pub fn punch(&self, place: ChunkPlace) -> Result<(), StoreError> {
        Ok(self.file(place.segment)?.punch(place.offset, u64::from(place.bytes))?)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:08}.seg"))
    }

    fn file(&self, number: u64) -> Result<Arc<dyn DiskFile>, StoreError> {
        if let Some(file) = self.open.lock().get(&number) {
            return Ok(Arc::clone(file));
        }
        let file: Arc<dyn DiskFile> = self.env.disk.open(&self.path(number))?.into();
        self.open.lock().put(number, Arc::clone(&file));
        Ok(file)
    }
}
