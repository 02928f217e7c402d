//! What became of one file: its versions, and their content, told without the workspace's lock.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::content::{VersionContent, version_content};
use super::log::{LogEnd, LogLine, log};
use super::{EngineError, Workspace};
use crate::chunk::{self, Sealer};
use crate::env::Env;
use crate::store::Store;
use crate::types::{ChunkRef, FileId, VersionId};

/// Content handed over at once, in bytes.
const STEP_BYTES: u64 = 1 << 20;

/// What was done to the files that ever had a name.
pub struct History {
    /// Oldest first.
    pub lines: Vec<HistoryLine>,
    store: Store,
    sealer: Sealer,
}

/// One change of a file.
pub struct HistoryLine {
    /// What the log says of it.
    pub said: LogLine,
    /// It is a version that is kept: its content can be had.
    pub is_kept: bool,
}

impl History {
    /// Of the files that have or had the name `path` in the workspace in `dir`, which may be mounted
    /// meanwhile. Walks the journals twice; memory grows with what is found.
    ///
    /// # Errors
    /// [`EngineError::Missing`], the store's, or [`EngineError::Journal`] if a journal is broken.
    pub fn of(dir: &Path, env: &Env, path: &str) -> Result<Self, EngineError> {
        let mut files = BTreeSet::new();
        walk(dir, env, &mut |line| {
            let is_named = line.paths().any(|named| named == path);
            files.extend(line.file.filter(|_| is_named));
        })?;
        let settings = Workspace::settings(dir, env)?;
        let sealer = Workspace::sealer(dir, &settings, env)?;
        let store = Store::look(dir, env)?;
        let mut said = Vec::new();
        walk(dir, env, &mut |line| {
            if line.file.is_some_and(|file| files.contains(&file)) {
                said.push(line);
            }
        })?;
        let mut lines = Vec::with_capacity(said.len());
        for said in said {
            let version = said.file.zip(said.version.as_ref());
            let kept =
                version.map(|(file, version)| store.version(file, version.id)).transpose()?;
            lines.push(HistoryLine { is_kept: kept.flatten().is_some(), said });
        }
        Ok(Self { lines, store, sealer })
    }

    /// A version's content.
    ///
    /// # Errors
    /// [`EngineError::Read`] if it is not kept (any more), the store's.
    pub fn content(&self, file: FileId, id: VersionId) -> Result<VersionReader<'_>, EngineError> {
        let mut read = |node: &_| Ok::<_, EngineError>(self.store.read_chunk(node)?);
        let content = version_content(&self.store, &self.sealer, (file, id), &mut read)?;
        let content = content.ok_or_else(|| EngineError::Read("the version is not kept".into()))?;
        Ok(VersionReader { history: self, content })
    }
}

fn walk(dir: &Path, env: &Env, each: &mut dyn FnMut(LogLine)) -> Result<(), EngineError> {
    let end = log(dir, env, &mut |line| {
        each(line);
        ControlFlow::Continue(())
    })?;
    match end {
        LogEnd::Whole { .. } => Ok(()),
        LogEnd::Broken { name, seq, why, .. } => Err(EngineError::Journal { name, seq, why }),
    }
}

/// Reads a version from its beginning to its end.
pub struct VersionReader<'a> {
    history: &'a History,
    content: VersionContent,
}

impl VersionReader<'_> {
    /// How long it is, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.content.size_bytes
    }

    /// Hands over the content in order, holes as zeros.
    ///
    /// # Errors
    /// A chunk that is not on this device, or damaged; those of `take`.
    pub fn read<E: From<EngineError>>(
        &self,
        take: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let VersionContent { base, patches, size_bytes, .. } = &self.content;
        let mut at = 0;
        while at < *size_bytes {
            let mut open = |chunk: &ChunkRef| self.open(chunk);
            let step = chunk::read_range(base, &[patches], at, STEP_BYTES, *size_bytes, &mut open)?;
            at += step.len() as u64;
            take(&step)?;
        }
        Ok(())
    }

    fn open(&self, chunk: &ChunkRef) -> Result<Arc<[u8]>, EngineError> {
        let sealed = self.history.store.read_chunk(&chunk.id)?;
        Ok(self.history.sealer.open(chunk, &sealed)?.into())
    }
}
