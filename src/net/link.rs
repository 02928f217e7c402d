//! A connection with a device whose key is proven.

use std::fmt;

use iroh::TransportAddr;
use iroh::endpoint::{Connection, ConnectionError, Path, VarInt};

use super::NetError;
use super::stream::{Answer, AnswerWriter, FrameReader, FrameWriter, read_request};
use crate::codec::{Sender, encode_request};
use crate::types::{Blob, ChunkRequest, DeviceId, Frame, Request};

/// Of streams that compete: frames, then a waiting reader's chunks, then others',
/// then what nobody waits for.
const FRAME_PRIORITY: i32 = 2;
const HISTORY_PRIORITY: i32 = -1;

/// Why a side closes a connection, as the other side is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseCode {
    /// It is done, or leaves.
    Leaving,
    /// The other is no member.
    Stranger,
    /// Another connection between the two stays.
    Duplicate,
    /// What the other sent was refused.
    Refused,
    /// The other does not answer.
    Stalled,
    /// The other broke the protocol.
    Protocol,
    /// Too many come at once.
    Busy,
    /// The other was a member, and is revoked.
    Revoked,
    /// A code that this build does not know.
    Other(u64),
}

impl CloseCode {
    const KNOWN: [Self; 8] = [
        Self::Leaving,
        Self::Stranger,
        Self::Duplicate,
        Self::Refused,
        Self::Stalled,
        Self::Protocol,
        Self::Busy,
        Self::Revoked,
    ];

    fn number(self) -> VarInt {
        let known = Self::KNOWN.iter().position(|code| *code == self);
        let number = match self {
            Self::Other(number) => number,
            _ => known.map_or(0, |index| index as u64),
        };
        VarInt::from_u64(number).unwrap_or(VarInt::MAX)
    }

    fn from_number(number: u64) -> Self {
        let known = usize::try_from(number).ok().and_then(|index| Self::KNOWN.get(index));
        known.copied().unwrap_or(Self::Other(number))
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaving => f.write_str("it leaves"),
            Self::Stranger => f.write_str("this device is not a member there"),
            Self::Duplicate => f.write_str("there is a second connection"),
            Self::Refused => f.write_str("it refused what this device sent"),
            Self::Stalled => f.write_str("this device did not answer"),
            Self::Protocol => f.write_str("this device broke the protocol"),
            Self::Revoked => f.write_str("this device was revoked"),
            Self::Busy => f.write_str("it is busy"),
            Self::Other(code) => write!(f, "code {code}"),
        }
    }
}

/// The way that a connection's packets take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathView {
    /// Through a relay, rather than directly.
    pub relayed: bool,
    /// Packets go both ways: which is the better has not been found out yet.
    pub mixed: bool,
    /// The peer's socket, or the relay's URL.
    pub address: String,
    /// The peer's socket, if direct.
    pub socket: Option<std::net::SocketAddr>,
}

/// A connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Link {
    connection: Connection,
}

impl Link {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// The device on the other side.
    pub fn peer(&self) -> DeviceId {
        DeviceId(*self.connection.remote_id().as_bytes())
    }

    /// Opens the control stream: the side that dialled does.
    ///
    /// # Errors
    /// As the connection ends.
    pub async fn open_control(&self) -> Result<(FrameWriter, FrameReader), NetError> {
        let (send, receive) = self.connection.open_bi().await.map_err(|e| ended(&e))?;
        // A priority fails only on a stream that has ended, which the next write tells.
        let _ = send.set_priority(FRAME_PRIORITY);
        Ok((FrameWriter(send), FrameReader(receive)))
    }

    /// Takes the control stream: the first that the other side opens.
    ///
    /// # Errors
    /// As the connection ends.
    pub async fn accept_control(&self) -> Result<(FrameWriter, FrameReader), NetError> {
        let (send, receive) = self.connection.accept_bi().await.map_err(|e| ended(&e))?;
        let _ = send.set_priority(FRAME_PRIORITY);
        Ok((FrameWriter(send), FrameReader(receive)))
    }

    /// Asks for chunks, on a stream of its own.
    ///
    /// # Errors
    /// As the connection ends.
    pub async fn request(&self, request: &ChunkRequest) -> Result<Answer, NetError> {
        let (mut send, receive) = self.connection.open_bi().await.map_err(|e| ended(&e))?;
        if request.urgent {
            let _ = send.set_priority(1);
        }
        let bytes = encode_request(&Request::Chunks(request.clone()));
        send.write_all(&bytes).await.map_err(|e| NetError::Lost(e.to_string()))?;
        let _ = send.finish();
        Ok(Answer::new(receive, &request.chunks))
    }

    /// Asks for batches of a journal, behind everything else. None come if the peer lacks them.
    ///
    /// # Errors
    /// As the connection ends, or if the answer is none.
    pub async fn request_history(
        &self,
        journal: DeviceId,
        after_seq: u64,
    ) -> Result<Vec<Blob>, NetError> {
        let (mut send, receive) = self.connection.open_bi().await.map_err(|e| ended(&e))?;
        let _ = send.set_priority(HISTORY_PRIORITY);
        let bytes = encode_request(&Request::History { journal, after_seq });
        send.write_all(&bytes).await.map_err(|e| NetError::Lost(e.to_string()))?;
        let _ = send.finish();
        match FrameReader(receive).read(Sender::Member).await? {
            Frame::Batches { batches, .. } => Ok(batches),
            _ => Err(NetError::Answer),
        }
    }

    /// Takes the next stream that the other side opens behind the control stream.
    ///
    /// # Errors
    /// As the connection ends.
    pub async fn accept_request(&self) -> Result<IncomingRequest, NetError> {
        let (send, receive) = self.connection.accept_bi().await.map_err(|e| ended(&e))?;
        Ok(IncomingRequest(send, receive))
    }

    /// Closes the connection at once.
    pub fn close(&self, code: CloseCode) {
        self.connection.close(code.number(), code.to_string().as_bytes());
    }

    /// Waits until the connection has ended; says how.
    pub async fn closed(&self) -> NetError {
        ended(&self.connection.closed().await)
    }

    /// The path in use.
    pub fn path(&self) -> Option<PathView> {
        let paths = self.connection.paths();
        let path = paths.iter().find(Path::is_selected).or_else(|| paths.iter().next())?;
        let chosen = paths.iter().any(|path| path.is_selected());
        let is_relayed = |path: &Path<'_>| matches!(path.remote_addr(), TransportAddr::Relay(_));
        let relayed = paths.iter().filter(is_relayed).count();
        let mixed = !chosen && relayed > 0 && relayed < paths.iter().count();
        let view = match path.remote_addr() {
            TransportAddr::Ip(socket) => {
                let (address, socket) = (socket.to_string(), Some(*socket));
                PathView { relayed: false, mixed, address, socket }
            }
            TransportAddr::Relay(url) => {
                PathView { relayed: true, mixed, address: url.to_string(), socket: None }
            }
            other => {
                PathView { relayed: false, mixed, address: format!("{other:?}"), socket: None }
            }
        };
        Some(view)
    }
}

/// A stream on which the peer is about to ask for something.
#[derive(Debug)]
pub struct IncomingRequest(iroh::endpoint::SendStream, iroh::endpoint::RecvStream);

impl IncomingRequest {
    /// Reads what it asks for.
    ///
    /// # Errors
    /// [`NetError::Codec`] if that is no request, or as the connection ends.
    pub async fn read(mut self) -> Result<(Request, AnswerWriter), NetError> {
        let request = read_request(&mut self.1).await?;
        let _ = self.0.set_priority(match &request {
            Request::Chunks(request) => i32::from(request.urgent),
            Request::History { .. } => HISTORY_PRIORITY,
        });
        Ok((request, AnswerWriter(self.0)))
    }
}

pub(super) fn ended(error: &ConnectionError) -> NetError {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            NetError::Closed(CloseCode::from_number(close.error_code.into_inner()))
        }
        other => NetError::Lost(other.to_string()),
    }
}
