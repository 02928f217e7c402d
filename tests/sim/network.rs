//! What connects the devices: the part of replication's driver, and of the network below it.
//!
//! Frames are encoded and decoded as they are on the wire, batches read by the function that the
//! driver uses. A connection keeps the order of its frames, as QUIC does, and may break at any time;
//! requests for chunks and their answers go beside them. What came before a connection broke may be
//! taken in long after, again, and in another order: a frame that waits for the disk outlives it.

use std::collections::BTreeMap;

use rand::RngExt;
use tidefs::codec::{batch_span, decode_frame, decode_request, encode_frame, encode_request};
use tidefs::engine::sync::{Replica, ReplicaError, collect, fresh};
use tidefs::sync::{CloseReason, ConnId, Input, Loss, Output, RequestId};
use tidefs::types::limits::ANSWER_BYTES;
use tidefs::types::{Blob, ChunkId, ChunkRequest, DeviceId, Frame, Frontier, Request, TreeRoot};

use super::device::Death;
use super::faults::Fault;
use super::world::World;

/// Bytes in front of a frame that say how long it is.
const LENGTH_BYTES: usize = 4;

/// A connection.
pub struct Link {
    /// Who dialled, and who was dialled.
    ends: [usize; 2],
    lives: [u32; 2],
    is_up: bool,
    /// Frames of one direction keep their order.
    last_ms: [u64; 2],
}

impl Link {
    pub fn is_between(&self, a: usize, b: usize) -> bool {
        self.is_up && (self.ends == [a, b] || self.ends == [b, a])
    }

    fn other(&self, n: usize) -> usize {
        if self.ends[0] == n { self.ends[1] } else { self.ends[0] }
    }
}

/// What happens to a device.
#[derive(Debug)]
pub enum Event {
    /// Its user does something.
    Work,
    /// A commit is due.
    Turn,
    /// It will go down soon.
    Doom,
    Die(Death),
    Start,
    /// It and another reach each other no more, and again.
    Part(usize),
    Rejoin(usize),
    /// Its disk is full, and has room again.
    Fill,
    Room,
    /// Its clock is set.
    Skew,
    /// Nothing goes wrong from now on.
    Heal,
    /// Of the machine.
    Wake,
    Input(Input),
    Write(ConnId, Job),
    /// A connection comes in, with the dialler's first frame.
    Accept(u64, Vec<u8>),
    /// The dialled one's answer.
    Welcome(u64, Frontier, Vec<u8>),
    Arrive(u64, Vec<u8>),
    /// Batches that came before, again.
    Stale(DeviceId, Vec<Vec<u8>>),
    /// What came before a snapshot is asked for.
    Recall,
    /// A connection breaks.
    Break(u64),
    Ask(u64, RequestId, Vec<u8>),
    Answer(RequestId, Vec<(ChunkId, Option<Vec<u8>>)>),
}

/// What a connection's writer has to do.
#[derive(Debug)]
pub enum Job {
    Frame(Frame),
    Push(Frontier),
}

impl Event {
    /// Is it nothing to the same device after a new start?
    pub fn is_of_a_life(&self) -> bool {
        !matches!(
            self,
            Self::Doom
                | Self::Start
                | Self::Part(_)
                | Self::Rejoin(_)
                | Self::Fill
                | Self::Room
                | Self::Skew
                | Self::Heal
                | Self::Break(_)
        )
    }
}

impl World {
    pub fn network(&mut self, n: usize, event: Event) {
        match event {
            Event::Wake => {
                if self.life(n).wake_ms <= self.now_ms {
                    self.input(n, Input::Tick);
                }
            }
            Event::Input(input) => self.input(n, input),
            Event::Write(conn, job) => self.write(n, conn, job),
            Event::Accept(conn, hello) => self.accept(n, conn, &hello),
            Event::Welcome(conn, told, hello) => self.welcome(n, conn, told, &hello),
            Event::Arrive(conn, bytes) => self.arrive(n, conn, &bytes),
            Event::Stale(from, batches) => {
                self.stats.add("stale frames", 1);
                if self.deliver(n, &from, batches, Vec::new()) == Some(true) {
                    self.refresh(n);
                }
            }
            Event::Recall => self.recall(n),
            Event::Break(conn) => {
                if self.may(Fault::Cut) {
                    self.cut(conn);
                }
            }
            Event::Ask(conn, request, bytes) => self.ask(n, conn, request, &bytes),
            Event::Answer(request, chunks) => self.answer(n, request, chunks),
            other => unreachable!("{other:?} is the world's"),
        }
    }

    /// Feeds a device's machine, and does what it says.
    pub fn input(&mut self, n: usize, input: Input) {
        let mut out = Vec::new();
        let now_ms = self.now_ms;
        self.life(n).machine.handle(now_ms, input, &mut out);
        let lives = self.places[n].lives;
        for output in out {
            if self.places[n].lives == lives {
                self.output(n, output);
            }
        }
    }

    fn output(&mut self, n: usize, output: Output) {
        match output {
            Output::WakeAt(at_ms) => {
                assert!(at_ms > self.now_ms, "what was due is done");
                self.life(n).wake_ms = at_ms;
                self.at(at_ms, n, Event::Wake);
            }
            Output::Dial { peer, .. } => self.dial(n, peer),
            Output::Close { conn, reason } => {
                let is_honest = !matches!(reason, CloseReason::Protocol | CloseReason::Stranger);
                assert!(is_honest, "a connection is closed: {reason:?}");
                self.tell(n, || format!("closes {}: {reason:?}", conn.0));
                self.close(n, conn.0);
            }
            Output::Send { conn, frame } => self.soon(n, Event::Write(conn, Job::Frame(frame))),
            Output::Push { conn, after } => self.soon(n, Event::Write(conn, Job::Push(after))),
            Output::Fetch { request, conn, urgent, chunks } => {
                self.life(n).pending.insert(request, conn.0);
                let asked = encode_request(&Request::Chunks(ChunkRequest { urgent, chunks }));
                if self.links[&conn.0].is_up {
                    let to = self.links[&conn.0].other(n);
                    let at_ms = self.now_ms + self.random.random_range(1..120);
                    self.at(at_ms, to, Event::Ask(conn.0, request, asked));
                } else {
                    self.soon(n, Event::Answer(request, Vec::new()));
                }
            }
            Output::Cancel { request } => self.soon(n, Event::Answer(request, Vec::new())),
            Output::Refill { limit, except } => {
                let replica = self.life(n).fs.replica();
                let (chunks, later_ms) =
                    (replica.missing_chunks(limit, &except), replica.missing_later_ms());
                if self.has_died(n, false) {
                    return;
                }
                self.soon(n, Event::Input(Input::Missing { chunks, later_ms }));
            }
        }
    }

    fn dial(&mut self, n: usize, peer: DeviceId) {
        let to = self.places.iter().position(|place| place.id == peer).expect("a device");
        let is_blocked = self.blocked.contains(&(n.min(to), n.max(to)));
        if is_blocked || !self.is_alive(to) {
            let at_ms = self.now_ms + self.random.random_range(10..1000);
            return self.at(at_ms, n, Event::Input(Input::DialFailed(peer, Loss::Link)));
        }
        self.count += 1;
        let conn = self.count;
        let lives = [self.places[n].lives, self.places[to].lives];
        self.links.insert(conn, Link { ends: [n, to], lives, is_up: true, last_ms: [0; 2] });
        let replica = self.life(n).fs.replica();
        let (frontier, workspace) = (replica.frontier(), replica.workspace());
        let root = replica.tree_root(&frontier);
        let yours = replica.held(&peer);
        let life = u64::from(self.places[n].lives);
        let hello = encode_frame(&Frame::Hello { workspace, frontier, root, life, yours });
        self.send(conn, n, |bytes| Event::Accept(conn, bytes), hello);
        if self.may(Fault::Cut) {
            let at_ms = self.now_ms + self.random.random_range(0..8000);
            self.at(at_ms, n, Event::Break(conn));
        }
    }

    /// Over a connection, in order, unless it breaks meanwhile.
    fn send(
        &mut self,
        conn: u64,
        from: usize,
        event: impl FnOnce(Vec<u8>) -> Event,
        bytes: Vec<u8>,
    ) {
        self.trace.bytes(&bytes);
        let delay_ms = match self.random.random_range(0..10) {
            0 => self.random.random_range(1..800),
            _ => self.random.random_range(1..60),
        };
        let link = self.links.get_mut(&conn).expect("a connection");
        let side = usize::from(link.ends[0] != from);
        let to = link.ends[1 - side];
        link.last_ms[side] = link.last_ms[side].max(self.now_ms + delay_ms);
        let at_ms = link.last_ms[side];
        self.at(at_ms, to, event(bytes));
    }

    fn is_up(&self, conn: u64) -> bool {
        self.links[&conn].is_up
    }

    fn accept(&mut self, n: usize, conn: u64, hello: &[u8]) {
        if !self.is_up(conn) {
            return;
        }
        let from = self.links[&conn].ends[0];
        let peer = self.places[from].id;
        let replica = self.life(n).fs.replica().clone();
        if !replica.is_member(&peer) {
            self.tell(n, || format!("turns {from} away"));
            self.stats.add("turned away", 1);
            self.links.get_mut(&conn).expect("a connection").is_up = false;
            let own = self.places[n].id;
            return self.soon_if(from, conn, Event::Input(Input::DialFailed(own, Loss::Refused)));
        }
        let (frontier, root, life) = self.hello_of(n, hello);
        let told = replica.frontier();
        let own_root = replica.tree_root(&told);
        if let Some((root, own_root)) = root.zip(own_root).filter(|_| frontier == told) {
            assert_eq!(root, own_root, "equal changes, other trees: {from} and {n}");
        }
        let workspace = replica.workspace();
        let own_life = u64::from(self.places[n].lives);
        let (frontier_told, root, yours) = (told.clone(), own_root, replica.held(&peer));
        let back = Frame::Hello { workspace, frontier: frontier_told, root, life: own_life, yours };
        let back = encode_frame(&back);
        let theirs = frontier.clone();
        self.send(conn, n, |bytes| Event::Welcome(conn, theirs, bytes), back);
        let conn = ConnId(conn);
        self.tell(n, || format!("accepts {} from {from}", conn.0));
        self.input(n, Input::Connected { conn, peer, dialled: false, frontier, told, life });
    }

    fn welcome(&mut self, n: usize, conn: u64, told: Frontier, hello: &[u8]) {
        if !self.is_up(conn) {
            return;
        }
        let peer = self.places[self.links[&conn].ends[1]].id;
        let ((frontier, _, life), conn) = (self.hello_of(n, hello), ConnId(conn));
        self.input(n, Input::Connected { conn, peer, dialled: true, frontier, told, life });
    }

    /// What a greeting says. No device has lost anything that another has of its journal.
    fn hello_of(&mut self, n: usize, bytes: &[u8]) -> (Frontier, Option<TreeRoot>, u64) {
        match decode_frame(&bytes[LENGTH_BYTES..]).expect("a frame decodes") {
            Frame::Hello { frontier, root, life, yours, .. } => {
                let replica = self.life(n).fs.replica();
                let goes_on = yours
                    .is_none_or(|yours| replica.hear_of_own(&yours).is_ok_and(|goes_on| goes_on));
                assert!(goes_on, "{n} does not have what {yours:?} says");
                (frontier, root, life)
            }
            other => panic!("{other:?} is no Hello"),
        }
    }

    /// One of a connection's ends closes it.
    fn close(&mut self, n: usize, conn: u64) {
        let link = self.links.get_mut(&conn).expect("a connection");
        if !std::mem::replace(&mut link.is_up, false) {
            return;
        }
        let other = link.other(n);
        self.is_over(other, conn);
        self.end_requests(n, conn);
    }

    /// A connection breaks.
    pub fn cut(&mut self, conn: u64) {
        let link = self.links.get_mut(&conn).expect("a connection");
        if !std::mem::replace(&mut link.is_up, false) {
            return;
        }
        self.stats.add("connections cut", 1);
        for n in self.links[&conn].ends {
            self.is_over(n, conn);
        }
    }

    /// A device is gone, and all its connections with it; the others find out in time.
    pub fn unlink_all(&mut self, n: usize) {
        let own: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_up && link.ends.contains(&n))
            .map(|(id, _)| *id)
            .collect();
        for conn in own {
            let link = self.links.get_mut(&conn).expect("a connection");
            link.is_up = false;
            let other = link.other(n);
            self.is_over(other, conn);
        }
    }

    /// A device learns that a connection is over.
    fn is_over(&mut self, n: usize, conn: u64) {
        let at_ms = self.now_ms + [5, 100, 5000][self.random.random_range(0..3)];
        let ends = self.links[&conn].ends;
        let over = Input::Lost(ConnId(conn), Loss::Link);
        self.at_if(at_ms, n, conn, Event::Input(over));
        if ends[0] == n {
            let failed = Input::DialFailed(self.places[ends[1]].id, Loss::Link);
            self.at_if(at_ms, n, conn, Event::Input(failed));
        }
        self.end_requests(n, conn);
    }

    fn end_requests(&mut self, n: usize, conn: u64) {
        let Some(life) = &self.places[n].life else { return };
        let ended: Vec<RequestId> =
            life.pending.iter().filter(|(_, of)| **of == conn).map(|(id, _)| *id).collect();
        for request in ended {
            self.soon(n, Event::Answer(request, Vec::new()));
        }
    }

    /// Only for the life that the connection was made in.
    fn at_if(&mut self, at_ms: u64, n: usize, conn: u64, event: Event) {
        let link = &self.links[&conn];
        let side = usize::from(link.ends[0] != n);
        if self.is_alive(n) && link.lives[side] == self.places[n].lives {
            self.at(at_ms, n, event);
        }
    }

    fn soon_if(&mut self, n: usize, conn: u64, event: Event) {
        self.at_if(self.now_ms + 3, n, conn, event);
    }

    fn write(&mut self, n: usize, conn: ConnId, job: Job) {
        if !self.is_up(conn.0) {
            return;
        }
        let done = match job {
            Job::Frame(frame) => {
                self.send(conn.0, n, |bytes| Event::Arrive(conn.0, bytes), encode_frame(&frame));
                Input::Sent(conn)
            }
            Job::Push(after) => {
                let replica = self.life(n).fs.replica().clone();
                let (batches, upto) = collect(&*replica, &after).expect("batches are read");
                self.stats.add("batches sent", batches.len() as u64);
                if !batches.is_empty() {
                    let chunks = fresh(&*replica, &after, &upto);
                    self.stats.add("chunks carried", chunks.len() as u64);
                    let bytes = encode_frame(&Frame::Batches { batches, chunks });
                    self.send(conn.0, n, |bytes| Event::Arrive(conn.0, bytes), bytes);
                }
                Input::Pushed(conn, upto)
            }
        };
        self.soon(n, Event::Input(done));
    }

    fn arrive(&mut self, n: usize, conn: u64, bytes: &[u8]) {
        if !self.is_up(conn) {
            return;
        }
        let frame = decode_frame(&bytes[LENGTH_BYTES..]).expect("a frame decodes");
        let Frame::Batches { batches, chunks } = frame else {
            return self.input(n, Input::Frame(ConnId(conn), frame));
        };
        let chunks: Vec<(ChunkId, Vec<u8>)> =
            chunks.into_iter().map(|sealed| (ChunkId::of(&sealed.0), sealed.0)).collect();
        let peer = self.places[self.links[&conn].other(n)].id;
        let held = held(&batches);
        let batches: Vec<Vec<u8>> = batches.into_iter().map(|batch| batch.0).collect();
        if self.may(Fault::Stale) && self.random.random_ratio(1, 6) {
            let mut again = batches.clone();
            if self.random.random_bool(0.5) {
                again.reverse();
            }
            let at_ms = self.now_ms + self.random.random_range(1..6000);
            self.at(at_ms, n, Event::Stale(peer, again));
        }
        match self.deliver(n, &peer, batches, chunks) {
            None => {}
            Some(true) => {
                let frontier = self.life(n).fs.replica().frontier();
                self.soon(n, Event::Input(Input::LocalFrontier(frontier)));
                self.soon_delivered(n, conn, held);
                self.refresh(n);
            }
            Some(false) => self.cut(conn),
        }
    }

    fn soon_delivered(&mut self, n: usize, conn: u64, held: Frontier) {
        let at_ms = self.now_ms + 8;
        self.at(at_ms, n, Event::Input(Input::Delivered(ConnId(conn), held)));
    }

    /// Hands batches to the workspace. `None`: the power failed meanwhile; false: the disk is full.
    fn deliver(
        &mut self,
        n: usize,
        from: &DeviceId,
        batches: Vec<Vec<u8>>,
        chunks: Vec<(ChunkId, Vec<u8>)>,
    ) -> Option<bool> {
        self.note(n);
        let count = batches.len();
        let result = self.life(n).fs.replica().deliver(from, batches, chunks);
        if self.has_died(n, true) {
            return None;
        }
        self.tell(n, || {
            format!("takes {count} batches: {:?}", result.as_ref().map_err(ToString::to_string))
        });
        match result {
            Ok(()) => {
                self.note_durable(n);
                self.stats.add("deliveries", 1);
                Some(true)
            }
            Err(ReplicaError::Failed(_)) if self.is_full(n) => {
                self.note(n);
                Some(false)
            }
            Err(error) => panic!("an honest device's batches are not taken: {error}"),
        }
    }

    fn ask(&mut self, n: usize, conn: u64, request: RequestId, bytes: &[u8]) {
        if !self.is_up(conn) {
            return;
        }
        let Request::Chunks(asked) =
            decode_request(&bytes[LENGTH_BYTES..]).expect("a request decodes")
        else {
            panic!("nobody was filled from a snapshot")
        };
        let replica = self.life(n).fs.replica().clone();
        let (mut chunks, mut total_bytes) = (Vec::new(), 0);
        for id in asked.chunks {
            if total_bytes >= ANSWER_BYTES {
                break;
            }
            let mut sealed = replica.read_chunk(&id).expect("chunks are read");
            total_bytes += sealed.as_ref().map_or(0, Vec::len);
            let damaged = self.may(Fault::Damage) && self.random.random_ratio(1, 4);
            if let Some(byte) =
                sealed.as_mut().filter(|_| damaged).and_then(|bytes| bytes.last_mut())
            {
                *byte ^= 1;
                self.stats.add("chunks damaged on the way", 1);
            }
            chunks.push((id, sealed));
        }
        let to = self.links[&conn].other(n);
        if self.links[&conn].lives[usize::from(self.links[&conn].ends[0] != to)]
            != self.places[to].lives
        {
            return;
        }
        // What had come whole before a connection broke is kept.
        let at_ms = self.now_ms + self.random.random_range(1..200);
        self.at(at_ms, to, Event::Answer(request, chunks));
    }

    fn answer(&mut self, n: usize, request: RequestId, chunks: Vec<(ChunkId, Option<Vec<u8>>)>) {
        if self.life(n).pending.remove(&request).is_none() {
            return;
        }
        let (mut brought, mut lacking, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (id, sealed) in chunks {
            match sealed {
                Some(sealed) if ChunkId::of(&sealed) == id => {
                    bytes += sealed.len() as u64;
                    brought.push((id, sealed));
                }
                _ => lacking.push(id),
            }
        }
        let mut stored: Vec<ChunkId> = brought.iter().map(|(id, _)| *id).collect();
        let mut store_failed = false;
        if !brought.is_empty() {
            let result = self.life(n).fs.replica().store_chunks(brought);
            if self.has_died(n, false) {
                return;
            }
            self.tell(n, || format!("stores {} chunks: {}", stored.len(), result.is_ok()));
            self.stats.add("chunks fetched", stored.len() as u64);
            if let Err(error) = result {
                assert!(self.is_full(n), "chunks cannot be stored: {error}");
                stored.clear();
                store_failed = true;
            }
            self.turn_later(n);
        }
        self.input(n, Input::Fetched { request, stored, lacking, bytes, store_failed });
    }
}

/// How far the journals go in these batches.
fn held(batches: &[Blob]) -> Frontier {
    let mut held: Frontier = BTreeMap::new();
    for batch in batches {
        let span = batch_span(&batch.0).expect("a batch says where it stands");
        let last = held.entry(span.journal).or_insert(0);
        *last = span.last_seq.max(*last);
    }
    held
}
