//! Connections and frames.
//!
//! The room owns iroh: the endpoint, its connections and streams, and how frames lie on them. It
//! refuses to know what a frame means and when one is due, and it starts no task: whoever calls
//! drives it. Nothing here is contacted but the peers, and the relays that the user named.

mod endpoint;
mod link;
mod stream;

pub use endpoint::{Arriving, Net, NetConfig};
pub use link::{CloseCode, IncomingRequest, Link, PathView};
pub use stream::{Answer, AnswerWriter, FrameReader, FrameWriter};

use crate::codec::CodecError;

/// The protocol's name in a connection's handshake.
pub const ALPN: &[u8] = b"tidefs/1";

/// Why a connection, or something on it, failed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The endpoint could not be set up.
    #[error("cannot listen: {0}")]
    Bind(String),
    /// A relay's URL is none.
    #[error("`{url}` is not a relay's address: {why}")]
    Relay {
        /// As given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// These 32 bytes are no public key.
    #[error("no device can have this id")]
    NoDevice,
    /// No connection came about.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The peer ended the connection and said why.
    #[error("the other device closed the connection: {0}")]
    Closed(CloseCode),
    /// The connection or stream broke.
    #[error("the connection is lost: {0}")]
    Lost(String),
    /// The peer sent what is no frame, or one that has no place here.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// An answer to a chunk request speaks of more than was asked.
    #[error("the answer is not to what was asked")]
    Answer,
}

#[cfg(test)]
mod tests;
