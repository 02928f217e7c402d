//! One device: a workspace served by hand on a fake disk, and the calls that a kernel would make.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::rngs::SmallRng;
use tidefs::engine::{Invitations, NewWorkspace, OpenWorkspace, Workspace};
use tidefs::env::{Env, FakeClock, FakeDisk, SeededRandom};
use tidefs::fs::{
    Attr, Caller, Filesystem, FsError, FsResult, Making, Options, RenameMode, SetAttr, Wait,
    Writing, XattrMode,
};
use tidefs::types::{Ino, JoinRequest, Kind, Role, SnapshotPage, Timestamp};

use super::vfs::{PoweredOn, power_on};

/// The world begins here, in seconds since 1970.
const BEGIN_SECS: i64 = 1_700_000_000;
/// More than any file here is long.
const WHOLE: u32 = 8 << 20;

/// What stands at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Kind, mode, links, length, target, extended attributes.
    pub what: String,
    pub is_dir: bool,
    /// The hash of a file's bytes; `None` if some are on other devices.
    pub bytes: Option<blake3::Hash>,
}

pub type Listing = BTreeMap<String, Found>;

/// Are the two the same, as far as the bytes are here?
pub fn agree(a: &Listing, b: &Listing) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|((path_a, a), (path_b, b))| {
            let bytes = a.bytes.is_none() || b.bytes.is_none() || a.bytes == b.bytes;
            path_a == path_b && a.what == b.what && bytes
        })
}

/// How a device goes down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// Without power: what was not synced is torn.
    Power,
    /// The process is killed: what was written stays.
    Kill,
    /// The workspace is closed.
    Close,
}

/// A machine with its disk and clock, whether or not it runs.
pub struct Device {
    pub disk: FakeDisk,
    pub skew_ms: i64,
    dir: PathBuf,
    clock: Arc<FakeClock>,
    random: Arc<SeededRandom>,
    power: Option<PoweredOn>,
}

impl Device {
    fn new(dir: PathBuf, seed: u64) -> Self {
        let disk = FakeDisk::default();
        let power = Some(power_on(&dir, &disk));
        Self {
            disk,
            skew_ms: 0,
            dir,
            clock: Arc::new(FakeClock::at(BEGIN_SECS)),
            random: Arc::new(SeededRandom::new(seed)),
            power,
        }
    }

    /// A device with a new workspace.
    pub fn found(dir: PathBuf, seed: u64) -> Self {
        let device = Self::new(dir, seed);
        let new = NewWorkspace {
            name: "simulated".into(),
            encryption: true,
            compression: true,
            mode: 0o755,
            uid: 0,
            gid: 0,
        };
        Workspace::create(&device.dir, &new, &device.env()).expect("is made");
        device
    }

    /// A device that `founder`, whose workspace is open as `fs`, admits to it.
    pub fn join(dir: PathBuf, seed: u64, founder: &Self, fs: &Filesystem) -> Self {
        use tidefs::engine::sync::Replica;
        let device = Self::new(dir, seed);
        let (key, id) = Workspace::draw_seed(&device.env());
        let invitations = Invitations::of(&founder.dir, &founder.env());
        let token = invitations.add(Role::Writer, u64::MAX).expect("an invitation");
        let request = JoinRequest { token, name: "joiner".into() };
        let welcome = fs.replica().admit(&id, &request).expect("is admitted");
        Workspace::join(&device.dir, &welcome, &key, &device.env()).expect("joins");
        device
    }

    /// Filled from this moment of `from`, and closed; or cut from power after so many parts.
    pub fn fill(&mut self, from: &Filesystem, parts_max: usize, random: &mut SmallRng) {
        use tidefs::engine::sync::Replica;
        let teller = from.replica().device();
        let mut hearing = Workspace::hearing(&self.dir, &self.env(), teller).expect("is there");
        let mut snapshot = from.replica().snapshot().expect("is pinned");
        let mut filled = None;
        for _ in 0..parts_max {
            let Some(part) = snapshot.next_part().expect("is read") else { break };
            match hearing.hear(&part).expect("is an honest device's") {
                (SnapshotPage::Head(head), _) => {
                    let workspace = OpenWorkspace::fill(&self.dir, &self.env(), &head);
                    let workspace = workspace.expect("opens");
                    let served = Filesystem::serve_by_hand(workspace, &Options::default());
                    filled = Some(served.expect("serves"));
                }
                (SnapshotPage::Rows(rows), is_last) => {
                    let fs = filled.as_ref().expect("the head came first");
                    fs.replica().lay_page(rows, is_last).expect("is taken");
                }
            }
        }
        let Some(fs) = filled else { return };
        let death = if fs.replica().loading().is_coming() { Death::Power } else { Death::Close };
        assert!(self.go_down(fs, death, random), "closes");
        self.power_on();
    }

    pub fn env(&self) -> Env {
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        Env { disk: Arc::new(self.disk.clone()), clock, random }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sets the clock to the world's time and the device's own error.
    pub fn set_time(&self, now_ms: u64) {
        let now_ms = i64::try_from(now_ms).expect("small") + self.skew_ms;
        let secs = BEGIN_SECS + now_ms.div_euclid(1000);
        let nanos = u32::try_from(now_ms.rem_euclid(1000)).expect("small") * 1_000_000;
        self.clock.set(Timestamp { secs, nanos });
    }

    /// Opens the workspace. Whatever happened before, that must be possible.
    pub fn open(&self) -> Filesystem {
        let workspace = OpenWorkspace::open(&self.dir, &self.env()).expect("opens");
        let options = Options { memory_bytes_max: 64 << 20, ..Options::default() };
        Filesystem::serve_by_hand(workspace, &options).expect("serves")
    }

    /// Ends a life; afterwards the disk is as the next one finds it. False if the workspace was to
    /// be closed, and that failed.
    pub fn go_down(&mut self, fs: Filesystem, death: Death, random: &mut SmallRng) -> bool {
        let mut is_closed = true;
        let after = match death {
            Death::Power => {
                self.disk.cut_before(0);
                self.disk.after_cut(random)
            }
            Death::Kill => self.disk.after_kill(),
            Death::Close => {
                is_closed = fs.close().is_ok();
                self.disk.after_kill()
            }
        };
        drop(fs);
        drop(self.power.take());
        self.disk = after;
        is_closed
    }

    pub fn power_on(&mut self) {
        self.power = Some(power_on(&self.dir, &self.disk));
    }
}

/// How a file is written.
#[derive(Clone, Copy, Debug)]
pub enum How {
    Replace,
    Append,
    At(u64),
}

/// What the kernel would ask, by path.
pub struct Calls<'a>(pub &'a Filesystem);

impl Calls<'_> {
    pub fn find(&self, path: &str) -> FsResult<Attr> {
        let mut attr = self.0.getattr(Ino::ROOT, Wait::May)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            attr = self.0.lookup(attr.ino, name.as_bytes(), Wait::May)?;
            self.0.forget(attr.ino, 1);
        }
        Ok(attr)
    }

    fn parent<'p>(&self, path: &'p str) -> FsResult<(Ino, &'p [u8])> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.find(dir)?.ino, name.as_bytes()))
    }

    fn make(&self, path: &str, kind: Kind, open: bool) -> FsResult<Ino> {
        let (parent, name) = self.parent(path)?;
        let caller = Caller { uid: 0, gid: 0 };
        let making = Making { parent, name, kind, mode: 0o755, umask: 0, caller };
        if open {
            return Ok(self.0.create(&making, true, Wait::May)?.ino);
        }
        let ino = self.0.make(&making, Wait::May)?.ino;
        self.0.forget(ino, 1);
        Ok(ino)
    }

    pub fn mkdir(&self, path: &str) -> FsResult<()> {
        self.make(path, Kind::Directory, false).map(drop)
    }

    pub fn symlink(&self, path: &str, target: &str) -> FsResult<()> {
        self.make(path, Kind::Symlink(target.into()), false).map(drop)
    }

    /// Opened for writing, and made if it is not there.
    pub fn open(&self, path: &str) -> FsResult<Ino> {
        let (parent, name) = self.parent(path)?;
        match self.0.lookup(parent, name, Wait::May) {
            Ok(attr) => {
                let opened = self.0.open_file(attr.ino, true, false, Wait::May);
                if opened.is_err() {
                    self.0.forget(attr.ino, 1);
                }
                opened.map(|()| attr.ino)
            }
            Err(FsError::NotFound) => self.make(path, Kind::Regular, true),
            Err(error) => Err(error),
        }
    }

    pub fn close(&self, ino: Ino) {
        self.0.release(ino, true);
        self.0.forget(ino, 1);
    }

    pub fn write(&self, ino: Ino, how: How, data: &[u8]) -> FsResult<()> {
        let (offset, append) = match how {
            How::Replace => {
                let cut = SetAttr { size_bytes: Some(0), ..SetAttr::default() };
                self.0.setattr(ino, &cut, Wait::May)?;
                (0, false)
            }
            How::Append => (0, true),
            How::At(offset) => (offset, false),
        };
        let writing = Writing { offset, data, append, kill_suid: false };
        self.0.write(ino, &writing, Wait::May).map(drop)
    }

    pub fn truncate(&self, path: &str, size_bytes: u64) -> FsResult<()> {
        let change = SetAttr { size_bytes: Some(size_bytes), ..SetAttr::default() };
        self.0.setattr(self.find(path)?.ino, &change, Wait::May).map(drop)
    }

    pub fn chmod(&self, path: &str, mode: u32) -> FsResult<()> {
        let change = SetAttr { mode: Some(mode), ..SetAttr::default() };
        self.0.setattr(self.find(path)?.ino, &change, Wait::May).map(drop)
    }

    pub fn setxattr(&self, path: &str, value: &[u8]) -> FsResult<()> {
        self.0.setxattr(
            self.find(path)?.ino,
            b"user.colour",
            value,
            XattrMode::Set,
            true,
            Wait::May,
        )
    }

    pub fn rename(&self, from: &str, to: &str, mode: RenameMode) -> FsResult<()> {
        self.0.rename(self.parent(from)?, self.parent(to)?, mode, Wait::May)
    }

    pub fn link(&self, from: &str, to: &str) -> FsResult<()> {
        let (parent, name) = self.parent(to)?;
        let attr = self.0.link(self.find(from)?.ino, parent, name, Wait::May)?;
        self.0.forget(attr.ino, 1);
        Ok(())
    }

    pub fn unlink(&self, path: &str) -> FsResult<()> {
        let (parent, name) = self.parent(path)?;
        self.0.unlink(parent, name, Wait::May)
    }

    pub fn rmdir(&self, path: &str) -> FsResult<()> {
        let (parent, name) = self.parent(path)?;
        self.0.rmdir(parent, name, Wait::May)
    }

    /// A file's bytes, all of them.
    pub fn read(&self, ino: Ino) -> FsResult<Vec<u8>> {
        self.0.read(ino, 0, WHOLE, Wait::May)
    }

    /// Every path, and whether it is a directory.
    pub fn paths(&self) -> Vec<(String, bool)> {
        let mut paths = Vec::new();
        self.walk("", Ino::ROOT, &mut |path, attr| {
            paths.push((path.to_owned(), attr.kind == Kind::Directory));
        });
        paths
    }

    /// Everything that can be seen.
    pub fn listing(&self) -> Listing {
        let mut listing = Listing::new();
        self.walk("", Ino::ROOT, &mut |path, attr| {
            listing.insert(path.to_owned(), self.look(attr));
        });
        listing
    }

    fn look(&self, attr: &Attr) -> Found {
        let is_dir = attr.kind == Kind::Directory;
        let colour = self.0.getxattr(attr.ino, b"user.colour", Wait::May).unwrap_or_default();
        let bytes = (attr.kind == Kind::Regular).then(|| self.read(attr.ino).ok()).flatten();
        if let Some(bytes) = &bytes {
            assert_eq!(bytes.len() as u64, attr.size_bytes, "the length is the content's");
        }
        let what = format!(
            "{:?} {:o} {} {} {colour:?}",
            attr.kind,
            attr.mode,
            if is_dir { 0 } else { attr.nlink },
            if is_dir { 0 } else { attr.size_bytes },
        );
        Found { what, is_dir, bytes: bytes.map(|bytes| blake3::hash(&bytes)) }
    }

    fn walk(&self, path: &str, dir: Ino, visit: &mut dyn FnMut(&str, &Attr)) {
        let (mut names, mut offset): (Vec<Vec<u8>>, u64) = (Vec::new(), 0);
        loop {
            let mut rows = Vec::new();
            let mut take = |row: tidefs::fs::DirEntry| {
                rows.push(row);
                false
            };
            self.0.readdir(dir, offset, false, Wait::May, &mut take).expect("lists");
            let Some(last) = rows.last() else { break };
            offset = last.next_offset;
            names.extend(rows.into_iter().map(|row| row.name));
        }
        for name in names.iter().filter(|name| *name != b"." && *name != b"..") {
            let attr = self.0.lookup(dir, name, Wait::May).expect("what is listed is there");
            self.0.forget(attr.ino, 1);
            let name = String::from_utf8_lossy(name);
            let below = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            visit(&below, &attr);
            if attr.kind == Kind::Directory {
                self.walk(&below, attr.ino, visit);
            }
        }
    }
}
