//! tidefs: a folder that is the same on every device.
//!
//! The rooms, in the order in which a write meets them, and what each may use, are drawn in
//! `docs/ARCHITECTURE.md`; `tests/layers.rs` reads the imports against that table.
#![forbid(unsafe_code)]

pub mod chunk;
pub mod codec;
pub mod engine;
pub mod env;
pub mod fs;
pub mod keys;
pub mod merge;
pub mod net;
pub mod store;
pub mod sync;
pub mod types;
