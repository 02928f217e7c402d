//! What lies on a stream: frames, or a request for chunks and its answer.

use std::collections::VecDeque;

use iroh::endpoint::{ReadExactError, RecvStream, SendStream};

use super::NetError;
use crate::codec::{
    ANSWER_VERSION, CodecError, LENGTH_BYTES, Sender, decode_chunk_len, decode_frame,
    decode_request, encode_chunk_len, encode_frame, frame_len,
};
use crate::types::limits::REQUEST_CHUNKS_MAX;
use crate::types::{Blob, ChunkId, Frame, Request};

/// A large chunk is read in steps of this many bytes, so that its progress shows.
const STEP_BYTES: usize = 256 << 10;
/// A request's bytes: version, flags, count and ids.
const REQUEST_BYTES_MAX: usize = 16 + 32 * REQUEST_CHUNKS_MAX;

/// Writes frames, one after the other.
#[derive(Debug)]
pub struct FrameWriter(pub(super) SendStream);

impl FrameWriter {
    /// Returns once the connection has taken all of it, which waits for a slow peer.
    ///
    /// # Errors
    /// As the stream ends.
    pub async fn write(&mut self, frame: &Frame) -> Result<(), NetError> {
        let bytes = encode_frame(frame);
        self.0.write_all(&bytes).await.map_err(|e| NetError::Lost(e.to_string()))
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        let _ = self.0.finish();
    }
}

/// Reads frames, one after the other.
#[derive(Debug)]
pub struct FrameReader(pub(super) RecvStream);

impl FrameReader {
    /// Waits for the next frame. Not to be dropped half-way: the rest of the frame would be taken
    /// for the next.
    ///
    /// # Errors
    /// [`NetError::Codec`] if it is none, or longer than the sender may send.
    pub async fn read(&mut self, sender: Sender) -> Result<Frame, NetError> {
        let mut length = [0; LENGTH_BYTES];
        self.0.read_exact(&mut length).await.map_err(cut)?;
        let bytes = read_vec(&mut self.0, frame_len(length, sender)?, &mut || {}).await?;
        Ok(decode_frame(&bytes)?)
    }
}

/// The answer to a chunk request.
#[derive(Debug)]
pub struct Answer {
    receive: RecvStream,
    asked: VecDeque<ChunkId>,
    started: bool,
}

impl Answer {
    pub(super) fn new(receive: RecvStream, asked: &[ChunkId]) -> Self {
        Self { receive, asked: asked.iter().copied().collect(), started: false }
    }

    /// The next chunk that was asked for and its sealed bytes, not verified; `None` for bytes that
    /// the peer lacks. At the end, nothing: what is left was not answered.
    ///
    /// # Errors
    /// As the stream breaks, or if it holds no answer.
    pub async fn next(
        &mut self,
        progress: &mut (impl FnMut() + Send),
    ) -> Result<Option<(ChunkId, Option<Vec<u8>>)>, NetError> {
        if !self.started {
            let mut version = [0];
            self.receive.read_exact(&mut version).await.map_err(cut)?;
            if version != [ANSWER_VERSION] {
                let (what, known) = ("chunk answer", ANSWER_VERSION);
                return Err(CodecError::Version { what, found: version[0], known }.into());
            }
            self.started = true;
        }
        let mut length = [0; LENGTH_BYTES];
        match self.receive.read_exact(&mut length).await {
            Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
            other => other.map_err(cut)?,
        }
        let chunk = self.asked.pop_front().ok_or(NetError::Answer)?;
        let bytes = match decode_chunk_len(length)? {
            Some(len) => Some(read_vec(&mut self.receive, len, progress).await?),
            None => None,
        };
        Ok(Some((chunk, bytes)))
    }
}

/// Answers a request.
#[derive(Debug)]
pub struct AnswerWriter(pub(super) SendStream);

impl AnswerWriter {
    /// Answers with these, in the order asked for; what they do not cover is asked for again.
    ///
    /// # Errors
    /// As the stream ends.
    pub async fn write(&mut self, chunks: &[Option<Vec<u8>>]) -> Result<(), NetError> {
        self.put(&[ANSWER_VERSION]).await?;
        for chunk in chunks {
            self.put(&encode_chunk_len(chunk.as_deref())).await?;
            if let Some(bytes) = chunk {
                self.put(bytes).await?;
            }
        }
        let _ = self.0.finish();
        Ok(())
    }

    /// Answers with batches that follow each other; with none, if they are not here.
    ///
    /// # Errors
    /// As the stream ends.
    pub async fn write_history(&mut self, batches: Vec<Vec<u8>>) -> Result<(), NetError> {
        let batches = batches.into_iter().map(Blob).collect();
        self.put(&encode_frame(&Frame::Batches { batches, chunks: Vec::new() })).await?;
        let _ = self.0.finish();
        Ok(())
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        self.0.write_all(bytes).await.map_err(|e| NetError::Lost(e.to_string()))
    }
}

pub(super) async fn read_request(receive: &mut RecvStream) -> Result<Request, NetError> {
    let mut length = [0; LENGTH_BYTES];
    receive.read_exact(&mut length).await.map_err(cut)?;
    let len = frame_len(length, Sender::Member)?;
    if len > REQUEST_BYTES_MAX {
        let why = "its length is out of bounds".into();
        return Err(CodecError::Malformed { what: "request", why }.into());
    }
    let bytes = read_vec(receive, len, &mut || {}).await?;
    Ok(decode_request(&bytes)?)
}

/// Reads `len` bytes, which the caller has checked. Memory grows as they come.
async fn read_vec(
    receive: &mut RecvStream,
    len: usize,
    progress: &mut (impl FnMut() + Send),
) -> Result<Vec<u8>, NetError> {
    let mut bytes = Vec::with_capacity(len.min(STEP_BYTES));
    while bytes.len() < len {
        let start = bytes.len();
        bytes.resize(len.min(start + STEP_BYTES), 0);
        receive.read_exact(&mut bytes[start..]).await.map_err(cut)?;
        progress();
    }
    Ok(bytes)
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn cut(error: ReadExactError) -> NetError {
    NetError::Lost(error.to_string())
}
