//! What tree a set of ops means: the merge rules of `docs/MERGE.md`, each cited by its short name.
//!
//! The room is arithmetic: no clock, disk, task or log. It sees what is kept of the tree through
//! [`Records`], so memory grows with what the ops at hand touch and not with the tree. It refuses
//! to know how ops travel and how records are stored. Invariants: devices with the same ops have
//! the same tree, in whatever causal order they heard them, compacted or not; every entry reaches
//! the root; names in a directory are unique; no content goes that nobody has superseded or removed.

mod anew;
mod compact;
mod fold;
mod judge;
mod liveness;
mod membership;
mod names;
mod root;
mod stability;
mod state;
mod view;

pub use crate::types::merged::{
    AttrName, Entry, Inode, Key, MemberChange, MemberOp, Move, Removal, Stamp, Standing, Version,
};
pub use anew::unfold;
pub use compact::compact;
pub use fold::{fold, is_inside, pass_over};
pub use judge::{Delivered, Made, Verdict, is_well_formed, judge, past_reach};
pub use liveness::{dead_links, is_visible};
pub use membership::Membership;
pub use root::{add_records, bring_up};
pub use stability::Acknowledged;
pub use state::{Changed, NoRecords, Records, State};
pub use view::{Policy, Row, RowKind, faces, list, list_name};
