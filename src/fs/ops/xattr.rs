//! Extended attributes, and what of POSIX ACLs falls to the filesystem.
//!
//! The kernel checks ACLs when a file is used; the filesystem keeps them in step with the mode
//! bits and hands default ACLs down. Their form is Linux's: a version (2), then rows of tag,
//! permissions and id (`linux/posix_acl_xattr.h`).

use std::collections::BTreeMap;

use super::super::load::Miss;
use super::super::{Filesystem, FsError, FsResult, Wait, XattrMode};
use crate::types::limits::{NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX};
use crate::types::{AttrChange, Ino, Op};

/// The attribute that holds a file's ACL.
pub const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// The attribute that holds what a directory hands down.
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

const ACL_VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const S_ISGID: u32 = 0o2000;

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

impl Filesystem {
    /// The value of an extended attribute.
    ///
    /// # Errors
    /// [`FsError::NoXattr`], [`FsError::NotSupported`] for a namespace that is not kept.
    pub fn getxattr(&self, ino: Ino, name: &[u8], wait: Wait) -> FsResult<Vec<u8>> {
        check_namespace(name)?;
        self.inner.run(wait, |tree, _| {
            let value = tree.node(ino)?.rec.xattrs.get(name).cloned();
            Ok(value.ok_or(FsError::NoXattr)?)
        })
    }

    /// The names of all extended attributes, in byte order.
    ///
    /// # Errors
    /// The store's.
    pub fn listxattr(&self, ino: Ino, wait: Wait) -> FsResult<Vec<Vec<u8>>> {
        self.inner.run(wait, |tree, _| Ok(tree.node(ino)?.rec.xattrs.keys().cloned().collect()))
    }

    /// Sets an extended attribute. `kill_sgid`: with an ACL set by someone outside the group.
    ///
    /// # Errors
    /// As `setxattr(2)`.
    pub fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        kill_sgid: bool,
        wait: Wait,
    ) -> FsResult<()> {
        check_namespace(name)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(FsError::XattrSpace);
        }
        let acl_mode = if name == ACCESS_ACL { Some(mode_of_acl(value)?) } else { None };
        let now = self.inner.now();
        self.inner.run_change(wait, |tree, _| {
            let rec = &tree.node(ino)?.rec;
            match (mode, rec.xattrs.contains_key(name)) {
                (XattrMode::Create, true) => return Err(FsError::Exists.into()),
                (XattrMode::Replace, false) => return Err(FsError::NoXattr.into()),
                _ => {}
            }
            let others = rec.xattrs.iter().filter(|(key, _)| key.as_slice() != name);
            let used: usize = others.map(|(key, value)| key.len() + value.len()).sum();
            if used + name.len() + value.len() > XATTRS_BYTES_MAX {
                return Err(FsError::XattrSpace.into());
            }
            self.inner.take_op_room(tree)?;
            let rec = &mut tree.change(ino).rec;
            rec.ctime = now;
            let mut changes = Vec::new();
            let mut kept = Some(value.to_vec());
            if let Some((bits, minimal)) = acl_mode {
                let sgid = if kill_sgid { 0 } else { rec.mode & S_ISGID };
                rec.mode = rec.mode & 0o5000 | sgid | bits;
                changes.push(AttrChange::Mode(rec.mode));
                kept = kept.filter(|_| !minimal);
            }
            match &kept {
                Some(value) => drop(rec.xattrs.insert(name.to_vec(), value.clone())),
                None => drop(rec.xattrs.remove(name)),
            }
            changes.push(AttrChange::Xattr(name.to_vec(), kept));
            if let Some(file) = rec.file.filter(|_| rec.nlink > 0) {
                for change in changes {
                    tree.emit(Op::Attr { file, change });
                }
            }
            Ok(())
        })
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// [`FsError::NoXattr`] if there is none of that name.
    pub fn removexattr(&self, ino: Ino, name: &[u8], wait: Wait) -> FsResult<()> {
        check_namespace(name)?;
        let now = self.inner.now();
        self.inner.run_change(wait, |tree, _| {
            if !tree.node(ino)?.rec.xattrs.contains_key(name) {
                return Err(FsError::NoXattr.into());
            }
            if tree.pending.is_full() {
                return Err(Miss::Room.into());
            }
            let rec = &mut tree.change(ino).rec;
            rec.ctime = now;
            rec.xattrs.remove(name);
            if let Some(file) = rec.file.filter(|_| rec.nlink > 0) {
                let change = AttrChange::Xattr(name.to_vec(), None);
                tree.emit(Op::Attr { file, change });
            }
            Ok(())
        })
    }
}

fn check_namespace(name: &[u8]) -> FsResult<()> {
    let kept = [&b"user."[..], b"trusted.", b"security."];
    if kept.contains(&name) {
        return Err(FsError::Invalid("an extended attribute without a name"));
    }
    let known = kept.iter().any(|space| name.starts_with(space));
    if known && name.len() <= NAME_BYTES_MAX || name == ACCESS_ACL || name == DEFAULT_ACL {
        Ok(())
    } else {
        Err(FsError::NotSupported("extended attributes of this namespace"))
    }
}

/// The rows of an ACL: tag, permissions, and all eight bytes.
fn rows(acl: &[u8]) -> Option<impl Iterator<Item = (u16, u16)>> {
    let (version, rows) = acl.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != ACL_VERSION || rows.len() % 8 != 0 {
        return None;
    }
    let word = |row: &[u8], at: usize| u16::from_le_bytes([row[at], row[at + 1]]);
    Some(rows.chunks_exact(8).map(move |row| (word(row, 0), word(row, 2))))
}

/// The permission bits that an ACL stands for, and whether it says no more than they do.
fn mode_of_acl(acl: &[u8]) -> FsResult<(u32, bool)> {
    let invalid = FsError::Invalid("malformed ACL");
    let rows: Vec<(u16, u16)> = rows(acl).ok_or(invalid)?.collect();
    let perm = |tag| rows.iter().find(|row| row.0 == tag).map(|row| u32::from(row.1) & 7);
    let (Some(user), Some(group), Some(other)) = (perm(USER_OBJ), perm(GROUP_OBJ), perm(OTHER))
    else {
        return Err(FsError::Invalid("an ACL without owner, group or others"));
    };
    let group = perm(MASK).unwrap_or(group);
    Ok((user << 6 | group << 3 | other, rows.len() == 3))
}

/// Rewrites the rows that stand for permission bits.
fn with_mode(acl: &[u8], change: impl Fn(u16, u32) -> u32) -> Vec<u8> {
    let masked = rows(acl).is_some_and(|mut rows| rows.any(|(tag, _)| tag == MASK));
    let group_tag = if masked { MASK } else { GROUP_OBJ };
    let mut acl = acl.to_vec();
    for row in acl[4..].chunks_exact_mut(8) {
        let tag = u16::from_le_bytes([row[0], row[1]]);
        let shift = match tag {
            USER_OBJ => 6,
            OTHER => 0,
            _ if tag == group_tag => 3,
            _ => continue,
        };
        let perm = change(shift, u32::from(u16::from_le_bytes([row[2], row[3]]))) & 7;
        row[2] = u8::try_from(perm).expect("three bits");
        row[3] = 0;
    }
    acl
}

/// What something made with `mode` in a directory with this default ACL gets: mode and attributes.
pub fn inherit_acl(default: &[u8], mode: u32, is_dir: bool) -> (u32, Xattrs) {
    let mut xattrs = Xattrs::new();
    let access = with_mode(default, |shift, perm| perm & (mode >> shift));
    let Ok((bits, minimal)) = mode_of_acl(&access) else { return (mode, xattrs) };
    if !minimal {
        xattrs.insert(ACCESS_ACL.to_vec(), access);
    }
    if is_dir {
        xattrs.insert(DEFAULT_ACL.to_vec(), default.to_vec());
    }
    (mode & 0o7000 | bits, xattrs)
}

/// Brings a file's ACL in step with mode bits just set; what changed, if it has one.
pub fn chmod_acl(xattrs: &mut Xattrs, mode: u32) -> Option<(Vec<u8>, Vec<u8>)> {
    let acl = xattrs.get_mut(ACCESS_ACL)?;
    *acl = with_mode(acl, |shift, _| mode >> shift);
    Some((ACCESS_ACL.to_vec(), acl.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(rows: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = ACL_VERSION.to_le_bytes().to_vec();
        for (tag, perm, id) in rows {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(perm.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_default_acl_is_narrowed_by_the_mode_asked_for() {
        let default = acl(&[(1, 7, 0), (2, 7, 1000), (4, 5, 0), (MASK, 7, 0), (OTHER, 5, 0)]);
        let (mode, xattrs) = inherit_acl(&default, 0o640, true);
        assert_eq!(mode, 0o640);
        let access = acl(&[(1, 6, 0), (2, 7, 1000), (4, 5, 0), (MASK, 4, 0), (OTHER, 0, 0)]);
        assert_eq!(xattrs[ACCESS_ACL], access);
        assert_eq!(xattrs[DEFAULT_ACL], default);
    }

    #[test]
    fn an_acl_that_says_no_more_than_the_mode_is_not_kept() {
        let default = acl(&[(1, 7, 0), (4, 5, 0), (OTHER, 0, 0)]);
        let (mode, xattrs) = inherit_acl(&default, 0o666, false);
        assert_eq!((mode, xattrs.len()), (0o640, 0));
    }

    #[test]
    fn chmod_moves_the_mask_and_not_the_group() {
        let mut xattrs = Xattrs::new();
        let before = acl(&[(1, 7, 0), (2, 7, 1000), (4, 5, 0), (MASK, 7, 0), (OTHER, 5, 0)]);
        xattrs.insert(ACCESS_ACL.to_vec(), before);
        chmod_acl(&mut xattrs, 0o604);
        let after = acl(&[(1, 6, 0), (2, 7, 1000), (4, 5, 0), (MASK, 0, 0), (OTHER, 4, 0)]);
        assert_eq!(xattrs[ACCESS_ACL], after);
    }

    #[test]
    fn an_attribute_needs_a_name_and_a_known_namespace() {
        let checked = |name: &[u8]| check_namespace(name);
        assert!(checked(b"user.a").is_ok() && checked(ACCESS_ACL).is_ok());
        assert!(matches!(checked(b"user."), Err(FsError::Invalid(_))));
        assert!(matches!(checked(b"user"), Err(FsError::NotSupported(_))));
        assert!(matches!(checked(b"system.other"), Err(FsError::NotSupported(_))));
    }

    #[test]
    fn malformed_acls_are_refused() {
        for bad in [&b""[..], b"\x02\0\0\0", b"\x01\0\0\0", b"\x02\0\0\0abc"] {
            assert!(mode_of_acl(bad).is_err());
        }
    }
}
