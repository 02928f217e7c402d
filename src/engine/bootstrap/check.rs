//! What a snapshot's rows may be, looked at by themselves.
//!
//! Ids name journals by numbers, and a number that no journal has would be found out much later; so
//! every one is looked at here.

use std::collections::{HashMap, HashSet};

use super::SnapshotError;
use crate::codec::decode_batch;
use crate::store::{Commit, MergedRows};
use crate::types::limits::{FILE_BYTES_MAX, SYMLINK_BYTES_MAX, XATTRS_BYTES_MAX};
use crate::types::merged::{Entry, Inode, MemberChange, MemberOp, Move, Standing};
use crate::types::{
    Company, Content, EntryRecord, Ino, Kind, NameHasher, NodeRecord, OpId, SnapshotRows,
    VersionRecord,
};

/// Holds rows to their bounds.
struct Checker {
    journals: usize,
}

/// Rows as a commit that lays them into the store. A name whose node is not in the same page has no
/// kind yet: the caller finds it.
pub fn commit_of(
    rows: SnapshotRows,
    journals: usize,
    hasher: &NameHasher,
) -> Result<Commit, SnapshotError> {
    let checker = Checker { journals };
    let mut kinds: HashMap<Ino, u8> = HashMap::with_capacity(rows.nodes.len());
    for (ino, node) in &rows.nodes {
        checker.node(*ino, node)?;
        kinds.insert(*ino, node.kind.bits());
    }
    let mut entries_put = Vec::with_capacity(rows.entries.len());
    for entry in rows.entries {
        let id = entry.entry.packed();
        checker.ids("name", id, [entry.entry.0, entry.place.0])?;
        let kind_bits = kinds.get(&entry.ino).copied().unwrap_or(0);
        let hash = hasher.hash(entry.name.as_bytes());
        let (parent, place, ino) = (entry.parent, entry.place, entry.ino);
        let (entry, name) = (entry.entry, entry.name);
        entries_put.push(EntryRecord { parent, hash, entry, place, ino, kind_bits, name });
    }
    for (file, id, version) in &rows.versions {
        checker.version(id.packed(), version)?;
        checker.ids("version", id.packed(), [file.0, id.0])?;
    }
    let mut commit = Commit {
        nodes: rows.nodes.into_iter().map(|(ino, node)| (ino, Some(node))).collect(),
        entries_put,
        versions_put: rows.versions,
        ..Commit::default()
    };
    for (journal, bytes) in rows.batches {
        let batch = decode_batch(&bytes.0)?;
        checker.journal("batch", batch.seq, journal)?;
        commit.load.older.push((journal, batch.seq, bytes.0));
    }
    commit.load.unlisted = rows.listed.into_iter().map(|ino| (ino, false)).collect();
    for (journal, of, seq) in &rows.heard {
        checker.journal("frontier", *seq, *journal)?;
        checker.journal("frontier", *seq, *of)?;
    }
    for (journal, seq) in &rows.folded {
        checker.journal("end", *seq, *journal)?;
        if *seq > OpId::SEQ_MAX {
            return Err(wrong_row("end", *seq, "is beyond any journal's"));
        }
    }
    rows.members.iter().try_for_each(|member| checker.member(member))?;
    rows.voids.iter().try_for_each(|(op, _)| checker.ids("void op", op.packed(), [*op]))?;
    rows.merged_entries.iter().try_for_each(|(id, entry)| checker.entry(id.0, entry))?;
    rows.merged_inodes.iter().try_for_each(|(id, inode)| checker.inode(id.0, inode))?;
    for (file, kind) in &rows.specials {
        checker.ids("special file", file.packed(), [file.0])?;
        kind_of("special file", file.packed(), kind)?;
    }
    commit.load.specials = rows.specials;
    for (file, id, _) in &rows.merged_versions {
        checker.ids("version", id.packed(), [file.0, id.0])?;
    }
    rows.moves.iter().try_for_each(|line| checker.line(line))?;
    for (file, _) in &rows.faces {
        checker.ids("number", file.packed(), [file.0])?;
    }
    commit.merged = MergedRows {
        heard: rows.heard,
        folded: rows.folded,
        members: rows.members,
        voids: rows.voids.into_iter().map(|(op, made)| (op, Some(made))).collect(),
        entries: rows.merged_entries.into_iter().map(|(id, row)| (id, Some(row))).collect(),
        inodes: rows.merged_inodes.into_iter().map(|(id, row)| (id, Some(row))).collect(),
        versions: rows.merged_versions,
        moves: rows.moves.into_iter().map(|line| (line.to.op.0, Some(line))).collect(),
        faces: rows.faces.into_iter().map(|(file, ino)| (file, Some(ino))).collect(),
        crowded: rows.crowded.into_iter().map(|ino| (ino, true)).collect(),
        ..MergedRows::default()
    };
    Ok(commit)
}

pub fn wrong_row(what: &'static str, id: u64, why: &'static str) -> SnapshotError {
    SnapshotError::Row { what, id, why }
}

impl Checker {
    fn journal(&self, what: &'static str, id: u64, journal: u16) -> Result<(), SnapshotError> {
        let is_known = usize::from(journal) < self.journals;
        if is_known {
            Ok(())
        } else {
            Err(wrong_row(what, id, "names a journal that is not there"))
        }
    }

    fn ids(
        &self,
        what: &'static str,
        id: u64,
        ops: impl IntoIterator<Item = OpId>,
    ) -> Result<(), SnapshotError> {
        ops.into_iter().try_for_each(|op| self.journal(what, id, op.journal()))
    }

    fn node(&self, ino: Ino, node: &NodeRecord) -> Result<(), SnapshotError> {
        let wrong = |why| wrong_row("inode", ino.0, why);
        let (file, head) = (node.file.map(|file| file.0), node.head.map(|head| head.0));
        self.ids("inode", ino.0, file.into_iter().chain(head))?;
        if node.size_bytes > FILE_BYTES_MAX {
            return Err(wrong("is longer than any file"));
        }
        if ino == Ino(0) || node.mode > 0o7777 {
            return Err(wrong("has a number or mode that none has"));
        }
        kind_of("inode", ino.0, &node.kind)?;
        let attrs = node.xattrs.iter().map(|(name, value)| name.len() + value.len());
        // Ops may add up to more than one device takes at once.
        if attrs.sum::<usize>() > 16 * XATTRS_BYTES_MAX {
            return Err(wrong("has too many attributes"));
        }
        node.company.as_deref().map_or(Ok(()), |company| self.company(ino, company))
    }

    fn company(&self, ino: Ino, company: &Company) -> Result<(), SnapshotError> {
        let parts = company.parts.iter().flat_map(|part| [part.entry.0, part.place.0]);
        let twins = company.twins.iter().flat_map(|twin| {
            let heads = twin.heads.iter().map(|head| head.0);
            [twin.of.0, twin.entry.0, twin.place.0].into_iter().chain(heads)
        });
        let beside = company.beside.iter().map(|(entry, _)| entry.0);
        let siblings = company.siblings.iter().map(|(entry, _)| entry.0);
        self.ids("inode", ino.0, parts.chain(twins).chain(beside).chain(siblings))
    }

    fn version(&self, id: u64, version: &VersionRecord) -> Result<(), SnapshotError> {
        if version.size_bytes > FILE_BYTES_MAX {
            return Err(wrong_row("version", id, "is longer than any file"));
        }
        match &version.content {
            Content::Patch { base, .. } => self.ids("version", id, [base.0]),
            _ => Ok(()),
        }
    }

    fn standing(&self, id: u64, place: &Standing) -> Result<(), SnapshotError> {
        self.ids("entry", id, [place.op.0, place.parent.0])
    }

    fn entry(&self, id: OpId, entry: &Entry) -> Result<(), SnapshotError> {
        let Some(place) = &entry.place else {
            return Err(wrong_row("entry", id.packed(), "stands nowhere"));
        };
        self.standing(id.packed(), place)?;
        let removals = entry.removals.iter().flat_map(|removal| {
            let heads = removal.seen_heads.iter().map(|head| head.0);
            std::iter::once(removal.seen_place.0).chain(heads)
        });
        self.ids("entry", id.packed(), [id, entry.inode.0].into_iter().chain(removals))
    }

    fn inode(&self, id: OpId, inode: &Inode) -> Result<(), SnapshotError> {
        let entries = inode.entries.iter().map(|entry| entry.0);
        let heads = inode.heads.iter().chain(&inode.removed).map(|head| head.0);
        self.ids("inode", id.packed(), std::iter::once(id).chain(entries).chain(heads))
    }

    fn line(&self, line: &Move) -> Result<(), SnapshotError> {
        let id = line.to.op.packed();
        self.ids("move", id, [line.entry.0])?;
        self.standing(id, &line.to)?;
        line.before.as_ref().map_or(Ok(()), |before| self.standing(id, before))
    }

    fn member(&self, member: &MemberOp) -> Result<(), SnapshotError> {
        let id = member.id.packed();
        let named = match member.body {
            MemberChange::Role(journal, _) => Some(journal),
            MemberChange::Cut(last) => Some(last.journal()),
            MemberChange::Epoch(_) => None,
        };
        let mut journals: HashSet<u16> = member.frontier.keys().copied().collect();
        journals.extend(named.into_iter().chain([member.id.journal()]));
        journals.into_iter().try_for_each(|journal| self.journal("member", id, journal))
    }
}

fn kind_of(what: &'static str, id: u64, kind: &Kind) -> Result<(), SnapshotError> {
    match kind {
        Kind::Symlink(target) if target.len() > SYMLINK_BYTES_MAX => {
            Err(wrong_row(what, id, "has a target that is too long"))
        }
        _ => Ok(()),
    }
}
