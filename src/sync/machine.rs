//! The state machine: what happened goes in, what to do comes out.

use std::collections::{BTreeMap, HashSet};

use super::backoff::Jitter;
use super::chunks::{Brought, Chunks};
use super::links::{Links, Up, Verdict};
use super::session::{PeerView, Session, raise};
use crate::types::{Addresses, ChunkId, DeviceId, Frame, Frontier};

/// A connection, numbered by the driver, never twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// A request for chunks, numbered by the machine, never twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// What is fixed for a machine's life.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// This device.
    pub device: DeviceId,
    /// Of jitter and order.
    pub seed: u64,
    /// Chunk requests under way at once (`max_concurrent_ops`).
    pub ops_max: usize,
    /// Chunks in one request (`batch_size`).
    pub request_chunks_max: usize,
    /// Something can find a device by its id alone: dial members without an address too.
    pub dial_unknown: bool,
}

/// How a connection ended, or was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The link failed, or the other side left.
    Link,
    /// A side turned the other away, or broke the rules: it is not tried again soon.
    Refused,
}

/// Why the machine ends a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// Both sides dialled: the other connection stays, or a newer one took its place.
    Duplicate,
    /// The peer is no member, or no longer.
    Stranger,
    /// It does not answer requests.
    Stalled,
    /// It sent a frame that has no place there.
    Protocol,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The members, this device among them or not.
    Members(Vec<DeviceId>),
    /// Where this device can be reached.
    OwnAddresses(Addresses),
    /// Where a member was seen, or where the user says it is.
    PeerAddresses(DeviceId, Addresses),
    /// How far the journals are here.
    LocalFrontier(Frontier),
    /// A connection stands: each side's greeting has been read by the other.
    Connected {
        /// Its number.
        conn: ConnId,
        /// With whom.
        peer: DeviceId,
        /// By this device.
        dialled: bool,
        /// The peer's.
        frontier: Frontier,
        /// What this device's said.
        told: Frontier,
        /// Which process of the peer it is.
        life: u64,
    },
    /// A dial that was asked for came to nothing.
    DialFailed(DeviceId, Loss),
    /// A connection ended.
    Lost(ConnId, Loss),
    /// A frame came; no greeting, no batches.
    Frame(ConnId, Frame),
    /// A `Batches` frame is durable here; what it held.
    Delivered(ConnId, Frontier),
    /// What [`Output::Send`] asked for is written.
    Sent(ConnId),
    /// What [`Output::Push`] asked for is written, up to here.
    Pushed(ConnId, Frontier),
    /// A reader waits for these chunks.
    Want(Vec<ChunkId>),
    /// Chunks that came have named others, which may be missing.
    Named,
    /// These chunks are here.
    Here(Vec<ChunkId>),
    /// The answer to [`Output::Refill`].
    Missing {
        /// These.
        chunks: Vec<ChunkId>,
        /// More will be, after so long.
        later_ms: Option<u64>,
    },
    /// A request brings bytes; told every second or so.
    Progress(RequestId),
    /// A request has ended, in whatever way: each ends once.
    Fetched {
        /// Which.
        request: RequestId,
        /// What came, was verified, and is stored.
        stored: Vec<ChunkId>,
        /// What the peer has not.
        lacking: Vec<ChunkId>,
        /// Of the chunks that are stored.
        bytes: u64,
        /// Some came, and could not be stored.
        store_failed: bool,
    },
    /// The time that [`Output::WakeAt`] named has come.
    Tick,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Connect to this member.
    Dial {
        /// Whom.
        peer: DeviceId,
        /// Where it may be.
        addresses: Addresses,
    },
    /// End a connection; no [`Input::Lost`] needs to follow.
    Close {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// Write a frame; [`Input::Sent`] follows.
    Send {
        /// To whom.
        conn: ConnId,
        /// What.
        frame: Frame,
    },
    /// Write a `Batches` frame of what lies behind; [`Input::Pushed`] follows.
    Push {
        /// To whom.
        conn: ConnId,
        /// The journals that it lacks, and the last op of each that it has.
        after: Frontier,
    },
    /// Ask for chunks; [`Input::Fetched`] follows, after [`Output::Cancel`] at once.
    Fetch {
        /// Its number.
        request: RequestId,
        /// Of whom.
        conn: ConnId,
        /// A reader waits.
        urgent: bool,
        /// Which.
        chunks: Vec<ChunkId>,
    },
    /// End a request.
    Cancel {
        /// Which.
        request: RequestId,
    },
    /// Find out which chunks are missing; [`Input::Missing`] follows.
    Refill {
        /// At most as many.
        limit: usize,
        /// Not these.
        except: HashSet<ChunkId>,
    },
    /// Call with [`Input::Tick`] at this time, rather than at the one named before.
    WakeAt(u64),
}

/// Replication's decisions, for one workspace on one device.
#[derive(Debug)]
pub struct Machine {
    device: DeviceId,
    local: Frontier,
    links: Links,
    sessions: BTreeMap<ConnId, Session>,
    chunks: Chunks,
    jitter: Jitter,
}

impl Machine {
    /// One that knows nothing yet.
    pub fn new(tuning: &Tuning) -> Self {
        Self {
            device: tuning.device,
            local: Frontier::new(),
            links: Links::new(tuning.device, tuning.dial_unknown),
            sessions: BTreeMap::new(),
            chunks: Chunks::new(tuning.device, tuning.ops_max, tuning.request_chunks_max),
            jitter: Jitter::new(tuning.seed),
        }
    }

    /// Takes what happened, and adds to `out` what to do. `now_ms` never goes back.
    pub fn handle(&mut self, now_ms: u64, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Members(members) => {
                for conn in self.links.set_members(members, now_ms) {
                    self.close(conn, CloseReason::Stranger, now_ms, out);
                }
            }
            Input::OwnAddresses(addresses) => {
                self.links.set_own(addresses);
                self.notes_changed(now_ms);
            }
            Input::PeerAddresses(peer, addresses) => {
                self.links.learn(&peer, addresses, now_ms);
                self.notes_changed(now_ms);
            }
            Input::LocalFrontier(frontier) => {
                // Who brought them may be gone by now, and then no `Delivered` comes: all the same,
                // new batches of others may name chunks that are missing.
                let is_new = |(journal, seq): (&DeviceId, &u64)| {
                    *journal != self.device && self.local.get(journal).is_none_or(|had| had < seq)
                };
                if frontier.iter().any(is_new) {
                    self.chunks.look_for_more();
                }
                raise(&mut self.local, &frontier);
            }
            Input::Connected { conn, peer, dialled, frontier, told, life } => {
                let session = Session::new(conn, peer, frontier, told, now_ms);
                let up = Up { conn, dialled, life, since_ms: now_ms };
                self.connected(session, up, now_ms, out);
            }
            Input::DialFailed(peer, loss) => {
                self.links.dial_failed(&peer, loss, &mut self.jitter, now_ms);
            }
            Input::Lost(conn, loss) => self.lost(conn, loss, now_ms),
            Input::Frame(conn, frame) => self.frame(conn, frame, now_ms, out),
            Input::Delivered(conn, journals) => {
                self.with(conn, |session| session.delivered(&journals, now_ms));
                self.chunks.look_for_more();
            }
            Input::Sent(conn) => self.with(conn, Session::sent),
            Input::Pushed(conn, sent) => {
                self.with(conn, |session| session.pushed(&sent, now_ms));
            }
            Input::Want(chunks) => self.chunks.want(chunks, now_ms),
            Input::Named => self.chunks.look_for_more(),
            Input::Here(chunks) => self.chunks.here(&chunks),
            Input::Missing { chunks, later_ms } => {
                let later_ms = later_ms.map(|wait_ms| now_ms + wait_ms);
                self.chunks.missing(chunks, later_ms, &mut self.jitter, now_ms);
            }
            Input::Progress(request) => self.chunks.progress(request, now_ms),
            Input::Fetched { request, stored, lacking, bytes, store_failed } => {
                let brought = Brought { stored, lacking, bytes, store_failed };
                self.fetched(request, &brought, now_ms, out);
            }
            Input::Tick => {}
        }
        self.settle(now_ms, out);
    }

    /// The connected peers.
    pub fn peers(&self) -> Vec<PeerView> {
        self.sessions.values().map(Session::view).collect()
    }

    /// Where each member is, as far as is known: to be remembered.
    pub fn address_book(&self) -> Vec<(DeviceId, Addresses)> {
        self.links.book()
    }

    fn connected(&mut self, session: Session, up: Up, now_ms: u64, out: &mut Vec<Output>) {
        let (conn, peer) = (session.conn, session.peer);
        match self.links.connected(&peer, up) {
            Verdict::Keep => {}
            Verdict::Replace(old) => {
                self.sessions.remove(&old);
                self.chunks.lost(&peer, now_ms);
                out.push(Output::Close { conn: old, reason: CloseReason::Duplicate });
            }
            Verdict::Duplicate => {
                return out.push(Output::Close { conn, reason: CloseReason::Duplicate });
            }
            Verdict::Stranger => {
                return out.push(Output::Close { conn, reason: CloseReason::Stranger });
            }
        }
        self.sessions.insert(conn, session);
        self.chunks.connected(peer, conn);
        self.notes_changed(now_ms);
    }

    fn lost(&mut self, conn: ConnId, loss: Loss, now_ms: u64) {
        let Some(session) = self.sessions.remove(&conn) else { return };
        self.links.lost(&session.peer, conn, loss, &mut self.jitter, now_ms);
        self.chunks.lost(&session.peer, now_ms);
        self.notes_changed(now_ms);
    }

    fn close(&mut self, conn: ConnId, reason: CloseReason, now_ms: u64, out: &mut Vec<Output>) {
        let loss = match reason {
            CloseReason::Stranger | CloseReason::Protocol => Loss::Refused,
            CloseReason::Duplicate | CloseReason::Stalled => Loss::Link,
        };
        self.lost(conn, loss, now_ms);
        out.push(Output::Close { conn, reason });
    }

    fn frame(&mut self, conn: ConnId, frame: Frame, now_ms: u64, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        match frame {
            Frame::Have { handled, grown } => session.have(handled, grown, now_ms),
            Frame::Peers(notes) => {
                let peer = session.peer;
                let connected = self.links.take_notes(&peer, notes, now_ms);
                session.connected_to(connected);
                self.notes_changed(now_ms);
            }
            Frame::Offer(chunks) => {
                let peer = session.peer;
                self.chunks.offered(&peer, &chunks, now_ms);
            }
            Frame::Hello { .. }
            | Frame::Join { .. }
            | Frame::Welcome(_)
            | Frame::Refused(_)
            | Frame::Epochs(_)
            | Frame::Batches { .. }
            | Frame::Bootstrap { .. }
            | Frame::Part(_) => self.close(conn, CloseReason::Protocol, now_ms, out),
        }
    }

    fn fetched(&mut self, id: RequestId, brought: &Brought, now_ms: u64, out: &mut Vec<Output>) {
        let from = self.chunks.source_of(id);
        let stalled = self.chunks.fetched(id, brought, now_ms);
        for session in self.sessions.values_mut().filter(|session| Some(session.peer) != from) {
            for chunk in &brought.stored {
                session.offer(*chunk, now_ms);
            }
        }
        if let Some(conn) = stalled {
            self.close(conn, CloseReason::Stalled, now_ms, out);
        }
    }

    fn with(&mut self, conn: ConnId, act: impl FnOnce(&mut Session)) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            act(session);
        }
    }

    fn notes_changed(&mut self, now_ms: u64) {
        for session in self.sessions.values_mut() {
            session.notes_changed(now_ms);
        }
    }

    /// Does all that is due, and says when something will be.
    fn settle(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        self.links.dial(now_ms, out);
        let links = &self.links;
        for session in self.sessions.values_mut() {
            session.write(&self.local, &self.device, |peer| links.notes(peer), now_ms, out);
        }
        self.chunks.schedule(now_ms, out);
        let sessions = self.sessions.values().filter_map(|session| session.wake_ms(now_ms));
        let dial = self.links.next_dial_ms();
        let wake = sessions.chain(dial).chain(self.chunks.wake_ms(now_ms)).min();
        if let Some(wake_ms) = wake {
            out.push(Output::WakeAt(wake_ms));
        }
    }
}

#[cfg(test)]
mod tests;
