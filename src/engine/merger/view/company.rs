//! What a change of a row has to take along, kept with the row's node; and the nodes of siblings.

use super::{Beside, Viewing, attributed_to};
use crate::engine::merger::MergeError;
use crate::merge::{Row, RowKind, is_visible};
use crate::store::StoreError;
use crate::types::{Company, EntryId, EntryRecord, Ino, Kind, Part, Sibling, Twin};

/// Set in the number of a node that shows a sibling; no journal has so many ops.
const SIBLING_BIT: u64 = 1 << 47;
/// Siblings of one head that a file with several names may have.
const SIBLING_NAMES_MAX: u64 = 1 << 6;
const SIBLING_NAMES_SHIFT: u32 = 41;

impl Viewing<'_, '_> {
    /// The number of the node that shows a sibling in a directory: made of the head's, in a range
    /// that no op's id reaches; where a file has several names, each has siblings of its own.
    pub(super) fn sibling_number(&self, parent: Ino, row: &Row) -> Result<Ino, StoreError> {
        let head = row.head.expect("a sibling is a head");
        for attempt in 0..SIBLING_NAMES_MAX {
            let ino = Ino(head.packed() | SIBLING_BIT | attempt << SIBLING_NAMES_SHIFT);
            let Some(node) = self.node(ino)? else { return Ok(ino) };
            let sibling = node.company.and_then(|company| company.sibling);
            if node.parent == parent && sibling.is_some_and(|sibling| sibling.name == row.name) {
                return Ok(ino);
            }
        }
        Err(StoreError::Corrupt(format!("{:?} has too many names", row.inode)))
    }

    /// The node that shows a head beside its file.
    pub(super) fn sibling_node(&mut self, parent: Ino, row: &Row) -> Result<Ino, MergeError> {
        let ino = self.sibling_number(parent, row)?;
        if self.node(ino)?.is_none() {
            let mut node = self.fresh(row.inode, row.head)?;
            (node.parent, node.nlink) = (parent, 0);
            let (of, name) = (self.face(row.inode)?, row.name.clone());
            let sibling = Some(Sibling { of, name });
            node.company = Some(Box::new(Company { sibling, ..Company::default() }));
            self.nodes.insert(ino, Some(node));
        }
        Ok(ino)
    }

    /// Notes with a row's node what a change of it has to take along.
    pub(super) fn keep_company(
        &mut self,
        ino: Ino,
        parent: Ino,
        row: &Row,
        beside: Beside,
    ) -> Result<(), MergeError> {
        let Some(mut node) = self.node(ino)? else { return Ok(()) };
        let mut company = node.company.as_deref().cloned().unwrap_or_default();
        let first = row.entries[0];
        match row.kind {
            RowKind::Sibling => {
                let (of, name) = (self.face(row.inode)?, row.name.clone());
                company = Company { sibling: Some(Sibling { of, name }), ..Company::default() };
            }
            RowKind::Directory => company.parts = self.parts(parent, row, &row.entries)?,
            RowKind::File => {
                company.sibling = None;
                company.forget(first);
                company.parts.extend(self.parts(parent, row, &row.entries[..1])?);
                company.twins.extend(self.twins(row)?);
                company.beside.extend(beside.names.into_iter().map(|name| (first, name)));
                company.siblings.extend(beside.siblings.into_iter().map(|ino| (first, ino)));
            }
        }
        let company = Some(Box::new(company)).filter(|company| !company.is_alone());
        if company != node.company {
            node.company = company;
            if let Some(file) = attributed_to(&node) {
                self.attribute(file, &mut node)?;
            }
            self.nodes.insert(ino, Some(node));
        }
        Ok(())
    }

    /// A file's name that goes takes its company with it. (A directory's parts are noted anew with
    /// each row.)
    pub(super) fn leave_company(&mut self, entry: &EntryRecord) -> Result<(), StoreError> {
        let node = self.node(entry.ino)?.filter(|node| node.kind != Kind::Directory);
        let Some(mut node) = node else { return Ok(()) };
        let Some(mut company) = node.company.take().filter(|company| company.sibling.is_none())
        else {
            return Ok(());
        };
        company.forget(entry.entry);
        node.company = Some(company).filter(|company| !company.is_alone());
        self.nodes.insert(entry.ino, Some(node));
        Ok(())
    }

    /// The entries that make a row, where that is more than one which is simply there.
    pub(super) fn parts(
        &self,
        parent: Ino,
        row: &Row,
        entries: &[EntryId],
    ) -> Result<Vec<Part>, StoreError> {
        let mut parts = Vec::with_capacity(entries.len());
        for id in entries {
            let Some(entry) = self.folding.state.entry(*id)? else { continue };
            let removed = entry.is_removed().then(|| (parent, row.name.clone()));
            parts.push(Part { entry: *id, place: entry.place().op, removed });
        }
        let is_simple = matches!(&parts[..], [only] if only.removed.is_none());
        Ok(if is_simple { Vec::new() } else { parts })
    }

    pub(super) fn twins(&self, row: &Row) -> Result<Vec<Twin>, StoreError> {
        let state = &self.folding.state;
        let mut twins = Vec::new();
        for id in &row.entries[1..] {
            let Some(entry) = state.entry(*id)? else { continue };
            let inode = state.inode(entry.inode)?.unwrap_or_default();
            let mut is_last = true;
            for other in inode.entries.iter().filter(|other| *other != id) {
                is_last &= !is_visible(state, *other)?;
            }
            let heads = if is_last { inode.heads.into_iter().collect() } else { Vec::new() };
            twins.push(Twin { of: row.entries[0], entry: *id, place: entry.place().op, heads });
        }
        Ok(twins)
    }
}
