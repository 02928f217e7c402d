//! The secrets of the epochs after the first that this device can open.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::chunk::{Sealer, WorkspaceSecret};
use crate::keys::{Opener, wrap};
use crate::types::limits::EPOCHS_MAX;
use crate::types::{DeviceId, EpochId, EpochSecret, SharedSecret, WrappedSecret};

/// Shared by who merges and who talks to members. Cheap to clone.
#[derive(Clone)]
pub struct Epochs {
    known: Arc<Mutex<BTreeMap<EpochId, SharedSecret>>>,
    sealer: Arc<Sealer>,
    opener: Opener,
    own: DeviceId,
}

impl Epochs {
    /// None but the first, which `sealer` knows.
    pub fn new(sealer: Arc<Sealer>, opener: Opener, own: DeviceId) -> Self {
        Self { known: Arc::default(), sealer, opener, own }
    }

    /// Opens a secret that was sealed for this device, and from then on what is sealed under it.
    pub fn open(&self, epoch: EpochId, wrapped: &WrappedSecret) -> bool {
        let secret = self.opener.unwrap(wrapped, &epoch.context());
        if let Some(secret) = &secret {
            self.learn(epoch, &SharedSecret(**secret));
        }
        secret.is_some()
    }

    fn learn(&self, epoch: EpochId, secret: &SharedSecret) {
        self.sealer.add_epoch(epoch.number, &WorkspaceSecret(secret.0));
        self.known.lock().insert(epoch, secret.clone());
    }

    /// A secret that a member has told, sealed for this device to be kept, if it was not known.
    pub fn told(&self, told: &EpochSecret, drawn: &[u8; 32]) -> Option<WrappedSecret> {
        {
            let known = self.known.lock();
            if known.contains_key(&told.epoch) || known.len() >= EPOCHS_MAX {
                return None;
            }
        }
        let wrapped = wrap(&told.secret.0, &self.own, &told.epoch.context(), drawn)?;
        self.learn(told.epoch, &told.secret);
        Some(wrapped)
    }

    /// Seals under this epoch from now on, if its secret is known.
    pub fn enter(&self, epoch: EpochId) -> bool {
        let Some(secret) = self.known.lock().get(&epoch).cloned() else { return false };
        self.sealer.use_epoch(epoch.number, &WorkspaceSecret(secret.0));
        true
    }

    /// Seals under the first epoch again.
    pub fn enter_first(&self) {
        self.sealer.use_first_epoch();
    }

    /// Every secret.
    pub fn all(&self) -> Vec<EpochSecret> {
        let known = self.known.lock();
        known
            .iter()
            .map(|(epoch, secret)| EpochSecret { epoch: *epoch, secret: secret.clone() })
            .collect()
    }

    /// The secret of an epoch, for a member.
    pub fn secret(&self, epoch: EpochId) -> Option<EpochSecret> {
        let secret = self.known.lock().get(&epoch).cloned()?;
        Some(EpochSecret { epoch, secret })
    }
}
