//! Who shares a workspace, as its store tells a process that does not serve it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::EngineError;
use super::epochs::Epochs;
use super::merger::Merger;
use super::replica::device_names;
use super::workspace::Workspace;
use crate::codec::batch_span;
use crate::env::Env;
use crate::keys::DeviceKey;
use crate::store::Store;
use crate::types::{DeviceId, DeviceName, Frontier, Hlc, NameHasher, Role, Standing};

/// A member, as far as this device has heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Which.
    pub device: DeviceId,
    /// What it is called, if it was ever given a name.
    pub name: Option<DeviceName>,
    /// The name, or the first digits of the device: no two are alike.
    pub label: String,
    /// What it may do, or might before it was revoked.
    pub role: Role,
    /// An admin has taken it out of the workspace.
    pub is_revoked: bool,
    /// Its key has signed two journals: the op at or before which they part.
    pub forked_at: Option<u64>,
    /// It is this device.
    pub is_own: bool,
}

impl Member {
    /// Is it an admin?
    pub fn is_admin(&self) -> bool {
        !self.is_revoked && self.role == Role::Admin
    }

    /// May it change files?
    pub fn may_write(&self) -> bool {
        !self.is_revoked && self.role.may_write()
    }
}

/// Who shares a workspace, and how far their journals are here.
pub struct Members {
    /// By their ids.
    pub members: Vec<Member>,
    /// The last op of each journal.
    pub frontier: Frontier,
    is_overtaken: bool,
    store: Store,
    numbers: BTreeMap<DeviceId, u16>,
}

/// What a device has not said that it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lag {
    /// Ops, of all journals.
    pub ops: u64,
    /// The clock of the oldest of them.
    pub since: Option<Hlc>,
}

impl Members {
    /// This device, unless it is no member (yet).
    pub fn own(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.is_own)
    }

    /// What this device is.
    pub fn own_standing(&self) -> Standing {
        match self.own() {
            _ if self.is_overtaken => Standing::Overtaken,
            Some(own) if own.is_revoked => Standing::Revoked,
            Some(own) => Standing::Member(own.role),
            None => Standing::Unknown,
        }
    }

    /// What of this device's journals a device lacks that has come this far.
    ///
    /// # Errors
    /// The store's.
    pub fn lag(&self, has: &Frontier) -> Result<Lag, EngineError> {
        let mut lag = Lag::default();
        for (device, last) in &self.frontier {
            let heard = has.get(device).copied().unwrap_or(0);
            if heard >= *last {
                continue;
            }
            lag.ops += last - heard;
            let journal = self.numbers.get(device).copied();
            let batch =
                journal.map(|number| self.store.batch_with(number, heard + 1)).transpose()?;
            if let Some(bytes) = batch.flatten() {
                let clock = batch_span(&bytes)?.hlc;
                lag.since = Some(lag.since.map_or(clock, |since| since.min(clock)));
            }
        }
        Ok(lag)
    }
}

/// The members of the workspace in `dir`. Another process may be serving it.
///
/// # Errors
/// [`EngineError::Missing`], or the store's.
pub fn members(dir: &Path, env: &Env) -> Result<Members, EngineError> {
    let settings = Workspace::settings(dir, env)?;
    let secret = Workspace::secret(dir, env)?;
    let key = DeviceKey::from_seed(&*Workspace::device_seed(dir, env)?);
    let own = key.device();
    let sealer = Arc::new(Workspace::sealer(dir, &settings, env)?);
    let hasher = NameHasher::derive(&secret.0);
    let store = Store::look(dir, env)?;
    let names = device_names(&store)?;
    let numbers = store.journals()?.into_iter().map(|(number, device)| (device, number)).collect();
    let epochs = Epochs::new(Arc::clone(&sealer), key.opener(), own);
    let merger = Merger::open(store.clone(), sealer, hasher, 0, epochs)?;
    let forks: BTreeMap<DeviceId, u64> =
        store.forks()?.into_iter().map(|(number, seq)| (merger.device(number), seq)).collect();
    let member = |(device, role), is_revoked| Member {
        device,
        name: names.get(&device).cloned(),
        label: names.label(&device),
        role,
        is_revoked,
        forked_at: forks.get(&device).copied(),
        is_own: device == own,
    };
    let (now, gone) = merger.roles_and_gone();
    let now = now.into_iter().map(|of| member(of, false));
    let members = now.chain(gone.into_iter().map(|of| member(of, true))).collect();
    let is_overtaken = store.is_overtaken()?;
    Ok(Members { members, frontier: merger.frontier(), is_overtaken, store, numbers })
}
