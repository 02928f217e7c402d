//! What came before a snapshot: the part of `engine/sync/history.rs`.

use rand::RngExt;
use tidefs::engine::sync::{Replica, ReplicaError};

use super::network::Event;
use super::world::World;

/// About as much is answered at once, so that it takes several questions.
const ANSWER_BYTES: usize = 4096;

impl World {
    pub fn recall_later(&mut self, n: usize) {
        if !self.life(n).fs.replica().gaps().is_empty() {
            let at_ms = self.now_ms + self.random.random_range(100..3000);
            self.at(at_ms, n, Event::Recall);
        }
    }

    /// Asks whoever it is connected to for what came before the snapshot that it was filled from.
    pub fn recall(&mut self, n: usize) {
        for (journal, after_seq) in self.life(n).fs.replica().gaps() {
            let is_peer =
                |other: &usize| self.links.values().any(|link| link.is_between(n, *other));
            let peers: Vec<usize> = (0..self.places.len()).filter(is_peer).collect();
            for peer in peers {
                let Some(life) = &self.places[peer].life else { continue };
                let batches = life.fs.replica().batches(&journal, after_seq, ANSWER_BYTES);
                let batches = batches.expect("batches are read");
                if batches.is_empty() {
                    continue;
                }
                self.note(n);
                let result = self.life(n).fs.replica().store_history(&journal, batches);
                if self.has_died(n, true) {
                    return;
                }
                self.tell(n, || format!("takes history: {}", result.is_ok()));
                match result {
                    Ok(()) => self.stats.add("history taken", 1),
                    Err(ReplicaError::Failed(_)) if self.is_full(n) => {}
                    Err(error) => panic!("an honest device's history is not taken: {error}"),
                }
                break;
            }
        }
        self.recall_later(n);
    }
}
