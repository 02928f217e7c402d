//! Node and version records, as the store's tables hold them: a version byte, then postcard.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CodecError;
use crate::types::merged::{Entry, Inode, MemberOp, Move, Version};
use crate::types::{Kind, NodeRecord, VersionRecord};

const NODE_VERSION: u8 = 1;
const VERSION_VERSION: u8 = 1;
const MERGED_VERSION: u8 = 1;

/// A node's record.
pub fn encode_node(node: &NodeRecord) -> Vec<u8> {
    encode(NODE_VERSION, node)
}

/// Back from [`encode_node`].
///
/// # Errors
/// [`CodecError`] if the bytes are not a node of a known version.
pub fn decode_node(bytes: &[u8]) -> Result<NodeRecord, CodecError> {
    decode("node", NODE_VERSION, bytes)
}

/// A version's record.
pub fn encode_version(version: &VersionRecord) -> Vec<u8> {
    encode(VERSION_VERSION, version)
}

/// Back from [`encode_version`].
///
/// # Errors
/// [`CodecError`] if the bytes are not a version's record of a known version.
pub fn decode_version(bytes: &[u8]) -> Result<VersionRecord, CodecError> {
    decode("version", VERSION_VERSION, bytes)
}

/// A record that the merge keeps under the view.
pub trait MergedRecord: Serialize + DeserializeOwned {
    /// What it is called in an error.
    const WHAT: &'static str;
}

impl MergedRecord for Entry {
    const WHAT: &'static str = "merged entry";
}

impl MergedRecord for Inode {
    const WHAT: &'static str = "merged inode";
}

impl MergedRecord for Version {
    const WHAT: &'static str = "merged version";
}

impl MergedRecord for Move {
    const WHAT: &'static str = "move";
}

impl MergedRecord for Kind {
    const WHAT: &'static str = "kind";
}

impl MergedRecord for MemberOp {
    const WHAT: &'static str = "member op";
}

/// A record of the merge.
pub fn encode_merged<T: MergedRecord>(record: &T) -> Vec<u8> {
    encode(MERGED_VERSION, record)
}

/// Back from [`encode_merged`].
///
/// # Errors
/// [`CodecError`] if the bytes are no such record of a known version.
pub fn decode_merged<T: MergedRecord>(bytes: &[u8]) -> Result<T, CodecError> {
    decode(T::WHAT, MERGED_VERSION, bytes)
}

pub(super) fn encode<T: Serialize>(version: u8, record: &T) -> Vec<u8> {
    postcard::to_extend(record, vec![version]).expect("a vector takes any record")
}

pub(super) fn decode<T: DeserializeOwned>(
    what: &'static str,
    known: u8,
    bytes: &[u8],
) -> Result<T, CodecError> {
    let malformed = |why: String| CodecError::Malformed { what, why };
    let (&found, body) = bytes.split_first().ok_or_else(|| malformed("empty".into()))?;
    if found != known {
        return Err(CodecError::Version { what, found, known });
    }
    let (record, rest) =
        postcard::take_from_bytes(body).map_err(|error| malformed(error.to_string()))?;
    if rest.is_empty() {
        Ok(record)
    } else {
        Err(malformed(format!("{} bytes too many", rest.len())))
    }
}
