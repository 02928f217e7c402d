//! Compaction: what no op still to come can name or depend on goes (C1 to C5).

use std::collections::{BTreeSet, HashSet};

use super::liveness::is_visible;
use super::state::{Records, State};
use crate::types::{EntryId, FileId, OpId};

/// Drops what may go, and tells which entries went.
///
/// `settled` is the length of the longest beginning of the arrivals that is stable throughout;
/// `is_stable` tells of one op whether every device that may still write has acknowledged it.
///
/// # Errors
/// If a record cannot be read; the state is then to be thrown away.
pub fn compact<R: Records>(
    state: &mut State<R>,
    settled: u64,
    is_stable: impl Fn(OpId) -> bool,
) -> Result<BTreeSet<EntryId>, R::Error> {
    let count = state.moves().iter().take_while(|line| is_stable(line.to.op.0)).count();
    state.moves_mut().drain(..count);
    let gone = collectable(state, settled)?;
    for entry in &gone {
        collect_entry(state, *entry)?;
    }
    Ok(gone)
}

/// Only an entry on which an `Unlink` lies can be invisible, so no other is looked at.
fn collectable<R: Records>(state: &State<R>, settled: u64) -> Result<BTreeSet<EntryId>, R::Error> {
    let named = named_by_moves(state);
    let mut gone = BTreeSet::new();
    for id in state.removed()? {
        let Some(entry) = state.entry(id)? else { continue };
        let touch = state.inode(entry.inode)?.map_or(0, |inode| inode.touch);
        if touch <= settled && !named.contains(&id.0) && !is_visible(state, id)? {
            gone.insert(id);
        }
    }
    keep_parents(state, &mut gone)?;
    Ok(gone)
}

/// What stays keeps the directory that it is in.
fn keep_parents<R: Records>(
    state: &State<R>,
    gone: &mut BTreeSet<EntryId>,
) -> Result<(), R::Error> {
    let mut looked_at: Vec<EntryId> = gone.iter().copied().collect();
    while let Some(id) = looked_at.pop() {
        let Some(entry) = state.entry(id)? else { continue };
        let holds = entry.is_directory
            && state.children(entry.inode)?.iter().any(|child| !gone.contains(child));
        if holds && gone.remove(&id) {
            looked_at.push(EntryId(entry.place().parent.0));
        }
    }
    Ok(())
}

fn named_by_moves<R: Records>(state: &State<R>) -> HashSet<OpId> {
    let mut named = HashSet::new();
    for line in state.moves() {
        named.extend([line.entry.0, line.to.parent.0]);
        named.extend(line.before.as_ref().map(|before| before.parent.0));
    }
    named
}

fn collect_entry<R: Records>(state: &mut State<R>, id: EntryId) -> Result<(), R::Error> {
    let Some(entry) = state.entry(id)? else { return Ok(()) };
    state.remove_entry(id)?;
    let file: FileId = entry.inode;
    let Some(mut inode) = state.inode(file)? else { return Ok(()) };
    inode.entries.remove(&id);
    if inode.entries.is_empty() {
        state.remove_inode(file);
        return Ok(());
    }
    for removal in entry.standing_removals() {
        inode.removed.extend(removal.seen_heads.iter());
    }
    let heads = inode.heads.clone();
    inode.removed.retain(|head| heads.contains(head));
    state.put_inode(file, inode);
    Ok(())
}
