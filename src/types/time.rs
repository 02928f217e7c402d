//! Points in time: the files' and the ops'.

use serde::{Deserialize, Serialize};

/// A file's time, as POSIX has it: seconds since 1970 UTC, possibly negative, and nanoseconds.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Timestamp {
    /// Whole seconds since 1970 UTC; negative before.
    pub secs: i64,
    /// 0 to 999,999,999, added to `secs`.
    pub nanos: u32,
}

/// An op's place in the shared order: a hybrid logical clock in microseconds since 1970 UTC.
///
/// It grows by at least 1 from op to op, and is above that of every op its author had heard.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The value for the next op, when the wall clock reads `now_us`.
    #[must_use]
    pub fn next(self, now_us: u64) -> Self {
        Self((self.0 + 1).max(now_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_ops_grows_even_when_the_wall_clock_goes_back() {
        let before = Hlc(100);
        assert_eq!(before.next(50), Hlc(101));
        assert_eq!(before.next(500), Hlc(500));
    }
}
