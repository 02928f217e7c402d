//! What came before a snapshot: batches that nobody waits for, asked for while connections stand.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::connection::{End, Shared};
use crate::net::{AnswerWriter, Link};
use crate::types::DeviceId;
use crate::types::limits::PUSH_BYTES;

/// A peer that lacks it too is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_mins(1);

/// Asks a peer for what is missing until nothing is, or the connection ends.
pub(super) async fn run(shared: Shared, link: Link) {
    tokio::select! {
        () = recall(&shared, &link) => {}
        _ = link.closed() => {}
    }
}

async fn recall(shared: &Shared, link: &Link) {
    loop {
        let turn = shared.recalling.lock().await;
        let Some(mut gaps) = gaps(shared).await.filter(|gaps| !gaps.is_empty()) else { return };
        let mut has_come = true;
        while has_come {
            has_come = false;
            for (journal, after_seq) in std::mem::take(&mut gaps) {
                match ask(shared, link, journal, after_seq).await {
                    Ok(some_came) => has_come |= some_came,
                    Err(error) => {
                        tracing::info!("{} gives no history: {error}", link.peer());
                        return;
                    }
                }
            }
            gaps = self::gaps(shared).await.unwrap_or_default();
        }
        drop(turn);
        if gaps.is_empty() {
            tracing::info!("all that came before this device is here");
            return;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The journals whose beginnings are missing, and up to where they are here.
async fn gaps(shared: &Shared) -> Option<Vec<(DeviceId, u64)>> {
    let replica = Arc::clone(&shared.replica);
    spawn_blocking(move || replica.gaps()).await.ok()
}

/// Brings some of a journal; false if the peer has none of it.
async fn ask(shared: &Shared, link: &Link, journal: DeviceId, after_seq: u64) -> Result<bool, End> {
    let batches = link.request_history(journal, after_seq).await?;
    if batches.is_empty() {
        return Ok(false);
    }
    let replica = Arc::clone(&shared.replica);
    let batches = batches.into_iter().map(|batch| batch.0).collect();
    let stored = spawn_blocking(move || replica.store_history(&journal, batches));
    stored.await.map_err(|_| End::Stopped)??;
    Ok(true)
}

/// Answers a peer that asks.
pub(super) async fn answer(
    shared: &Shared,
    writer: &mut AnswerWriter,
    journal: DeviceId,
    after_seq: u64,
) -> Result<(), End> {
    let _permit = shared.answering.acquire().await.map_err(|_| End::Stopped)?;
    let replica = Arc::clone(&shared.replica);
    let read = spawn_blocking(move || replica.batches(&journal, after_seq, PUSH_BYTES));
    let batches = read.await.map_err(|_| End::Stopped)?.unwrap_or_else(|error| {
        tracing::warn!("history cannot be read for a peer: {error}");
        Vec::new()
    });
    Ok(writer.write_history(batches).await?)
}
