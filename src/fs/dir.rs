//! A directory's names in memory: all of them, or those that were asked for.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::types::{EntryId, Ino, Name, NameHash, PlaceId};

/// A directory with more names than this is never held whole.
pub const DIR_NAMES_MAX: usize = 16_384;

/// What memory knows of one name.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The commit that will make this known to the store; up to it the slot must stay.
    pub changed_in: u64,
    /// The entry, or that there is none.
    pub entry: Option<Entry>,
}

/// A name and what it stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The shared identity.
    pub id: EntryId,
    /// What put it here.
    pub place: PlaceId,
    /// What the name stands for.
    pub ino: Ino,
    /// `S_IFMT >> 12` of it.
    pub kind_bits: u8,
    /// The name.
    pub name: Name,
}

/// What memory can say about a name.
#[derive(Debug)]
pub enum Known<'a> {
    /// It is there.
    Here(&'a Entry),
    /// It is not there.
    Absent,
    /// Only the store can tell.
    Unknown,
}

/// The names of one directory, in hash order.
#[derive(Debug, Default)]
pub struct Dir {
    slots: BTreeMap<NameHash, Slot>,
    /// Every name that exists is in `slots`.
    whole: bool,
    /// The latest commit that any slot waits for.
    changed_in: u64,
}

impl Dir {
    /// A directory just made: empty, and known to be.
    pub fn new_empty() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// What is known of a name.
    pub fn get(&self, hash: NameHash) -> Known<'_> {
        match self.slots.get(&hash) {
            Some(Slot { entry: Some(entry), .. }) => Known::Here(entry),
            Some(Slot { entry: None, .. }) => Known::Absent,
            None if self.whole => Known::Absent,
            None => Known::Unknown,
        }
    }

    /// Lays a change over the store's state, until commit `changed_in` has made it the store's.
    pub fn set(&mut self, hash: NameHash, entry: Option<Entry>, changed_in: u64) {
        self.changed_in = self.changed_in.max(changed_in);
        self.slots.insert(hash, Slot { changed_in, entry });
    }

    /// Takes in what the store says of a name, unless memory knows better.
    pub fn learn(&mut self, hash: NameHash, entry: Option<Entry>) {
        self.slots.entry(hash).or_insert(Slot { changed_in: 0, entry });
    }

    /// All names of the store have been learnt.
    pub fn set_whole(&mut self) {
        self.whole = true;
    }

    /// Is every name in memory?
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// How many names memory holds, present or absent.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Slots after `after`, in order.
    pub fn after(&self, after: NameHash) -> impl Iterator<Item = (NameHash, &Slot)> {
        self.slots
            .range((Bound::Excluded(after), Bound::Unbounded))
            .map(|(hash, slot)| (*hash, slot))
    }

    /// Forgets what the store knows too, given the last commit that is done. Returns whether
    /// anything went.
    pub fn forget_clean(&mut self, committed: u64) -> bool {
        let before = self.slots.len();
        self.slots.retain(|_, slot| slot.changed_in > committed);
        if self.slots.len() < before || self.slots.is_empty() {
            self.whole = false;
        }
        self.slots.len() < before
    }

    /// Does it hold what the store lacks?
    pub fn is_dirty(&self, committed: u64) -> bool {
        self.changed_in > committed
    }
}
