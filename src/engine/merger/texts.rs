//! Three-way merges of texts that were changed on two devices apart: what is to be merged.

use std::collections::{BTreeSet, VecDeque};

use super::Merger;
use crate::store::StoreError;
use crate::types::{FileId, Op, VersionId};

/// Ops that are looked at to find what two heads have in common.
const ANCESTORS_MAX: usize = 1_000;

/// Two heads of a file, and the version that both were made from.
pub struct Fork {
    /// The file.
    pub file: FileId,
    /// The newest version below both.
    pub ancestor: VersionId,
    /// The older head, and the newer.
    pub heads: [VersionId; 2],
    /// All heads that hold what these two do.
    pub parents: Vec<VersionId>,
}

impl Merger {
    /// The two newest heads of a file that differ, if they have an ancestor.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn fork(&self, file: FileId) -> Result<Option<Fork>, StoreError> {
        let mut heads = Vec::new();
        for id in self.heads(file)? {
            heads.extend(self.store.merged_version(file, id)?.map(|version| (version, id)));
        }
        heads.sort_by_key(|(version, _)| std::cmp::Reverse(version.key));
        let Some((newest, newer)) = heads.first().copied() else { return Ok(None) };
        let other = heads.iter().find(|(version, _)| version.content != newest.content).copied();
        let Some((other, older)) = other else { return Ok(None) };
        let Some(ancestor) = self.common_ancestor(file, older, newer)? else { return Ok(None) };
        let contents = [newest.content, other.content];
        heads.retain(|(version, _)| contents.contains(&version.content));
        let parents = heads.into_iter().map(|(_, id)| id).collect();
        Ok(Some(Fork { file, ancestor, heads: [older, newer], parents }))
    }

    /// The newest version from which both were made and that history still has.
    fn common_ancestor(
        &self,
        file: FileId,
        one: VersionId,
        other: VersionId,
    ) -> Result<Option<VersionId>, StoreError> {
        let below_one = self.ancestors(one)?;
        let below_other = self.ancestors(other)?;
        let mut newest = None;
        for id in below_one.intersection(&below_other) {
            let version = self.store.version(file, *id)?;
            newest = newest.max(version.map(|version| (version.hlc, *id)));
        }
        Ok(newest.map(|(_, id)| id))
    }

    fn ancestors(&self, version: VersionId) -> Result<BTreeSet<VersionId>, StoreError> {
        let mut found = BTreeSet::from([version]);
        let mut queue = VecDeque::from([version]);
        while let Some(at) = queue.pop_front().filter(|_| found.len() < ANCESTORS_MAX) {
            let Some(Op::Write { parents, .. }) = self.op(at.0)? else { continue };
            queue.extend(parents.into_iter().filter(|parent| found.insert(*parent)));
        }
        Ok(found)
    }
}
