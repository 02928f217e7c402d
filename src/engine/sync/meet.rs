//! How a connection begins: whom we dial, who comes in, who is turned away.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::connection::{Event, Shared, Tree, Up, deliver};
use super::push::collect_upto;
use super::{ReplicaError, SyncError, bootstrap};
use crate::codec::Sender;
use crate::net::{Arriving, CloseCode, FrameReader, FrameWriter, Link, Net, NetError};
use crate::sync::Loss;
use crate::types::limits::{ARRIVALS_MAX, STRANGERS_MAX};
use crate::types::{Addresses, Blob, DeviceId, Frame, Frontier, Held, Refusal};

/// From the first packet to the answer to a greeting.
const MEETING_TIME: Duration = Duration::from_secs(15);
/// How long a stranger is listened to.
const STRANGER_TIME: Duration = Duration::from_secs(5);
/// How long a side that has said its last frame waits for the other to close.
const PARTING_TIME: Duration = Duration::from_secs(5);

/// Dials a member and greets it; tells the driver what came of it.
pub(super) async fn dial(shared: Shared, net: Net, peer: DeviceId, addresses: Addresses) {
    let event = match timeout(MEETING_TIME, greet(&shared, &net, &peer, &addresses)).await {
        Ok(Ok(up)) => Event::Up(Box::new(up)),
        Ok(Err(SyncError::Net(NetError::Closed(CloseCode::Duplicate)))) => {
            Event::DialFailed(peer, Loss::Link, None)
        }
        Ok(Err(error)) => Event::DialFailed(peer, loss(&error), Some(error.to_string())),
        Err(_) => Event::DialFailed(peer, Loss::Link, Some(SyncError::TimedOut.to_string())),
    };
    let _ = shared.tell(event).await;
}

fn loss(error: &SyncError) -> Loss {
    match error {
        SyncError::Refused(_)
        | SyncError::Unexpected
        | SyncError::Net(
            NetError::Closed(CloseCode::Stranger | CloseCode::Revoked) | NetError::Codec(_),
        ) => Loss::Refused,
        _ => Loss::Link,
    }
}

async fn greet(
    shared: &Shared,
    net: &Net,
    peer: &DeviceId,
    addresses: &Addresses,
) -> Result<Up, SyncError> {
    let workspace = shared.replica.workspace();
    let told = own_tree(shared).await?;
    let link = net.dial(peer, addresses).await?;
    let (mut writer, mut reader) = link.open_control().await?;
    let hello = told.hello(shared, peer);
    let answer = match writer.write(&hello).await {
        Ok(()) => reader.read(Sender::Member).await,
        Err(error) => Err(error),
    };
    if let Ok(Frame::Batches { batches, .. }) = answer {
        return Err(hear_of_parting(shared, &link, &mut reader, batches).await);
    }
    match answer.map_err(|error| (error, &link)) {
        Ok(Frame::Hello { workspace: theirs, frontier, root, life, yours })
            if theirs == workspace =>
        {
            go_on_if_own(shared, yours).await?;
            tell_epochs(shared, peer, &mut writer).await?;
            let heard = Tree { frontier, root };
            Ok(Up { link, writer, reader, dialled: true, heard, told, life })
        }
        Ok(Frame::Hello { .. }) => Err(Refusal::OtherWorkspace.into()),
        Ok(Frame::Refused(refusal)) => Err(refusal.into()),
        Ok(_) => Err(SyncError::Unexpected),
        Err((error, link)) => Err(reason(error, link).await.into()),
    }
}

/// What a member tells of how this device was revoked; each batch is verified as any other.
async fn hear_of_parting(
    shared: &Shared,
    link: &Link,
    reader: &mut FrameReader,
    mut batches: Vec<Blob>,
) -> SyncError {
    loop {
        if let Err(error) = deliver(shared, link, batches, Vec::new()).await {
            tracing::warn!("what a member tells of its parting is not taken: {error}");
            return SyncError::Unexpected;
        }
        batches = match reader.read(Sender::Member).await {
            Ok(Frame::Batches { batches, .. }) => batches,
            Ok(Frame::Refused(refusal)) => return refusal.into(),
            Ok(_) => return SyncError::Unexpected,
            Err(error) => return reason(error, link).await.into(),
        };
    }
}

/// Why the peer closed the connection, where it did, rather than how the stream broke by it.
pub(super) async fn reason(error: NetError, link: &Link) -> NetError {
    match error {
        NetError::Lost(why) => {
            let closed = timeout(Duration::from_millis(50), link.closed()).await;
            closed.unwrap_or(NetError::Lost(why))
        }
        other => other,
    }
}

/// A member may have been admitted by one who had not heard of an epoch, or have missed it otherwise.
pub(super) async fn tell_epochs(
    shared: &Shared,
    peer: &DeviceId,
    writer: &mut FrameWriter,
) -> Result<(), SyncError> {
    let epochs = shared.replica.epochs_for(peer);
    if !epochs.is_empty() {
        writer.write(&Frame::Epochs(epochs)).await?;
    }
    Ok(())
}

/// Nothing of this device's journal is told to anybody while others have it otherwise.
async fn go_on_if_own(shared: &Shared, yours: Option<Held>) -> Result<(), SyncError> {
    let Some(held) = yours else { return Ok(()) };
    let replica = Arc::clone(&shared.replica);
    match spawn_blocking(move || replica.hear_of_own(&held)).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => {
            shared.changed.notify_one();
            Err(SyncError::Overtaken)
        }
        Ok(Err(error)) => {
            tracing::warn!("what a member has of this device cannot be looked at: {error}");
            Err(SyncError::Closed)
        }
        Err(_) => Err(SyncError::Closed),
    }
}

async fn own_tree(shared: &Shared) -> Result<Tree, SyncError> {
    let replica = Arc::clone(&shared.replica);
    let tree = spawn_blocking(move || {
        let frontier = replica.frontier();
        Tree { root: replica.tree_root(&frontier), frontier }
    });
    tree.await.map_err(|_| SyncError::Closed)
}

/// Takes in connections until the endpoint closes.
pub(super) async fn accept(shared: Shared, net: Net) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    let mut meetings: JoinSet<()> = JoinSet::new();
    while let Some(arriving) = net.accept().await {
        while meetings.try_join_next().is_some() {}
        if meetings.len() >= ARRIVALS_MAX {
            arriving.refuse();
            continue;
        }
        let (shared, strangers) = (shared.clone(), Arc::clone(&strangers));
        meetings.spawn(async move {
            match timeout(MEETING_TIME, meet(&shared, &strangers, arriving)).await {
                Ok(Ok(Met::Up(up))) => {
                    let _ = shared.tell(Event::Up(up)).await;
                }
                Ok(Ok(Met::Asks(link, writer))) => bootstrap::tell(&shared, &link, writer).await,
                Ok(Ok(Met::Done)) => {}
                Ok(Err(error)) => tracing::debug!("a connection that came in failed: {error}"),
                Err(_) => tracing::debug!("a connection that came in took too long"),
            }
        });
    }
}

/// What came of a connection that came in.
enum Met {
    /// It stays.
    Up(Box<Up>),
    /// A member asks for a snapshot.
    Asks(Link, FrameWriter),
    /// All is said.
    Done,
}

/// Hears who it is. Of a stranger, nothing is read but one small frame, and that must be a `Join`.
async fn meet(
    shared: &Shared,
    strangers: &Semaphore,
    arriving: Arriving,
) -> Result<Met, SyncError> {
    let link = arriving.finish().await?;
    if !shared.replica.is_member(&link.peer()) {
        let Ok(_permit) = strangers.try_acquire() else {
            link.close(CloseCode::Busy);
            return Ok(Met::Done);
        };
        if let Some(told) = shared.replica.parting(&link.peer()) {
            let heard = part_for_good(shared, &link, &told).await;
            link.close(CloseCode::Revoked);
            heard?;
            return Ok(Met::Done);
        }
        let heard = timeout(STRANGER_TIME, meet_stranger(shared, &link)).await;
        link.close(CloseCode::Stranger);
        heard.map_err(|_| SyncError::TimedOut)??;
        return Ok(Met::Done);
    }
    let (mut writer, mut reader) = link.accept_control().await?;
    match reader.read(Sender::Member).await? {
        Frame::Hello { workspace, frontier, root, life, yours }
            if workspace == shared.replica.workspace() =>
        {
            go_on_if_own(shared, yours).await?;
            let told = own_tree(shared).await?;
            writer.write(&told.hello(shared, &link.peer())).await?;
            tell_epochs(shared, &link.peer(), &mut writer).await?;
            let heard = Tree { frontier, root };
            let up = Up { link, writer, reader, dialled: false, heard, told, life };
            Ok(Met::Up(Box::new(up)))
        }
        Frame::Bootstrap { workspace } if workspace == shared.replica.workspace() => {
            Ok(Met::Asks(link, writer))
        }
        Frame::Hello { .. } | Frame::Bootstrap { .. } => {
            part(&link, &mut writer, Frame::Refused(Refusal::OtherWorkspace)).await?;
            Ok(Met::Done)
        }
        // A member that lost the answer to its first `Join`.
        join @ Frame::Join { .. } => {
            admit(shared, &link, &mut writer, join).await?;
            Ok(Met::Done)
        }
        _ => {
            link.close(CloseCode::Protocol);
            Err(SyncError::Unexpected)
        }
    }
}

/// Tells a device that it was revoked: with the op that says so and its past, which it checks as any
/// other, so that it need not take our word.
async fn part_for_good(shared: &Shared, link: &Link, told: &Frontier) -> Result<(), SyncError> {
    let (mut writer, mut reader) = link.accept_control().await?;
    let Frame::Hello { frontier, .. } = reader.read(Sender::Member).await? else {
        return Err(SyncError::Unexpected);
    };
    let mut after = frontier;
    loop {
        let (replica, told, lacks) = (Arc::clone(&shared.replica), told.clone(), after.clone());
        let read = spawn_blocking(move || collect_upto(&*replica, &lacks, &told)).await;
        let (batches, upto) = read.map_err(|_| SyncError::Closed)?.map_err(|error| {
            tracing::warn!("a revoked device cannot be told so: {error}");
            SyncError::Closed
        })?;
        if batches.is_empty() {
            break;
        }
        after.extend(upto);
        writer.write(&Frame::Batches { batches, chunks: Vec::new() }).await?;
    }
    part(link, &mut writer, Frame::Refused(Refusal::Revoked)).await
}

async fn meet_stranger(shared: &Shared, link: &Link) -> Result<(), SyncError> {
    let (mut writer, mut reader): (FrameWriter, FrameReader) = link.accept_control().await?;
    match reader.read(Sender::Stranger).await? {
        join @ Frame::Join { .. } => admit(shared, link, &mut writer, join).await,
        _ => Ok(()),
    }
}

/// Answers a `Join`.
async fn admit(
    shared: &Shared,
    link: &Link,
    writer: &mut FrameWriter,
    join: Frame,
) -> Result<(), SyncError> {
    let Frame::Join { workspace, request } = join else { return Err(SyncError::Unexpected) };
    let answer = if workspace == shared.replica.workspace() {
        let (replica, joiner) = (Arc::clone(&shared.replica), link.peer());
        let admitted = spawn_blocking(move || replica.admit(&joiner, &request)).await;
        match admitted.map_err(|_| SyncError::Closed)? {
            Ok(welcome) => Frame::Welcome(welcome),
            Err(ReplicaError::NotAdmitted(refusal)) => Frame::Refused(refusal),
            Err(error) => {
                tracing::warn!("{} could not be admitted: {error}", link.peer());
                Frame::Refused(Refusal::Failed)
            }
        }
    } else {
        Frame::Refused(Refusal::OtherWorkspace)
    };
    shared.changed.notify_one();
    part(link, writer, answer).await
}

/// Says a last frame, and waits until the other side has it and closes.
async fn part(link: &Link, writer: &mut FrameWriter, last: Frame) -> Result<(), SyncError> {
    writer.write(&last).await?;
    writer.finish();
    let _ = timeout(PARTING_TIME, link.closed()).await;
    link.close(CloseCode::Leaving);
    Ok(())
}
