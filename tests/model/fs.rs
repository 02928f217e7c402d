//! The reference: a POSIX filesystem in memory, simple enough to be right by reading.
//!
//! It answers what Linux answers as root, errors in Linux's order. Paths are never followed through
//! symbolic links (the tests open with `O_NOFOLLOW`), for links are the kernel's matter.

use std::collections::{BTreeMap, BTreeSet};

use super::words::{Answer, Errno, Fallocate, Kind, Open, Path, Rename, Stat, XattrMode};

#[derive(Debug)]
enum Body {
    Dir { names: BTreeMap<Vec<u8>, u64>, parent: u64 },
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
}

#[derive(Debug)]
struct Node {
    body: Body,
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    mtime: Option<(i64, u32)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The filesystem. Nodes stay for ever; what has no name and no handle is merely out of reach.
#[derive(Debug)]
pub struct Model {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    /// Who makes things.
    owner: (u32, u32),
}

/// The root's number.
pub const ROOT: u64 = 1;
const NAME_BYTES_MAX: usize = 255;
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const GROUP_EXEC: u32 = 0o0010;
/// What `mkdir(2)` heeds of a mode.
const MKDIR_BITS: u32 = 0o1777;

impl Model {
    /// An empty tree whose root has `mode`; `owner` is who makes everything.
    pub fn new(mode: u32, owner: (u32, u32)) -> Self {
        let mut model = Self { nodes: BTreeMap::new(), next: ROOT, owner };
        model.add(Body::Dir { names: BTreeMap::new(), parent: ROOT }, mode, owner.1);
        model
    }

    fn add(&mut self, body: Body, mode: u32, gid: u32) -> u64 {
        let nlink = if matches!(body, Body::Dir { .. }) { 2 } else { 1 };
        let (uid, xattrs) = (self.owner.0, BTreeMap::new());
        self.nodes.insert(self.next, Node { body, mode, uid, gid, nlink, mtime: None, xattrs });
        self.next += 1;
        self.next - 1
    }

    fn node(&mut self, ino: u64) -> &mut Node {
        self.nodes.get_mut(&ino).expect("nodes stay for ever")
    }

    fn names(&mut self, dir: u64) -> Answer<&mut BTreeMap<Vec<u8>, u64>> {
        match &mut self.node(dir).body {
            Body::Dir { names, .. } => Ok(names),
            _ => Err(Errno::NotDir),
        }
    }

    /// The node at `path`.
    pub fn find(&mut self, path: &Path) -> Answer<u64> {
        let mut at = ROOT;
        for name in &path.0 {
            at = self.entry(at, name)?.ok_or(Errno::NoEnt)?;
        }
        Ok(at)
    }

    fn entry(&mut self, dir: u64, name: &[u8]) -> Answer<Option<u64>> {
        let names = self.names(dir)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::NameTooLong);
        }
        Ok(names.get(name).copied())
    }

    /// The directory that holds `path`, and what stands there.
    fn place(&mut self, path: &Path) -> Answer<(u64, Option<u64>)> {
        let (parent, name) = path.split();
        let dir = self.find(&parent)?;
        Ok((dir, self.entry(dir, name)?))
    }

    fn put(&mut self, dir: u64, path: &Path, ino: u64) {
        self.node(dir).mtime = None;
        self.names(dir).expect("a directory").insert(path.split().1.to_vec(), ino);
        if let Body::Dir { parent, .. } = &mut self.node(ino).body {
            *parent = dir;
            self.node(dir).nlink += 1;
        }
    }

    fn take(&mut self, dir: u64, path: &Path) {
        self.node(dir).mtime = None;
        let name = path.split().1;
        let ino = self.names(dir).expect("a directory").remove(name).expect("just looked up");
        if self.is_dir(ino) {
            self.node(dir).nlink -= 1;
        }
    }

    fn is_dir(&mut self, ino: u64) -> bool {
        matches!(self.node(ino).body, Body::Dir { .. })
    }

    fn make(&mut self, path: &Path, body: Body, mode: u32) -> Answer<u64> {
        let (dir, None) = self.place(path)? else { return Err(Errno::Exist) };
        let parent = self.node(dir);
        let inherits = parent.mode & S_ISGID != 0;
        let parent_gid = parent.gid;
        let gid = if inherits { parent_gid } else { self.owner.1 };
        let is_dir = matches!(body, Body::Dir { .. });
        let ino = self.add(body, mode | if inherits && is_dir { S_ISGID } else { 0 }, gid);
        self.put(dir, path, ino);
        Ok(ino)
    }

    /// `mkdir(2)`.
    pub fn mkdir(&mut self, path: &Path, mode: u32) -> Answer {
        let names = BTreeMap::new();
        self.make(path, Body::Dir { names, parent: ROOT }, mode & MKDIR_BITS).map(drop)
    }

    /// `symlink(2)`.
    pub fn symlink(&mut self, path: &Path, target: &[u8]) -> Answer {
        self.make(path, Body::Symlink(target.to_vec()), 0o777).map(drop)
    }

    /// `mkfifo(3)`.
    pub fn fifo(&mut self, path: &Path, mode: u32) -> Answer {
        self.make(path, Body::Fifo, mode).map(drop)
    }

    /// `open(2)` for reading and writing, with `O_NOFOLLOW`. The number stays good for ever.
    pub fn open(&mut self, path: &Path, how: Open) -> Answer<u64> {
        let existing = match self.place(path) {
            Ok((_, existing)) => existing,
            Err(errno) => return Err(errno),
        };
        let Some(ino) = existing else {
            let mode = how.create.ok_or(Errno::NoEnt)?;
            return self.make(path, Body::File(Vec::new()), mode);
        };
        if how.create.is_some() && how.exclusive {
            return Err(Errno::Exist);
        }
        self.content(ino)?;
        if how.truncate {
            self.truncate(ino, 0)?;
        }
        Ok(ino)
    }

    fn content(&mut self, ino: u64) -> Answer<&mut Vec<u8>> {
        match &mut self.node(ino).body {
            Body::File(bytes) => Ok(bytes),
            Body::Dir { .. } => Err(Errno::IsDir),
            Body::Symlink(_) => Err(Errno::Loop),
            Body::Fifo => Err(Errno::Inval),
        }
    }

    /// `link(2)`.
    pub fn link(&mut self, from: &Path, to: &Path) -> Answer {
        let ino = self.find(from)?;
        let (dir, None) = self.place(to)? else { return Err(Errno::Exist) };
        if self.is_dir(ino) {
            return Err(Errno::Perm);
        }
        self.node(ino).nlink += 1;
        self.put(dir, to, ino);
        Ok(())
    }

    /// `unlink(2)`.
    pub fn unlink(&mut self, path: &Path) -> Answer {
        let (dir, ino) = self.place(path)?;
        let ino = ino.ok_or(Errno::NoEnt)?;
        if self.is_dir(ino) {
            return Err(Errno::IsDir);
        }
        self.take(dir, path);
        self.node(ino).nlink -= 1;
        Ok(())
    }

    /// `rmdir(2)`.
    pub fn rmdir(&mut self, path: &Path) -> Answer {
        let (dir, ino) = self.place(path)?;
        let ino = ino.ok_or(Errno::NoEnt)?;
        if !self.names(ino)?.is_empty() {
            return Err(Errno::NotEmpty);
        }
        self.take(dir, path);
        self.node(ino).nlink = 0;
        Ok(())
    }

    /// `renameat2(2)`.
    pub fn rename(&mut self, from: &Path, to: &Path, how: Rename) -> Answer {
        let from_dir = self.find(&from.split().0)?;
        let to_dir = self.find(&to.split().0)?;
        self.names(from_dir)?;
        self.names(to_dir)?;
        let source = self.entry(from_dir, from.split().1)?.ok_or(Errno::NoEnt)?;
        let target = self.entry(to_dir, to.split().1)?;
        match (how, target) {
            (Rename::NoReplace, Some(_)) => return Err(Errno::Exist),
            (Rename::Exchange, None) => return Err(Errno::NoEnt),
            _ => {}
        }
        if self.is_inside(to_dir, source) {
            return Err(Errno::Inval);
        }
        if target.is_some_and(|target| self.is_inside(from_dir, target)) {
            let exchange = how == Rename::Exchange;
            return Err(if exchange { Errno::Inval } else { Errno::NotEmpty });
        }
        if target == Some(source) {
            return Ok(());
        }
        if let (Some(target), false) = (target, how == Rename::Exchange) {
            self.check_replaces(source, target)?;
            self.take(to_dir, to);
            let node = self.node(target);
            node.nlink = if matches!(node.body, Body::Dir { .. }) { 0 } else { node.nlink - 1 };
        }
        if how == Rename::Exchange {
            self.take(to_dir, to);
        }
        self.take(from_dir, from);
        self.put(to_dir, to, source);
        if how == Rename::Exchange {
            self.put(from_dir, from, target.expect("checked above"));
        }
        Ok(())
    }

    fn check_replaces(&mut self, source: u64, target: u64) -> Answer {
        match (self.is_dir(source), self.is_dir(target)) {
            (true, false) => Err(Errno::NotDir),
            (false, true) => Err(Errno::IsDir),
            (true, true) if !self.names(target)?.is_empty() => Err(Errno::NotEmpty),
            _ => Ok(()),
        }
    }

    /// Is directory `at` the directory `above` or below it?
    fn is_inside(&mut self, mut at: u64, above: u64) -> bool {
        loop {
            match self.node(at).body {
                _ if at == above => return true,
                Body::Dir { parent, .. } if at != ROOT => at = parent,
                _ => return false,
            }
        }
    }

    /// `pread(2)`.
    pub fn read(&mut self, ino: u64, offset: u64, len: usize) -> Answer<Vec<u8>> {
        let bytes = self.content(ino)?;
        let start = index(offset).min(bytes.len());
        Ok(bytes[start..(start + len).min(bytes.len())].to_vec())
    }

    /// `pwrite(2)`; `offset` none: at the end, as with `O_APPEND`.
    pub fn write(&mut self, ino: u64, offset: Option<u64>, data: &[u8]) -> Answer<u64> {
        let bytes = self.content(ino)?;
        if data.is_empty() {
            return Ok(0);
        }
        let start = offset.map_or(bytes.len(), index);
        let end = start + data.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(data);
        self.node(ino).mtime = None;
        Ok(data.len() as u64)
    }

    /// `ftruncate(2)`.
    pub fn truncate(&mut self, ino: u64, size: u64) -> Answer {
        self.content(ino)?.resize(index(size), 0);
        self.node(ino).mtime = None;
        Ok(())
    }

    /// `fallocate(2)`.
    pub fn fallocate(&mut self, ino: u64, how: Fallocate, offset: u64, len: u64) -> Answer {
        let bytes = self.content(ino)?;
        if len == 0 {
            return Err(Errno::Inval);
        }
        let (start, end) = (index(offset), index(offset + len));
        let (grows, zeroes) = match how {
            Fallocate::Reserve { keep_size } => (!keep_size, false),
            Fallocate::Punch => (false, true),
            Fallocate::Zero { keep_size } => (!keep_size, true),
        };
        if zeroes {
            let size = bytes.len();
            bytes[start.min(size)..end.min(size)].fill(0);
        }
        if grows {
            bytes.resize(bytes.len().max(end), 0);
        }
        self.node(ino).mtime = None;
        Ok(())
    }

    /// `copy_file_range(2)`.
    pub fn copy(&mut self, from: (u64, u64), to: (u64, u64), len: u64) -> Answer<u64> {
        let size = self.content(from.0)?.len() as u64;
        self.content(to.0)?;
        let len = len.min(size.saturating_sub(from.1));
        if from.0 == to.0 && from.1 < to.1 + len && to.1 < from.1 + len {
            return Err(Errno::Inval);
        }
        let data = self.read(from.0, from.1, index(len))?;
        self.write(to.0, Some(to.1), &data)
    }

    /// `lsetxattr(2)` of a `user.` name.
    pub fn set_xattr(&mut self, path: &Path, name: &[u8], value: &[u8], how: XattrMode) -> Answer {
        let ino = self.find(path)?;
        let node = self.node(ino);
        if matches!(node.body, Body::Symlink(_) | Body::Fifo) {
            return Err(Errno::Perm);
        }
        match (how, node.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Errno::Exist),
            (XattrMode::Replace, false) => return Err(Errno::NoData),
            _ => node.xattrs.insert(name.to_vec(), value.to_vec()),
        };
        Ok(())
    }

    /// `lremovexattr(2)` of a `user.` name.
    pub fn remove_xattr(&mut self, path: &Path, name: &[u8]) -> Answer {
        let ino = self.find(path)?;
        let node = self.node(ino);
        if matches!(node.body, Body::Symlink(_) | Body::Fifo) {
            return Err(Errno::Perm);
        }
        node.xattrs.remove(name).map(drop).ok_or(Errno::NoData)
    }

    /// All `user.` attributes.
    pub fn xattrs(&mut self, path: &Path) -> Answer<BTreeMap<Vec<u8>, Vec<u8>>> {
        let ino = self.find(path)?;
        Ok(self.node(ino).xattrs.clone())
    }

    /// `chmod(2)`, of anything but a symbolic link.
    pub fn chmod(&mut self, path: &Path, mode: u32) -> Answer {
        let ino = self.find(path)?;
        self.node(ino).mode = mode;
        Ok(())
    }

    /// `lchown(2)`, which takes set-id bits from files.
    pub fn chown(&mut self, path: &Path, uid: u32, gid: u32) -> Answer {
        let ino = self.find(path)?;
        let node = self.node(ino);
        (node.uid, node.gid) = (uid, gid);
        if !matches!(node.body, Body::Dir { .. }) {
            let executes = node.mode & GROUP_EXEC != 0;
            node.mode &= !(S_ISUID | if executes { S_ISGID } else { 0 });
        }
        Ok(())
    }

    /// `utimensat(2)` of the modification time, with `AT_SYMLINK_NOFOLLOW`.
    pub fn set_mtime(&mut self, path: &Path, secs: i64, nanos: u32) -> Answer {
        let ino = self.find(path)?;
        self.node(ino).mtime = Some((secs, nanos));
        Ok(())
    }

    /// `readlink(2)`.
    pub fn readlink(&mut self, path: &Path) -> Answer<Vec<u8>> {
        let ino = self.find(path)?;
        match &self.node(ino).body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::Inval),
        }
    }

    /// The names in a directory.
    pub fn list(&mut self, path: &Path) -> Answer<BTreeSet<Vec<u8>>> {
        let ino = self.find(path)?;
        Ok(self.names(ino)?.keys().cloned().collect())
    }

    /// `fstat(2)`.
    pub fn stat(&mut self, ino: u64) -> Stat {
        let Node { body, mode, uid, gid, nlink, mtime, .. } = self.node(ino);
        let (kind, size) = match body {
            Body::Dir { .. } => (Kind::Dir, 0),
            Body::File(bytes) => (Kind::File, bytes.len()),
            Body::Symlink(target) => (Kind::Symlink, target.len()),
            Body::Fifo => (Kind::Fifo, 0),
        };
        let (mode, uid, gid, nlink, mtime) = (*mode, *uid, *gid, *nlink, *mtime);
        Stat { ino, kind, mode, uid, gid, nlink, size: size as u64, mtime }
    }

    /// Every path with its kind, the root first.
    pub fn paths(&mut self) -> Vec<(Path, Kind)> {
        let mut found = vec![(Path::default(), Kind::Dir)];
        let mut at = 0;
        while let Some((path, kind)) = found.get(at).cloned() {
            at += 1;
            for name in
                (kind == Kind::Dir).then(|| self.list(&path)).into_iter().flatten().flatten()
            {
                let path = path.join(&name);
                let ino = self.find(&path).expect("just listed");
                let kind = self.stat(ino).kind;
                found.push((path, kind));
            }
        }
        found
    }
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("contents are small")
}
