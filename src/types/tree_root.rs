//! Thirty-two bytes that stand for a whole tree.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The sum of the hashes of a set of records, kept up to date as records come and go: equal sets have
/// equal sums, whatever the order in which they came about.
///
/// It shows a defect, not a lie: who chooses records freely can make two sets of one sum.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TreeRoot(pub [u8; 32]);

impl TreeRoot {
    /// One more record, of these bytes.
    pub fn add(&mut self, record: &[u8]) {
        self.each_lane(record, u64::wrapping_add);
    }

    /// One record less.
    pub fn remove(&mut self, record: &[u8]) {
        self.each_lane(record, u64::wrapping_sub);
    }

    fn each_lane(&mut self, record: &[u8], change: impl Fn(u64, u64) -> u64) {
        let hash = blake3::hash(record);
        for (sum, lane) in self.0.chunks_exact_mut(8).zip(hash.as_bytes().chunks_exact(8)) {
            let of = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            let changed = change(of(sum), of(lane));
            sum.copy_from_slice(&changed.to_le_bytes());
        }
    }
}

impl fmt::Debug for TreeRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_have_equal_sums_however_they_came_about() {
        let (mut one, mut other) = (TreeRoot::default(), TreeRoot::default());
        for record in [b"a", b"b", b"c"] {
            one.add(record);
        }
        for record in [b"c", b"d", b"a", b"b"] {
            other.add(record);
        }
        assert_ne!(one, other);
        other.remove(b"d");
        assert_eq!(one, other);
        for record in [b"b", b"c", b"a"] {
            one.remove(record);
        }
        assert_eq!(one, TreeRoot::default());
    }
}
