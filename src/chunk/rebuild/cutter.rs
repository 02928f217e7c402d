//! Cuts a stream of bytes into chunks where its content says so.

use fastcdc::v2020::{self, Normalization};

use crate::chunk::{ChunkLengths, SizeClass};

/// A window over the stream, from the last cut to what was fed.
pub struct Cutter {
    chunk_bytes_max: usize,
    buffer: Vec<u8>,
    /// Where in `buffer` the last cut is, and where in the file.
    start: usize,
    offset: u64,
}

impl Cutter {
    /// For chunks of at most `chunk_bytes_max`.
    pub fn new(chunk_bytes_max: usize) -> Self {
        Self { chunk_bytes_max, buffer: Vec::new(), start: 0, offset: 0 }
    }

    /// Bytes since the last cut.
    pub fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Memory that it takes.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Does the window hold a longest chunk, so that a cut is certain?
    pub fn is_full(&self) -> bool {
        self.len() >= self.lengths().max_bytes
    }

    /// Adds bytes, which are at `offset` in the file: behind the others, if there are any.
    pub fn feed(&mut self, offset: u64, bytes: &[u8]) {
        self.make_room(offset);
        self.buffer.extend_from_slice(bytes);
    }

    /// Adds zeros.
    pub fn feed_zeros(&mut self, offset: u64, count: usize) {
        self.make_room(offset);
        self.buffer.resize(self.buffer.len() + count, 0);
    }

    /// The next chunk, if what was fed decides where it ends, whatever may follow.
    pub fn cut(&mut self) -> Option<&[u8]> {
        let len = self.next_cut();
        let decided = len < self.len() || self.is_full();
        (decided && len > 0).then(|| self.take(len))
    }

    /// The next chunk if nothing follows; none once the window is empty.
    pub fn cut_at_end(&mut self) -> Option<&[u8]> {
        let len = self.next_cut();
        (len > 0).then(|| self.take(len))
    }

    /// Forgets what was fed since the last cut.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.start = 0;
    }

    fn take(&mut self, len: usize) -> &[u8] {
        let start = self.start;
        self.start += len;
        self.offset += len as u64;
        &self.buffer[start..self.start]
    }

    fn lengths(&self) -> ChunkLengths {
        SizeClass::at(self.offset).lengths(self.chunk_bytes_max)
    }

    fn next_cut(&self) -> usize {
        let lengths = self.lengths();
        let (mask_s, mask_l) = v2020::select_masks(lengths.average_bytes, Normalization::Level1);
        let (_, len) = v2020::cut(
            &self.buffer[self.start..],
            lengths.min_bytes,
            lengths.average_bytes,
            lengths.max_bytes,
            mask_s,
            mask_l,
            mask_s << 1,
            mask_l << 1,
        );
        len
    }

    /// Moves the window to the front once as much lies before it: each byte moves about once.
    fn make_room(&mut self, offset: u64) {
        if self.len() == 0 {
            self.offset = offset;
        }
        if self.start >= self.len() {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
    }
}
