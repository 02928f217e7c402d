//! Liveness: what the removal of a name means, decided anew from the state (L1 to L4).

use std::collections::BTreeSet;

use super::state::{Records, State};
use crate::types::merged::{Entry, Inode};
use crate::types::{EntryId, FileId, VersionId};

/// Does a listing show this entry?
///
/// Costs a look at the file's names, or for a directory that was removed, at what is below it.
///
/// # Errors
/// If a record cannot be read.
pub fn is_visible<R: Records>(state: &State<R>, id: EntryId) -> Result<bool, R::Error> {
    let Some(entry) = state.entry(id)? else { return Ok(false) };
    if !entry.is_removed() {
        return Ok(true);
    }
    if !entry.is_directory {
        let inode = state.inode(entry.inode)?.unwrap_or_default();
        return Ok(!dead_links(state, &inode)?.contains(&id));
    }
    any_visible(state, &state.children(entry.inode)?)
}

fn any_visible<R: Records>(
    state: &State<R>,
    entries: &BTreeSet<EntryId>,
) -> Result<bool, R::Error> {
    for id in entries {
        if is_visible(state, *id)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Which names of a file are gone (L2, L3).
///
/// # Errors
/// If a record cannot be read.
pub fn dead_links<R: Records>(
    state: &State<R>,
    inode: &Inode,
) -> Result<BTreeSet<EntryId>, R::Error> {
    let mut removed: Vec<(EntryId, Entry)> = Vec::new();
    for id in &inode.entries {
        removed.extend(state.entry(*id)?.filter(Entry::is_removed).map(|entry| (*id, entry)));
    }
    let mut dead: BTreeSet<EntryId> = removed.iter().map(|(id, _)| *id).collect();
    if dead.len() == inode.entries.len() && !inode.heads.is_subset(&seen_heads(inode, &removed)) {
        let latest = removed
            .iter()
            .max_by_key(|(_, entry)| entry.standing_removals().map(|removal| removal.key).max());
        if let Some((survivor, _)) = latest {
            dead.remove(survivor);
        }
    }
    Ok(dead)
}

fn seen_heads(inode: &Inode, removed: &[(EntryId, Entry)]) -> BTreeSet<VersionId> {
    let mut seen = inode.removed.clone();
    for (_, entry) in removed {
        seen.extend(entry.standing_removals().flat_map(|removal| removal.seen_heads.iter()));
    }
    seen
}

/// The visible entries of these directories, which are one in the view.
///
/// # Errors
/// If a record cannot be read.
pub fn visible_children<R: Records>(
    state: &State<R>,
    directories: &[FileId],
) -> Result<Vec<(EntryId, Entry)>, R::Error> {
    let mut inside = Vec::new();
    for directory in directories {
        for id in state.children(*directory)? {
            if is_visible(state, id)? {
                inside.extend(state.entry(id)?.map(|entry| (id, entry)));
            }
        }
    }
    Ok(inside)
}
