//! What survives a power cut: chunks in segment files, everything else in SQLite.
//!
//! The room owns both and their order: chunks reach the disk before the row that names them. It
//! refuses to know what a record means. One [`Writer`] changes the store; any number of clones of
//! [`Store`] read it. A failed sync latches the writer: the kernel may have dropped the pages.

mod error;
mod loading;
mod members;
mod merged;
mod read;
mod schema;
mod segment;
mod upkeep;
mod wanted;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::ThreadId;

use parking_lot::Mutex;
use rusqlite::Connection;

pub use error::{Remedy, StoreError};
pub use loading::{Base, LoadRows};
pub use merged::MergedRows;
pub use read::{Counts, NodesPage, VersionsPage};
pub use upkeep::{ChunkPlace, Tally};
pub use wanted::Wanted;
pub use write::{Commit, Sync, Writer};

use crate::env::{Env, FreeSpace};
use crate::types::ChunkId;
use segment::Segments;

/// The file of the database, inside a workspace's directory.
pub const DATABASE_FILE: &str = "journal.db";
/// The directory of the segment files.
pub const SEGMENTS_DIR: &str = "segments";

/// Reading connections kept for later.
const READERS_MAX: usize = 8;

/// The store of one workspace, for reading and for appending chunks. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    env: Env,
    readers: Mutex<Vec<Connection>>,
    /// A thread that holds its reads, and its connection.
    held: Mutex<Option<(ThreadId, Connection)>>,
    /// The one connection of a store that shows one moment, in its transaction.
    pinned: Option<Mutex<Connection>>,
    segments: Segments,
}

/// While it lives, all reads of the thread that made it are one transaction: they see one state of
/// the store, and spare the locks of a transaction each. One at a time.
pub struct HeldReads {
    store: Store,
}

impl Drop for HeldReads {
    fn drop(&mut self) {
        if let Some((_, connection)) = self.store.inner.held.lock().take()
            && connection.execute_batch("COMMIT").is_ok()
        {
            self.store.keep_reader(connection);
        }
    }
}

impl Store {
    /// Makes an empty store in `dir`, which exists.
    ///
    /// # Errors
    /// [`StoreError::Disk`] or [`StoreError::Sqlite`].
    pub fn create(dir: &Path, env: &Env) -> Result<(), StoreError> {
        env.disk.create_dir_all(&dir.join(SEGMENTS_DIR))?;
        drop(schema::open(&dir.join(DATABASE_FILE))?);
        Ok(env.disk.sync_dir(dir)?)
    }

    /// Opens the store in `dir`, which the caller holds the lock of, for reading and writing.
    ///
    /// What a crash left behind the last commit's chunks is cut off: nothing names it.
    ///
    /// # Errors
    /// [`StoreError::Version`] if a newer build made it, [`StoreError::Corrupt`] if a segment is
    /// shorter than its chunks.
    pub fn open(dir: &Path, env: &Env) -> Result<(Self, Writer), StoreError> {
        let connection = schema::open(&dir.join(DATABASE_FILE))?;
        let known = schema::segments(&connection)?;
        let segments = Segments::open(&dir.join(SEGMENTS_DIR), env, &known)?;
        let store = Self::over(dir, env, segments);
        let writer = Writer::new(connection, store.clone());
        Ok((store, writer))
    }

    /// Opens the store in `dir` for looking, while another process may be writing to it.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn look(dir: &Path, env: &Env) -> Result<Self, StoreError> {
        let store = Self::over(dir, env, Segments::look(&dir.join(SEGMENTS_DIR), env));
        store.with_reader(|_| Ok(()))?;
        Ok(store)
    }

    fn over(dir: &Path, env: &Env, segments: Segments) -> Self {
        let (readers, held) = (Mutex::new(Vec::new()), Mutex::new(None));
        let (dir, env) = (dir.to_owned(), env.clone());
        let inner = Inner { dir, env, readers, held, pinned: None, segments };
        Self { inner: Arc::new(inner) }
    }

    /// The same store through this connection alone.
    fn pinned(&self, connection: Connection) -> Self {
        let Inner { dir, env, .. } = &*self.inner;
        let inner = Inner {
            dir: dir.clone(),
            env: env.clone(),
            readers: Mutex::new(Vec::new()),
            held: Mutex::new(None),
            pinned: Some(Mutex::new(connection)),
            segments: Segments::look(&dir.join(SEGMENTS_DIR), env),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Appends a sealed chunk, unless it is there. Readable at once; durable with the next
    /// durable commit, which also names it. Says whether it is new.
    ///
    /// # Errors
    /// [`StoreError::Full`] if the disk is.
    pub fn append(&self, id: &ChunkId, sealed: &[u8]) -> Result<bool, StoreError> {
        if self.inner.segments.pending(id).is_some() || self.chunk_place(id)?.is_some() {
            return Ok(false);
        }
        self.inner.segments.append(id, sealed)?;
        Ok(true)
    }

    /// A chunk's sealed bytes, checked against its id.
    ///
    /// # Errors
    /// [`StoreError::MissingChunk`], [`StoreError::CorruptChunk`].
    pub fn read_chunk(&self, id: &ChunkId) -> Result<Vec<u8>, StoreError> {
        let place = match self.inner.segments.pending(id) {
            Some(place) => place,
            // Between the two looks a commit may have named it.
            None => self.chunk_place(id)?.ok_or(StoreError::MissingChunk(*id))?,
        };
        let sealed = self.inner.segments.read(place)?;
        let found = ChunkId::of(&sealed);
        if found == *id { Ok(sealed) } else { Err(StoreError::CorruptChunk { chunk: *id, found }) }
    }

    /// Makes one transaction of this thread's reads, until what is returned is dropped.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Panics
    /// If reads are held already.
    pub fn hold_reads(&self) -> Result<HeldReads, StoreError> {
        let connection = self.reader()?;
        connection.execute_batch("BEGIN")?;
        let before = self.inner.held.lock().replace((std::thread::current().id(), connection));
        assert!(before.is_none(), "one thread holds its reads, once");
        Ok(HeldReads { store: self.clone() })
    }

    /// Space on the disk below.
    ///
    /// # Errors
    /// The system's.
    pub fn free_space(&self) -> Result<FreeSpace, StoreError> {
        Ok(self.inner.env.disk.free_space(&self.inner.dir)?)
    }

    fn with_reader<R>(
        &self,
        read: impl FnOnce(&Connection) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        if let Some(pinned) = &self.inner.pinned {
            return read(&pinned.lock());
        }
        let this_thread = std::thread::current().id();
        let mine = self.inner.held.lock().take_if(|(thread, _)| *thread == this_thread);
        if let Some((_, connection)) = mine {
            let result = read(&connection);
            *self.inner.held.lock() = Some((this_thread, connection));
            return result;
        }
        let connection = self.reader()?;
        let result = read(&connection);
        self.keep_reader(connection);
        result
    }

    fn reader(&self) -> Result<Connection, StoreError> {
        let kept = self.inner.readers.lock().pop();
        kept.map_or_else(|| schema::open_reader(&self.inner.dir.join(DATABASE_FILE)), Ok)
    }

    fn keep_reader(&self, connection: Connection) {
        let mut readers = self.inner.readers.lock();
        if readers.len() < READERS_MAX {
            readers.push(connection);
        }
    }
}

#[cfg(test)]
mod tests;
