//! Batches and the ops inside them, as signed, stored and sent.
//!
//! Numbers are little-endian and of fixed length, so that what is signed has one form only. The
//! ops inside are a version byte, the table of devices whose ops they name, and postcard.

use std::collections::HashMap;

use super::CodecError;
use super::record::{decode, encode};
use crate::types::limits::{BATCH_BYTES_HARD_MAX, BATCH_OPS_MAX};
use crate::types::{Batch, BatchHash, DeviceId, Hlc, Op, OpId};

const BATCH_VERSION: u8 = 1;
const OPS_VERSION: u8 = 1;
/// Devices that one batch may name.
const DEVICES_MAX: usize = 1 << 16;
const SIGNATURE_BYTES: usize = 64;

/// The bytes that are signed: the batch without its signature.
///
/// # Panics
/// If a list is longer than its bound: the writer keeps to them.
pub fn encode_unsigned_batch(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(batch.sealed_ops.len() + 192);
    bytes.push(BATCH_VERSION);
    bytes.extend(batch.journal.0);
    bytes.extend(batch.seq.to_le_bytes());
    bytes.extend(batch.count.to_le_bytes());
    bytes.extend(batch.hlc.0.to_le_bytes());
    bytes.extend(batch.epoch.to_le_bytes());
    bytes.extend(batch.previous);
    let frontier = u16::try_from(batch.frontier_delta.len()).expect("devices are bounded");
    bytes.extend(frontier.to_le_bytes());
    for (device, seq) in &batch.frontier_delta {
        bytes.extend(device.0);
        bytes.extend(seq.to_le_bytes());
    }
    let ops = u32::try_from(batch.sealed_ops.len()).expect("a batch is bounded");
    bytes.extend(ops.to_le_bytes());
    bytes.extend(&batch.sealed_ops);
    bytes
}

/// A batch with its signature.
pub fn encode_batch(batch: &Batch) -> Vec<u8> {
    let mut bytes = encode_unsigned_batch(batch);
    bytes.extend(batch.signature);
    bytes
}

/// The hash by which the next batch names this one, of [`encode_batch`]'s bytes.
pub fn batch_hash(encoded: &[u8]) -> BatchHash {
    *blake3::hash(encoded).as_bytes()
}

/// Back from [`encode_batch`]. The signature is not checked here.
///
/// # Errors
/// [`CodecError`] if the bytes are no batch of a known version.
pub fn decode_batch(bytes: &[u8]) -> Result<Batch, CodecError> {
    let mut reader = Reader::new("batch", bytes);
    let version = reader.array::<1>()?[0];
    if version != BATCH_VERSION {
        let (found, known) = (version, BATCH_VERSION);
        return Err(CodecError::Version { what: "batch", found, known });
    }
    let journal = DeviceId(reader.array()?);
    let seq = u64::from_le_bytes(reader.array()?);
    let count = u32::from_le_bytes(reader.array()?);
    let hlc = Hlc(u64::from_le_bytes(reader.array()?));
    let epoch = u32::from_le_bytes(reader.array()?);
    let previous = reader.array()?;
    let mut frontier_delta = Vec::new();
    for _ in 0..u16::from_le_bytes(reader.array()?) {
        let device = DeviceId(reader.array()?);
        frontier_delta.push((device, u64::from_le_bytes(reader.array()?)));
    }
    let ops = u32::from_le_bytes(reader.array()?) as usize;
    if ops > BATCH_BYTES_HARD_MAX {
        return Err(malformed("its ops are longer than a batch may be"));
    }
    let sealed_ops = reader.take(ops)?.to_vec();
    let signature = reader.array::<SIGNATURE_BYTES>()?;
    reader.end()?;
    let is_in_range = (1..=BATCH_OPS_MAX).contains(&(count as usize))
        && (1..=OpId::SEQ_MAX - u64::from(count) + 1).contains(&seq)
        && hlc.0.checked_add(u64::from(count)).is_some();
    if !is_in_range {
        return Err(malformed("its numbers are out of bounds"));
    }
    Ok(Batch { journal, seq, count, hlc, epoch, previous, frontier_delta, sealed_ops, signature })
}

/// Ops in the form that every device reads; `device` names a local journal number's owner.
///
/// # Panics
/// If `device` knows no owner of a journal that an op names, or there are too many.
pub fn encode_ops(ops: &[Op], device: impl Fn(u16) -> DeviceId) -> Vec<u8> {
    let mut devices: Vec<DeviceId> = Vec::new();
    let mut indices: HashMap<u16, u16> = HashMap::new();
    let mut map = |id: OpId| -> Result<OpId, std::convert::Infallible> {
        let index = *indices.entry(id.journal()).or_insert_with(|| {
            devices.push(device(id.journal()));
            u16::try_from(devices.len() - 1).expect("devices are bounded")
        });
        Ok(OpId::new(index, id.seq()))
    };
    let ops: Vec<Op> = ops
        .iter()
        .map(|op| op.clone().map_ids(&mut map).unwrap_or_else(|never| match never {}))
        .collect();
    encode(OPS_VERSION, &(devices, ops))
}

/// Back from [`encode_ops`]; `journal` gives a device's local journal number.
///
/// # Errors
/// [`CodecError`] if the bytes are no ops, or name a device that `journal` does not know.
pub fn decode_ops(
    bytes: &[u8],
    journal: impl Fn(&DeviceId) -> Option<u16>,
) -> Result<Vec<Op>, CodecError> {
    let (devices, ops): (Vec<DeviceId>, Vec<Op>) = decode("ops", OPS_VERSION, bytes)?;
    if devices.len() > DEVICES_MAX || ops.len() > BATCH_OPS_MAX {
        return Err(malformed("more ops or devices than a batch may hold"));
    }
    let mut map = |id: OpId| {
        let device = devices.get(usize::from(id.journal()));
        let number = device.and_then(&journal);
        number
            .map(|number| OpId::new(number, id.seq()))
            .ok_or_else(|| malformed("an op names a device that is not known"))
    };
    ops.into_iter().map(|op| op.map_ids(&mut map)).collect()
}

fn malformed(why: &str) -> CodecError {
    CodecError::Malformed { what: "batch", why: why.into() }
}

/// Takes bytes off the front.
pub(super) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let split = self.rest.split_at_checked(len);
        let (taken, rest) = split.ok_or_else(|| self.malformed("it is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], CodecError> {
        Ok(self.take(LEN)?.try_into().expect("as many as were taken"))
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes follow its end")) }
    }

    pub fn malformed(&self, why: &str) -> CodecError {
        CodecError::Malformed { what: self.what, why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Content, EntryId, FileId, Kind, Name, PlaceId, Timestamp, VersionId};

    fn ops() -> Vec<Op> {
        let id = OpId::new(0, 5);
        vec![
            Op::Make {
                parent: FileId::ROOT,
                name: Name::new(b"report.odt").expect("a name"),
                kind: Kind::Regular,
                mode: 0o644,
                uid: 1000,
                gid: 1000,
            },
            Op::Write {
                file: FileId(id),
                parents: vec![VersionId(OpId::new(3, 9))],
                size_bytes: 5,
                content: Content::Inline(b"hello".to_vec()),
                mtime: Timestamp { secs: -1, nanos: 7 },
                interim: false,
            },
            Op::Unlink {
                entry: EntryId(id),
                seen_place: PlaceId(OpId::new(3, 10)),
                seen_heads: vec![],
            },
        ]
    }

    fn batch() -> Batch {
        Batch {
            journal: DeviceId([1; 32]),
            seq: 5,
            count: 3,
            hlc: Hlc(77),
            epoch: 0,
            previous: [2; 32],
            frontier_delta: vec![(DeviceId([4; 32]), 9)],
            sealed_ops: vec![9; 100],
            signature: [3; 64],
        }
    }

    #[test]
    fn a_batch_comes_back_as_it_went() {
        let encoded = encode_batch(&batch());
        assert_eq!(decode_batch(&encoded).expect("decodes"), batch());
    }

    #[test]
    fn no_cut_or_longer_batch_decodes() {
        let encoded = encode_batch(&batch());
        for len in 0..encoded.len() {
            assert!(decode_batch(&encoded[..len]).is_err(), "{len} bytes");
        }
        assert!(decode_batch(&[encoded, vec![0]].concat()).is_err());
    }

    #[test]
    fn a_batch_whose_numbers_leave_their_range_is_refused() {
        let last = OpId::SEQ_MAX - 2;
        assert!(decode_batch(&encode_batch(&Batch { seq: last, ..batch() })).is_ok());
        let wrong = [
            Batch { seq: last + 1, ..batch() },
            Batch { seq: u64::MAX, ..batch() },
            Batch { seq: 0, ..batch() },
            Batch { count: 0, ..batch() },
            Batch { count: u32::MAX, ..batch() },
            Batch { hlc: Hlc(u64::MAX - 1), ..batch() },
        ];
        for batch in wrong {
            assert!(decode_batch(&encode_batch(&batch)).is_err(), "{batch:?}");
        }
    }

    #[test]
    fn ops_are_translated_between_two_numberings_of_journals() {
        let encoded =
            encode_ops(&ops(), |number| DeviceId([u8::try_from(number).expect("small"); 32]));
        let decoded = decode_ops(&encoded, |device| Some(u16::from(device.0[0]) + 10));
        let decoded = decoded.expect("decodes");
        let Op::Write { file, parents, .. } = &decoded[1] else { panic!("the second is a write") };
        assert_eq!(file.0, OpId::new(10, 5));
        assert_eq!(parents[0].0, OpId::new(13, 9));
        let back = decode_ops(&encoded, |device| Some(u16::from(device.0[0]))).expect("decodes");
        assert_eq!(back, ops());
        assert!(decode_ops(&encoded, |_| None).is_err());
    }

    #[test]
    fn a_rename_takes_some_thirty_bytes() {
        let op = Op::Place {
            entry: EntryId(OpId::new(0, 1_000_000)),
            parent: FileId(OpId::new(0, 900_000)),
            name: Name::new(b"a new name").expect("a name"),
        };
        let table = 1 + 1 + 32 + 1;
        assert!(encode_ops(&[op], |_| DeviceId([0; 32])).len() - table <= 30);
    }
}
