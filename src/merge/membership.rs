//! Membership: which Roles and Cuts stand, and so which ops count (M1 to M4).

use crate::types::merged::{MemberOp, Stamp};
use crate::types::{OpId, Role};

/// Who may do what.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// The roles at the founding, the senior first.
    founders: Vec<(u16, Role)>,
    /// Roles that stand, in key order.
    grants: Vec<MemberOp>,
    /// Cuts that stand.
    cuts: Vec<MemberOp>,
}

impl Membership {
    /// At the founding.
    pub fn founded(founders: Vec<(u16, Role)>) -> Self {
        Self { founders, grants: Vec::new(), cuts: Vec::new() }
    }

    /// Decides anew which Roles and Cuts stand, from all well-formed ones that have arrived (M3,
    /// M4): of Cuts that would void each other, that of the senior admin stands.
    ///
    /// # Panics
    /// Never: only admins are left in `pending`.
    #[must_use]
    pub fn refolded(&self, ops: &[MemberOp]) -> Self {
        let mut roles: Vec<&MemberOp> = ops.iter().filter(|op| op.role().is_some()).collect();
        roles.sort_by_key(|op| op.key);
        let mut members = self.under_cuts(&roles, &[]);
        let seniority = members.seniority();
        let rank = |op: &MemberOp| seniority.iter().position(|journal| *journal == op.id.journal());
        let mut pending: Vec<&MemberOp> = ops
            .iter()
            .filter(|op| op.cut().is_some() && members.may_administer(&op.stamp()))
            .collect();
        pending.sort_by_key(|op| (rank(op), op.key));
        let voids = |cut: &MemberOp, other: &MemberOp| {
            !self.under_cuts(&roles, &[cut]).may_administer(&other.stamp())
        };
        while !pending.is_empty() {
            let free = pending.iter().find(|cut| !pending.iter().any(|other| voids(other, cut)));
            let chosen = *free.unwrap_or(&pending[0]);
            let cuts: Vec<&MemberOp> = members.cuts.iter().chain([chosen]).collect();
            members = self.under_cuts(&roles, &cuts);
            pending.retain(|cut| {
                *cut != chosen && members.may_administer(&cut.stamp()) && !voids(cut, chosen)
            });
        }
        members
    }

    /// The membership if these Cuts stand, and no other.
    fn under_cuts(&self, roles: &[&MemberOp], cuts: &[&MemberOp]) -> Self {
        let cuts = cuts.iter().map(|cut| (*cut).clone()).collect();
        let mut members = Self { founders: self.founders.clone(), grants: Vec::new(), cuts };
        for op in roles {
            if members.may_administer(&op.stamp()) {
                members.grants.push((*op).clone());
            }
        }
        members
    }

    /// The journals of all who were ever admins, the senior first.
    fn seniority(&self) -> Vec<u16> {
        let granted = self.grants.iter().filter_map(MemberOp::role);
        self.founders
            .iter()
            .copied()
            .chain(granted)
            .filter(|(_, role)| *role == Role::Admin)
            .map(|(journal, _)| journal)
            .collect()
    }

    fn may_administer(&self, stamp: &Stamp<'_>) -> bool {
        !self.is_cut(stamp.id) && self.role_in_past(stamp) == Some(Role::Admin)
    }

    /// The author's role, from what it had itself heard (M1).
    pub fn role_in_past(&self, stamp: &Stamp<'_>) -> Option<Role> {
        let author = stamp.id.journal();
        let of_author = |(journal, role): &(u16, Role)| (*journal == author).then_some(*role);
        let granted = self.grants.iter().rev().find_map(|grant| {
            let role = of_author(&grant.role()?)?;
            stamp.has_seen(grant.id).then_some(role)
        });
        granted.or_else(|| self.founders.iter().find_map(of_author))
    }

    /// The last op of a journal that counts, if it has been cut.
    pub fn cut_seq(&self, journal: u16) -> Option<u64> {
        let lasts = self.cuts.iter().filter_map(MemberOp::cut);
        lasts.filter(|last| last.journal() == journal).map(OpId::seq).min()
    }

    /// Is an op behind a Cut of its journal (M2)?
    pub fn is_cut(&self, op: OpId) -> bool {
        self.cut_seq(op.journal()).is_some_and(|last| op.seq() > last)
    }

    /// Does this Role or Cut stand?
    pub fn stands(&self, id: OpId) -> bool {
        self.grants.iter().chain(&self.cuts).any(|op| op.id == id)
    }

    /// Of the epochs that stand, the best first: one that was begun in the knowledge of every Cut
    /// that stands, so that who is cut does not have its secret, goes before others (M8).
    pub fn epochs<'a>(&self, ops: &'a [MemberOp]) -> Vec<&'a MemberOp> {
        let mut epochs: Vec<&MemberOp> = ops
            .iter()
            .filter(|op| op.epoch().is_some() && self.may_administer(&op.stamp()))
            .collect();
        epochs.sort_by_key(|op| std::cmp::Reverse((self.is_sound(op), op.epoch(), op.key)));
        epochs
    }

    /// Does nobody who is cut have the secret of this epoch; or of the first one, for `None`?
    pub fn is_sealed_off(&self, epoch: Option<&MemberOp>) -> bool {
        epoch.map_or(self.cuts.is_empty(), |epoch| self.is_sound(epoch))
    }

    fn is_sound(&self, epoch: &MemberOp) -> bool {
        self.cuts.iter().all(|cut| epoch.stamp().has_seen(cut.id))
    }

    /// The Cuts that stand.
    pub fn cuts(&self) -> &[MemberOp] {
        &self.cuts
    }

    /// Every journal whose device was ever allowed to write.
    pub fn writers(&self) -> std::collections::BTreeSet<u16> {
        let granted = self.grants.iter().filter_map(MemberOp::role);
        self.founders
            .iter()
            .copied()
            .chain(granted)
            .filter(|(_, role)| role.may_write())
            .map(|(journal, _)| journal)
            .collect()
    }
}
