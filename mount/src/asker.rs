//! Who asks, and what of set-id bits falls to the filesystem: the kernel leaves it to us, and the
//! library does not hand on all that it says (`FUSE_SETXATTR_EXT`, the bits of `FUSE_SETATTR`).

use fuser::Request;
use tidefs::fs::{Attr, Filesystem, FsResult, SetAttr, Wait};
use tidefs::types::{Ino, Kind};

/// The process behind a request.
#[derive(Clone, Copy)]
pub struct Asker {
    pid: u32,
    uid: u32,
    gid: u32,
}

impl Asker {
    /// Who sent it.
    pub fn of(request: &Request) -> Self {
        Self { pid: request.pid(), uid: request.uid(), gid: request.gid() }
    }

    /// May it set a set-group-id bit of this group? The request tells only its first group;
    /// libfuse, too, looks for the others here (`fuse_req_getgroups`).
    pub fn is_in_group(self, group: u32) -> bool {
        let lists_it = |status: String| {
            let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
            groups.is_some_and(|groups| {
                groups.split_whitespace().any(|listed| listed.parse() == Ok(group))
            })
        };
        let status = || std::fs::read_to_string(format!("/proc/{}/status", self.pid));
        self.uid == 0 || self.gid == group || status().is_ok_and(lists_it)
    }
}

/// Clears the set-id bits of a file that an ordinary user is about to change, as the kernel does
/// elsewhere (`setattr_should_drop_suidgid`). A write's request says so by itself, these do not.
pub fn clear_set_id(fs: &Filesystem, number: Ino, asker: Asker, wait: Wait) -> FsResult<()> {
    if asker.uid == 0 {
        return Ok(());
    }
    let attr = fs.getattr(number, wait)?;
    if !is_set_id(&attr) {
        return Ok(());
    }
    let keeps_group = attr.mode & libc::S_IXGRP == 0 && asker.is_in_group(attr.gid);
    let cleared = libc::S_ISUID | if keeps_group { 0 } else { libc::S_ISGID };
    let change = SetAttr { mode: Some(attr.mode & !cleared), ..SetAttr::default() };
    fs.setattr(number, &change, wait)?;
    Ok(())
}

/// Is it a file that gives its user or group to who runs it?
pub fn is_set_id(attr: &Attr) -> bool {
    attr.kind == Kind::Regular && attr.mode & (libc::S_ISUID | libc::S_ISGID) != 0
}
