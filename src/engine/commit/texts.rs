//! `conflict_resolution = Merge`: texts that were changed on two devices apart become one where the
//! changes do not touch.

use super::{Committer, DraftTarget, TakenDraft};
use crate::chunk::ExtentMap;
use crate::engine::EngineError;
use crate::engine::merger::Fork;
use crate::engine::published::Fresh;
use crate::types::limits::TEXT_MERGE_BYTES_MAX;
use crate::types::{ConflictResolution, FileId, Ino, Op, VersionId};

impl Committer {
    /// Merges what it can of the files that have come to have several heads, once all content is
    /// here; true if it made a new version. What does not merge keeps its sibling.
    pub(super) fn merge_texts(&mut self) -> Result<bool, EngineError> {
        if self.merger.conflicts() != ConflictResolution::Merge
            || self.forked.is_empty()
            || self.store.wants_chunks()?
            // The ancestor of both may be told in what is still to come.
            || !self.store.bases()?.is_empty()
        {
            return Ok(false);
        }
        let mut is_merged = false;
        while let Some(file) = self.forked.pop_first() {
            if let Some(fork) = self.merger.fork(file)?
                && let Some(op) = self.merged_text(&fork)?
            {
                self.source.emit(op);
                is_merged = true;
            }
        }
        if is_merged {
            self.commit_all(true)?;
        }
        Ok(is_merged)
    }

    /// The version that joins two heads, if they are texts and no change of one touches one of the
    /// other. Who makes it makes the same bytes.
    fn merged_text(&self, fork: &Fork) -> Result<Option<Op>, EngineError> {
        let [older, newer] = fork.heads;
        let mut texts = Vec::with_capacity(3);
        for version in [fork.ancestor, older, newer] {
            let Some(text) = self.text(fork.file, version)? else { return Ok(None) };
            texts.push(text);
        }
        let Ok(merged) = diffy::merge(&texts[0], &texts[1], &texts[2]) else { return Ok(None) };
        let Some(record) = self.store.version(fork.file, newer)? else { return Ok(None) };
        let size_bytes = merged.len() as u64;
        let mut frozen = ExtentMap::default();
        frozen.write(0, merged.as_bytes());
        let draft = TakenDraft {
            ino: Ino::default(),
            target: DraftTarget::Nameless,
            base: std::sync::Arc::default(),
            patches: std::sync::Arc::default(),
            patch_count: 0,
            frozen: std::sync::Arc::new(frozen),
            size_bytes,
            may_patch: false,
        };
        let (content, _) = self.store_draft(&draft, true, &mut Fresh::default())?;
        Ok(Some(Op::Write {
            file: fork.file,
            parents: fork.parents.clone(),
            size_bytes,
            content,
            mtime: record.mtime,
            interim: false,
        }))
    }

    fn text(&self, file: FileId, version: VersionId) -> Result<Option<String>, EngineError> {
        let Some(record) = self.store.version(file, version)? else { return Ok(None) };
        if record.size_bytes > TEXT_MERGE_BYTES_MAX {
            return Ok(None);
        }
        let bytes = self.source.read_version(file, version)?;
        Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
    }
}
