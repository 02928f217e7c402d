//! One chunk that is wanted: of whom it may be asked, and when.

use std::collections::BTreeMap;

use crate::sync::machine::ConnId;
use crate::types::{ChunkId, DeviceId};

/// Where several devices fetch the same, each chunk is the turn of one of them; the others wait this
/// long for it to offer it.
const TURN_MS: u64 = 2_000;
/// Likewise, if a reader waits for it.
const URGENT_TURN_MS: u64 = 200;

/// A peer that chunks can be asked of.
#[derive(Debug)]
pub(super) struct Source {
    pub conn: ConnId,
    pub under_way: usize,
    /// It had what it was last asked for, or was never asked.
    pub trusted: bool,
    pub strikes: u32,
    /// Until when it counts as fetching what is wanted here.
    pub same_until_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Queued,
    UnderWay,
    Parked(u64),
}

#[derive(Debug)]
pub(super) struct Want {
    pub urgent: bool,
    pub since_ms: u64,
    pub place: Place,
    /// Who said that it has not, and who that it has.
    pub lacking: Vec<DeviceId>,
    pub offered: Vec<DeviceId>,
    pub parks: u32,
}

impl Want {
    pub fn new(since_ms: u64) -> Self {
        Self {
            urgent: false,
            since_ms,
            place: Place::Queued,
            lacking: Vec::new(),
            offered: Vec::new(),
            parks: 0,
        }
    }

    /// Does it wait in this queue?
    pub fn is_live(&self, urgent: bool) -> bool {
        self.place == Place::Queued && self.urgent == urgent
    }

    /// Until then it may be another's turn to fetch it.
    pub fn turn_ms(&self) -> u64 {
        self.since_ms + if self.urgent { URGENT_TURN_MS } else { TURN_MS }
    }

    /// Is it not to be asked of `peer` yet, which has not offered it: because the peer fetches the
    /// same itself, or because another that does is to fetch it first? All who fetch the same reckon
    /// alike whose turn a chunk is.
    pub fn is_turn_of_another(
        &self,
        chunk: &ChunkId,
        peer: &DeviceId,
        own: &DeviceId,
        sources: &BTreeMap<DeviceId, Source>,
        now_ms: u64,
    ) -> bool {
        if self.offered.contains(peer) {
            return false;
        }
        let own = weight(chunk, own);
        let mut same = sources.iter().filter(|(_, source)| source.same_until_ms > now_ms);
        same.any(|(other, _)| other == peer || weight(chunk, other) > own)
    }

    /// Does another say that it has it, and can be asked soon? So a device that serves many sends
    /// little more than one copy.
    pub fn waits_for_another(
        &self,
        peer: &DeviceId,
        sources: &BTreeMap<DeviceId, Source>,
        share: usize,
    ) -> bool {
        let is_free =
            |source: Option<&Source>| source.is_some_and(|source| source.under_way < share);
        let mut others = self.offered.iter().filter(|other| *other != peer);
        !self.urgent && !self.offered.contains(peer) && others.any(|o| is_free(sources.get(o)))
    }

    /// May `peer` have it, and is nobody else likelier to?
    pub fn may_ask(&self, peer: &DeviceId, sources: &BTreeMap<DeviceId, Source>) -> bool {
        let likely = |peer: &DeviceId, source: &Source| {
            !self.lacking.contains(peer) && (source.trusted || self.offered.contains(peer))
        };
        let Some(source) = sources.get(peer) else { return false };
        if self.lacking.contains(peer) {
            return false;
        }
        likely(peer, source) || !sources.iter().any(|(peer, source)| likely(peer, source))
    }
}

/// The device with the greatest weight has the turn.
fn weight(chunk: &ChunkId, device: &DeviceId) -> u64 {
    let head = |bytes: &[u8; 32]| u64::from_le_bytes(*bytes.first_chunk().expect("32 bytes"));
    (head(&chunk.0) ^ head(&device.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
