//! Frames and chunk requests, as peers send them.
//!
//! A length (4 bytes, little-endian) of what follows, a version byte, postcard. The length is
//! checked before anything is allocated for it, lists while they are decoded.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CodecError;
use super::record::decode;
use crate::types::limits::{
    CARRY_BYTES, DEVICE_NAME_BYTES_MAX, FRAME_BYTES_MAX, FRONTIER_DEVICES_MAX, NAME_BYTES_MAX,
    RELAY_URL_BYTES_MAX, SEALED_BYTES_MAX, STRANGER_FRAME_BYTES_MAX,
};
use crate::types::{Addresses, DeviceId, DeviceName, Frame, Hlc, OpId, Request};

const FRAME_VERSION: u8 = 1;
const REQUEST_VERSION: u8 = 1;
/// What an answer to a chunk request starts with.
pub const ANSWER_VERSION: u8 = 1;
/// Bytes in front of a frame, and of a chunk in an answer.
pub const LENGTH_BYTES: usize = 4;

/// How much of a frame's sender is known, and so how long it may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// Nothing: `STRANGER_FRAME_BYTES_MAX`.
    Stranger,
    /// A member: `FRAME_BYTES_MAX`.
    Member,
}

/// A frame with its length in front.
///
/// # Panics
/// If it is longer than `FRAME_BYTES_MAX`: the writer keeps to the limits.
pub fn encode_frame(frame: &Frame) -> Vec<u8> {
    encode("a frame", FRAME_VERSION, frame)
}

/// How many bytes follow a length.
///
/// # Errors
/// [`CodecError::Malformed`] if more than the sender may send, or none.
pub fn frame_len(length: [u8; LENGTH_BYTES], sender: Sender) -> Result<usize, CodecError> {
    let max = match sender {
        Sender::Stranger => STRANGER_FRAME_BYTES_MAX,
        Sender::Member => FRAME_BYTES_MAX,
    };
    match usize::try_from(u32::from_le_bytes(length)) {
        Ok(len) if (1..=max).contains(&len) => Ok(len),
        _ => Err(malformed("frame", "its length is out of bounds")),
    }
}

/// Back from [`encode_frame`], without the length.
///
/// # Errors
/// [`CodecError`] if the bytes are no frame of a known version, or beyond its limits.
pub fn decode_frame(bytes: &[u8]) -> Result<Frame, CodecError> {
    let frame: Frame = decode("frame", FRAME_VERSION, bytes)?;
    let good = match &frame {
        Frame::Hello { frontier, .. } | Frame::Have { grown: frontier, .. } => {
            frontier.len() <= FRONTIER_DEVICES_MAX
        }
        Frame::Join { request, .. } => DeviceName::new(&request.name).is_ok(),
        Frame::Welcome(welcome) => {
            welcome.settings.name.len() <= NAME_BYTES_MAX
                && welcome.inviter_name.len() <= DEVICE_NAME_BYTES_MAX
        }
        Frame::Peers(notes) => notes.iter().all(|note| addresses_are_bounded(&note.addresses)),
        Frame::Batches { chunks, .. } => {
            chunks.iter().map(|chunk| chunk.0.len()).sum::<usize>() <= CARRY_BYTES
        }
        Frame::Refused(_)
        | Frame::Offer(_)
        | Frame::Epochs(_)
        | Frame::Bootstrap { .. }
        | Frame::Part(_) => true,
    };
    if good {
        Ok(frame)
    } else {
        Err(malformed("frame", "a part of it is not what it may be, or longer"))
    }
}

/// A request with its length in front.
///
/// # Panics
/// If it is longer than a frame may be: the writer keeps to the limits.
pub fn encode_request(request: &Request) -> Vec<u8> {
    encode("a request", REQUEST_VERSION, request)
}

/// Back from [`encode_request`], without the length.
///
/// # Errors
/// [`CodecError`] if the bytes are no request of a known version, or beyond its limits.
pub fn decode_request(bytes: &[u8]) -> Result<Request, CodecError> {
    decode("request", REQUEST_VERSION, bytes)
}

/// What stands before a chunk in an answer: its length, or 0 for one that is not there.
///
/// # Panics
/// If it is longer than `SEALED_BYTES_MAX`: no such chunk was ever stored.
pub fn encode_chunk_len(sealed: Option<&[u8]>) -> [u8; LENGTH_BYTES] {
    let len = sealed.map_or(0, <[u8]>::len);
    assert!(len <= SEALED_BYTES_MAX, "a chunk of {len} bytes is within its bound");
    u32::try_from(len).expect("chunks are bounded").to_le_bytes()
}

/// Back from [`encode_chunk_len`].
///
/// # Errors
/// [`CodecError::Malformed`] if no chunk can be that long.
pub fn decode_chunk_len(length: [u8; LENGTH_BYTES]) -> Result<Option<usize>, CodecError> {
    match usize::try_from(u32::from_le_bytes(length)) {
        Ok(0) => Ok(None),
        Ok(len) if len <= SEALED_BYTES_MAX => Ok(Some(len)),
        _ => Err(malformed("chunk", "its length is out of bounds")),
    }
}

/// Where an encoded batch stands, read without decoding the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchSpan {
    /// Whose journal.
    pub journal: DeviceId,
    /// The first op.
    pub first_seq: u64,
    /// The last op.
    pub last_seq: u64,
    /// The first op's clock.
    pub hlc: Hlc,
}

/// Reads the front of an encoded batch; nothing behind it is looked at.
///
/// # Errors
/// [`CodecError`] if it is cut short, of an unknown version, or its numbers are out of range.
pub fn batch_span(encoded: &[u8]) -> Result<BatchSpan, CodecError> {
    const KNOWN: u8 = 1;
    let cut = || malformed("batch", "it is cut short");
    let (&[found], rest) = encoded.split_first_chunk::<1>().ok_or_else(cut)?;
    if found != KNOWN {
        return Err(CodecError::Version { what: "batch", found, known: KNOWN });
    }
    let (journal, rest) = rest.split_first_chunk::<32>().ok_or_else(cut)?;
    let (first_seq, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
    let (count, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    let (hlc, _) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
    let first_seq = u64::from_le_bytes(*first_seq);
    let last_seq = first_seq
        .checked_add(u64::from(u32::from_le_bytes(*count)))
        .and_then(|end| end.checked_sub(1))
        .filter(|last| (first_seq..=OpId::SEQ_MAX).contains(last))
        .ok_or_else(|| malformed("batch", "its numbers are out of range"))?;
    let hlc = Hlc(u64::from_le_bytes(*hlc));
    Ok(BatchSpan { journal: DeviceId(*journal), first_seq, last_seq, hlc })
}

pub(super) fn addresses_are_bounded(addresses: &Addresses) -> bool {
    addresses.relays.iter().all(|url| url.len() <= RELAY_URL_BYTES_MAX)
}

fn encode<T: Serialize + DeserializeOwned>(what: &str, version: u8, body: &T) -> Vec<u8> {
    let start = vec![0, 0, 0, 0, version];
    let mut bytes = postcard::to_extend(body, start).expect("a vector takes any record");
    let len = bytes.len() - LENGTH_BYTES;
    assert!(len <= FRAME_BYTES_MAX, "{what} of {len} bytes is within its bound");
    let len = u32::try_from(len).expect("a frame is bounded");
    bytes[..LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
    bytes
}

fn malformed(what: &'static str, why: &str) -> CodecError {
    CodecError::Malformed { what, why: why.into() }
}

#[cfg(test)]
mod tests;
