//! Every bound, with its unit. A queue, buffer or record without one here is a defect.

/// A name in a directory, as POSIX's `NAME_MAX`.
pub const NAME_BYTES_MAX: usize = 255;
/// A symbolic link's target, as Linux's `PATH_MAX` less the NUL.
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// An extended attribute's value, as Linux's `XATTR_SIZE_MAX`.
pub const XATTR_VALUE_BYTES_MAX: usize = 65536;
/// All extended attributes of one file, names and values.
pub const XATTRS_BYTES_MAX: usize = 256 * 1024;
/// A file's length; ext4 with 4 KiB blocks ends at 16 TiB, XFS at 8 EiB less one.
pub const FILE_BYTES_MAX: u64 = (1 << 63) - 1;
/// Hard links to one file, as ext4.
pub const LINKS_MAX: u32 = 65_000;

/// A chunk's plain bytes (`chunk_size`).
pub const CHUNK_BYTES_MAX: usize = 4 << 20;
/// A chunk's sealed bytes: plain, a header and a tag.
pub const SEALED_BYTES_MAX: usize = CHUNK_BYTES_MAX + 64;
/// Content up to this travels inside its op.
pub const INLINE_BYTES_MAX: usize = 2048;

/// Bytes of one patch: above it, a commit cuts chunks.
pub const PATCH_BYTES_MAX: u64 = 128 * 1024;
/// Bytes of all patches above a version that stands by itself.
pub const PATCH_CHAIN_BYTES_MAX: u64 = 1 << 20;
/// Patches above a version that stands by itself.
pub const PATCH_CHAIN_COUNT_MAX: u32 = 256;

/// Ops in one batch.
pub const BATCH_OPS_MAX: usize = 4096;
/// Encoded ops of one batch; one op alone may exceed it, up to [`BATCH_BYTES_HARD_MAX`].
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// What a reader accepts as one batch.
pub const BATCH_BYTES_HARD_MAX: usize = 4 << 20;

/// A segment file is closed once it has grown past this.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Space that is never given to users' writes: enough to commit what was already accepted.
pub const RESERVE_BYTES: u64 = 32 << 20;
