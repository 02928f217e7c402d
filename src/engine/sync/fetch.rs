//! One request for chunks, from the question to the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::Replica;
use super::connection::{Event, Shared};
use crate::net::{Link, NetError};
use crate::sync::{Input, RequestId};
use crate::types::{ChunkId, ChunkRequest};

/// The machine hears of progress this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What a request has brought so far.
#[derive(Default)]
struct Brought {
    chunks: Vec<(ChunkId, Vec<u8>)>,
    lacking: Vec<ChunkId>,
}

/// Asks, waits, verifies, stores; tells the driver once, whatever happens. What had come whole
/// before a connection broke is kept.
pub(super) async fn run(
    shared: Shared,
    link: Option<Link>,
    id: RequestId,
    request: ChunkRequest,
    cancel: oneshot::Receiver<()>,
) {
    let mut brought = Brought::default();
    if let Some(link) = link {
        let end = tokio::select! {
            end = receive(&shared, &link, id, &request, &mut brought) => end,
            _ = cancel => Err(NetError::Lost("it took too long".into())),
        };
        if let Err(error) = end {
            tracing::debug!("a request for chunks to {} ended early: {error}", link.peer());
        }
    }
    let Brought { chunks, lacking } = brought;
    let bytes = chunks.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let replica = Arc::clone(&shared.replica);
    let stored = spawn_blocking(move || store(&*replica, chunks)).await.unwrap_or(None);
    let store_failed = stored.is_none();
    let stored = stored.unwrap_or_default();
    let done = Input::Fetched { request: id, stored, lacking, bytes, store_failed };
    let _ = shared.tell(Event::Input(done)).await;
}

async fn receive(
    shared: &Shared,
    link: &Link,
    id: RequestId,
    request: &ChunkRequest,
    brought: &mut Brought,
) -> Result<(), NetError> {
    let mut answer = link.request(request).await?;
    let mut told = Instant::now();
    let mut progress = || {
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            // If there is no room, the next one will tell.
            let _ = shared.events.try_send(Event::Input(Input::Progress(id)));
        }
    };
    while let Some((chunk, bytes)) = answer.next(&mut progress).await? {
        match bytes {
            Some(bytes) if ChunkId::of(&bytes) == chunk => brought.chunks.push((chunk, bytes)),
            Some(_) => {
                tracing::warn!("{} sent other bytes than chunk {chunk}", link.peer());
                brought.lacking.push(chunk);
            }
            None => brought.lacking.push(chunk),
        }
    }
    Ok(())
}

/// Stores what came; `None` if that failed.
fn store(replica: &dyn Replica, chunks: Vec<(ChunkId, Vec<u8>)>) -> Option<Vec<ChunkId>> {
    let ids = chunks.iter().map(|(id, _)| *id).collect();
    if chunks.is_empty() {
        return Some(ids);
    }
    match replica.store_chunks(chunks) {
        Ok(()) => Some(ids),
        Err(error) => {
            tracing::warn!("chunks from a peer cannot be stored: {error}");
            None
        }
    }
}
