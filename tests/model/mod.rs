//! Random operations, done to a small filesystem in memory and to a real one, must end alike.
//!
//! `tests/model.rs` holds the library against it, `mount/tests/model.rs` the kernel, and through
//! the kernel any directory at all: on ext4 that proves the reference itself.

pub mod fs;
pub mod generate;
pub mod run;
pub mod step;
pub mod words;
