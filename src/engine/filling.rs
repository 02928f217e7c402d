//! Filling a workspace that this device has just joined; and what its store begins with.

use std::path::Path;
use std::sync::Arc;

use super::bootstrap::{SnapshotError, commit_of, wrong_row};
use super::error::DeliverError;
use super::merger::FOUNDER;
use super::sync::{Parts, SyncConfig, SyncError, ask};
use super::workspace::{Workspace, root};
use super::{EngineError, Hearing, LocalReplica};
use crate::env::Env;
use crate::keys::DeviceKey;
use crate::store::{Commit, Store};
use crate::types::{
    Addresses, ConflictResolution, DeviceId, Ino, Kind, NameHasher, SnapshotHead, SnapshotPage,
    SnapshotRows,
};

/// Why a workspace is not filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The other device was not reached, tells no snapshot, or the connection to it has ended.
    #[error(transparent)]
    Net(#[from] SyncError),
    /// What it tells is not taken.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Nor laid into the store.
    #[error(transparent)]
    Laying(#[from] DeliverError),
    /// This device's own failure.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A snapshot that is being heard.
pub struct Filling {
    parts: Parts,
    hearing: Hearing,
}

impl Filling {
    /// Asks a member for a snapshot of the workspace in `dir`. Blocks until its head is here; nothing
    /// is stored yet.
    ///
    /// # Errors
    /// [`FillError`]; then the journals are still to be had.
    pub fn begin(
        dir: &Path,
        env: &Env,
        config: &SyncConfig,
        (peer, addresses): (&DeviceId, &Addresses),
    ) -> Result<(Self, Box<SnapshotHead>), FillError> {
        let mut hearing = Workspace::hearing(dir, env, *peer)?;
        let seed = Workspace::device_seed(dir, env)?;
        let workspace = Workspace::settings(dir, env)?.workspace;
        let mut parts = ask(config, &seed, workspace, (peer, addresses))?;
        let head = parts.next_part().map_err(FillError::from).and_then(|part| {
            match hearing.hear(&part)? {
                (SnapshotPage::Head(head), _) => Ok(head),
                (SnapshotPage::Rows(_), _) => {
                    Err(wrong_row("head", 0, "is not where it belongs").into())
                }
            }
        });
        match head {
            Ok(head) => Ok((Self { parts, hearing }, head)),
            Err(error) => {
                parts.finish();
                Err(error)
            }
        }
    }

    /// Lays all that comes into the workspace, which was opened with the head. Blocks until it is
    /// whole.
    ///
    /// # Errors
    /// [`FillError`]: the workspace is to be opened anew, and is then empty again.
    pub fn run(mut self, replica: &LocalReplica) -> Result<(), FillError> {
        let filled = self.lay_all(replica);
        if let Err(error) = &filled {
            replica.loading().give_up(&error.to_string());
        }
        self.parts.finish();
        filled
    }

    /// Before any change of this device's own is sealed.
    fn learn_epochs(&mut self, replica: &LocalReplica) -> Result<(), FillError> {
        use super::sync::Replica as _;
        let told = self.parts.epochs();
        let learned = if told.is_empty() { Ok(()) } else { replica.learn_epochs(told) };
        Ok(learned.map_err(|error| EngineError::Read(error.to_string()))?)
    }

    fn lay_all(&mut self, replica: &LocalReplica) -> Result<(), FillError> {
        loop {
            let part = self.parts.next_part()?;
            let (SnapshotPage::Rows(rows), is_last) = self.hearing.hear(&part)? else {
                return Err(wrong_row("head", 0, "comes twice").into());
            };
            replica.lay_page(rows, is_last)?;
            if is_last {
                return self.learn_epochs(replica);
            }
        }
    }
}

impl Workspace {
    /// Has this device joined the workspace in `dir`, and heard nothing of it yet?
    ///
    /// # Errors
    /// [`EngineError::Missing`], or the store's.
    pub fn is_empty(dir: &Path, env: &Env) -> Result<bool, EngineError> {
        let own = DeviceKey::from_seed(&*Self::device_seed(dir, env)?).device();
        let store = Store::look(dir, env)?;
        let is_founder = founder(&store)? == own;
        Ok(!is_founder && (store.loading()?.is_some() || !knows_anything(&store)?))
    }

    /// What hears a snapshot of the workspace in `dir` from this device, which is trusted to tell it.
    ///
    /// # Errors
    /// [`EngineError::Missing`], [`EngineError::Damaged`].
    pub fn hearing(dir: &Path, env: &Env, teller: DeviceId) -> Result<Hearing, EngineError> {
        let settings = Self::settings(dir, env)?;
        let sealer = Self::sealer(dir, &settings, env)?;
        Ok(Hearing::new(Arc::new(sealer), teller, settings.workspace))
    }
}

/// Of a device that has just joined: it knows the founder, itself, and no name.
pub(super) fn joined(founder: &DeviceId, own: &DeviceId, env: &Env) -> Commit {
    let root = root(0o755, 0, 0, env.clock.now());
    let mut commit =
        Commit { nodes: vec![(Ino::ROOT, Some(root))], live_nodes: Some(1), ..Commit::default() };
    commit.merged.journals = vec![(FOUNDER, *founder), (FOUNDER + 1, *own)];
    commit
}

/// The same, where the store has the founder's name.
pub(super) fn as_joined(store: &Store, own: &DeviceId, env: &Env) -> Result<Commit, EngineError> {
    Ok(joined(&founder(store)?, own, env))
}

/// With the journals and the root directory of a snapshot's head.
pub(super) fn filled_from(
    head: &SnapshotHead,
    store: &Store,
    own: &DeviceId,
) -> Result<Commit, EngineError> {
    if store.loading()?.is_none() && knows_anything(store)? {
        return Err(SnapshotError::Unsuited("this device knows the workspace already").into());
    }
    if head.journals.first() != Some(&founder(store)?) {
        return Err(SnapshotError::Unsuited("another device has founded its workspace").into());
    }
    if !head.journals.contains(own) {
        return Err(SnapshotError::Unsuited("it knows nothing of this device").into());
    }
    let mut devices = head.journals.clone();
    devices.sort_unstable();
    devices.dedup();
    if devices.len() != head.journals.len() {
        return Err(SnapshotError::Unsuited("a device has two journals in it").into());
    }
    if head.root.kind != Kind::Directory || head.root.nlink == 0 {
        return Err(wrong_row("inode", Ino::ROOT.0, "is no directory").into());
    }
    let rows = SnapshotRows { nodes: vec![(Ino::ROOT, head.root.clone())], ..Default::default() };
    let mut commit = Commit {
        live_nodes: Some(head.live_nodes),
        ..commit_of(rows, head.journals.len(), &NameHasher::new([0; 32]))?
    };
    let journals = head.journals.iter().zip(FOUNDER..=u16::MAX);
    commit.merged.journals = journals.map(|(device, number)| (number, *device)).collect();
    commit.merged.conflicts = ConflictResolution::ALL.get(usize::from(head.conflicts)).copied();
    commit.merged.root = Some(head.tree_root);
    commit.merged.folds_anew = Some(head.folds_anew);
    commit.load.unlisted = vec![(Ino::ROOT, true)];
    commit.load.named = Some(Some(0));
    Ok(commit)
}

/// Has this device heard of any op?
fn knows_anything(store: &Store) -> Result<bool, EngineError> {
    for (number, _) in store.journals()? {
        if store.last_batch(number)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn founder(store: &Store) -> Result<DeviceId, EngineError> {
    let journals = store.journals()?;
    let founder = journals.into_iter().find(|(number, _)| *number == FOUNDER);
    let lacking = || crate::store::StoreError::Corrupt("no journal is the founder's".into());
    Ok(founder.ok_or_else(lacking)?.1)
}
