//! The bytes of every stored or sent record, each with a version in front.
//!
//! This room owns encodings; it refuses to know what a record means or where it goes. Bytes are
//! hostile until decoded: no decoder allocates by a length that it has not checked against what is
//! left, and none panics. `docs/FORMAT.md` shows every byte; `tests/format` holds golden files.

mod batch;
mod frame;
mod record;
mod snapshot;
mod ticket;

pub use batch::{
    batch_hash, decode_batch, decode_ops, encode_batch, encode_ops, encode_unsigned_batch,
};
pub use frame::{
    ANSWER_VERSION, BatchSpan, LENGTH_BYTES, Sender, batch_span, decode_chunk_len, decode_frame,
    decode_request, encode_chunk_len, encode_frame, encode_request, frame_len,
};
pub use record::{
    MergedRecord, decode_merged, decode_node, decode_version, encode_merged, encode_node,
    encode_version,
};
pub use snapshot::{
    decode_page, decode_part, encode_page, encode_part, encode_unsigned_part, part_hash,
};
pub use ticket::{TicketError, decode_ticket, encode_ticket};

/// Why some bytes are no record.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A version that this build does not know.
    #[error("{what} has format version {found}; this build reads up to {known}")]
    Version {
        /// Which record.
        what: &'static str,
        /// The version found.
        found: u8,
        /// The newest version known.
        known: u8,
    },
    /// The bytes are cut short, too long, or not of the record's form.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// Which record.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}
