//! A workspace's life on disk: made, opened, closed.
//!
//! Its directory holds `lock`, `workspace.toml` (what it is), `workspace.key` (the secret of its
//! chunks), `device.key`, the database and the segments. `workspace.toml` is written last, so a
//! crash while it is made leaves no workspace.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::EngineError;
use super::epochs::Epochs;
use super::filling::{as_joined, filled_from, joined};
use super::journal::{HeardSoFar, JournalWriter};
use super::loading::Loading;
use super::merger::{FOUNDER, Merger};
use super::pending::PendingOps;
use super::published::Published;
use crate::chunk::{Sealer, WorkspaceSecret};
use crate::codec::decode_batch;
use crate::env::{Env, Lock};
use crate::keys::{Chain, DeviceKey};
use crate::store::{Commit, DATABASE_FILE, Store, Sync, Writer};
use crate::types::{
    ConflictResolution, DeviceId, FileId, Hlc, Ino, Kind, NameHasher, NodeRecord, Op, Settings,
    SharedSecret, SnapshotHead, Timestamp, Welcome, WorkspaceId,
};

/// The format of the directory as a whole.
const FORMAT: u32 = 1;
const SETTINGS_FILE: &str = "workspace.toml";
const SECRET_FILE: &str = "workspace.key";
const DEVICE_KEY_FILE: &str = "device.key";
const LOCK_FILE: &str = "lock";

/// What a new workspace is to be.
#[derive(Clone, Debug)]
pub struct NewWorkspace {
    /// Its name, as shown.
    pub name: String,
    /// Encrypt chunks and ops.
    pub encryption: bool,
    /// Compress chunks where that helps.
    pub compression: bool,
    /// Permission bits of the root directory.
    pub mode: u32,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
}

/// `workspace.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    format: u32,
    name: String,
    id: String,
    encryption: bool,
    compression: bool,
}

/// Workspaces that are not open.
pub struct Workspace;

/// A workspace that this process holds the lock of.
pub struct OpenWorkspace {
    /// Its store.
    pub store: Store,
    /// Opens and seals its chunks.
    pub sealer: Arc<Sealer>,
    /// The doors that it was opened with.
    pub env: Env,
    /// What it is.
    pub settings: Settings,
    /// Where its state is.
    pub dir: PathBuf,
    hasher: NameHasher,
    own: u16,
    device: DeviceId,
    next_seq: u64,
    is_overtaken: bool,
    epochs: Epochs,
    merger: Option<Merger>,
    published: Arc<Published>,
    loading: Arc<Loading>,
    writer: Option<Writer>,
    journal: Option<JournalWriter>,
    _lock: Box<dyn Lock>,
}

impl Workspace {
    /// Is there a workspace in `dir`?
    pub fn exists(dir: &Path, env: &Env) -> bool {
        env.disk.read(&dir.join(SETTINGS_FILE)).is_ok()
    }

    /// What the workspace in `dir` is. Takes no lock.
    ///
    /// # Errors
    /// [`EngineError::Missing`], [`EngineError::Damaged`].
    pub fn settings(dir: &Path, env: &Env) -> Result<Settings, EngineError> {
        let path = dir.join(SETTINGS_FILE);
        let bytes = match env.disk.read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(EngineError::Missing(dir.to_owned()));
            }
            other => other.map_err(on_disk(&path))?,
        };
        let damaged = |why: String| EngineError::Damaged { path: path.clone(), why };
        let text = String::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
        let file: SettingsFile =
            toml::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if file.format > FORMAT {
            return Err(damaged(format!(
                "format {} is newer than this build's {FORMAT}; use a newer tidefs",
                file.format
            )));
        }
        let id = u128::from_str_radix(&file.id, 16).map_err(|error| damaged(error.to_string()))?;
        Ok(Settings {
            workspace: WorkspaceId(id.to_be_bytes()),
            name: file.name,
            encryption: file.encryption,
            compression: file.compression,
        })
    }

    /// The secret of the workspace in `dir`, for a device that joins.
    ///
    /// # Errors
    /// [`EngineError::Disk`], [`EngineError::Damaged`].
    pub fn secret(dir: &Path, env: &Env) -> Result<SharedSecret, EngineError> {
        Ok(SharedSecret(*read_key(dir, SECRET_FILE, env)?))
    }

    /// The seed of this device's key.
    ///
    /// # Errors
    /// As [`Workspace::secret`].
    pub fn device_seed(dir: &Path, env: &Env) -> Result<Zeroizing<[u8; 32]>, EngineError> {
        read_key(dir, DEVICE_KEY_FILE, env)
    }

    /// Seals and opens for the workspace in `dir`.
    pub(super) fn sealer(
        dir: &Path,
        settings: &Settings,
        env: &Env,
    ) -> Result<Sealer, EngineError> {
        let secret = WorkspaceSecret(*read_key(dir, SECRET_FILE, env)?);
        Ok(Sealer::new(settings.encryption.then_some(&secret), settings.compression))
    }

    /// Draws a new device's seed, and says whose key it makes.
    pub fn draw_seed(env: &Env) -> (Zeroizing<[u8; 32]>, DeviceId) {
        let mut seed = Zeroizing::new([0; 32]);
        env.random.fill(&mut *seed);
        let device = DeviceKey::from_seed(&seed).device();
        (seed, device)
    }

    /// Makes this device's copy of a workspace that it has just been admitted to: empty until its
    /// first contact. Durable on return; a crash before leaves none.
    ///
    /// # Errors
    /// [`EngineError::Exists`], or the disk's.
    ///
    /// # Panics
    /// Never: plain fields make a table.
    pub fn join(
        dir: &Path,
        welcome: &Welcome,
        seed: &[u8; 32],
        env: &Env,
    ) -> Result<(), EngineError> {
        let _lock = clear(dir, env)?;
        let secret = welcome.secret.clone();
        match &secret {
            Some(secret) => put_key(dir, SECRET_FILE, &secret.0, env)?,
            None => drop(new_key(dir, SECRET_FILE, env)?),
        }
        put_key(dir, DEVICE_KEY_FILE, seed, env)?;
        Store::create(dir, env)?;
        let (_store, mut writer) = Store::open(dir, env)?;
        let device = DeviceKey::from_seed(seed).device();
        writer.commit(&joined(&welcome.founder, &device, env), Sync::Durable)?;
        writer.checkpoint()?;
        put_settings(dir, &welcome.settings, env)
    }

    /// Makes a workspace in `dir`, with new keys and a root directory. Durable on return; a crash
    /// before leaves none.
    ///
    /// # Errors
    /// [`EngineError::Exists`], or the disk's.
    ///
    /// # Panics
    /// Never: plain fields make a table.
    pub fn create(dir: &Path, new: &NewWorkspace, env: &Env) -> Result<(), EngineError> {
        let _lock = clear(dir, env)?;
        let mut id = [0; 16];
        env.random.fill(&mut id);
        let settings = Settings {
            workspace: WorkspaceId(id),
            name: new.name.clone(),
            encryption: new.encryption,
            compression: new.compression,
        };
        let secret = WorkspaceSecret(*new_key(dir, SECRET_FILE, env)?);
        let key = DeviceKey::from_seed(&*new_key(dir, DEVICE_KEY_FILE, env)?);
        Store::create(dir, env)?;
        let (_store, mut writer) = Store::open(dir, env)?;
        found(&mut writer, key, &secret, &settings, new, env)?;
        writer.checkpoint()?;
        put_settings(dir, &settings, env)
    }
}

/// Makes `dir` and locks it; clears away what a crash left while a workspace was made there.
fn clear(dir: &Path, env: &Env) -> Result<Box<dyn Lock>, EngineError> {
    env.disk.create_dir_all(dir).map_err(on_disk(dir))?;
    let lock = take_lock(dir, env)?;
    if Workspace::exists(dir, env) {
        return Err(EngineError::Exists(dir.to_owned()));
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = env.disk.remove(&dir.join(format!("{DATABASE_FILE}{suffix}")));
    }
    Ok(lock)
}

/// Writes what the workspace is, and so makes it one.
fn put_settings(dir: &Path, settings: &Settings, env: &Env) -> Result<(), EngineError> {
    let file = SettingsFile {
        format: FORMAT,
        name: settings.name.clone(),
        id: settings.workspace.to_string(),
        encryption: settings.encryption,
        compression: settings.compression,
    };
    let text = toml::to_string(&file).expect("plain fields make a table");
    let path = dir.join(SETTINGS_FILE);
    env.disk.write(&path, text.as_bytes()).map_err(on_disk(&path))
}

/// Commits op 1, the workspace and its root directory.
fn found(
    writer: &mut Writer,
    key: DeviceKey,
    secret: &WorkspaceSecret,
    settings: &Settings,
    new: &NewWorkspace,
    env: &Env,
) -> Result<(), EngineError> {
    let device = key.device();
    writer.add_journal(FOUNDER, &device)?;
    let sealer = Sealer::new(new.encryption.then_some(secret), new.compression);
    let clock = Arc::clone(&env.clock);
    let mut journal = JournalWriter::new(key, FOUNDER, Chain::new(device), clock);
    let mut pending = PendingOps::new(FOUNDER, 1);
    let (mode, uid, gid) = (new.mode & 0o7777, new.uid, new.gid);
    pending.push(Op::Found { settings: settings.clone(), mode, uid, gid });
    let root = root(mode, uid, gid, env.clock.now());
    let mut commit =
        Commit { nodes: vec![(Ino::ROOT, Some(root))], live_nodes: Some(1), ..Commit::default() };
    let heard = HeardSoFar { device: &|_| device, frontier_delta: Vec::new(), clock: Hlc(0) };
    journal.append(&pending.take(0), &[], &heard, &sealer, &mut commit);
    Ok(writer.commit(&commit, Sync::Durable)?)
}

/// The root directory's record.
pub(super) fn root(mode: u32, uid: u32, gid: u32, now: Timestamp) -> NodeRecord {
    NodeRecord {
        file: Some(FileId::ROOT),
        kind: Kind::Directory,
        mode,
        uid,
        gid,
        nlink: 2,
        size_bytes: 0,
        stored_bytes: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        head: None,
        parent: Ino::ROOT,
        xattrs: std::collections::BTreeMap::new(),
        company: None,
    }
}

impl OpenWorkspace {
    /// Opens the workspace in `dir` and takes its lock. What a snapshot that was cut short has left is
    /// cleared away: it is as it was when this device had just joined.
    ///
    /// # Errors
    /// [`EngineError::Missing`], [`EngineError::Locked`], [`EngineError::Damaged`].
    pub fn open(dir: &Path, env: &Env) -> Result<Self, EngineError> {
        Self::open_filled(dir, env, None)
    }

    /// Opens the workspace in `dir`, of which this device knows nothing yet, to be filled from a
    /// snapshot that begins with `head`. The numbers of the journals are the snapshot's from now on.
    ///
    /// # Errors
    /// As [`OpenWorkspace::open`], and [`EngineError::Snapshot`] if this device is no stranger there,
    /// or the snapshot is one of a workspace that it is not in.
    pub fn fill(dir: &Path, env: &Env, head: &SnapshotHead) -> Result<Self, EngineError> {
        Self::open_filled(dir, env, Some(head))
    }

    fn open_filled(
        dir: &Path,
        env: &Env,
        head: Option<&SnapshotHead>,
    ) -> Result<Self, EngineError> {
        let settings = Workspace::settings(dir, env)?;
        let lock = take_lock(dir, env)?;
        let secret = WorkspaceSecret(*read_key(dir, SECRET_FILE, env)?);
        let key = DeviceKey::from_seed(&*read_key(dir, DEVICE_KEY_FILE, env)?);
        let (store, mut writer) = Store::open(dir, env)?;
        let (device, opener) = (key.device(), key.opener());
        let loading = Arc::new(Loading::default());
        if let Some(head) = head {
            writer.begin_anew(&filled_from(head, &store, &device)?)?;
            loading.begin();
        } else if store.loading()?.is_some() {
            writer.begin_anew(&as_joined(&store, &device, env)?)?;
        }
        let own = own_journal(&store, &device, dir)?;
        let chain = match store.last_batch(own)? {
            Some(bytes) => Chain::after(&decode_batch(&bytes)?),
            None => Chain::new(device),
        };
        let next_seq = chain.next_seq();
        let is_overtaken = store.is_overtaken()?;
        let journal = JournalWriter::new(key, own, chain, Arc::clone(&env.clock));
        let sealer = Sealer::new(settings.encryption.then_some(&secret), settings.compression);
        let (sealer, hasher) = (Arc::new(sealer), NameHasher::derive(&secret.0));
        let epochs = Epochs::new(Arc::clone(&sealer), opener, device);
        let merger =
            Merger::open(store.clone(), Arc::clone(&sealer), hasher.clone(), own, epochs.clone())?;
        Ok(Self {
            store,
            sealer,
            env: env.clone(),
            dir: dir.to_owned(),
            hasher,
            settings,
            own,
            device,
            is_overtaken,
            epochs,
            merger: Some(merger),
            published: Arc::default(),
            loading,
            next_seq,
            writer: Some(writer),
            journal: Some(journal),
            _lock: lock,
        })
    }

    /// This device's number among the journals.
    pub fn journal_number(&self) -> u16 {
        self.own
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The secrets of epochs.
    pub(super) fn epochs(&self) -> Epochs {
        self.epochs.clone()
    }

    /// Was it found that others have more of this device's journal than it has itself?
    pub fn is_overtaken(&self) -> bool {
        self.is_overtaken
    }

    /// What is durable here, for other threads.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// Whether it is still being filled.
    pub fn loading(&self) -> Arc<Loading> {
        Arc::clone(&self.loading)
    }

    /// What merges other devices' journals, for the one who commits.
    ///
    /// # Panics
    /// If it was taken before.
    pub fn take_merger(&mut self) -> Merger {
        self.merger.take().expect("one commit thread a workspace")
    }

    /// Files with several heads are to be shown so.
    pub fn set_conflicts(&mut self, conflicts: ConflictResolution) {
        if let Some(merger) = &mut self.merger {
            merger.set_conflicts(conflicts);
        }
    }

    /// The number of this device's next op.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Hashes the names of this workspace.
    pub fn name_hasher(&self) -> NameHasher {
        self.hasher.clone()
    }

    /// The store's writer, for the one who commits.
    ///
    /// # Panics
    /// If it was taken before.
    pub fn take_writer(&mut self) -> Writer {
        self.writer.take().expect("one commit thread a workspace")
    }

    /// This device's journal, for the one who commits.
    ///
    /// # Panics
    /// If it was taken before.
    pub fn take_journal(&mut self) -> JournalWriter {
        self.journal.take().expect("one commit thread a workspace")
    }
}

fn take_lock(dir: &Path, env: &Env) -> Result<Box<dyn Lock>, EngineError> {
    let path = dir.join(LOCK_FILE);
    let lock = env.disk.lock(&path).map_err(on_disk(&path))?;
    lock.ok_or_else(|| EngineError::Locked(dir.to_owned()))
}

fn new_key(dir: &Path, file: &str, env: &Env) -> Result<Zeroizing<[u8; 32]>, EngineError> {
    let mut key = Zeroizing::new([0; 32]);
    env.random.fill(&mut *key);
    put_key(dir, file, &key, env)?;
    Ok(key)
}

fn put_key(dir: &Path, file: &str, key: &[u8; 32], env: &Env) -> Result<(), EngineError> {
    let path = dir.join(file);
    env.disk.write(&path, key).map_err(on_disk(&path))
}

fn read_key(dir: &Path, file: &str, env: &Env) -> Result<Zeroizing<[u8; 32]>, EngineError> {
    let path = dir.join(file);
    let bytes = Zeroizing::new(env.disk.read(&path).map_err(on_disk(&path))?);
    let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| EngineError::Damaged {
        path,
        why: format!("a key has 32 bytes, this has {}", bytes.len()),
    })?;
    Ok(Zeroizing::new(key))
}

/// The number of this device's own journal.
fn own_journal(store: &Store, device: &DeviceId, dir: &Path) -> Result<u16, EngineError> {
    let known = store.journals()?;
    if let Some((number, _)) = known.iter().find(|(_, known)| known == device) {
        return Ok(*number);
    }
    let why = "it is not the key that this journal was written with".to_owned();
    Err(EngineError::Damaged { path: dir.join(DEVICE_KEY_FILE), why })
}

fn on_disk(path: &Path) -> impl Fn(std::io::Error) -> EngineError {
    let path: PathBuf = path.to_owned();
    move |source| EngineError::Disk { path: path.clone(), source }
}
