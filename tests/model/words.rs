//! The words that the reference, the steps and the subjects share.

use std::fmt;

/// A path below the root; the root itself is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Path(pub Vec<Vec<u8>>);

impl Path {
    /// The path of `name` in this directory.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut names = self.0.clone();
        names.push(name.to_vec());
        Self(names)
    }

    /// The directory and the name in it. The root has neither.
    pub fn split(&self) -> (Self, &[u8]) {
        let (name, parent) = self.0.split_last().expect("the root is never made or removed");
        (Self(parent.to_vec()), name)
    }

    /// With slashes, relative.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.join(&b'/')
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.0 {
            write!(f, "/{}", name[..name.len().min(16)].escape_ascii())?;
            if name.len() > 16 {
                write!(f, "..({})", name.len())?;
            }
        }
        f.write_str(if self.0.is_empty() { "/" } else { "" })
    }
}

/// What went wrong, as `errno` says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are errno's names")]
pub enum Errno {
    NoEnt,
    Exist,
    NotDir,
    IsDir,
    NotEmpty,
    Inval,
    NameTooLong,
    Loop,
    Perm,
    NoData,
    /// Any other, by number.
    Other(i32),
}

/// The result of a call.
pub type Answer<T = ()> = Result<T, Errno>;

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum Kind {
    Dir,
    File,
    Symlink,
    Fifo,
}

/// What `stat` says.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are stat's names")]
pub struct Stat {
    pub ino: u64,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// Bytes; 0 for directories and FIFOs.
    pub size: u64,
    /// Seconds and nanoseconds; in the reference only if set by hand and not touched since.
    pub mtime: Option<(i64, u32)>,
}

/// How `rename` treats a name that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are renameat2's names")]
pub enum Rename {
    Replace,
    NoReplace,
    Exchange,
}

/// What `fallocate` does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are fallocate's names")]
pub enum Fallocate {
    Reserve { keep_size: bool },
    Punch,
    Zero { keep_size: bool },
}

/// How `setxattr` treats a name that exists or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are setxattr's names")]
pub enum XattrMode {
    Set,
    Create,
    Replace,
}

/// How a file is opened, always for reading and writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "they are open's names")]
pub struct Open {
    /// The mode, if it may be made.
    pub create: Option<u32>,
    pub exclusive: bool,
    pub truncate: bool,
    pub append: bool,
}
