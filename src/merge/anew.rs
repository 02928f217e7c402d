//! Folding anew: when other Cuts stand than before, what that bears on is taken out and folded again.

use std::collections::BTreeSet;

use super::fold::{do_move, undo_move};
use super::state::{Records, State};
use crate::types::FileId;
use crate::types::merged::{Inode, Move};

/// Takes files and directories out, as if no op had ever borne on them. Every op that does, and
/// stands, is then to be folded again, in any causal order: what others make of them is the same,
/// for moves of directories are done again without theirs (F3).
///
/// # Errors
/// If a record cannot be read; the state is then to be thrown away.
pub fn unfold<R: Records>(state: &mut State<R>, files: &BTreeSet<FileId>) -> Result<(), R::Error> {
    let is_out = |line: &Move| files.contains(&FileId(line.entry.0));
    let first = state.moves().iter().position(is_out);
    let later = match first {
        Some(first) => state.moves_mut().split_off(first),
        None => Vec::new(),
    };
    for line in later.iter().rev() {
        undo_move(state, line)?;
    }
    for file in files {
        for entry in state.inode(*file)?.unwrap_or_default().entries {
            state.remove_entry(entry)?;
        }
        state.remove_inode(*file);
        if *file == FileId::ROOT {
            state.put_inode(*file, Inode { is_directory: true, ..Inode::default() });
        }
    }
    for mut line in later.into_iter().filter(|line| !is_out(line)) {
        do_move(state, &mut line)?;
        state.moves_mut().push(line);
    }
    Ok(())
}
