//! The kernel's door: FUSE requests become calls of [`tidefs::fs`], and answers go back.
//!
//! This package owns the kernel's numbers: modes, flags, errnos. It refuses to know what a call
//! means. Nothing here holds a lock across I/O; whatever may wait runs on the pool.

pub mod adapter;
pub mod ask;
mod asker;
mod attr;
mod errno;
pub mod notify;
mod pace;
mod pool;
pub mod role;
pub mod session;
pub mod share;
