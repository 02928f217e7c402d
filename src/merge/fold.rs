//! The fold: what an op that stands does to the state (F1 to F5). The result depends on the set of
//! ops alone, not on the order of their arrival.

use super::state::{Records, State};
use crate::types::merged::{AttrName, Entry, Inode, Key, Move, Removal, Stamp, Standing, Version};
use crate::types::{
    AttrChange, Content, ContentHash, EntryId, FileId, Kind, Op, PlaceId, VersionId,
};

/// Folds an op that was judged to stand, and whose past has been folded.
///
/// What it names and is not there was collected, which only a lying device can bring about: such an
/// op has no effect.
///
/// # Errors
/// If a record cannot be read; the state is then to be thrown away.
pub fn fold<R: Records>(state: &mut State<R>, stamp: &Stamp<'_>, op: &Op) -> Result<(), R::Error> {
    state.count_arrival();
    match op {
        Op::Make { parent, name, kind, mode, uid, gid } => {
            let attrs = [AttrChange::Mode(*mode), AttrChange::Uid(*uid), AttrChange::Gid(*gid)];
            let attrs = attrs.map(|change| (AttrName::of(&change), (stamp.key, change)));
            let is_directory = *kind == Kind::Directory;
            let special = ContentHash::of_special(kind);
            let inode = Inode { is_directory, special, attrs: attrs.into(), ..Inode::default() };
            let file = FileId(stamp.id);
            state.put_inode(file, inode);
            add_entry(state, stamp, file, *parent, name, is_directory)
        }
        Op::Link { parent, name, file } => add_entry(state, stamp, *file, *parent, name, false),
        Op::Write { file, parents, size_bytes, content, .. } => {
            let base = match content {
                Content::Patch { base, .. } => state.version(*file, *base)?,
                _ => None,
            };
            let base = base.map(|version| version.content);
            let content = ContentHash::of(*size_bytes, content, base);
            write(state, stamp, *file, parents, content)
        }
        Op::Place { entry, parent, name } => place(state, stamp, *entry, *parent, name),
        Op::Unlink { entry, seen_place, seen_heads } => {
            let seen_heads = seen_heads.iter().copied().collect();
            let removal = Removal { key: stamp.key, seen_place: *seen_place, seen_heads };
            unlink(state, *entry, removal)
        }
        Op::Attr { file, change } => attr(state, stamp.key, *file, change),
        Op::Found { mode, uid, gid, .. } => {
            for change in [AttrChange::Mode(*mode), AttrChange::Uid(*uid), AttrChange::Gid(*gid)] {
                attr(state, stamp.key, FileId::ROOT, &change)?;
            }
            Ok(())
        }
        Op::Ack | Op::Role { .. } | Op::Cut { .. } | Op::Epoch { .. } => Ok(()),
    }
}

/// Counts an op that is void. It need not touch what it names: C6 has touched everything.
pub fn pass_over<R: Records>(state: &mut State<R>) {
    state.count_arrival();
}

fn add_entry<R: Records>(
    state: &mut State<R>,
    stamp: &Stamp<'_>,
    file: FileId,
    parent: FileId,
    name: &crate::types::Name,
    is_directory: bool,
) -> Result<(), R::Error> {
    let Some(mut inode) = state.inode(file)? else { return Ok(()) };
    let id = EntryId(stamp.id);
    inode.entries.insert(id);
    state.put_inode(file, inode);
    let standing = Standing { key: stamp.key, op: PlaceId(stamp.id), parent, name: name.clone() };
    let place = (!is_directory).then(|| standing.clone());
    let entry = Entry { is_directory, inode: file, place, removals: Vec::new() };
    state.put_entry(id, entry)?;
    if is_directory {
        insert_move(state, id, standing)?;
    }
    state.touch(&[file, parent])
}

fn write<R: Records>(
    state: &mut State<R>,
    stamp: &Stamp<'_>,
    file: FileId,
    parents: &[VersionId],
    content: ContentHash,
) -> Result<(), R::Error> {
    let Some(mut inode) = state.inode(file)? else { return Ok(()) };
    let id = VersionId(stamp.id);
    for parent in parents {
        inode.heads.remove(parent);
    }
    inode.heads.insert(id);
    state.put_inode(file, inode);
    state.put_version(file, id, Version { key: stamp.key, content });
    state.touch(&[file])
}

fn place<R: Records>(
    state: &mut State<R>,
    stamp: &Stamp<'_>,
    id: EntryId,
    parent: FileId,
    name: &crate::types::Name,
) -> Result<(), R::Error> {
    let Some(mut entry) = state.entry(id)? else { return Ok(()) };
    state.touch(&[entry.inode, entry.place().parent, parent])?;
    let to = Standing { key: stamp.key, op: PlaceId(stamp.id), parent, name: name.clone() };
    if entry.is_directory {
        insert_move(state, id, to)
    } else if to.key > entry.place().key {
        entry.place = Some(to);
        state.put_entry(id, entry)
    } else {
        Ok(())
    }
}

fn unlink<R: Records>(state: &mut State<R>, id: EntryId, removal: Removal) -> Result<(), R::Error> {
    let Some(mut entry) = state.entry(id)? else { return Ok(()) };
    entry.removals.push(removal);
    let inode = entry.inode;
    state.put_entry(id, entry)?;
    state.touch(&[inode])
}

fn attr<R: Records>(
    state: &mut State<R>,
    key: Key,
    file: FileId,
    change: &AttrChange,
) -> Result<(), R::Error> {
    let Some(mut inode) = state.inode(file)? else { return Ok(()) };
    let name = AttrName::of(change);
    if inode.attrs.get(&name).is_none_or(|(last, _)| key > *last) {
        inode.attrs.insert(name, (key, change.clone()));
        state.put_inode(file, inode);
    }
    state.touch(&[file])
}

/// Does a directory move at its turn in the key order: undo, do, redo (F3).
fn insert_move<R: Records>(
    state: &mut State<R>,
    entry: EntryId,
    to: Standing,
) -> Result<(), R::Error> {
    let turn = state.moves().partition_point(|later| later.to.key <= to.key);
    let later = state.moves_mut().split_off(turn);
    for undone in later.iter().rev() {
        undo_move(state, undone)?;
    }
    let new = Move { to, entry, before: None, is_applied: false };
    for mut redone in std::iter::once(new).chain(later) {
        do_move(state, &mut redone)?;
        state.moves_mut().push(redone);
    }
    Ok(())
}

pub(super) fn do_move<R: Records>(state: &mut State<R>, it: &mut Move) -> Result<(), R::Error> {
    let Some(mut entry) = state.entry(it.entry)? else { return Ok(()) };
    it.before.clone_from(&entry.place);
    it.is_applied = !is_inside(state, it.to.parent, entry.inode)?;
    if it.is_applied {
        entry.place = Some(it.to.clone());
        state.put_entry(it.entry, entry)?;
    }
    Ok(())
}

pub(super) fn undo_move<R: Records>(state: &mut State<R>, it: &Move) -> Result<(), R::Error> {
    if !it.is_applied {
        return Ok(());
    }
    let Some(mut entry) = state.entry(it.entry)? else { return Ok(()) };
    entry.place.clone_from(&it.before);
    state.put_entry(it.entry, entry)
}

/// Is `directory` equal to `ancestor` or somewhere below it?
///
/// # Errors
/// If a record cannot be read.
pub fn is_inside<R: Records>(
    state: &State<R>,
    mut directory: FileId,
    ancestor: FileId,
) -> Result<bool, R::Error> {
    while directory != FileId::ROOT {
        if directory == ancestor {
            return Ok(true);
        }
        let place = state.entry(EntryId(directory.0))?.and_then(|entry| entry.place);
        let Some(place) = place else { return Ok(false) };
        directory = place.parent;
    }
    Ok(ancestor == FileId::ROOT)
}
