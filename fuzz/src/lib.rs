//! What each fuzz target does with the bytes that it is given: decode them, and hold what came out
//! to what the decoder promises. Nothing may panic, and what decodes must encode to what decodes to
//! the same.
//!
//! The pure rooms are compiled here by themselves: without the network and the database the targets
//! build in a minute, and it shows that the decoders need neither.

#[path = "../../src/chunk/mod.rs"]
#[allow(dead_code, unused_imports)]
mod chunk;
#[path = "../../src/codec/mod.rs"]
#[allow(dead_code, unused_imports)]
mod codec;
#[path = "../../src/types/mod.rs"]
#[allow(dead_code, unused_imports)]
mod types;

use std::fmt::Debug;

use chunk::{ChunkError, Manifest, Sealer, WorkspaceSecret};
use codec::{
    CodecError, LENGTH_BYTES, MergedRecord, Sender, batch_span, decode_batch, decode_chunk_len,
    decode_frame, decode_merged, decode_node, decode_ops, decode_page, decode_part, decode_request,
    decode_ticket, decode_version, encode_batch, encode_chunk_len, encode_frame, encode_merged,
    encode_node, encode_ops, encode_page, encode_part, encode_request, encode_ticket,
    encode_version, frame_len,
};
use types::limits::{BATCH_BYTES_HARD_MAX, FRAME_BYTES_MAX};
use types::{ChunkId, ChunkRef, DeviceId, DeviceName, DeviceNames, Name};

/// A program that hands libFuzzer's bytes to a function of this crate.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::$name(bytes));
    };
}

/// What decodes, encodes to what decodes to the same.
fn comes_back<T: PartialEq + Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, CodecError>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    if let Ok(value) = decode(bytes) {
        let again = decode(&encode(&value)).expect("what was encoded decodes");
        assert_eq!(again, value);
    }
}

/// A signed batch has one form only, and its front says the same as the whole.
pub fn batch(bytes: &[u8]) {
    let span = batch_span(bytes);
    if let Ok(batch) = decode_batch(bytes) {
        assert_eq!(encode_batch(&batch), bytes);
        let span = span.expect("a batch has a front");
        assert_eq!((span.journal, span.first_seq), (batch.journal, batch.seq));
        assert_eq!(span.last_seq - span.first_seq + 1, u64::from(batch.count));
    }
}

/// The ops inside a batch.
pub fn ops(bytes: &[u8]) {
    let device = |number: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_le_bytes());
        DeviceId(id)
    };
    let number = |device: &DeviceId| Some(u16::from_le_bytes([device.0[0], device.0[1]]));
    comes_back(bytes, |bytes| decode_ops(bytes, number), |ops| encode_ops(ops, device));
    assert!(!matches!(decode_ops(bytes, |_| None), Ok(ops) if ops.iter().any(names_something)));
}

fn names_something(op: &types::Op) -> bool {
    let mut names = false;
    let mut note = |id| {
        names = true;
        Ok::<_, std::convert::Infallible>(id)
    };
    let _ = op.clone().map_ids(&mut note);
    names
}

/// A frame behind its length.
pub fn frame(bytes: &[u8]) {
    comes_back(bytes, decode_frame, |frame| encode_frame(frame)[LENGTH_BYTES..].to_vec());
}

/// A part of a snapshot has one form only.
pub fn part(bytes: &[u8]) {
    if let Ok(part) = decode_part(bytes) {
        assert_eq!(encode_part(&part), bytes);
    }
}

/// What such a part seals.
pub fn page(bytes: &[u8]) {
    comes_back(bytes, decode_page, encode_page);
}

/// A request behind its length.
pub fn request(bytes: &[u8]) {
    comes_back(bytes, decode_request, |request| encode_request(request)[LENGTH_BYTES..].to_vec());
}

/// The lengths in front of frames and chunks.
pub fn length(bytes: &[u8]) {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return };
    for sender in [Sender::Stranger, Sender::Member] {
        if let Ok(len) = frame_len(*length, sender) {
            assert!((1..=FRAME_BYTES_MAX).contains(&len));
        }
    }
    if let Ok(None) = decode_chunk_len(*length) {
        assert_eq!(*length, encode_chunk_len(None));
    }
}

/// A ticket's text.
pub fn ticket(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(ticket) = decode_ticket(text, 0) {
        let again = decode_ticket(&encode_ticket(&ticket), 0).expect("what was encoded decodes");
        assert_eq!(again, ticket);
    }
}

/// What a ticket's text holds, past its check, which no mutation would get right.
pub fn ticket_body(bytes: &[u8]) {
    use std::fmt::Write;
    let hash = blake3::hash(bytes);
    let mut text = String::from("tidefs");
    let checked = [bytes, &hash.as_bytes()[..4]].concat();
    let bits: String = checked.iter().fold(String::new(), |mut bits, byte| {
        write!(bits, "{byte:08b}").expect("a string takes it");
        bits
    });
    for five in bits.as_bytes().chunks(5) {
        let value = five.iter().fold(0, |value, bit| value << 1 | (bit - b'0')) << (5 - five.len());
        text.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(value)]));
    }
    ticket(text.as_bytes());
}

/// A node's record.
pub fn node(bytes: &[u8]) {
    comes_back(bytes, decode_node, encode_node);
}

/// A version's record.
pub fn version(bytes: &[u8]) {
    comes_back(bytes, decode_version, encode_version);
}

/// The records that the merge keeps.
pub fn merged(bytes: &[u8]) {
    fn one<T: MergedRecord + PartialEq + Debug>(bytes: &[u8]) {
        comes_back(bytes, decode_merged::<T>, encode_merged);
    }
    one::<types::merged::Entry>(bytes);
    one::<types::merged::Inode>(bytes);
    one::<types::merged::Version>(bytes);
    one::<types::merged::Move>(bytes);
    one::<types::merged::MemberOp>(bytes);
    one::<types::Kind>(bytes);
}

fn sealers() -> [Sealer; 2] {
    [Sealer::new(None, true), Sealer::new(Some(&WorkspaceSecret([9; 32])), true)]
}

/// A sealed chunk, under a reference that says this length.
pub fn chunk(bytes: &[u8]) {
    let Some((length, sealed)) = bytes.split_first_chunk::<2>() else { return };
    let plain_bytes = u32::from(u16::from_le_bytes(*length));
    for (sealer, key) in sealers().iter().zip([None, Some(types::ChunkKey([0x6b; 32]))]) {
        let reference = ChunkRef { id: ChunkId::of(sealed), key, plain_bytes };
        if let Ok(plain) = sealer.open(&reference, sealed) {
            assert_eq!(plain.len(), plain_bytes as usize);
        }
    }
}

/// A sealed record, as a batch holds one.
pub fn record(bytes: &[u8]) {
    for sealer in sealers() {
        if let Ok(plain) = sealer.open_record(b"context", (0, bytes), BATCH_BYTES_HARD_MAX) {
            assert!(plain.len() <= BATCH_BYTES_HARD_MAX);
        }
        let (epoch, sealed) = sealer.seal_record(b"context", bytes);
        let opened = sealer.open_record(b"context", (epoch, &sealed), bytes.len().max(1));
        assert!(opened.is_ok_and(|plain| plain == bytes), "what was sealed opens");
    }
}

/// A node of a manifest, as a chunk holds one.
pub fn manifest(bytes: &[u8]) {
    let sealer = Sealer::new(None, false);
    let sealed = sealer.seal(bytes);
    let references = Manifest::node_references(&sealed.chunk, &sealer, &sealed.bytes);
    // Deeper nodes are absent; the root alone must do, or be refused.
    let mut fetch = |chunk: &ChunkRef| match chunk.id == sealed.chunk.id {
        true => Ok(sealed.bytes.clone()),
        false => Err(ChunkError::Record("absent")),
    };
    if let Ok(manifest) = Manifest::load::<ChunkError>(&sealed.chunk, &sealer, &mut fetch) {
        assert!(references.is_ok(), "a node that loads has references");
        let total: u64 = manifest.items().iter().map(chunk::Item::len_bytes).sum();
        assert_eq!(total, manifest.len_bytes());
    }
}

/// Names of files and devices.
pub fn name(bytes: &[u8]) {
    if let Ok(name) = Name::new(bytes) {
        assert_eq!(name.as_bytes(), bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    DeviceName::new(DeviceName::nearest(&text).as_str()).expect("the nearest name is one");
    let (key, value) = bytes.split_at(bytes.len() / 2);
    DeviceNames::from_attrs([(key, value)]).label(&DeviceId([1; 32]));
}
