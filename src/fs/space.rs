//! Room on the disk: a write is refused while what was accepted before can still be committed.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{FsError, FsResult};
use crate::types::limits::RESERVE_BYTES;

/// What one metadata change may take on the disk, generously: rows, journal, write-ahead log.
pub const OP_BYTES: u64 = 2048;
/// The disk is asked again after this much was accepted.
const ASK_AGAIN_BYTES: u64 = 1 << 20;

/// Free space as last asked, less what was accepted since.
#[derive(Default)]
pub struct Space {
    left_bytes: AtomicU64,
    accepted_bytes: AtomicU64,
}

impl Space {
    /// Takes `bytes` of the room, asking the disk through `free` if the last answer is old.
    ///
    /// `uncommitted` are bytes accepted before that the disk does not hold yet.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] if less than the reserve would stay free.
    pub fn take(
        &self,
        bytes: u64,
        uncommitted: u64,
        free: impl FnOnce() -> FsResult<u64>,
    ) -> FsResult<()> {
        let accepted = self.accepted_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let left = self.left_bytes.load(Ordering::Relaxed);
        if accepted < ASK_AGAIN_BYTES && left >= bytes + ASK_AGAIN_BYTES {
            return Ok(());
        }
        let free = free()?.saturating_sub(RESERVE_BYTES).saturating_sub(uncommitted);
        self.left_bytes.store(free, Ordering::Relaxed);
        self.accepted_bytes.store(0, Ordering::Relaxed);
        if free < bytes {
            return Err(FsError::NoSpace { needed_bytes: bytes, free_bytes: free });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_refused_while_the_reserve_is_still_whole() {
        let space = Space::default();
        let free = |bytes: u64| move || Ok(RESERVE_BYTES + bytes);
        space.take(4096, 0, free(1 << 30)).expect("there is room");
        let space = Space::default();
        assert!(space.take(4096, 0, free(4095)).is_err());
        assert!(space.take(4096, 4096, free(8191)).is_err());
        space.take(4096, 4096, free(8192)).expect("there is just room");
    }
}
