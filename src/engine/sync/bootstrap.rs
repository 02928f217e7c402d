//! A snapshot over a connection of its own, before replication begins: told to a member that has
//! nothing yet, and heard by it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::connection::Shared;
use super::meet::{reason, tell_epochs};
use super::{ReplicaError, Snapshot, SyncConfig, SyncError};
use crate::codec::Sender;
use crate::net::{CloseCode, FrameReader, FrameWriter, Link, Net, NetError};
use crate::types::{Addresses, Blob, DeviceId, EpochSecret, Frame, Refusal, WorkspaceId};

/// From the first packet to the first part. What the teller has not folded yet it folds before.
const FIRST_PART_TIME: Duration = Duration::from_mins(5);
/// From one part to the next.
const PART_TIME: Duration = Duration::from_mins(1);
/// How long the dial may take: then the member hears the journals instead, or later.
const DIAL_TIME: Duration = Duration::from_secs(15);
/// A moment is held no longer than this, for the teller's write-ahead log grows meanwhile.
const TELL_TIME: Duration = Duration::from_mins(30);
/// How long the teller waits for the other to close.
const PARTING_TIME: Duration = Duration::from_secs(5);

/// The parts of a snapshot, as another device tells them.
pub struct Parts {
    // In this order: the connection ends before what it runs on.
    reader: FrameReader,
    link: Link,
    net: Net,
    runtime: Runtime,
    has_begun: bool,
    epochs: Vec<EpochSecret>,
}

/// Asks a member for a snapshot. Blocks until it is reached.
///
/// Of `config`, where to listen, the relays and the discovery are used.
///
/// # Errors
/// As the network fails.
pub fn ask(
    config: &SyncConfig,
    key_seed: &[u8; 32],
    workspace: WorkspaceId,
    (peer, addresses): (&DeviceId, &Addresses),
) -> Result<Parts, SyncError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("tidefs-fill")
        .enable_all()
        .build()?;
    let asked = runtime.block_on(async {
        let mut net = config.net();
        net.relays.extend(addresses.relays.iter().cloned());
        net.relays.dedup();
        let net = Net::bind(&net, key_seed).await?;
        let dialled = timeout(DIAL_TIME, async {
            let link = net.dial(peer, addresses).await?;
            let (mut writer, reader) = link.open_control().await?;
            writer.write(&Frame::Bootstrap { workspace }).await?;
            Ok::<_, SyncError>((link, reader))
        });
        match dialled.await {
            Ok(Ok((link, reader))) => Ok((net, link, reader)),
            other => {
                net.close().await;
                Err(other.map_or(SyncError::TimedOut, |failed| match failed {
                    Err(error) => error,
                    Ok(_) => SyncError::Closed,
                }))
            }
        }
    });
    let (net, link, reader) = asked?;
    Ok(Parts { reader, link, net, runtime, has_begun: false, epochs: Vec::new() })
}

impl Parts {
    /// The next encoded part. Blocks for it, within a bound.
    ///
    /// # Errors
    /// [`SyncError::Refused`] if the other device tells none; else as the network fails.
    pub fn next_part(&mut self) -> Result<Vec<u8>, SyncError> {
        let within = if self.has_begun { PART_TIME } else { FIRST_PART_TIME };
        self.has_begun = true;
        let (reader, link, epochs) = (&mut self.reader, &self.link, &mut self.epochs);
        self.runtime.block_on(async {
            loop {
                return match timeout(within, reader.read(Sender::Member)).await {
                    Err(_) => Err(SyncError::TimedOut),
                    Ok(Ok(Frame::Part(part))) => Ok(part.0),
                    Ok(Ok(Frame::Epochs(told))) if epochs.is_empty() && !told.is_empty() => {
                        *epochs = told;
                        continue;
                    }
                    Ok(Ok(Frame::Refused(refusal))) => Err(refusal.into()),
                    Ok(Ok(_)) => Err(SyncError::Unexpected),
                    Ok(Err(error)) => Err(reason(error, link).await.into()),
                };
            }
        })
    }

    /// The secrets of epochs that have come with them.
    pub fn epochs(&mut self) -> Vec<EpochSecret> {
        std::mem::take(&mut self.epochs)
    }

    /// Ends the connection, and frees the sockets.
    pub fn finish(self) {
        let Self { link, net, runtime, .. } = self;
        link.close(CloseCode::Leaving);
        runtime.block_on(net.close());
    }
}

/// Tells a member that has just greeted with [`Frame::Bootstrap`] this moment of the workspace.
pub(super) async fn tell(shared: &Shared, link: &Link, mut writer: FrameWriter) {
    let told = timeout(TELL_TIME, async {
        let _permit = shared.telling.acquire().await.map_err(|_| SyncError::Closed)?;
        tell_epochs(shared, &link.peer(), &mut writer).await?;
        tell_parts(shared, &mut writer).await
    });
    match told.await {
        Ok(Ok(())) => tracing::info!("{} has been told all there is", link.peer()),
        Ok(Err(error)) => tracing::info!("a snapshot for {} ended early: {error}", link.peer()),
        Err(_) => tracing::warn!("a snapshot for {} took too long", link.peer()),
    }
    writer.finish();
    let _ = timeout(PARTING_TIME, link.closed()).await;
    link.close(CloseCode::Leaving);
}

async fn tell_parts(shared: &Shared, writer: &mut FrameWriter) -> Result<(), SyncError> {
    let replica = Arc::clone(&shared.replica);
    let pinned = spawn_blocking(move || replica.snapshot());
    let mut snapshot = match pinned.await.map_err(|_| SyncError::Closed)? {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::warn!("no snapshot can be told: {error}");
            writer.write(&Frame::Refused(Refusal::Failed)).await?;
            return Ok(());
        }
    };
    let mut part = read(&mut snapshot).await?;
    while let Some(bytes) = part {
        // The next is read while this one goes.
        let frame = Frame::Part(Blob(bytes));
        let (next, written) = tokio::join!(read(&mut snapshot), writer.write(&frame));
        written?;
        part = next?;
    }
    Ok(())
}

async fn read(snapshot: &mut Box<dyn Snapshot>) -> Result<Option<Vec<u8>>, SyncError> {
    let taken = std::mem::replace(snapshot, Box::new(Nothing));
    let read = spawn_blocking(move || {
        let mut taken = taken;
        let part = taken.next_part();
        (taken, part)
    });
    let (back, part) = read.await.map_err(|_| SyncError::Closed)?;
    *snapshot = back;
    part.map_err(|error| NetError::Lost(error.to_string()).into())
}

/// Stands where a snapshot is, while that is read from.
struct Nothing;

impl Snapshot for Nothing {
    fn next_part(&mut self) -> Result<Option<Vec<u8>>, ReplicaError> {
        Ok(None)
    }
}
