//! Reads what a peer lacks from the workspace, causes before effects.

use super::{Replica, ReplicaError};
use crate::codec::{BatchSpan, batch_span};
use crate::types::limits::{
    BATCH_BYTES_HARD_MAX, CARRY_BYTES, CARRY_CHUNKS_MAX, FRAME_BATCHES_MAX, PUSH_BYTES,
};
use crate::types::{Blob, DeviceId, Frontier, Hlc};

/// Read of each journal at least, however many there are.
const WINDOW_BYTES_MIN: usize = 64 << 10;
/// What stands around a batch's ops, at most.
const BATCH_FRONT_BYTES: usize = 32 << 10;

/// As [`collect`], of what lies behind `after` and not behind `upto`.
///
/// # Errors
/// As there.
pub fn collect_upto(
    replica: &dyn Replica,
    after: &Frontier,
    upto: &Frontier,
) -> Result<(Vec<Blob>, Frontier), ReplicaError> {
    let has = |journal: &DeviceId| after.get(journal).copied().unwrap_or(0);
    let lacking = upto.iter().filter(|(journal, seq)| has(journal) < **seq);
    let lacking: Frontier = lacking.map(|(journal, _)| (*journal, has(journal))).collect();
    let (mut batches, last) = collect(replica, &lacking)?;
    batches.retain(|bytes| {
        let span = batch_span(&bytes.0);
        span.is_ok_and(|span| upto.get(&span.journal).is_some_and(|end| span.first_seq <= *end))
    });
    Ok((batches, last))
}

/// Batches for one frame, of the journals that `after` names and behind what it says; and up to
/// where that is, journal by journal.
///
/// A batch's clock is later than those of all batches that it builds on, so their order by clock
/// puts causes first. Of each journal only a window is read: behind the end of the window that ends
/// first, nothing is taken, for that journal may go on with something earlier.
///
/// # Errors
/// If the workspace cannot read them.
pub fn collect(
    replica: &dyn Replica,
    after: &Frontier,
) -> Result<(Vec<Blob>, Frontier), ReplicaError> {
    let window_bytes = (PUSH_BYTES / after.len().max(1)).max(WINDOW_BYTES_MIN);
    let frontier = replica.frontier();
    let mut found: Vec<(BatchSpan, Vec<u8>)> = Vec::new();
    let mut horizon = Hlc(u64::MAX);
    for (journal, after_seq) in after {
        let mut last: Option<BatchSpan> = None;
        for bytes in replica.batches(journal, *after_seq, window_bytes)? {
            if bytes.len() > BATCH_BYTES_HARD_MAX + BATCH_FRONT_BYTES {
                return Err(ReplicaError::Failed("a batch is larger than can be sent".into()));
            }
            let span = batch_span(&bytes).map_err(|e| ReplicaError::Failed(e.to_string()))?;
            last = Some(span);
            found.push((span, bytes));
        }
        if last.is_none() && frontier.get(journal).is_some_and(|end| end > after_seq) {
            // What it lacks is not here either, and all else may build on that.
            return Ok((Vec::new(), Frontier::new()));
        }
        if let Some(last) = last
            && frontier.get(journal).is_some_and(|end| *end > last.last_seq)
        {
            horizon = horizon.min(last.hlc);
        }
    }
    found.retain(|(span, _)| span.hlc <= horizon);
    found.sort_by_key(|(span, _)| (span.hlc, span.journal, span.first_seq));
    let (mut batches, mut upto, mut total_bytes) = (Vec::new(), Frontier::new(), 0);
    for (span, bytes) in found {
        let is_full = total_bytes + bytes.len() > PUSH_BYTES || batches.len() == FRAME_BATCHES_MAX;
        if is_full && !batches.is_empty() {
            break;
        }
        total_bytes += bytes.len();
        upto.insert(span.journal, span.last_seq);
        batches.push(Blob(bytes));
    }
    Ok((batches, upto))
}

/// Small content that was stored with this device's own batches among those that go now. Other
/// devices' content is asked for: their own pushes bring it.
pub fn fresh(replica: &dyn Replica, after: &Frontier, upto: &Frontier) -> Vec<Blob> {
    let own = replica.device();
    let (Some(after), Some(upto)) = (after.get(&own), upto.get(&own)) else { return Vec::new() };
    let chunks = replica.fresh_chunks(*after, *upto, CARRY_BYTES);
    chunks.into_iter().take(CARRY_CHUNKS_MAX).map(Blob).collect()
}

#[cfg(test)]
mod tests;
