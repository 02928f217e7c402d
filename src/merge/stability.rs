//! Stability: which ops every device that may still write has acknowledged (C1, M7).

use std::collections::{BTreeMap, BTreeSet};

use super::membership::Membership;
use crate::types::OpId;
use crate::types::merged::{MemberChange, Stamp};

/// What each journal's author had heard by the last op of it that counts.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    heard: BTreeMap<u16, Heard>,
}

#[derive(Clone, Debug)]
struct Heard {
    seq: u64,
    frontier: BTreeMap<u16, u64>,
}

impl Acknowledged {
    /// Takes in an op, in the order of its journal. One behind a standing Cut must be left out.
    pub fn hear(&mut self, stamp: &Stamp<'_>) {
        let heard = Heard { seq: stamp.id.seq(), frontier: stamp.frontier.clone() };
        self.heard.insert(stamp.id.journal(), heard);
    }

    /// Will all that is still to come from a journal's author have `op` in its past? Of `own`, the
    /// journal of this device, it will.
    fn has(&self, own: u16, journal: u16, op: OpId) -> bool {
        if journal == own || journal == op.journal() {
            return true;
        }
        self.heard.get(&journal).is_some_and(|heard| {
            heard.frontier.get(&op.journal()).is_some_and(|seq| op.seq() <= *seq)
        })
    }

    /// How much of a journal counts, as far as it is here.
    pub fn seq(&self, journal: u16) -> u64 {
        self.heard.get(&journal).map_or(0, |heard| heard.seq)
    }

    /// The journals whose acknowledgement stability needs: of each device that was ever allowed to
    /// write, until a Cut of it is stable among those not cut.
    pub fn awaited(&self, own: u16, members: &Membership) -> BTreeSet<u16> {
        let writers = members.writers();
        let cuts: Vec<(u16, OpId)> = members
            .cuts()
            .iter()
            .filter_map(|cut| match cut.body {
                MemberChange::Cut(last) => Some((last.journal(), cut.id)),
                MemberChange::Role(..) | MemberChange::Epoch(_) => None,
            })
            .collect();
        let is_staying = |journal: &u16| !cuts.iter().any(|(of, _)| of == journal);
        let staying: BTreeSet<u16> = writers.iter().copied().filter(is_staying).collect();
        let is_settled = |journal: u16| {
            let mut of_it = cuts.iter().filter(|(of, _)| *of == journal);
            of_it.all(|(_, cut)| staying.iter().all(|other| self.has(own, *other, *cut)))
        };
        let leaving = writers.difference(&staying).copied().filter(|it| !is_settled(*it));
        staying.iter().copied().chain(leaving).collect()
    }

    /// Is an op acknowledged by all of them?
    pub fn is_stable(
        &self,
        own: u16,
        members: &Membership,
        awaited: &BTreeSet<u16>,
        op: OpId,
    ) -> bool {
        if members.is_cut(op) {
            return !awaited.contains(&op.journal());
        }
        awaited.iter().all(|journal| self.has(own, *journal, op))
    }
}
