//! What runs for one connection: reading frames, writing frames, answering requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};

use super::push::{collect, fresh};
use super::{Replica, ReplicaError, history};
use crate::codec::{Sender, batch_span};
use crate::net::{CloseCode, FrameReader, FrameWriter, IncomingRequest, Link, NetError};
use crate::sync::{ConnId, Input, Loss};
use crate::types::limits::{ANSWER_BYTES, ANSWERS_MAX};
use crate::types::{Blob, ChunkId, DeviceId, Frame, Frontier, Request, TreeRoot};

/// A request must be read, and its answer be taken, within this time.
const ANSWER_TIME: Duration = Duration::from_mins(10);

/// What the machine asks to be written.
#[derive(Debug)]
pub(super) enum Job {
    Frame(Frame),
    Push(Frontier),
}

/// What tasks tell the driver.
#[derive(Debug)]
pub(super) enum Event {
    /// For the machine.
    Input(Input),
    /// A connection came about: dialled or accepted.
    Up(Box<Up>),
    /// A dial came to nothing.
    DialFailed(DeviceId, Loss, Option<String>),
    /// A connection has ended. An end that is no failure has no text.
    Down(ConnId, Loss, Option<String>),
    /// Batches are durable; what they were, how far the journals are now, which chunks came along.
    Delivered(ConnId, Frontier, Frontier, Vec<ChunkId>),
    /// How far the journals are, who is a member, how often chunks have named others.
    Local(Frontier, Vec<DeviceId>, u64),
    /// Of the chunks that a reader wants, these are here already, and those are not.
    Looked(Vec<ChunkId>, Vec<ChunkId>),
}

/// A connection whose sides have greeted each other.
#[derive(Debug)]
pub(super) struct Up {
    pub link: Link,
    pub writer: FrameWriter,
    pub reader: FrameReader,
    pub dialled: bool,
    /// What the peer says it has, and what we told it.
    pub heard: Tree,
    pub told: Tree,
    pub life: u64,
}

/// How far a device has heard, and the root of the tree that this makes there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tree {
    pub frontier: Frontier,
    pub root: Option<TreeRoot>,
}

impl Tree {
    /// The greeting of `peer`.
    pub fn hello(&self, shared: &Shared, peer: &DeviceId) -> Frame {
        Frame::Hello {
            workspace: shared.replica.workspace(),
            frontier: self.frontier.clone(),
            root: self.root,
            life: shared.life,
            yours: shared.replica.held(peer),
        }
    }

    /// Are the trees alike? `None` if that cannot be told: one has heard more than the other.
    pub fn agrees(&self, other: &Self) -> Option<bool> {
        let roots = self.root.zip(other.root).filter(|_| self.frontier == other.frontier);
        roots.map(|(one, other)| one == other)
    }
}

/// What the tasks of all connections share.
#[derive(Clone)]
pub(super) struct Shared {
    pub replica: Arc<dyn Replica>,
    /// Which process this is.
    pub life: u64,
    pub events: mpsc::Sender<Event>,
    /// Batches are taken in one frame at a time.
    pub delivering: Arc<Mutex<()>>,
    /// Answers that no reader waits for.
    pub answering: Arc<Semaphore>,
    /// What a snapshot stood for is asked for over one connection at a time.
    pub recalling: Arc<Mutex<()>>,
    /// Snapshots that are told.
    pub telling: Arc<Semaphore>,
    /// Wakes the driver when the frontier or the members may have changed.
    pub changed: Arc<Notify>,
}

impl Shared {
    /// Tells the driver; false once it is gone.
    pub async fn tell(&self, event: Event) -> bool {
        self.events.send(event).await.is_ok()
    }
}

/// Why a connection is ended from here.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("what it sent is {0}")]
    Deliver(#[from] ReplicaError),
    #[error("replication ends")]
    Stopped,
}

impl End {
    /// How the machine shall take it, and what the peer is told.
    fn verdict(&self) -> (Loss, CloseCode) {
        match self {
            Self::Net(NetError::Codec(_) | NetError::Answer) => {
                (Loss::Refused, CloseCode::Protocol)
            }
            Self::Net(NetError::Closed(
                CloseCode::Stranger | CloseCode::Refused | CloseCode::Protocol,
            )) => (Loss::Refused, CloseCode::Leaving),
            Self::Deliver(ReplicaError::Refused(_)) => (Loss::Refused, CloseCode::Refused),
            Self::Net(_) | Self::Deliver(_) | Self::Stopped => (Loss::Link, CloseCode::Leaving),
        }
    }
}

/// Serves a connection until it ends, and says how.
pub(super) async fn run(shared: Shared, conn: ConnId, up: Up, jobs: mpsc::Receiver<Job>) {
    let Up { link, writer, reader, .. } = up;
    let end = tokio::select! {
        end = read(&shared, conn, &link, reader) => end,
        end = write(&shared, conn, writer, jobs) => end,
        end = answer(&shared, &link) => end,
        end = link.closed() => Err(End::Net(end)),
    };
    let end = match end {
        Ok(never) => match never {},
        // What the peer said at its end tells more than the stream that broke by it.
        Err(End::Net(NetError::Lost(why))) => {
            match tokio::time::timeout(Duration::from_millis(50), link.closed()).await {
                Ok(closed) => End::Net(closed),
                Err(_) => End::Net(NetError::Lost(why)),
            }
        }
        Err(end) => end,
    };
    let (loss, code) = end.verdict();
    link.close(code);
    let is_failure = !matches!(end, End::Net(NetError::Closed(CloseCode::Duplicate)));
    let _ = shared.tell(Event::Down(conn, loss, is_failure.then(|| end.to_string()))).await;
}

async fn read(
    shared: &Shared,
    conn: ConnId,
    link: &Link,
    mut reader: FrameReader,
) -> Result<std::convert::Infallible, End> {
    loop {
        let event = match reader.read(Sender::Member).await? {
            Frame::Batches { batches, chunks } => {
                let ((held, frontier), carried) = deliver(shared, link, batches, chunks).await?;
                Event::Delivered(conn, held, frontier, carried)
            }
            Frame::Epochs(told) => {
                let replica = Arc::clone(&shared.replica);
                let learned = spawn_blocking(move || replica.learn_epochs(told)).await;
                learned.map_err(|_| End::Stopped)?.map_err(End::Deliver)?;
                continue;
            }
            frame => Event::Input(Input::Frame(conn, frame)),
        };
        if !shared.tell(event).await {
            return Err(End::Stopped);
        }
    }
}

/// Hands batches to the workspace; returns up to where they were and where it is then, and the chunks
/// that came along.
pub(super) async fn deliver(
    shared: &Shared,
    link: &Link,
    batches: Vec<Blob>,
    chunks: Vec<Blob>,
) -> Result<((Frontier, Frontier), Vec<ChunkId>), End> {
    let mut held = Frontier::new();
    for batch in &batches {
        let span = batch_span(&batch.0).map_err(NetError::Codec)?;
        let last = held.entry(span.journal).or_insert(0);
        *last = span.last_seq.max(*last);
    }
    let (replica, peer) = (Arc::clone(&shared.replica), link.peer());
    let one_at_a_time = Arc::clone(&shared.delivering).lock_owned().await;
    let delivered = spawn_blocking(move || {
        let _one_at_a_time = one_at_a_time;
        // An id that is worked out here is a true one.
        let chunks = chunks.into_iter().map(|chunk| (ChunkId::of(&chunk.0), chunk.0));
        let chunks: Vec<(ChunkId, Vec<u8>)> = chunks.collect();
        let carried = chunks.iter().map(|(id, _)| *id).collect();
        replica.deliver(&peer, batches.into_iter().map(|batch| batch.0).collect(), chunks)?;
        Ok((replica.frontier(), carried))
    });
    let (frontier, carried) = delivered.await.map_err(|_| End::Stopped)?.map_err(End::Deliver)?;
    Ok(((held, frontier), carried))
}

async fn write(
    shared: &Shared,
    conn: ConnId,
    mut writer: FrameWriter,
    mut jobs: mpsc::Receiver<Job>,
) -> Result<std::convert::Infallible, End> {
    while let Some(job) = jobs.recv().await {
        let done = match job {
            Job::Frame(frame) => {
                writer.write(&frame).await?;
                Input::Sent(conn)
            }
            Job::Push(after) => Input::Pushed(conn, push(shared, &mut writer, after).await?),
        };
        if !shared.tell(Event::Input(done)).await {
            return Err(End::Stopped);
        }
    }
    Err(End::Stopped)
}

/// Writes what lies behind `after`, as far as one frame goes; returns how far that is.
async fn push(shared: &Shared, writer: &mut FrameWriter, after: Frontier) -> Result<Frontier, End> {
    let replica = Arc::clone(&shared.replica);
    let read = spawn_blocking(move || {
        let (batches, upto) = collect(&*replica, &after)?;
        Ok::<_, ReplicaError>((batches, fresh(&*replica, &after, &upto), upto))
    });
    let (batches, chunks, upto) = match read.await.map_err(|_| End::Stopped)? {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!("batches for a peer cannot be read: {error}");
            return Ok(Frontier::new());
        }
    };
    if !batches.is_empty() {
        writer.write(&Frame::Batches { batches, chunks }).await?;
    }
    Ok(upto)
}

/// Answers the peer's requests, as many at once as the connection lets it make.
async fn answer(shared: &Shared, link: &Link) -> Result<std::convert::Infallible, End> {
    let mut answers: JoinSet<()> = JoinSet::new();
    loop {
        let request = link.accept_request().await?;
        while answers.try_join_next().is_some() {}
        if answers.len() >= ANSWERS_MAX {
            answers.join_next().await;
        }
        let (shared, link) = (shared.clone(), link.clone());
        answers.spawn(async move {
            let answered = tokio::time::timeout(ANSWER_TIME, answer_one(&shared, request)).await;
            // The stream's end, or the connection's, is the asker's own affair.
            if let Ok(Err(End::Net(NetError::Codec(error)))) = answered {
                tracing::warn!("{} asks what is no request: {error}", link.peer());
                link.close(CloseCode::Protocol);
            }
        });
    }
}

async fn answer_one(shared: &Shared, request: IncomingRequest) -> Result<(), End> {
    let (request, mut writer) = request.read().await?;
    let request = match request {
        Request::Chunks(request) => request,
        Request::History { journal, after_seq } => {
            return history::answer(shared, &mut writer, journal, after_seq).await;
        }
    };
    // A waiting reader's request does not queue behind others.
    let permit = async { shared.answering.acquire().await.map_err(|_| End::Stopped) };
    let _permit = if request.urgent { None } else { Some(permit.await?) };
    let replica = Arc::clone(&shared.replica);
    let read = spawn_blocking(move || read_chunks(&*replica, &request.chunks));
    let chunks = read.await.map_err(|_| End::Stopped)?;
    Ok(writer.write(&chunks).await?)
}

/// Chunks in the order asked for, until the answer is long enough.
fn read_chunks(replica: &dyn Replica, ids: &[ChunkId]) -> Vec<Option<Vec<u8>>> {
    let (mut chunks, mut total_bytes) = (Vec::new(), 0);
    for id in ids {
        if total_bytes >= ANSWER_BYTES {
            break;
        }
        let chunk = replica.read_chunk(id).unwrap_or_else(|error| {
            tracing::warn!("chunk {id} cannot be read for a peer: {error}");
            None
        });
        total_bytes += chunk.as_ref().map_or(0, Vec::len);
        chunks.push(chunk);
    }
    chunks
}
