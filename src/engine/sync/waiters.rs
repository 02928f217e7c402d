//! Readers that wait for chunks.

use std::collections::HashSet;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use super::WantError;
use crate::types::ChunkId;
use crate::types::limits::WAITERS_MAX;

struct Waiter {
    left: HashSet<ChunkId>,
    deadline: Instant,
    reply: SyncSender<Result<(), WantError>>,
}

/// All that wait.
#[derive(Default)]
pub(super) struct Waiters(Vec<Waiter>);

impl Waiters {
    /// One more waits; false if it had to be turned away, or waits for nothing.
    pub fn add(
        &mut self,
        chunks: &[ChunkId],
        deadline: Instant,
        reply: SyncSender<Result<(), WantError>>,
    ) -> bool {
        let now = Instant::now();
        self.0.retain(|waiter| waiter.deadline > now);
        if chunks.is_empty() || self.0.len() >= WAITERS_MAX {
            let result = if chunks.is_empty() { Ok(()) } else { Err(WantError::Busy) };
            let _ = reply.try_send(result);
            return false;
        }
        self.0.push(Waiter { left: chunks.iter().copied().collect(), deadline, reply });
        true
    }

    /// These chunks are here: who has all goes on.
    pub fn stored(&mut self, chunks: &[ChunkId]) {
        if self.0.is_empty() {
            return;
        }
        self.0.retain_mut(|waiter| {
            for chunk in chunks {
                waiter.left.remove(chunk);
            }
            if waiter.left.is_empty() {
                let _ = waiter.reply.try_send(Ok(()));
            }
            !waiter.left.is_empty()
        });
    }

    /// Does any still wait for this one?
    pub fn wait_for(&self, chunk: &ChunkId) -> bool {
        self.0.iter().any(|waiter| waiter.left.contains(chunk))
    }

    /// Nothing more will come.
    pub fn close(&mut self) {
        for waiter in self.0.drain(..) {
            let _ = waiter.reply.try_send(Err(WantError::Closed));
        }
    }
}
