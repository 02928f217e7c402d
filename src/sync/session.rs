//! One connection: what the peer has, what it was told, what to write next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::machine::{ConnId, Output};
use crate::types::limits::{FRONTIER_DEVICES_MAX, OFFER_CHUNKS_MAX};
use crate::types::{ChunkId, DeviceId, Frame, Frontier, PeerNote};

/// What grew is told at most this often.
const HAVE_DELAY_MS: u64 = 50;
/// Chunks that came are offered at most this often.
const OFFER_DELAY_MS: u64 = 10;
/// Changed addresses and connections are told at most this often.
const NOTES_DELAY_MS: u64 = 500;
/// A batch is not passed on alone to a peer that is connected to its author, unless the peer still
/// lacks it after this time.
const RELAY_WAIT_MS: u64 = 500;
/// The first wait before batches that a peer did not take are sent again; it doubles.
const RESEND_MS: u64 = 1_000;
const RESEND_MAX_MS: u64 = 60_000;

/// What is known of a connected peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerView {
    /// Which.
    pub device: DeviceId,
    /// Over which connection.
    pub conn: ConnId,
    /// What it says it has.
    pub frontier: Frontier,
}

#[derive(Debug)]
pub(super) struct Session {
    pub conn: ConnId,
    pub peer: DeviceId,
    /// What it says it has, durably.
    acked: Frontier,
    /// What it has or is being sent.
    known: Frontier,
    /// What it knows that we have.
    told: Frontier,
    told_notes: Vec<PeerNote>,
    offers: VecDeque<ChunkId>,
    writing: bool,
    pushing: bool,
    /// `Batches` frames: taken in from it, sent to it, taken in by it.
    handled: u64,
    sent: u64,
    handled_by_peer: u64,
    have_due_ms: Option<u64>,
    notes_due_ms: Option<u64>,
    offer_due_ms: Option<u64>,
    push_after_ms: u64,
    resend_ms: u64,
    relay_wait: BTreeMap<DeviceId, u64>,
    connected_to: BTreeSet<DeviceId>,
}

impl Session {
    /// A connection whose sides have told each other `frontier` and `told`.
    pub fn new(
        conn: ConnId,
        peer: DeviceId,
        frontier: Frontier,
        told: Frontier,
        now_ms: u64,
    ) -> Self {
        Self {
            conn,
            peer,
            known: frontier.clone(),
            acked: frontier,
            told,
            told_notes: Vec::new(),
            offers: VecDeque::new(),
            writing: false,
            pushing: false,
            handled: 0,
            sent: 0,
            handled_by_peer: 0,
            have_due_ms: None,
            notes_due_ms: Some(now_ms),
            offer_due_ms: None,
            push_after_ms: now_ms,
            resend_ms: RESEND_MS,
            relay_wait: BTreeMap::new(),
            connected_to: BTreeSet::new(),
        }
    }

    pub fn view(&self) -> PeerView {
        PeerView { device: self.peer, conn: self.conn, frontier: self.acked.clone() }
    }

    /// The peer says what it has, and how much of what was sent it has taken in.
    pub fn have(&mut self, handled: u64, mut grown: Frontier, now_ms: u64) {
        if self.acked.len() >= FRONTIER_DEVICES_MAX {
            grown.retain(|journal, _| self.acked.contains_key(journal));
        }
        for journal in grown.keys() {
            if let Some(wait_ms) = self.relay_wait.get_mut(journal) {
                *wait_ms = now_ms + RELAY_WAIT_MS;
            }
        }
        let progress = raise(&mut self.acked, &grown);
        raise(&mut self.known, &grown);
        self.handled_by_peer = handled;
        if progress {
            self.resend_ms = RESEND_MS;
        }
        self.resend_untaken(now_ms);
    }

    /// Where all that was sent is taken in, and yet the peer lacks some, its clock or its disk may
    /// be the reason. It is sent again, but not at once.
    fn resend_untaken(&mut self, now_ms: u64) {
        let under_way = self.pushing || self.handled_by_peer < self.sent;
        if !under_way && self.known != self.acked {
            self.known = self.acked.clone();
            self.push_after_ms = now_ms + self.resend_ms;
            self.resend_ms = (self.resend_ms * 2).min(RESEND_MAX_MS);
        }
    }

    /// Batches of the peer are durable here.
    pub fn delivered(&mut self, journals: &Frontier, now_ms: u64) {
        self.handled += 1;
        raise(&mut self.acked, journals);
        raise(&mut self.known, journals);
        self.have_due_ms.get_or_insert(now_ms + HAVE_DELAY_MS);
    }

    /// What was being written is written.
    pub fn sent(&mut self) {
        self.writing = false;
    }

    /// Batches up to these are written, or none could be read.
    pub fn pushed(&mut self, sent: &Frontier, now_ms: u64) {
        self.writing = false;
        self.pushing = false;
        if sent.is_empty() {
            self.push_after_ms = now_ms + RESEND_MS;
        } else {
            self.sent += 1;
            raise(&mut self.known, sent);
            raise(&mut self.told, sent);
            self.resend_untaken(now_ms);
        }
    }

    pub fn connected_to(&mut self, devices: BTreeSet<DeviceId>) {
        self.connected_to = devices;
    }

    /// What is told of members may have changed.
    pub fn notes_changed(&mut self, now_ms: u64) {
        self.notes_due_ms.get_or_insert(now_ms + NOTES_DELAY_MS);
    }

    /// A chunk has come from elsewhere. The oldest offers give way: a peer that misses one asks.
    pub fn offer(&mut self, chunk: ChunkId, now_ms: u64) {
        if self.offers.len() == OFFER_CHUNKS_MAX {
            self.offers.pop_front();
        }
        self.offers.push_back(chunk);
        self.offer_due_ms.get_or_insert(now_ms + OFFER_DELAY_MS);
    }

    /// Writes what is most due, if nothing is being written.
    pub fn write(
        &mut self,
        local: &Frontier,
        own: &DeviceId,
        notes: impl FnOnce(&DeviceId) -> Vec<PeerNote>,
        now_ms: u64,
        out: &mut Vec<Output>,
    ) {
        if self.have_due_ms.is_none() && exceeds(local, &self.told) {
            self.have_due_ms = Some(now_ms + HAVE_DELAY_MS);
        }
        let after = self.lacking(local, own, now_ms);
        if self.writing {
            return;
        }
        let is_due = |due_ms: Option<u64>| due_ms.is_some_and(|due_ms| due_ms <= now_ms);
        if is_due(self.have_due_ms) {
            self.have_due_ms = None;
            let grown = difference(local, &self.told);
            raise(&mut self.told, &grown);
            return self.send(Frame::Have { handled: self.handled, grown }, out);
        }
        if !after.is_empty() {
            self.writing = true;
            self.pushing = true;
            return out.push(Output::Push { conn: self.conn, after });
        }
        if is_due(self.notes_due_ms) {
            self.notes_due_ms = None;
            let notes = notes(&self.peer);
            if notes != self.told_notes {
                self.told_notes.clone_from(&notes);
                return self.send(Frame::Peers(notes), out);
            }
        }
        if is_due(self.offer_due_ms) {
            self.offer_due_ms = None;
            let offers = std::mem::take(&mut self.offers);
            self.send(Frame::Offer(offers.into()), out);
        }
    }

    /// When something is due that is not yet.
    pub fn wake_ms(&self, now_ms: u64) -> Option<u64> {
        if self.writing {
            return None;
        }
        let dues = [self.have_due_ms, self.notes_due_ms, self.offer_due_ms];
        let push = (self.push_after_ms > now_ms).then_some(self.push_after_ms);
        let relay = self.relay_wait.values().copied().filter(|due_ms| *due_ms > now_ms);
        dues.into_iter().flatten().chain(push).chain(relay).min()
    }

    /// The journals to send from, each with the last op that the peer has.
    fn lacking(&mut self, local: &Frontier, own: &DeviceId, now_ms: u64) -> Frontier {
        let (mut after, mut held) = (Frontier::new(), Frontier::new());
        for (journal, seq) in local {
            let known = self.known.get(journal).copied().unwrap_or(0);
            if known >= *seq {
                self.relay_wait.remove(journal);
                continue;
            }
            let hears = journal == &self.peer || self.connected_to.contains(journal);
            if journal != own && hears {
                let due_ms = self.relay_wait.entry(*journal).or_insert(now_ms + RELAY_WAIT_MS);
                if *due_ms > now_ms {
                    held.insert(*journal, known);
                    continue;
                }
            }
            after.insert(*journal, known);
        }
        if after.is_empty() || self.push_after_ms > now_ms {
            return Frontier::new();
        }
        // What goes now may build on what is held back, and causes come first.
        after.append(&mut held);
        after
    }

    fn send(&mut self, frame: Frame, out: &mut Vec<Output>) {
        self.writing = true;
        out.push(Output::Send { conn: self.conn, frame });
    }
}

/// Raises each journal to what `by` has; says whether any rose.
pub(super) fn raise(frontier: &mut Frontier, by: &Frontier) -> bool {
    let mut rose = false;
    for (journal, seq) in by {
        let own = frontier.entry(*journal).or_insert(0);
        rose |= *own < *seq;
        *own = (*own).max(*seq);
    }
    rose
}

fn exceeds(frontier: &Frontier, other: &Frontier) -> bool {
    frontier.iter().any(|(journal, seq)| other.get(journal).is_none_or(|known| known < seq))
}

fn difference(frontier: &Frontier, other: &Frontier) -> Frontier {
    let grown =
        frontier.iter().filter(|(journal, seq)| other.get(journal).is_none_or(|known| known < seq));
    grown.map(|(journal, seq)| (*journal, *seq)).collect()
}
