//! A device of the model: journals in memory, folded by the merge room.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidefs::merge::{
    Acknowledged, Delivered, Key, Made, MemberChange, MemberOp, Membership, NoRecords, Stamp,
    State, Verdict, compact, fold, is_well_formed, judge, pass_over, past_reach,
};
use tidefs::types::{EntryId, Op, OpId, Role};

/// The journal number of a replica that writes nothing.
pub const NOBODY: u16 = u16::MAX;

/// An op as it was delivered.
#[derive(Clone, Debug)]
pub struct Signed {
    pub id: OpId,
    pub key: Key,
    pub frontier: BTreeMap<u16, u64>,
    pub op: Op,
}

impl Signed {
    fn stamp(&self) -> Stamp<'_> {
        Stamp { id: self.id, key: self.key, frontier: &self.frontier }
    }

    fn member_op(&self) -> Option<MemberOp> {
        let body = match self.op {
            Op::Role { journal, role } => MemberChange::Role(journal, role),
            Op::Cut { last, .. } => MemberChange::Cut(last),
            _ => return None,
        };
        let (id, key, frontier) = (self.id, self.key, self.frontier.clone());
        Some(MemberOp { id, key, frontier, body })
    }
}

#[derive(Default)]
struct Heard {
    ops: HashMap<OpId, Option<Made>>,
    reach: HashMap<OpId, Key>,
    verdicts: HashMap<OpId, Verdict>,
}

impl Delivered for Heard {
    fn made(&self, op: OpId) -> Option<Made> {
        self.ops.get(&op).copied().flatten()
    }

    fn is_void(&self, op: OpId) -> bool {
        self.verdicts.get(&op).is_some_and(|verdict| *verdict != Verdict::Stands)
    }

    fn reach(&self, op: OpId) -> Option<Key> {
        self.reach.get(&op).copied()
    }
}

/// What one device knows.
pub struct Replica {
    pub state: State<NoRecords>,
    order: Vec<Signed>,
    heard: Heard,
    members: Membership,
    settled: usize,
}

impl Replica {
    pub fn new(founders: Vec<(u16, Role)>) -> Self {
        Self {
            state: empty(),
            order: Vec::new(),
            heard: Heard::default(),
            members: Membership::founded(founders),
            settled: 0,
        }
    }

    pub fn deliver(&mut self, signed: &Signed) {
        let stamp = signed.stamp();
        self.heard.ops.insert(signed.id, Made::by(&signed.op));
        let reach = past_reach(&self.heard, &stamp).map_or(signed.key, |past| past.max(signed.key));
        self.heard.reach.insert(signed.id, reach);
        self.order.push(signed.clone());
        if signed.member_op().is_some() && self.refold_membership() {
            self.fold_anew();
        } else {
            self.fold_one(signed);
        }
    }

    /// Judges all Roles and Cuts again; true if this changes which Cuts stand.
    fn refold_membership(&mut self) -> bool {
        let ops: Vec<MemberOp> = self
            .order
            .iter()
            .filter(|signed| is_well_formed(&self.heard, &signed.stamp(), &signed.op))
            .filter_map(Signed::member_op)
            .collect();
        let members = self.members.refolded(&ops);
        let is_changed = members.cuts() != self.members.cuts();
        self.members = members;
        is_changed
    }

    fn fold_one(&mut self, signed: &Signed) {
        let verdict = judge(&self.members, &self.heard, &signed.stamp(), &signed.op);
        self.heard.verdicts.insert(signed.id, verdict);
        if verdict == Verdict::Stands {
            let Ok(()) = fold(&mut self.state, &signed.stamp(), &signed.op);
        } else {
            pass_over(&mut self.state);
        }
    }

    fn fold_anew(&mut self) {
        self.state = empty();
        self.heard.verdicts.clear();
        for signed in self.order.clone() {
            self.fold_one(&signed);
        }
        self.state.touch_changed();
    }

    pub fn void(&self) -> BTreeMap<OpId, Verdict> {
        let verdicts = self.heard.verdicts.iter().map(|(id, verdict)| (*id, *verdict));
        verdicts.filter(|(_, verdict)| *verdict != Verdict::Stands).collect()
    }

    pub fn skipped(&self) -> Vec<OpId> {
        let skipped = self.state.moves().iter().filter(|line| !line.is_applied);
        skipped.map(|line| line.to.op.0).collect()
    }

    pub fn compact(&mut self) -> BTreeSet<EntryId> {
        let mut acknowledged = Acknowledged::default();
        for signed in self.order.iter().filter(|signed| !self.members.is_cut(signed.id)) {
            acknowledged.hear(&signed.stamp());
        }
        let awaited = acknowledged.awaited(NOBODY, &self.members);
        let is_stable = |op: OpId| acknowledged.is_stable(NOBODY, &self.members, &awaited, op);
        while self.order.get(self.settled).is_some_and(|signed| is_stable(signed.id)) {
            self.settled += 1;
        }
        let Ok(gone) = compact(&mut self.state, self.settled as u64, is_stable);
        gone
    }
}

fn empty() -> State<NoRecords> {
    let Ok(state) = State::new(NoRecords, 0);
    state
}
