//! Parts of a snapshot, and what is sealed inside them.
//!
//! A part's numbers are little-endian and of fixed length, as a batch's: what is signed has one form.

use super::CodecError;
use super::batch::Reader;
use super::record::{decode, encode};
use crate::types::limits::{FRAME_BYTES_MAX, SNAPSHOT_PAGE_BYTES_HARD_MAX};
use crate::types::{SnapshotPage, SnapshotPart, WorkspaceId};

/// No other text that a device signs begins so.
const MAGIC: [u8; 15] = *b"tidefs snapshot";
const PART_VERSION: u8 = 1;
const PAGE_VERSION: u8 = 1;
/// Sealed, a page is hardly longer than it was.
const SEALED_BYTES_MAX: usize = SNAPSHOT_PAGE_BYTES_HARD_MAX + 64;
const _: () = assert!(SEALED_BYTES_MAX + 256 <= FRAME_BYTES_MAX, "a part fits into a frame");

/// The bytes that are signed: the part without its signature.
///
/// # Panics
/// If the page is longer than its bound: the writer keeps to it.
pub fn encode_unsigned_part(part: &SnapshotPart) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(part.sealed.len() + 160);
    bytes.extend(MAGIC);
    bytes.push(PART_VERSION);
    bytes.extend(part.workspace.0);
    bytes.extend(part.index.to_le_bytes());
    bytes.push(u8::from(part.is_last));
    bytes.extend(part.previous);
    let sealed = u32::try_from(part.sealed.len()).expect("a page is bounded");
    bytes.extend(sealed.to_le_bytes());
    bytes.extend(&part.sealed);
    bytes
}

/// A part with its signature.
pub fn encode_part(part: &SnapshotPart) -> Vec<u8> {
    let mut bytes = encode_unsigned_part(part);
    bytes.extend(part.signature);
    bytes
}

/// The hash by which the next part names this one, of [`encode_part`]'s bytes.
pub fn part_hash(encoded: &[u8]) -> [u8; 32] {
    *blake3::hash(encoded).as_bytes()
}

/// Back from [`encode_part`]. The signature is not checked here.
///
/// # Errors
/// [`CodecError`] if the bytes are no part of a known version.
pub fn decode_part(bytes: &[u8]) -> Result<SnapshotPart, CodecError> {
    let mut reader = Reader::new("snapshot part", bytes);
    if reader.array()? != MAGIC {
        return Err(reader.malformed("it does not begin as one"));
    }
    let [version] = reader.array()?;
    if version != PART_VERSION {
        let (what, found, known) = ("snapshot part", version, PART_VERSION);
        return Err(CodecError::Version { what, found, known });
    }
    let workspace = WorkspaceId(reader.array()?);
    let index = u32::from_le_bytes(reader.array()?);
    let is_last = match reader.array()? {
        [0] => false,
        [1] => true,
        _ => return Err(reader.malformed("whether it is the last is neither yes nor no")),
    };
    let previous = reader.array()?;
    let sealed = u32::from_le_bytes(reader.array()?) as usize;
    if sealed > SEALED_BYTES_MAX {
        return Err(reader.malformed("its page is longer than one may be"));
    }
    let sealed = reader.take(sealed)?.to_vec();
    let signature = reader.array()?;
    reader.end()?;
    Ok(SnapshotPart { workspace, index, is_last, previous, sealed, signature })
}

/// What a part seals.
pub fn encode_page(page: &SnapshotPage) -> Vec<u8> {
    encode(PAGE_VERSION, page)
}

/// Back from [`encode_page`].
///
/// # Errors
/// [`CodecError`] if the bytes are no page of a known version, or it has more rows than it may.
pub fn decode_page(bytes: &[u8]) -> Result<SnapshotPage, CodecError> {
    decode("snapshot page", PAGE_VERSION, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::limits::SNAPSHOT_ROWS_MAX;
    use crate::types::{Ino, SnapshotRows};

    #[test]
    fn no_cut_or_longer_part_decodes() {
        let part = SnapshotPart {
            workspace: WorkspaceId([7; 16]),
            index: 3,
            is_last: true,
            previous: [2; 32],
            sealed: vec![9; 50],
            signature: [3; 64],
        };
        let encoded = encode_part(&part);
        assert_eq!(decode_part(&encoded).expect("decodes"), part);
        for len in 0..encoded.len() {
            assert!(decode_part(&encoded[..len]).is_err(), "{len} bytes");
        }
        assert!(decode_part(&[encoded, vec![0]].concat()).is_err());
    }

    #[test]
    fn a_page_of_more_rows_than_it_may_have_is_refused_while_it_is_read() {
        let page = |count| {
            let listed = vec![Ino(1); count];
            encode_page(&SnapshotPage::Rows(Box::new(SnapshotRows {
                listed,
                ..Default::default()
            })))
        };
        assert!(decode_page(&page(SNAPSHOT_ROWS_MAX)).is_ok());
        assert!(decode_page(&page(SNAPSHOT_ROWS_MAX + 1)).is_err());
    }
}
