//! Which epoch this device seals under, and when it begins another.

use super::Merger;
use crate::engine::epochs::Epochs;
use crate::keys::wrap;
use crate::types::merged::MemberOp;
use crate::types::{EpochId, Op, Role};

impl Merger {
    /// The secrets of epochs.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Seals from now on under the best epoch whose secret is here.
    pub fn enter_best_epoch(&self) {
        let epochs = self.known.members.epochs(&self.known.member_ops);
        if !epochs.into_iter().any(|op| self.epochs.enter(self.epoch_id(op))) {
            self.epochs.enter_first();
        }
    }

    /// All epochs after the first that were heard of.
    pub fn epoch_ids(&self) -> Vec<EpochId> {
        let ops = self.known.member_ops.iter().filter(|op| op.epoch().is_some());
        ops.map(|op| self.epoch_id(op)).collect()
    }

    fn epoch_id(&self, op: &MemberOp) -> EpochId {
        let author = self.device(op.id.journal());
        EpochId { number: op.epoch().unwrap_or(0), author, seq: op.id.seq() }
    }

    /// Has somebody who is revoked the secret of every epoch, and is it for this device to begin
    /// another?
    pub fn wants_epoch(&self) -> bool {
        let best = self.known.members.epochs(&self.known.member_ops).into_iter().next();
        self.may_begin_epoch() && !self.known.members.is_sealed_off(best)
    }

    /// Is this device an admin of a workspace that is encrypted?
    pub fn may_begin_epoch(&self) -> bool {
        let own = self.own_device();
        let is_admin = || self.roles().contains(&(own, Role::Admin));
        self.sealer.is_encrypting() && is_admin()
    }

    /// The op that begins another epoch, its secret sealed for every member that may read. `draw`
    /// gives fresh random bytes.
    pub fn next_epoch(&self, mut draw: impl FnMut() -> [u8; 32]) -> Op {
        let heard_of = self.known.member_ops.iter().filter_map(MemberOp::epoch).max();
        let number = heard_of.unwrap_or(0).saturating_add(1);
        let secret = zeroize::Zeroizing::new(draw());
        let author = self.own_device();
        let context = EpochId { number, author, seq: 0 }.context();
        let mut wrapped = Vec::new();
        for (device, _) in self.roles().into_iter().filter(|(_, role)| *role != Role::Keeper) {
            let journal = self.number(&device);
            wrapped.extend(journal.zip(wrap(&secret, &device, &context, &draw())));
        }
        Op::Epoch { number, wrapped }
    }
}
