//! A regular file's content in memory: layers, the newest first.
//!
//! `dirty` holds what was written since the last commit took the draft; `frozen` what a commit is
//! storing just now; `patches` what was stored as bytes beside the chunks; `base` the chunks.

use std::sync::Arc;

use crate::chunk::{ExtentMap, Manifest};
use crate::types::limits::{LATE_FROM_BYTES, PATCH_CHAIN_BYTES_MAX, PATCH_CHAIN_COUNT_MAX};

/// The layers of one file.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each tells the next commit one thing")]
pub struct Body {
    /// The chunks of a committed version.
    pub base: Arc<Manifest>,
    /// Laid over them by committed versions that are patches.
    pub patches: Arc<ExtentMap>,
    /// How many versions `patches` stands for.
    pub patch_count: u32,
    /// Taken by the commit that is under way.
    pub frozen: Option<Arc<ExtentMap>>,
    /// The draft.
    pub dirty: ExtentMap,
    /// The next commit must write a version, even if `dirty` is empty.
    pub changed: bool,
    /// The head was written while the file was open, and may be replaced without a trace.
    pub head_is_interim: bool,
    /// The layers do not stand on the head: the next commit stores all of the content.
    pub rebase: bool,
    /// A sync asked for this file: the version that stores the draft stays in history.
    pub keep_version: bool,
    /// The file has fallen quiet: patches are to be folded into chunks.
    pub fold: bool,
    /// No chunk of it is still to come from another device: a commit, which must not wait for one,
    /// may cut it anew.
    pub is_local: bool,
}

impl Body {
    /// The content of a file never written.
    pub fn new_empty() -> Self {
        Self::of(Arc::new(Manifest::default()), ExtentMap::default(), 0)
    }

    /// Committed content: `patch_count` patches laid over chunks.
    pub fn of(base: Arc<Manifest>, patches: ExtentMap, patch_count: u32) -> Self {
        Self {
            base,
            patches: Arc::new(patches),
            patch_count,
            frozen: None,
            dirty: ExtentMap::default(),
            changed: false,
            head_is_interim: false,
            rebase: false,
            keep_version: false,
            fold: false,
            is_local: true,
        }
    }

    /// The layers over the chunks, newest first.
    pub fn layers(&self) -> Vec<&ExtentMap> {
        let mut layers = Vec::with_capacity(3);
        if !self.dirty.is_empty() {
            layers.push(&self.dirty);
        }
        layers.extend(self.frozen.as_deref());
        if !self.patches.is_empty() {
            layers.push(&self.patches);
        }
        layers
    }

    /// The head, if it was written while the file was open, now stands for a finished file of
    /// `size_bytes`. Of a large one other devices hear that by a version of its own: until then they
    /// leave its content for later.
    pub fn finish_head(&mut self, size_bytes: u64) {
        if self.changed || !self.head_is_interim {
            return;
        }
        if size_bytes > LATE_FROM_BYTES {
            self.changed = true;
        } else {
            self.head_is_interim = false;
        }
    }

    /// Lays bytes into the draft.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        self.dirty.write(offset, data);
        self.changed = true;
    }

    /// Makes a range read as zeros.
    pub fn zero(&mut self, offset: u64, len_bytes: u64) {
        self.dirty.zero(offset, len_bytes);
        self.changed = true;
    }

    /// Cuts the content off at `size_bytes`; what is later laid beyond reads as zeros between.
    pub fn truncate(&mut self, size_bytes: u64) {
        self.dirty.truncate(size_bytes);
        let below = self
            .frozen
            .as_deref()
            .map_or(0, ExtentMap::end)
            .max(self.patches.end())
            .max(self.base.len_bytes());
        if below > size_bytes {
            self.dirty.zero(size_bytes, below - size_bytes);
        }
        self.changed = true;
    }

    /// Bytes of memory that the draft holds.
    pub fn draft_bytes(&self) -> u64 {
        self.dirty.memory_bytes() + self.frozen.as_deref().map_or(0, ExtentMap::memory_bytes)
    }

    /// Bytes of the draft that are no holes, those being stored just now among them.
    pub fn draft_data_bytes(&self) -> u64 {
        self.dirty.data_bytes() + self.frozen.as_deref().map_or(0, ExtentMap::data_bytes)
    }

    /// May one more patch be laid over, or is it time to cut chunks?
    pub fn takes_patches(&self) -> bool {
        self.patch_count < PATCH_CHAIN_COUNT_MAX
            && self.patches.memory_bytes() < PATCH_CHAIN_BYTES_MAX
    }

    /// Rough memory of what is committed, in bytes.
    pub fn clean_bytes(&self) -> u64 {
        self.patches.memory_bytes() + self.base.memory_bytes()
    }
}
