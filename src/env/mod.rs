//! Doors to the outside: disk, clock, randomness; and their fakes.
//!
//! Nothing else in the library opens a file, asks the time or draws a number, so a test can put
//! every call under one seed and cut the power after any of them. SQLite does its own I/O, past
//! this door.

mod disk;
mod fake;
mod real;

use std::sync::Arc;

use crate::types::Timestamp;

pub use disk::{Disk, DiskFile, FreeSpace, Lock};
pub use fake::{FakeClock, FakeDisk, SeededRandom};

/// The wall clock.
pub trait Clock: Send + Sync {
    /// The present.
    fn now(&self) -> Timestamp;
}

/// A source of bytes that nobody can guess (or, in a test, that a seed gives again).
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// All doors. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

impl Env {
    /// The real machine.
    pub fn real() -> Self {
        Self {
            disk: Arc::new(real::RealDisk),
            clock: Arc::new(real::RealClock),
            random: Arc::new(real::RealRandom),
        }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}
