//! Names of directory entries: raw bytes, checked once.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::NAME_BYTES_MAX;

/// A name that may stand in a directory: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Name(Box<[u8]>);

/// Why some bytes are no name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("a name has {0} bytes, more than {NAME_BYTES_MAX}")]
    TooLong(usize),
    /// Empty, `.`, `..`, or with `/` or NUL inside.
    #[error("a name is empty, `.` or `..`, or holds `/` or NUL")]
    Malformed,
}

impl Name {
    /// Checks and keeps `bytes`.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with them.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong(bytes.len()));
        }
        if matches!(bytes, b"" | b"." | b"..") || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
            return Err(NameError::Malformed);
        }
        Ok(Self(bytes.into()))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for Name {
    type Error = NameError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, NameError> {
        Self::new(&bytes)
    }
}

impl From<Name> for Vec<u8> {
    fn from(name: Name) -> Self {
        name.0.into_vec()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

/// Where a name stands in its directory's order: at least [`NameHash::FIRST`], positive as `i64`.
///
/// Directories are listed in this order, so it is also the offset that `readdir` hands out: one
/// that stays good while entries come and go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NameHash(pub u64);

impl NameHash {
    /// No name hashes below this: offsets 0 to 2 belong to the start, `.` and `..`.
    pub const FIRST: NameHash = NameHash(16);
}

/// Hashes names under a key of the workspace's own, so that nobody can prepare names that collide.
#[derive(Clone)]
pub struct NameHasher([u8; 32]);

impl NameHasher {
    /// A hasher with this key.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The hasher of the workspace with this secret.
    pub fn derive(secret: &[u8; 32]) -> Self {
        Self::new(blake3::derive_key("tidefs 2026-11 name order", secret))
    }

    /// The hash of a name's bytes: 62 bits of keyed BLAKE3.
    ///
    /// # Panics
    /// Never: a digest has 32 bytes.
    pub fn hash(&self, name: &[u8]) -> NameHash {
        let digest = blake3::keyed_hash(&self.0, name);
        let first = digest.as_bytes().first_chunk().expect("32 bytes hold 8");
        NameHash((u64::from_le_bytes(*first) >> 2).max(NameHash::FIRST.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_bytes_but_those_that_paths_need() {
        for good in [&b"a"[..], b"...", b"\xff\xfe", &[b'x'; 255]] {
            assert_eq!(Name::new(good).expect("good").as_bytes(), good);
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert_eq!(Name::new(bad), Err(NameError::Malformed));
        }
        assert_eq!(Name::new(&[b'x'; 256]), Err(NameError::TooLong(256)));
    }
}
