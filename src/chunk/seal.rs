//! Sealing: compress, encrypt, name.
//!
//! The key comes from what is encrypted (the compressed bytes, not the plain ones: two builds of
//! the compressor may differ, and one key must never seal two texts), so a nonce of zeros is safe.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::ChunkError;
use crate::types::limits::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN};
use crate::types::{ChunkId, ChunkKey, ChunkRef};

const FORMAT: u8 = 1;
const COMPRESSED: u8 = 0x40;
const ENCRYPTED: u8 = 0x80;
const FORMAT_MASK: u8 = 0x0f;
const TAG_BYTES: usize = 16;
const SALT_BYTES: usize = 32;
/// Compressing is the cost of a write: a sample tells whether it is worth it.
const SAMPLE_BYTES: usize = 4096;
const SAMPLE_FROM_BYTES: usize = 16 * 1024;
const ZSTD_LEVEL: i32 = 1;
/// Smaller content is not worth a try.
const COMPRESS_FROM_BYTES: usize = 128;

/// The secret from which a workspace's chunk keys are derived.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct WorkspaceSecret(pub [u8; 32]);

/// Seals and opens for one workspace.
pub struct Sealer {
    keys: Option<RwLock<Epochs>>,
    compress: bool,
    chunk_bytes_max: AtomicUsize,
}

/// The keys of each epoch that is known, and which of them seals.
struct Epochs {
    all: Vec<(u32, Keys)>,
    current: usize,
}

#[derive(PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
struct Keys {
    chunk: [u8; 32],
    record: [u8; 32],
}

/// A chunk ready to be stored or sent.
#[derive(Debug)]
pub struct SealedChunk {
    /// Its name and key.
    pub chunk: ChunkRef,
    /// What is stored.
    pub bytes: Vec<u8>,
}

impl Sealer {
    /// A sealer; without a secret nothing is encrypted.
    pub fn new(secret: Option<&WorkspaceSecret>, compress: bool) -> Self {
        let first = |secret| Epochs { all: vec![(0, Keys::derive(secret))], current: 0 };
        let keys = secret.map(|secret| RwLock::new(first(secret)));
        Self { keys, compress, chunk_bytes_max: AtomicUsize::new(CHUNK_BYTES_MAX) }
    }

    /// New content is cut into chunks of at most this many bytes.
    pub fn chunk_bytes_max(&self) -> usize {
        self.chunk_bytes_max.load(Ordering::Relaxed)
    }

    /// New content is to be cut into chunks of at most `bytes`, within what the format allows. What
    /// is stored stays as it is.
    pub fn set_chunk_bytes_max(&self, bytes: usize) {
        let bytes = bytes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        self.chunk_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Records that are sealed under this secret open too from now on.
    pub fn add_epoch(&self, number: u32, secret: &WorkspaceSecret) {
        if let Some(keys) = &self.keys {
            keys.write().place(number, Keys::derive(secret));
        }
    }

    /// Seals under this secret from now on.
    pub fn use_epoch(&self, number: u32, secret: &WorkspaceSecret) {
        if let Some(keys) = &self.keys {
            let mut epochs = keys.write();
            epochs.current = epochs.place(number, Keys::derive(secret));
        }
    }

    /// Seals under the first secret again.
    pub fn use_first_epoch(&self) {
        if let Some(keys) = &self.keys {
            keys.write().current = 0;
        }
    }

    /// Is anything encrypted?
    pub fn is_encrypting(&self) -> bool {
        self.keys.is_some()
    }

    /// Seals at most [`CHUNK_BYTES_MAX`] bytes.
    ///
    /// # Panics
    /// If there are more.
    pub fn seal(&self, plain: &[u8]) -> SealedChunk {
        assert!(plain.len() <= CHUNK_BYTES_MAX, "a chunk is cut to its bound");
        let plain_bytes = u32::try_from(plain.len()).expect("the bound fits");
        let mut bytes = self.packed(plain);
        let key = self.keys.as_ref().map(|keys| {
            let key = *blake3::keyed_hash(&keys.read().current().1.chunk, &bytes).as_bytes();
            encrypt(&key, &[], &mut bytes);
            ChunkKey(key)
        });
        let id = ChunkId::of(&bytes);
        SealedChunk { chunk: ChunkRef { id, key, plain_bytes }, bytes }
    }

    /// Opens a chunk whose id has been checked against `sealed`.
    ///
    /// # Errors
    /// [`ChunkError`] if key or bytes are wrong; never more memory than the reference declares.
    pub fn open(&self, chunk: &ChunkRef, sealed: &[u8]) -> Result<Vec<u8>, ChunkError> {
        self.open_owned(chunk, sealed.to_vec())
    }

    /// As [`Sealer::open`], in the memory of `packed`, the sealed bytes.
    ///
    /// # Errors
    /// As [`Sealer::open`].
    pub fn open_owned(&self, chunk: &ChunkRef, mut packed: Vec<u8>) -> Result<Vec<u8>, ChunkError> {
        let malformed = |why| ChunkError::Malformed { chunk: chunk.id, why };
        let len = chunk.plain_bytes as usize;
        if len > CHUNK_BYTES_MAX {
            return Err(malformed("it declares more than a chunk holds"));
        }
        let flags = *packed.first().ok_or_else(|| malformed("it is empty"))?;
        if flags & ENCRYPTED != 0 {
            let key = chunk.key.as_ref().ok_or(ChunkError::Sealed(chunk.id))?;
            decrypt(&key.0, &[], &mut packed).ok_or(ChunkError::Sealed(chunk.id))?;
        }
        let plain = unpack(packed, len).map_err(malformed)?;
        if plain.len() == len { Ok(plain) } else { Err(malformed("its length is not as declared")) }
    }

    /// Seals a record (a batch's ops) bound to its context: who and which.
    ///
    /// The key is drawn from context and content, so a number used again after a crash, with other
    /// content, gets another key. Returns the epoch's number too.
    pub fn seal_record(&self, context: &[u8], plain: &[u8]) -> (u32, Vec<u8>) {
        let mut packed = self.packed(plain);
        let Some(epochs) = &self.keys else { return (0, packed) };
        let epochs = epochs.read();
        let (number, keys) = epochs.current();
        let mut hasher = blake3::Hasher::new_keyed(&keys.record);
        hasher.update(&(context.len() as u64).to_le_bytes());
        hasher.update(context);
        hasher.update(&packed);
        let salt = *hasher.finalize().as_bytes();
        let key = *blake3::keyed_hash(&keys.record, &salt).as_bytes();
        encrypt(&key, context, &mut packed);
        let mut sealed = Vec::with_capacity(packed.len() + SALT_BYTES);
        sealed.push(packed[0]);
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&packed[1..]);
        (*number, sealed)
    }

    /// Back from [`Sealer::seal_record`]: the epoch's number and what was sealed; at most `plain_bytes_max` bytes.
    ///
    /// # Errors
    /// [`ChunkError::Record`] if context, key or bytes are wrong.
    ///
    /// # Panics
    /// Never: the lengths were looked at.
    pub fn open_record(
        &self,
        context: &[u8],
        (epoch, sealed): (u32, &[u8]),
        plain_bytes_max: usize,
    ) -> Result<Vec<u8>, ChunkError> {
        let flags = *sealed.first().ok_or(ChunkError::Record("it is empty"))?;
        let mut packed = sealed.to_vec();
        if flags & ENCRYPTED != 0 {
            let epochs = self.keys.as_ref().ok_or(ChunkError::Record("there is no key"))?;
            if sealed.len() < 1 + SALT_BYTES {
                return Err(ChunkError::Record("it is cut short"));
            }
            let salt: [u8; 32] =
                packed.drain(1..=SALT_BYTES).collect::<Vec<_>>().try_into().expect("32 bytes");
            packed = epochs
                .read()
                .of(epoch)
                .find_map(|keys| {
                    let key = *blake3::keyed_hash(&keys.record, &salt).as_bytes();
                    let mut packed = packed.clone();
                    decrypt(&key, context, &mut packed).map(|()| packed)
                })
                .ok_or(ChunkError::Record("wrong key, wrong place or damaged bytes"))?;
        }
        unpack(packed, plain_bytes_max).map_err(ChunkError::Record)
    }

    /// A flag byte and the bytes, compressed where that helps.
    fn packed(&self, plain: &[u8]) -> Vec<u8> {
        let encrypted = if self.keys.is_some() { ENCRYPTED } else { 0 };
        if self.compress
            && let Some(mut packed) = compressed(plain)
        {
            packed[0] = FORMAT | COMPRESSED | encrypted;
            return packed;
        }
        let mut packed = Vec::with_capacity(1 + plain.len() + TAG_BYTES);
        packed.push(FORMAT | encrypted);
        packed.extend_from_slice(plain);
        packed
    }
}

impl Keys {
    fn derive(secret: &WorkspaceSecret) -> Self {
        Self {
            chunk: blake3::derive_key("tidefs 2026-11 chunk keys", &secret.0),
            record: blake3::derive_key("tidefs 2026-11 record keys", &secret.0),
        }
    }
}

impl Epochs {
    fn current(&self) -> &(u32, Keys) {
        &self.all[self.current]
    }

    /// Of admins apart, each may have begun one of this number.
    fn of(&self, number: u32) -> impl Iterator<Item = &Keys> {
        self.all.iter().filter(move |(of, _)| *of == number).map(|(_, keys)| keys)
    }

    fn place(&mut self, number: u32, keys: Keys) -> usize {
        let known = self.all.iter().position(|(of, known)| *of == number && *known == keys);
        known.unwrap_or_else(|| {
            self.all.push((number, keys));
            self.all.len() - 1
        })
    }
}

/// The bytes behind one byte for the flags, if they became smaller by a sixteenth.
fn compressed(plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() < COMPRESS_FROM_BYTES || !sample_shrinks(plain) {
        return None;
    }
    let worth = plain.len() - plain.len() / 16;
    let mut packed = vec![0; 1 + worth + TAG_BYTES];
    let len = compress_into(plain, &mut packed[1..=worth])?;
    packed.truncate(1 + len);
    Some(packed)
}

fn sample_shrinks(plain: &[u8]) -> bool {
    if plain.len() < SAMPLE_FROM_BYTES {
        return true;
    }
    let middle = plain.len() / 2;
    let mut out = [0; SAMPLE_BYTES];
    let small = SAMPLE_BYTES - SAMPLE_BYTES / 12;
    [0, middle]
        .iter()
        .any(|at| compress_into(&plain[*at..at + SAMPLE_BYTES], &mut out[..small]).is_some())
}

fn compress_into(plain: &[u8], out: &mut [u8]) -> Option<usize> {
    use std::cell::RefCell;
    thread_local! {
        static COMPRESSOR: RefCell<zstd::bulk::Compressor<'static>> = RefCell::new(
            zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("zstd takes its own level"),
        );
    }
    COMPRESSOR.with_borrow_mut(|zstd| zstd.compress_to_buffer(plain, out).ok())
}

fn unpack(mut packed: Vec<u8>, plain_bytes_max: usize) -> Result<Vec<u8>, &'static str> {
    let (flags, body) = packed.split_first().ok_or("it is empty")?;
    if flags & FORMAT_MASK != FORMAT {
        return Err("its format is of a newer version");
    }
    if flags & COMPRESSED == 0 {
        if body.len() > plain_bytes_max {
            return Err("too long");
        }
        packed.drain(..1);
        return Ok(packed);
    }
    zstd::bulk::decompress(body, plain_bytes_max).map_err(|_| "it does not decompress")
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has 32 bytes"))
}

/// Encrypts all but the flag byte, which is authenticated with the context.
fn encrypt(key: &[u8; 32], context: &[u8], packed: &mut Vec<u8>) {
    let aad = [&packed[..1], context].concat();
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let tag = cipher(key)
        .seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut packed[1..])
        .expect("a chunk is within the cipher's bound");
    packed.extend_from_slice(tag.as_ref());
}

fn decrypt(key: &[u8; 32], context: &[u8], packed: &mut Vec<u8>) -> Option<()> {
    let aad = [&packed[..1], context].concat();
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let len = cipher(key).open_in_place(nonce, Aad::from(&aad), &mut packed[1..]).ok()?.len();
    packed.truncate(1 + len);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(secret: u8) -> Sealer {
        Sealer::new(Some(&WorkspaceSecret([secret; 32])), true)
    }

    fn text() -> Vec<u8> {
        b"all work and no play makes jack a dull boy. ".repeat(2000)
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn what_was_sealed_opens_and_text_is_smaller() {
        for sealer in [sealer(1), Sealer::new(None, true), Sealer::new(None, false)] {
            for plain in [Vec::new(), b"x".to_vec(), text(), noise(100_000)] {
                let sealed = sealer.seal(&plain);
                assert_eq!(sealer.open(&sealed.chunk, &sealed.bytes).expect("opens"), plain);
            }
        }
        assert!(sealer(1).seal(&text()).bytes.len() < text().len() / 4);
    }

    #[test]
    fn equal_content_seals_equally_in_one_workspace_and_differently_in_another() {
        assert_eq!(sealer(1).seal(&text()).bytes, sealer(1).seal(&text()).bytes);
        assert_ne!(sealer(1).seal(&text()).bytes, sealer(2).seal(&text()).bytes);
    }

    #[test]
    fn any_flipped_bit_is_detected() {
        let sealer = sealer(1);
        let sealed = sealer.seal(&noise(300));
        for bit in 0..sealed.bytes.len() * 8 {
            let mut bytes = sealed.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(ChunkId::of(&bytes), sealed.chunk.id);
            assert!(sealer.open(&sealed.chunk, &bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn sealed_bytes_hold_no_plain_text() {
        let sealed = Sealer::new(Some(&WorkspaceSecret([7; 32])), false).seal(&text());
        assert!(!sealed.bytes.windows(8).any(|window| window == b"all work"));
    }

    #[test]
    fn a_bomb_is_refused_by_its_declared_length() {
        let sealer = Sealer::new(None, true);
        let sealed = sealer.seal(&vec![0; 1 << 20]);
        let small = ChunkRef { plain_bytes: 100, ..sealed.chunk };
        assert!(sealer.open(&small, &sealed.bytes).is_err());
    }

    #[test]
    fn a_record_opens_only_in_its_place() {
        let sealer = sealer(3);
        let (epoch, sealed) = sealer.seal_record(b"ada:1", b"ops");
        let open =
            |context: &[u8], sealed: &[u8]| sealer.open_record(context, (epoch, sealed), 100);
        assert_eq!(open(b"ada:1", &sealed).expect("opens"), b"ops");
        assert!(open(b"ada:2", &sealed).is_err());
        assert!(open(b"ada:1", &sealed[..20]).is_err());
    }

    #[test]
    fn what_is_sealed_in_a_new_epoch_opens_with_its_secret_alone_and_what_was_before_still_does() {
        let (ada, bob) = (sealer(3), sealer(3));
        let before = ada.seal_record(b"ada:1", b"ops");
        let chunk_before = ada.seal(&text());
        ada.use_epoch(1, &WorkspaceSecret([4; 32]));
        let after = ada.seal_record(b"ada:2", b"ops");
        assert_eq!((before.0, after.0), (0, 1));
        let open = |sealer: &Sealer, context: &[u8], (epoch, sealed): &(u32, Vec<u8>)| {
            sealer.open_record(context, (*epoch, sealed), 100).ok()
        };
        assert!(open(&bob, b"ada:2", &after).is_none());
        assert!(open(&bob, b"ada:2", &(0, after.1.clone())).is_none());
        assert_eq!(open(&ada, b"ada:1", &before).as_deref(), Some(&b"ops"[..]));
        assert_ne!(ada.seal(&text()).chunk, chunk_before.chunk);
        bob.add_epoch(1, &WorkspaceSecret([5; 32]));
        assert!(open(&bob, b"ada:2", &after).is_none());
        bob.add_epoch(1, &WorkspaceSecret([4; 32]));
        assert_eq!(open(&bob, b"ada:2", &after).as_deref(), Some(&b"ops"[..]));
        assert_eq!(bob.seal_record(b"bob:1", b"ops").0, 0);
    }
}
