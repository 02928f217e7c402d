//! Which chunk to ask of whom.
//!
//! A chunk is wanted until it is stored. It waits in a queue, is in one request, or is parked
//! because no connected peer has it. Those that a reader waits for go first and have a place of
//! their own among the requests under way.

mod want;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use super::backoff::Jitter;
use super::machine::{ConnId, Output, RequestId};
use crate::types::limits::{ANSWER_BYTES, REQUEST_CHUNKS_MAX, SEALED_BYTES_MAX};
use crate::types::{ChunkId, DeviceId};
use want::{Place, Source, Want};

/// A request that brings nothing for this long has failed.
const STALL_MS: u64 = 20_000;
/// Likewise, if a reader waits for what it asks for.
const URGENT_STALL_MS: u64 = 5_000;
/// A request is over after this long, whatever it brings: what it did not is asked for anew.
const REQUEST_MS: u64 = 600_000;
/// Of several peers, less is asked at once: those who fetch the same then hear earlier who has what.
const SHARED_ANSWER_BYTES: usize = ANSWER_BYTES / 2;
/// Failed requests in a row after which a peer loses its connection.
const STRIKES_MAX: u32 = 3;
/// Below this many waiting chunks, more are looked for.
const REFILL_BELOW: usize = 512;
/// Missing chunks looked for at once.
const REFILL_COUNT: usize = 1024;
/// Waiting chunks that are looked at for one request.
const SCAN_COUNT: usize = 512;
/// Chunks that no connected peer has, and whose turn comes again.
const PARKED_MAX: usize = 1 << 16;
/// The first wait of such a chunk; it doubles.
const PARK_MS: u64 = 2_000;
const PARK_MAX_MS: u64 = 60_000;
/// A peer that has offered a chunk which is wanted here, or lacked one, counts as fetching the same for this long.
const SAME_MS: u64 = 3_000;
/// After chunks could not be stored, none is asked for during this time.
const STORE_PAUSE_MS: u64 = 10_000;

#[derive(Debug)]
struct Request {
    peer: DeviceId,
    conn: ConnId,
    chunks: Vec<ChunkId>,
    urgent: bool,
    stall_ms: u64,
    end_ms: u64,
    cancelled: bool,
}

/// What a request brought.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Brought {
    pub stored: Vec<ChunkId>,
    pub lacking: Vec<ChunkId>,
    pub bytes: u64,
    pub store_failed: bool,
}

#[derive(Debug)]
pub(super) struct Chunks {
    device: DeviceId,
    ops_max: usize,
    request_chunks_max: usize,
    wanted: BTreeMap<ChunkId, Want>,
    urgent: VecDeque<ChunkId>,
    queue: VecDeque<ChunkId>,
    parked: BTreeSet<(u64, ChunkId)>,
    sources: BTreeMap<DeviceId, Source>,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    refilling: bool,
    /// What has come since missing chunks were looked for: the answer may still name it.
    come_since: HashSet<ChunkId>,
    /// There may be missing chunks that are not wanted yet.
    more: bool,
    /// When there will be.
    more_at_ms: Option<u64>,
    /// When the first chunk that is another's turn may be asked for all the same.
    turn_ms: Option<u64>,
    pause_until_ms: u64,
    chunk_bytes_mean: usize,
}

impl Chunks {
    pub fn new(device: DeviceId, ops_max: usize, request_chunks_max: usize) -> Self {
        Self {
            device,
            ops_max: ops_max.max(1),
            request_chunks_max: request_chunks_max.clamp(1, REQUEST_CHUNKS_MAX),
            wanted: BTreeMap::new(),
            urgent: VecDeque::new(),
            queue: VecDeque::new(),
            parked: BTreeSet::new(),
            sources: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            refilling: false,
            come_since: HashSet::new(),
            more: true,
            more_at_ms: None,
            turn_ms: None,
            pause_until_ms: 0,
            chunk_bytes_mean: 64 << 10,
        }
    }

    /// A peer is there: what nobody had is asked of it.
    pub fn connected(&mut self, peer: DeviceId, conn: ConnId) {
        let (under_way, trusted, strikes, same_until_ms) = (0, true, 0, 0);
        let source = Source { conn, under_way, trusted, strikes, same_until_ms };
        self.sources.insert(peer, source);
        for want in self.wanted.values_mut() {
            want.lacking.retain(|lacking| *lacking != peer);
            want.offered.retain(|offering| *offering != peer);
        }
        while let Some((_, chunk)) = self.parked.pop_first() {
            self.enqueue(chunk, false);
        }
        self.more = true;
    }

    /// A peer is gone. What was asked of it comes back by itself, as requests that end.
    pub fn lost(&mut self, peer: &DeviceId, now_ms: u64) {
        self.sources.remove(peer);
        for urgent in [false, true] {
            let queue = if urgent { &mut self.urgent } else { &mut self.queue };
            for chunk in std::mem::take(queue).into_iter().rev() {
                if is_live(&self.wanted, &chunk, urgent) {
                    self.enqueue_or_park(chunk, now_ms);
                }
            }
        }
    }

    /// New batches may name chunks that are missing.
    pub fn look_for_more(&mut self) {
        self.more = true;
    }

    /// A reader waits for these.
    pub fn want(&mut self, chunks: Vec<ChunkId>, now_ms: u64) {
        for request in self.requests.values_mut().filter(|request| !request.urgent) {
            if request.chunks.iter().any(|chunk| chunks.contains(chunk)) {
                request.urgent = true;
                request.stall_ms = request.stall_ms.min(now_ms + URGENT_STALL_MS);
            }
        }
        for chunk in chunks {
            let want = self.wanted.entry(chunk).or_insert_with(|| Want::new(now_ms));
            let was_urgent = std::mem::replace(&mut want.urgent, true);
            if !was_urgent {
                want.since_ms = now_ms;
            }
            match want.place {
                Place::UnderWay => continue,
                Place::Queued if was_urgent => continue,
                Place::Queued => {}
                Place::Parked(due_ms) => {
                    self.parked.remove(&(due_ms, chunk));
                    want.lacking.clear();
                }
            }
            self.enqueue(chunk, false);
        }
    }

    /// These are missing, and others will be: the answer to [`Output::Refill`].
    pub fn missing(
        &mut self,
        mut chunks: Vec<ChunkId>,
        more_at_ms: Option<u64>,
        jitter: &mut Jitter,
        now_ms: u64,
    ) {
        self.refilling = false;
        self.more_at_ms = more_at_ms;
        self.more |= chunks.len() >= REFILL_COUNT;
        // Several devices that fetch the same then begin with different chunks, and can serve
        // each other.
        if self.sources.len() > 1 {
            jitter.shuffle(&mut chunks);
        }
        let come = std::mem::take(&mut self.come_since);
        for chunk in chunks.into_iter().filter(|chunk| !come.contains(chunk)) {
            if let Entry::Vacant(vacant) = self.wanted.entry(chunk) {
                vacant.insert(Want::new(now_ms));
                self.enqueue(chunk, false);
            }
        }
    }

    /// These are here, whoever brought them.
    pub fn here(&mut self, chunks: &[ChunkId]) {
        if self.refilling {
            self.come_since.extend(chunks);
        }
        for chunk in chunks {
            if let Some(Want { place: Place::Parked(due_ms), .. }) = self.wanted.remove(chunk) {
                self.parked.remove(&(due_ms, *chunk));
            }
        }
    }

    /// A peer says that it has these.
    pub fn offered(&mut self, peer: &DeviceId, chunks: &[ChunkId], now_ms: u64) {
        for chunk in chunks {
            let Some(want) = self.wanted.get_mut(chunk) else { continue };
            if let Some(source) = self.sources.get_mut(peer) {
                source.same_until_ms = now_ms + SAME_MS;
            }
            want.lacking.retain(|lacking| lacking != peer);
            if !want.offered.contains(peer) {
                want.offered.push(*peer);
            }
            if let Place::Parked(due_ms) = want.place {
                self.parked.remove(&(due_ms, *chunk));
                self.enqueue(*chunk, false);
            }
        }
    }

    /// A request brings something.
    pub fn progress(&mut self, request: RequestId, now_ms: u64) {
        if let Some(request) = self.requests.get_mut(&request) {
            request.stall_ms = now_ms + stall_after_ms(request.urgent);
        }
    }

    /// Whom a request asks.
    pub fn source_of(&self, id: RequestId) -> Option<DeviceId> {
        self.requests.get(&id).map(|request| request.peer)
    }

    /// A request has ended. Returns the connection to close, if its peer failed too often.
    pub fn fetched(&mut self, id: RequestId, brought: &Brought, now_ms: u64) -> Option<ConnId> {
        let request = self.requests.remove(&id)?;
        let (stored, count) = (&brought.stored, brought.stored.len());
        let bytes = usize::try_from(brought.bytes).unwrap_or(SEALED_BYTES_MAX);
        if let Some(mean) = bytes.checked_div(count) {
            self.chunk_bytes_mean = (self.chunk_bytes_mean * 3 + mean) / 4;
        }
        if brought.store_failed {
            self.pause_until_ms = now_ms + STORE_PAUSE_MS;
        }
        self.here(stored);
        let lacking: HashSet<&ChunkId> = brought.lacking.iter().collect();
        let failed = stored.is_empty() && lacking.is_empty() && !brought.store_failed;
        let lacks = !lacking.is_empty();
        let strikes = self.settle_source(&request, (count > 0, lacks, failed), now_ms);
        for chunk in request.chunks.iter().rev() {
            let Some(want) = self.wanted.get_mut(chunk) else { continue };
            if (lacking.contains(chunk) || failed) && strikes.is_some() {
                want.offered.retain(|offering| *offering != request.peer);
                want.lacking.push(request.peer);
            }
            self.enqueue_or_park(*chunk, now_ms);
        }
        (strikes >= Some(STRIKES_MAX)).then_some(request.conn)
    }

    /// Books a request's end with its peer; returns its strikes, if the connection is still there.
    fn settle_source(
        &mut self,
        request: &Request,
        (found, lacks, failed): (bool, bool, bool),
        now_ms: u64,
    ) -> Option<u32> {
        let source = self.sources.get_mut(&request.peer)?;
        if source.conn != request.conn {
            return None;
        }
        source.under_way -= 1;
        source.trusted = found;
        if lacks {
            source.same_until_ms = now_ms + SAME_MS;
        }
        source.strikes = if failed { source.strikes + 1 } else { 0 };
        Some(source.strikes)
    }

    /// Gives up what stalls, takes up what was parked, asks for as much as may be under way.
    pub fn schedule(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        for (id, request) in &mut self.requests {
            if !request.cancelled && now_ms >= request.stall_ms.min(request.end_ms) {
                request.cancelled = true;
                out.push(Output::Cancel { request: *id });
            }
        }
        while let Some((due_ms, chunk)) = self.parked.first().copied() {
            if due_ms > now_ms {
                break;
            }
            self.parked.pop_first();
            if let Some(want) = self.wanted.get_mut(&chunk) {
                want.lacking.clear();
                self.enqueue(chunk, false);
            }
        }
        if self.more_at_ms.take_if(|due_ms| *due_ms <= now_ms).is_some() {
            self.more = true;
        }
        self.turn_ms = None;
        if now_ms >= self.pause_until_ms {
            while self.ask(now_ms, out) {}
        }
        self.refill(out);
    }

    /// When something is due that is not yet.
    pub fn wake_ms(&self, now_ms: u64) -> Option<u64> {
        let live = self.requests.values().filter(|request| !request.cancelled);
        let ends = live.map(|request| request.stall_ms.min(request.end_ms));
        let parked = self.parked.first().map(|(due_ms, _)| *due_ms);
        let pause = (self.pause_until_ms > now_ms).then_some(self.pause_until_ms);
        let soon = self.more_at_ms.into_iter().chain(self.turn_ms);
        ends.chain(parked).chain(pause).chain(soon).min()
    }

    fn refill(&mut self, out: &mut Vec<Output>) {
        let has_room = self.queue.len() < REFILL_BELOW;
        if self.more && !self.refilling && has_room && !self.sources.is_empty() {
            self.refilling = true;
            // What comes in from now on may be looked for again.
            self.more = false;
            let except = self.wanted.keys().copied().collect();
            out.push(Output::Refill { limit: REFILL_COUNT, except });
        }
    }

    /// Makes one request of the least busy peer that can be asked something. False: none can.
    fn ask(&mut self, now_ms: u64, out: &mut Vec<Output>) -> bool {
        let under_way = self.requests.len();
        let bulk_max = if self.ops_max > 1 { self.ops_max - 1 } else { 1 };
        let mut peers: Vec<DeviceId> = self.sources.keys().copied().collect();
        peers.sort_by_key(|peer| self.sources.get(peer).map(|source| source.under_way));
        for urgent in [true, false] {
            if under_way >= if urgent { self.ops_max } else { bulk_max } {
                continue;
            }
            for peer in &peers {
                let chunks = self.pick(peer, urgent, now_ms);
                if !chunks.is_empty() {
                    self.send(*peer, urgent, chunks, now_ms, out);
                    return true;
                }
            }
        }
        false
    }

    fn send(
        &mut self,
        peer: DeviceId,
        urgent: bool,
        chunks: Vec<ChunkId>,
        now_ms: u64,
        out: &mut Vec<Output>,
    ) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        source.under_way += 1;
        let (conn, id) = (source.conn, RequestId(self.next_request));
        self.next_request += 1;
        for chunk in &chunks {
            if let Some(want) = self.wanted.get_mut(chunk) {
                want.place = Place::UnderWay;
            }
        }
        let request = Request {
            peer,
            conn,
            chunks: chunks.clone(),
            urgent,
            stall_ms: now_ms + stall_after_ms(urgent),
            end_ms: now_ms + REQUEST_MS,
            cancelled: false,
        };
        self.requests.insert(id, request);
        out.push(Output::Fetch { request: id, conn, urgent, chunks });
    }

    /// Takes from the queue what to ask `peer` for: first what no other has offered.
    fn pick(&mut self, peer: &DeviceId, urgent: bool, now_ms: u64) -> Vec<ChunkId> {
        let queue = if urgent { &mut self.urgent } else { &mut self.queue };
        let (wanted, sources) = (&self.wanted, &self.sources);
        let share = self.ops_max.div_ceil(sources.len().max(1));
        let bytes = if sources.len() > 1 { SHARED_ANSWER_BYTES } else { ANSWER_BYTES };
        let count_max = (bytes / self.chunk_bytes_mean.max(1)).clamp(1, self.request_chunks_max);
        let (mut once, mut stale) = (HashSet::new(), HashSet::new());
        let (mut offered, mut others) = (Vec::new(), Vec::new());
        for (index, chunk) in queue.iter().take(SCAN_COUNT).enumerate() {
            let live = wanted.get(chunk).filter(|want| want.is_live(urgent));
            let Some(want) = live.filter(|_| once.insert(*chunk)) else {
                stale.insert(index);
                continue;
            };
            let turn_ms = want.turn_ms();
            let device = &self.device;
            if now_ms < turn_ms && want.is_turn_of_another(chunk, peer, device, sources, now_ms) {
                self.turn_ms = Some(self.turn_ms.map_or(turn_ms, |first| first.min(turn_ms)));
            } else if want.may_ask(peer, sources) && !want.waits_for_another(peer, sources, share) {
                let is_offered = want.offered.iter().any(|offering| offering != peer);
                if is_offered { offered.push(index) } else { others.push(index) }
            }
            if others.len() == count_max {
                break;
            }
        }
        others.extend(offered);
        others.truncate(count_max);
        others.sort_unstable();
        let picked = others.iter().map(|index| queue[*index]).collect();
        stale.extend(others);
        take_out(queue, &stale);
        picked
    }

    /// Puts a wanted chunk into its queue, in front if it was there before.
    fn enqueue(&mut self, chunk: ChunkId, in_front: bool) {
        let Some(want) = self.wanted.get_mut(&chunk) else { return };
        want.place = Place::Queued;
        let queue = if want.urgent { &mut self.urgent } else { &mut self.queue };
        if in_front { queue.push_front(chunk) } else { queue.push_back(chunk) }
    }

    fn enqueue_or_park(&mut self, chunk: ChunkId, now_ms: u64) {
        let sources = &self.sources;
        let Some(want) = self.wanted.get_mut(&chunk) else { return };
        let nobody = sources.keys().all(|peer| want.lacking.contains(peer));
        if sources.is_empty() || !nobody {
            return self.enqueue(chunk, true);
        }
        let wait_ms = (PARK_MS << want.parks.min(8)).min(PARK_MAX_MS);
        want.parks += 1;
        want.place = Place::Parked(now_ms + wait_ms);
        self.parked.insert((now_ms + wait_ms, chunk));
        if self.parked.len() > PARKED_MAX
            && let Some((_, forgotten)) = self.parked.pop_first()
        {
            // It is found missing again when others are looked for.
            self.wanted.remove(&forgotten);
        }
    }
}

fn stall_after_ms(urgent: bool) -> u64 {
    if urgent { URGENT_STALL_MS } else { STALL_MS }
}

/// Takes what stands at these places out of a queue.
fn take_out(queue: &mut VecDeque<ChunkId>, places: &HashSet<usize>) {
    let end = places.iter().max().map_or(0, |last| last + 1);
    let front: Vec<ChunkId> = queue.drain(..end).collect();
    let stays = |index: &usize| !places.contains(index);
    for index in (0..end).rev().filter(stays) {
        queue.push_front(front[index]);
    }
}

/// Does it wait in this queue? Else its place there is stale: it was fetched meanwhile, or moved to
/// the other queue.
fn is_live(wanted: &BTreeMap<ChunkId, Want>, chunk: &ChunkId, urgent: bool) -> bool {
    let want = wanted.get(chunk);
    want.is_some_and(|want| want.is_live(urgent))
}
