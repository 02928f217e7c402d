//! This device's ops that no commit has taken yet.

use crate::types::{Op, OpId};

/// Past this many, whoever makes one more waits for a commit.
pub const PENDING_OPS_MAX: usize = 65_536;

/// Ops in order, with the numbers that they will have in the journal.
#[derive(Debug)]
pub struct PendingOps {
    journal: u16,
    first_seq: u64,
    ops: Vec<Op>,
    /// Whoever makes one more waits, however few there are.
    pub held: bool,
}

/// What a commit took.
#[derive(Debug)]
pub struct TakenOps {
    journal: u16,
    /// The first op's number.
    pub first_seq: u64,
    /// The ops.
    pub ops: Vec<Op>,
}

impl PendingOps {
    /// Nothing pending in the journal numbered `journal`, whose next op is `next_seq`.
    pub fn new(journal: u16, next_seq: u64) -> Self {
        Self { journal, first_seq: next_seq, ops: Vec::new(), held: false }
    }

    /// Whose ops they are: this device's journal.
    pub fn journal(&self) -> u16 {
        self.journal
    }

    /// Appends an op and tells its id.
    pub fn push(&mut self, op: Op) -> OpId {
        self.ops.push(op);
        OpId::new(self.journal, self.first_seq + self.ops.len() as u64 - 1)
    }

    /// Takes all, and numbers `writes` more that the commit itself will append.
    pub fn take(&mut self, writes: usize) -> TakenOps {
        let ops = std::mem::take(&mut self.ops);
        let taken = TakenOps { journal: self.journal, first_seq: self.first_seq, ops };
        self.first_seq += (taken.ops.len() + writes) as u64;
        taken
    }

    /// How many are pending.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Is nothing pending?
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Must the next one wait for a commit?
    pub fn is_full(&self) -> bool {
        self.held || self.ops.len() >= PENDING_OPS_MAX
    }
}

impl TakenOps {
    /// The id of the `index`-th op that the commit appends.
    pub fn appended(&self, index: usize) -> OpId {
        OpId::new(self.journal, self.first_seq + (self.ops.len() + index) as u64)
    }
}
