//! Devices without a network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidefs::engine::sync::{Replica, SyncConfig, SyncHandle, SyncThread};
use tidefs::engine::{
    EngineError, Invitations, LocalReplica, NewWorkspace, OpenWorkspace, Workspace, verify,
};
use tidefs::env::Env;
use tidefs::fs::{
    Attr, Caller, Fetch, Filesystem, FsError, Making, Options, RenameMode, SetAttr, Wait, Writing,
};
use tidefs::types::{
    Addresses, ChunkId, ConflictResolution, DeviceId, DeviceName, Ino, JoinRequest, Kind, Role,
    SnapshotHead, SnapshotPage, TreeRoot,
};

pub struct Device {
    pub fs: Filesystem,
    pub dir: PathBuf,
}

fn open(dir: PathBuf, conflict_resolution: ConflictResolution) -> Device {
    let options = Options { conflict_resolution, ..Options::default() };
    let fs = Filesystem::open(&dir, &options).expect("opens");
    Device { fs, dir }
}

/// A device that was closed.
pub fn reopened(dir: PathBuf) -> Device {
    open(dir, ConflictResolution::default())
}

/// A new workspace on a first device.
pub fn found(home: &Path, name: &str) -> Device {
    found_with(home, name, true)
}

/// The same, encrypted or not.
pub fn found_with(home: &Path, name: &str, encryption: bool) -> Device {
    let dir = home.join(name);
    let new = NewWorkspace {
        name: "shared".into(),
        encryption,
        compression: true,
        mode: 0o755,
        uid: 0,
        gid: 0,
    };
    Workspace::create(&dir, &new, &Env::real()).expect("is made");
    open(dir, ConflictResolution::default())
}

/// One more device, admitted by `by`.
pub fn join(home: &Path, name: &str, by: &Device) -> Device {
    join_as(home, name, by, Role::Writer)
}

/// One more device, with this role.
pub fn join_as(home: &Path, name: &str, by: &Device, role: Role) -> Device {
    let env = Env::real();
    let (seed, device) = Workspace::draw_seed(&env);
    let token = Invitations::of(&by.dir, &env).add(role, u64::MAX).expect("an invitation");
    let request = JoinRequest { token, name: name.into() };
    let welcome = by.fs.replica().admit(&device, &request).expect("is admitted");
    let dir = home.join(name);
    Workspace::join(&dir, &welcome, &seed, &env).expect("joins");
    open(dir, ConflictResolution::default())
}

/// A device that `by` has admitted, and that knows nothing yet.
pub struct Joiner {
    pub dir: PathBuf,
}

impl Joiner {
    pub fn new(home: &Path, name: &str, by: &Device) -> Self {
        let env = Env::real();
        let (seed, device) = Workspace::draw_seed(&env);
        let invitations = Invitations::of(&by.dir, &env);
        let token = invitations.add(Role::Writer, u64::MAX).expect("an invitation");
        let request = JoinRequest { token, name: name.into() };
        let welcome = by.fs.replica().admit(&device, &request).expect("is admitted");
        let dir = home.join(name);
        Workspace::join(&dir, &welcome, &seed, &env).expect("joins");
        Self { dir }
    }

    /// Opened to be filled from a snapshot with this head.
    pub fn fill(&self, head: &SnapshotHead) -> Result<Device, EngineError> {
        let workspace = OpenWorkspace::fill(&self.dir, &Env::real(), head)?;
        let fs = Filesystem::serve(workspace, &Options::default())?;
        Ok(Device { fs, dir: self.dir.clone() })
    }

    pub fn open(&self) -> Device {
        open(self.dir.clone(), ConflictResolution::default())
    }
}

/// All parts of a snapshot of a device.
pub fn parts(of: &Device) -> Vec<Vec<u8>> {
    let mut snapshot = of.fs.replica().snapshot().expect("is pinned");
    std::iter::from_fn(|| snapshot.next_part().expect("is read")).collect()
}

/// One more device, filled from a snapshot of `by`.
pub fn join_filled(home: &Path, name: &str, by: &Device) -> Device {
    let joiner = Joiner::new(home, name, by);
    let teller = by.fs.replica().device();
    let mut hearing = Workspace::hearing(&joiner.dir, &Env::real(), teller).expect("a workspace");
    let mut parts = parts(by).into_iter().map(|part| hearing.hear(&part).expect("is heard"));
    let Some((SnapshotPage::Head(head), _)) = parts.next() else { panic!("no head") };
    let device = joiner.fill(&head).expect("opens");
    for (page, is_last) in parts {
        let SnapshotPage::Rows(rows) = page else { panic!("a second head") };
        device.fs.replica().lay_page(rows, is_last).expect("is laid");
    }
    assert!(!device.fs.replica().loading().is_coming());
    device
}

/// Brings what was before the snapshot that `to` was filled from.
pub fn bring_history(to: &Device, from: &Device) {
    let (to, from) = (to.fs.replica(), from.fs.replica());
    while let Some((journal, upto)) = to.gaps().first().copied() {
        let batches = from.batches(&journal, upto, 1 << 10).expect("are read");
        assert!(!batches.is_empty(), "the other device has it");
        to.store_history(&journal, batches).expect("leads to what is here");
    }
}

/// Hands everything to everyone, batches and chunks.
pub fn exchange(devices: &[&Device]) {
    exchange_batches(devices);
    for to in devices {
        fetch_all(to, devices);
        // What each did itself is folded a little after it is committed.
        to.settle();
    }
}

/// Hands the batches to everyone, and no chunk.
pub fn exchange_batches(devices: &[&Device]) {
    for device in devices {
        device.fs.sync_now(None).expect("commits");
    }
    let mut is_moving = true;
    while is_moving {
        greet(devices);
        is_moving = false;
        for from in devices {
            for to in devices {
                is_moving |= hand_over(from, to);
            }
        }
    }
}

/// Each tells each other what a greeting does.
fn greet(devices: &[&Device]) {
    for from in devices {
        for to in devices {
            let (from, to) = (from.fs.replica(), to.fs.replica());
            to.learn_epochs(from.epochs_for(&to.device())).expect("are kept");
        }
    }
}

/// Brings chunks from one device to another when they are asked for.
pub struct Bringing {
    pub from: std::sync::Arc<LocalReplica>,
    pub to: std::sync::Arc<LocalReplica>,
}

impl Fetch for Bringing {
    fn fetch(&self, id: &ChunkId) -> Result<(), String> {
        let sealed = self.from.read_chunk(id).map_err(|error| error.to_string())?;
        let sealed = sealed.ok_or("it is not there")?;
        self.to.store_chunks(vec![(*id, sealed)]).map_err(|error| error.to_string())
    }
}

/// Hands all batches that one device has to another; did that one take any?
pub fn hand_over(from: &Device, to: &Device) -> bool {
    let (from, to) = (from.fs.replica(), to.fs.replica());
    let known = to.frontier();
    let mut batches = Vec::new();
    for (journal, last) in from.frontier() {
        let mut after = known.get(&journal).copied().unwrap_or(0);
        while after < last {
            let page = from.batches(&journal, after, 1 << 20).expect("are read");
            if page.is_empty() {
                break;
            }
            for bytes in page {
                let batch = tidefs::codec::decode_batch(&bytes).expect("decodes");
                after = batch.seq + u64::from(batch.count) - 1;
                batches.push(bytes);
            }
        }
    }
    if batches.is_empty() {
        return false;
    }
    to.deliver(&from.device(), batches, Vec::new()).expect("are taken");
    to.frontier() != known
}

/// Brings what is missing.
pub fn fetch_all(to: &Device, from: &[&Device]) {
    let replica = to.fs.replica();
    for _ in 0..100 {
        let missing = replica.missing_chunks(1000, &std::collections::HashSet::new());
        if missing.is_empty() {
            return;
        }
        for id in missing {
            let sealed = from
                .iter()
                .find_map(|device| device.fs.replica().read_chunk(&id).expect("reads"))
                .expect("somebody has it");
            replica.store_chunks(vec![(id, sealed)]).expect("are kept");
        }
        to.fs.sync_now(None).expect("commits");
    }
    panic!("chunks are still missing");
}

impl Device {
    /// Closes it; where its state is.
    pub fn closed(self) -> PathBuf {
        self.fs.close().expect("closes");
        self.dir
    }

    /// Mounted anew, it shows files with several heads so.
    pub fn showing(self, conflicts: ConflictResolution) -> Self {
        self.fs.close().expect("closes");
        drop(self.fs);
        open(self.dir, conflicts)
    }

    /// Has its own changes merged.
    pub fn settle(&self) {
        self.sync();
        let replica = self.fs.replica();
        replica.deliver(&replica.device(), Vec::new(), Vec::new()).expect("a round");
    }

    /// What it compares with others.
    pub fn tree_root(&self) -> Option<TreeRoot> {
        let replica = self.fs.replica();
        replica.tree_root(&replica.frontier())
    }

    /// Replicates on loopback; the caller ends it.
    pub fn replicate(&self, peers: &[(DeviceId, Addresses)]) -> SyncHandle {
        let bind = vec![([127, 0, 0, 1], 0).into()];
        let config = SyncConfig { bind, peers: peers.to_vec(), ..SyncConfig::default() };
        let seed = Workspace::device_seed(&self.dir, &Env::real()).expect("is read");
        let replica = self.fs.replica().clone();
        let handle = SyncThread::start(&config, &seed, &Env::real(), replica).expect("listens");
        let changed = handle.clone();
        self.fs.replica().published().watch(Box::new(move || changed.local_changed()));
        handle
    }

    pub fn find(&self, path: &str) -> Option<Attr> {
        let mut ino = Ino::ROOT;
        let mut attr = self.fs.getattr(ino, Wait::May).expect("the root");
        for name in path.split('/').filter(|name| !name.is_empty()) {
            attr = match self.fs.lookup(ino, name.as_bytes(), Wait::May) {
                Ok(attr) => attr,
                Err(FsError::NotFound) => return None,
                Err(error) => panic!("{path}: {error}"),
            };
            ino = attr.ino;
            self.fs.forget(ino, 1);
        }
        Some(attr)
    }

    /// Calls another device, or this one, so.
    pub fn name(&self, device: &Device, name: &str) {
        let name = DeviceName::new(name).expect("a name");
        self.fs.name_device(&device.fs.replica().device(), &name, Wait::May).expect("is named");
    }

    /// Signs what was done so far: the clock of an op is that of its commit.
    pub fn sync(&self) {
        self.fs.sync_now(None).expect("commits");
    }

    fn ino(&self, path: &str) -> Ino {
        self.find(path).unwrap_or_else(|| panic!("{path} is there")).ino
    }

    fn parent<'a>(&self, path: &'a str) -> (Ino, &'a [u8]) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.ino(dir), name.as_bytes())
    }

    fn make(&self, path: &str, kind: Kind, open: bool) -> Ino {
        let (parent, name) = self.parent(path);
        let caller = Caller { uid: 0, gid: 0 };
        let making = Making { parent, name, kind, mode: 0o755, umask: 0, caller };
        let attr = if open {
            self.fs.create(&making, true, Wait::May)
        } else {
            self.fs.make(&making, Wait::May)
        };
        let ino = attr.unwrap_or_else(|error| panic!("{path}: {error}")).ino;
        if !open {
            self.fs.forget(ino, 1);
        }
        ino
    }

    pub fn mkdir(&self, path: &str) {
        self.make(path, Kind::Directory, false);
    }

    pub fn symlink(&self, path: &str, target: &str) {
        self.make(path, Kind::Symlink(target.into()), false);
    }

    pub fn write(&self, path: &str, bytes: &[u8]) {
        let ino = if self.find(path).is_none() {
            self.make(path, Kind::Regular, true)
        } else {
            self.open(path)
        };
        self.write_open(ino, bytes);
        self.close(ino);
    }

    /// Looked up and opened, as the kernel does.
    pub fn open(&self, path: &str) -> Ino {
        let (parent, name) = self.parent(path);
        let ino = self.fs.lookup(parent, name, Wait::May).expect("is there").ino;
        self.fs.open_file(ino, true, false, Wait::May).expect("opens");
        ino
    }

    pub fn write_open(&self, ino: Ino, bytes: &[u8]) {
        let shorter = SetAttr { size_bytes: Some(0), ..SetAttr::default() };
        self.fs.setattr(ino, &shorter, Wait::May).expect("is cut");
        let writing = Writing { offset: 0, data: bytes, append: false, kill_suid: false };
        self.fs.write(ino, &writing, Wait::May).expect("is written");
    }

    /// Writes behind what an open file holds.
    pub fn append(&self, ino: Ino, size_bytes: u64, bytes: &[u8]) {
        let writing = Writing { offset: size_bytes, data: bytes, append: false, kill_suid: false };
        self.fs.write(ino, &writing, Wait::May).expect("is written");
    }

    pub fn close(&self, ino: Ino) {
        self.fs.release(ino, true);
        self.fs.forget(ino, 1);
    }

    pub fn read_open(&self, ino: Ino) -> Vec<u8> {
        self.fs.read(ino, 0, 1 << 20, Wait::May).unwrap_or_else(|error| panic!("{ino}: {error}"))
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        self.read_open(self.ino(path))
    }

    pub fn rename(&self, from: &str, to: &str) {
        let (from, to) = (self.parent(from), self.parent(to));
        self.fs.rename(from, to, RenameMode::Replace, Wait::May).expect("is renamed");
    }

    pub fn try_rename(&self, from: &str, to: &str) -> bool {
        let (from, to) = (self.parent(from), self.parent(to));
        self.fs.rename(from, to, RenameMode::Replace, Wait::May).is_ok()
    }

    pub fn link(&self, from: &str, to: &str) -> bool {
        let (parent, name) = self.parent(to);
        match self.fs.link(self.ino(from), parent, name, Wait::May) {
            Ok(attr) => {
                self.fs.forget(attr.ino, 1);
                true
            }
            Err(_) => false,
        }
    }

    pub fn chmod(&self, path: &str, mode: u32) {
        let change = SetAttr { mode: Some(mode), ..SetAttr::default() };
        self.fs.setattr(self.ino(path), &change, Wait::May).expect("is changed");
    }

    pub fn unlink(&self, path: &str) {
        let (parent, name) = self.parent(path);
        self.fs.unlink(parent, name, Wait::May).expect("is removed");
    }

    pub fn try_rmdir(&self, path: &str) -> bool {
        let (parent, name) = self.parent(path);
        self.fs.rmdir(parent, name, Wait::May).is_ok()
    }

    /// Every path with what stands there: kind, mode, link count of files, bytes.
    pub fn tree(&self) -> BTreeMap<String, String> {
        let mut tree = BTreeMap::new();
        self.walk("", Ino::ROOT, &mut tree);
        tree
    }

    fn walk(&self, path: &str, ino: Ino, tree: &mut BTreeMap<String, String>) {
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let before = names.len();
            self.fs
                .readdir(ino, offset, false, Wait::May, &mut |row| {
                    offset = row.next_offset;
                    names.push(row.name);
                    false
                })
                .expect("lists");
            if names.len() == before {
                break;
            }
        }
        for name in names.iter().filter(|name| *name != b"." && *name != b"..") {
            let name = String::from_utf8_lossy(name);
            let below = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            let attr = self.find(&below).unwrap_or_else(|| panic!("{below} is listed"));
            assert!(attr.nlink > 0, "{below} {attr:?}");
            let what = match &attr.kind {
                Kind::Regular => {
                    let bytes = self.read(&below);
                    assert_eq!(bytes.len() as u64, attr.size_bytes, "{below}");
                    format!(
                        "file {:o} {} {:?}",
                        attr.mode,
                        attr.nlink,
                        String::from_utf8_lossy(&bytes[..bytes.len().min(40)])
                    )
                }
                kind => format!("{kind:?} {:o}", attr.mode),
            };
            if attr.kind == Kind::Directory {
                self.walk(&below, attr.ino, tree);
            }
            tree.insert(below, what);
        }
    }

    /// Closes the workspace, and checks every row and reference of it.
    pub fn finish(self) {
        self.fs.close().expect("closes");
        let report = verify(&self.dir, &Env::real(), false, &mut |_| ()).expect("verifies");
        assert!(report.is_clean(), "{:#?}", report.problems);
    }
}
