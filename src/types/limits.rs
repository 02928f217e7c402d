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
/// Hard links to one file, as ext4. A directory holds any number of others, as there.
pub const LINKS_MAX: u32 = 65_000;

/// A chunk's plain bytes, and the default of `chunk_size`.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;
/// The least that `chunk_size` may be.
pub const CHUNK_BYTES_MIN: usize = 256 << 10;
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

/// Longer texts are not merged: they stand side by side.
pub const TEXT_MERGE_BYTES_MAX: u64 = 1 << 20;
/// Of a longer file that is still being written, content is fetched once in a while. No text that may
/// have to be merged is among them.
pub const LATE_FROM_BYTES: u64 = TEXT_MERGE_BYTES_MAX;
/// Files whose content is left for later so, at most.
pub const LATE_FILES_MAX: usize = 1024;

/// A segment file is closed once it has grown past this.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Space that is never given to users' writes: enough to commit what was already accepted.
pub const RESERVE_BYTES: u64 = 32 << 20;

/// How far a batch's clock may be ahead of this device's, in microseconds, before it has to wait.
pub const CLOCK_AHEAD_US_MAX: u64 = 10 * 60 * 1_000_000;
/// Batches put into one frame; a single larger batch goes alone.
pub const PUSH_BYTES: usize = 1 << 20;
/// Batches in one frame.
pub const FRAME_BATCHES_MAX: usize = 8192;
/// Sealed bytes of the chunks that go along with batches in one frame.
pub const CARRY_BYTES: usize = 1 << 20;
/// Chunks that go along with batches in one frame.
pub const CARRY_CHUNKS_MAX: usize = 1024;
/// Commits of this device whose new chunks may still go along with their batches.
pub const FRESH_COMMITS_MAX: usize = 256;
/// A frame's body: two batches at their hardest bound, chunks, and what stands around them.
pub const FRAME_BYTES_MAX: usize = PUSH_BYTES + BATCH_BYTES_HARD_MAX + CARRY_BYTES + (64 << 10);
/// The body of a frame that is read from a stranger.
pub const STRANGER_FRAME_BYTES_MAX: usize = 4096;
/// Strangers that are heard at once.
pub const STRANGERS_MAX: usize = 4;
/// Journals that a frame tells of, and so members of a workspace.
pub const FRONTIER_DEVICES_MAX: usize = 1 << 16;
/// Socket addresses, and likewise relays, kept or told of one device.
pub const ADDRESSES_MAX: usize = 16;
/// A relay's URL.
pub const RELAY_URL_BYTES_MAX: usize = 256;
/// Devices that one `Peers` frame tells of.
pub const PEER_NOTES_MAX: usize = 1024;
/// Epochs whose secrets one `Epochs` frame tells.
pub const EPOCHS_MAX: usize = 1024;
/// Chunks that one `Offer` frame tells of.
pub const OFFER_CHUNKS_MAX: usize = 4096;
/// Chunk requests under way at once, by default and at most (`max_concurrent_ops`).
pub const CONCURRENT_OPS_DEFAULT: usize = 10;
/// See [`CONCURRENT_OPS_DEFAULT`].
pub const CONCURRENT_OPS_MAX: usize = 256;
/// Chunks that one request names by default (`batch_size`).
pub const BATCH_SIZE_DEFAULT: usize = 50;
/// Chunks that one request names at most.
pub const REQUEST_CHUNKS_MAX: usize = 256;
/// A request's answer ends with the chunk that makes it this long; the rest is asked for anew.
pub const ANSWER_BYTES: usize = 1 << 20;
/// Requests of one peer that are answered at once.
pub const ANSWERS_MAX: usize = 16;
/// Requests of all peers that are read from the store and answered at once.
pub const ANSWERS_TOTAL_MAX: usize = 32;
/// Connections that come in and have not said who they are.
pub const ARRIVALS_MAX: usize = 16;
/// What tasks have told replication's driver and it has not heard.
pub const SYNC_EVENTS_MAX: usize = 256;
/// What other threads have asked of replication's driver and it has not heard.
pub const SYNC_COMMANDS_MAX: usize = 256;
/// Readers that wait for other devices.
pub const WAITERS_MAX: usize = 1024;
/// Rows of one kind in one part of a snapshot.
pub const SNAPSHOT_ROWS_MAX: usize = 8192;
/// A part of a snapshot is closed once its rows are about this long.
pub const SNAPSHOT_PAGE_BYTES: usize = 256 << 10;
/// What a reader accepts as a part, opened: the rows before, and a batch at its hardest bound.
pub const SNAPSHOT_PAGE_BYTES_HARD_MAX: usize = BATCH_BYTES_HARD_MAX + (1 << 20);
/// Snapshots that are told at once.
pub const SNAPSHOTS_MAX: usize = 2;
/// A device's name.
pub const DEVICE_NAME_BYTES_MAX: usize = 64;
/// A ticket's text.
pub const TICKET_BYTES_MAX: usize = 4096;
