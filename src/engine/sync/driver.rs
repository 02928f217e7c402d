//! The task that owns the machine: it feeds it what happened, and does what it says.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify, Semaphore, mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};

use super::connection::{self, Event, Job, Shared, Up};
use super::handle::{Command, PeerStatus};
use super::waiters::Waiters;
use super::{Replica, SyncConfig, fetch, history, meet};
use crate::env::{Clock, Env};
use crate::net::{CloseCode, Link, Net};
use crate::sync::{CloseReason, ConnId, Input, Machine, Output, RequestId, Tuning};
use crate::types::limits::{ANSWERS_TOTAL_MAX, SNAPSHOTS_MAX, SYNC_EVENTS_MAX};
use crate::types::{Addresses, ChunkId, ChunkRequest, DeviceId, Frontier, Timestamp};

/// This device's own addresses are looked at this often: they change with the networks it is in.
const ADDRESSES_EVERY: Duration = Duration::from_secs(10);
/// At the end, requests have this long to store what they brought.
const STOP_TIME: Duration = Duration::from_secs(5);
/// A wait with nothing due.
const LONG: Duration = Duration::from_hours(1);

/// A connection, as the driver holds it.
struct Conn {
    link: Link,
    jobs: mpsc::Sender<Job>,
}

/// What is remembered of a member while this process runs.
#[derive(Default)]
struct Seen {
    at: Option<Timestamp>,
    frontier: Frontier,
    error: Option<String>,
    diverged: bool,
}

pub(super) struct Driver {
    machine: Machine,
    shared: Shared,
    net: Net,
    clock: Arc<dyn Clock>,
    events: mpsc::Receiver<Event>,
    began: Instant,
    wake_ms: Option<u64>,
    next_conn: u64,
    conns: HashMap<ConnId, Conn>,
    cancels: HashMap<RequestId, oneshot::Sender<()>>,
    waiters: Waiters,
    /// Inputs that come of outputs.
    again: VecDeque<Input>,
    tasks: JoinSet<()>,
    fetches: JoinSet<()>,
    refreshing: bool,
    refresh_again: bool,
    members: Vec<DeviceId>,
    named: u64,
    own: Addresses,
    given: Vec<(DeviceId, Addresses)>,
    seen: BTreeMap<DeviceId, Seen>,
}

impl Driver {
    pub fn new(
        config: &SyncConfig,
        env: &Env,
        replica: Arc<dyn Replica>,
        net: Net,
        changed: Arc<Notify>,
    ) -> Self {
        let draw = || {
            let mut drawn = [0; 8];
            env.random.fill(&mut drawn);
            u64::from_le_bytes(drawn)
        };
        let tuning = Tuning {
            device: net.device(),
            seed: draw(),
            ops_max: config.max_concurrent_ops,
            request_chunks_max: config.batch_size,
            dial_unknown: config.lan_discovery,
        };
        let (told, events) = mpsc::channel(SYNC_EVENTS_MAX);
        let shared = Shared {
            replica,
            life: draw().max(1),
            events: told,
            delivering: Arc::new(Mutex::new(())),
            answering: Arc::new(Semaphore::new(ANSWERS_TOTAL_MAX)),
            recalling: Arc::new(Mutex::new(())),
            telling: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
            changed,
        };
        Self {
            machine: Machine::new(&tuning),
            shared,
            net,
            clock: Arc::clone(&env.clock),
            events,
            began: Instant::now(),
            wake_ms: None,
            next_conn: 0,
            conns: HashMap::new(),
            cancels: HashMap::new(),
            waiters: Waiters::default(),
            again: VecDeque::new(),
            tasks: JoinSet::new(),
            fetches: JoinSet::new(),
            refreshing: false,
            refresh_again: false,
            members: Vec::new(),
            named: 0,
            own: Addresses::default(),
            given: config.peers.clone(),
            seen: BTreeMap::new(),
        }
    }

    /// Runs until told to stop, then closes all connections.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let changed = Arc::clone(&self.shared.changed);
        self.tasks.spawn(meet::accept(self.shared.clone(), self.net.clone()));
        self.look_at_own();
        self.refresh();
        let mut look = tokio::time::interval(ADDRESSES_EVERY);
        loop {
            let due = self.due();
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Stop) => break,
                    Some(command) => self.command(command),
                },
                Some(event) = self.events.recv() => self.event(event),
                () = changed.notified() => self.refresh(),
                () = tokio::time::sleep(due) => self.feed(Input::Tick),
                _ = look.tick() => self.look_at_own(),
                Some(_) = self.tasks.join_next() => {}
                Some(_) = self.fetches.join_next() => {}
            }
        }
        self.stop().await;
    }

    /// Keeps what requests have brought so far, and leaves.
    async fn stop(mut self) {
        self.waiters.close();
        // From now on nobody is told anything, and so nobody waits to tell.
        self.events.close();
        for (_, cancel) in self.cancels.drain() {
            let _ = cancel.send(());
        }
        let kept = async { while self.fetches.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIME, kept).await.is_err() {
            tracing::warn!("chunks that had come could not be stored in time");
        }
        for conn in self.conns.values() {
            conn.link.close(CloseCode::Leaving);
        }
        self.tasks.shutdown().await;
        self.fetches.shutdown().await;
        self.net.close().await;
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn due(&self) -> Duration {
        let until = |wake_ms: u64| Duration::from_millis(wake_ms.saturating_sub(self.now_ms()));
        self.wake_ms.map_or(LONG, until)
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Want(chunks, deadline, reply) => {
                if self.waiters.add(&chunks, deadline, reply) {
                    self.look_for(chunks);
                }
            }
            Command::AddPeer(device, addresses) => {
                if self.members.contains(&device) {
                    self.feed(Input::PeerAddresses(device, addresses));
                } else {
                    self.given.retain(|(given, _)| *given != device);
                    self.given.push((device, addresses));
                    self.refresh();
                }
            }
            Command::Peers(reply) => {
                let _ = reply.try_send(self.peers());
            }
            Command::Stop => {}
        }
    }

    /// Some of these may have come before the reader asked: they are not to be asked for again.
    fn look_for(&mut self, chunks: Vec<ChunkId>) {
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            let replica = Arc::clone(&shared.replica);
            let here = spawn_blocking(move || {
                let is_here = |id: &ChunkId| matches!(replica.read_chunk(id), Ok(Some(_)));
                chunks.into_iter().partition(is_here)
            });
            if let Ok((here, absent)) = here.await {
                let _ = shared.tell(Event::Looked(here, absent)).await;
            }
        });
    }

    /// Asks the workspace how far it is, one question at a time.
    fn refresh(&mut self) {
        if std::mem::replace(&mut self.refreshing, true) {
            self.refresh_again = true;
            return;
        }
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            let replica = Arc::clone(&shared.replica);
            let local = spawn_blocking(move || {
                // What is named is read first: if more is named meanwhile, another look follows.
                let named = replica.named();
                (replica.frontier(), replica.members(), named)
            });
            if let Ok((frontier, members, named)) = local.await {
                let _ = shared.tell(Event::Local(frontier, members, named)).await;
            }
        });
    }

    fn look_at_own(&mut self) {
        let own = self.net.addresses();
        if own != self.own {
            self.own = own.clone();
            self.feed(Input::OwnAddresses(own));
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Input(input) => self.input(input),
            Event::Up(up) => self.up(*up),
            Event::DialFailed(peer, loss, error) => {
                if let Some(error) = error {
                    tracing::debug!("{peer} cannot be reached: {error}");
                    self.seen.entry(peer).or_default().error = Some(error);
                }
                self.feed(Input::DialFailed(peer, loss));
            }
            Event::Down(conn, loss, error) => {
                if let (Some(conn), Some(error)) = (self.conns.remove(&conn), error) {
                    tracing::info!("the connection to {} has ended: {error}", conn.link.peer());
                    self.seen.entry(conn.link.peer()).or_default().error = Some(error);
                }
                self.remember_frontiers();
                self.feed(Input::Lost(conn, loss));
            }
            Event::Delivered(conn, held, frontier, carried) => {
                self.saw(conn);
                if carried.iter().any(|chunk| self.waiters.wait_for(chunk)) {
                    self.look_for(carried);
                }
                self.feed(Input::LocalFrontier(frontier));
                self.feed(Input::Delivered(conn, held));
                // The batches may have changed the members.
                self.refresh();
            }
            Event::Local(frontier, members, named) => {
                self.local(frontier, members);
                if std::mem::replace(&mut self.named, named) != named {
                    self.feed(Input::Named);
                }
            }
            Event::Looked(here, mut absent) => {
                self.waiters.stored(&here);
                self.feed(Input::Here(here));
                // Some may have come since they were looked for.
                absent.retain(|chunk| self.waiters.wait_for(chunk));
                self.feed(Input::Want(absent));
            }
        }
    }

    fn input(&mut self, input: Input) {
        match &input {
            Input::Fetched { request, stored, .. } => {
                self.cancels.remove(request);
                self.waiters.stored(stored);
            }
            Input::Frame(conn, _) => self.saw(*conn),
            _ => {}
        }
        self.feed(input);
    }

    fn local(&mut self, frontier: Frontier, mut members: Vec<DeviceId>) {
        self.refreshing = false;
        members.sort_unstable();
        if members != self.members {
            self.members.clone_from(&members);
            self.seen.retain(|device, _| members.contains(device));
            self.feed(Input::Members(members));
        }
        let (known, given) = std::mem::take(&mut self.given)
            .into_iter()
            .partition(|(device, _)| self.members.contains(device));
        self.given = given;
        let known: Vec<(DeviceId, Addresses)> = known;
        for (device, addresses) in known {
            self.feed(Input::PeerAddresses(device, addresses));
        }
        self.feed(Input::LocalFrontier(frontier));
        if std::mem::take(&mut self.refresh_again) {
            self.refresh();
        }
    }

    fn up(&mut self, up: Up) {
        let (conn, peer) = (ConnId(self.next_conn), up.link.peer());
        self.next_conn += 1;
        let (jobs, received) = mpsc::channel(1);
        self.conns.insert(conn, Conn { link: up.link.clone(), jobs });
        self.saw(conn);
        self.compare(peer, &up);
        let seen = up.link.path().and_then(|path| path.socket);
        let connected = Input::Connected {
            conn,
            peer,
            dialled: up.dialled,
            frontier: up.heard.frontier.clone(),
            told: up.told.frontier.clone(),
            life: up.life,
        };
        self.tasks.spawn(history::run(self.shared.clone(), up.link.clone()));
        self.tasks.spawn(connection::run(self.shared.clone(), conn, up, received));
        self.feed(connected);
        if let Some(socket) = seen {
            let addresses = Addresses { sockets: vec![socket], relays: Vec::new() };
            self.feed(Input::PeerAddresses(peer, addresses));
        }
    }

    /// Devices that have heard the same changes must show the same tree.
    fn compare(&mut self, peer: DeviceId, up: &Up) {
        let Some(agrees) = up.told.agrees(&up.heard) else { return };
        if !agrees {
            tracing::error!(
                "{peer} has heard the same changes and shows another tree ({:?}, here {:?}). \
                 Nothing is lost; run `tidefs verify` on both devices, keep both as they are and \
                 report it",
                up.heard.root,
                up.told.root
            );
        }
        self.seen.entry(peer).or_default().diverged = !agrees;
    }

    fn saw(&mut self, conn: ConnId) {
        if let Some(conn) = self.conns.get(&conn) {
            let seen = self.seen.entry(conn.link.peer()).or_default();
            seen.at = Some(self.clock.now());
        }
    }

    /// Feeds the machine, and what comes of it, until nothing more does.
    fn feed(&mut self, input: Input) {
        self.again.push_back(input);
        let mut out = Vec::new();
        while let Some(input) = self.again.pop_front() {
            // A past wake-up has had its effect by now.
            self.wake_ms = None;
            self.machine.handle(self.now_ms(), input, &mut out);
            for output in out.drain(..) {
                self.act(output);
            }
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::WakeAt(wake_ms) => self.wake_ms = Some(wake_ms),
            Output::Dial { peer, addresses } => {
                let dial = meet::dial(self.shared.clone(), self.net.clone(), peer, addresses);
                self.tasks.spawn(dial);
            }
            Output::Close { conn, reason } => {
                if let Some(conn) = self.conns.remove(&conn) {
                    let peer = conn.link.peer();
                    conn.link.close(match reason {
                        // It dials again to hear of it.
                        CloseReason::Stranger if self.is_revoked(&peer) => CloseCode::Revoked,
                        reason => code(reason),
                    });
                }
            }
            Output::Send { conn, frame } => self.write(conn, Job::Frame(frame)),
            Output::Push { conn, after } => self.write(conn, Job::Push(after)),
            Output::Fetch { request, conn, urgent, chunks } => {
                let link = self.conns.get(&conn).map(|conn| conn.link.clone());
                let (cancel, cancelled) = oneshot::channel();
                self.cancels.insert(request, cancel);
                let asked = ChunkRequest { urgent, chunks };
                let fetch = fetch::run(self.shared.clone(), link, request, asked, cancelled);
                self.fetches.spawn(fetch);
            }
            Output::Cancel { request } => {
                if let Some(cancel) = self.cancels.remove(&request) {
                    let _ = cancel.send(());
                }
            }
            Output::Refill { limit, except } => {
                let shared = self.shared.clone();
                self.tasks.spawn(async move {
                    let replica = Arc::clone(&shared.replica);
                    let missing = spawn_blocking(move || {
                        (replica.missing_chunks(limit, &except), replica.missing_later_ms())
                    });
                    let (chunks, later_ms) = missing.await.unwrap_or_default();
                    let missing = Input::Missing { chunks, later_ms };
                    let _ = shared.tell(Event::Input(missing)).await;
                });
            }
        }
    }

    fn is_revoked(&self, peer: &DeviceId) -> bool {
        self.shared.replica.parting(peer).is_some()
    }

    fn write(&mut self, conn: ConnId, job: Job) {
        // There is room: the machine writes one thing at a time. If the connection has just ended,
        // its end is on the way.
        if let Some(conn) = self.conns.get(&conn) {
            let _ = conn.jobs.try_send(job);
        }
    }

    fn remember_frontiers(&mut self) {
        for view in self.machine.peers() {
            self.seen.entry(view.device).or_default().frontier = view.frontier;
        }
    }

    fn peers(&mut self) -> Vec<PeerStatus> {
        self.remember_frontiers();
        let up: HashMap<DeviceId, ConnId> =
            self.machine.peers().into_iter().map(|view| (view.device, view.conn)).collect();
        let book: HashMap<DeviceId, Addresses> = self.machine.address_book().into_iter().collect();
        let own = self.net.device();
        let others = self.members.iter().filter(|member| **member != own);
        let status = |device: &DeviceId| {
            let conn = up.get(device).and_then(|conn| self.conns.get(conn));
            let seen = self.seen.get(device);
            PeerStatus {
                device: *device,
                connected: conn.is_some(),
                path: conn.and_then(|conn| conn.link.path()),
                addresses: book.get(device).cloned().unwrap_or_default(),
                frontier: seen.map(|seen| seen.frontier.clone()).unwrap_or_default(),
                last_seen: seen.and_then(|seen| seen.at),
                last_error: seen.and_then(|seen| seen.error.clone()),
                diverged: seen.is_some_and(|seen| seen.diverged),
            }
        };
        others.map(status).collect()
    }
}

fn code(reason: CloseReason) -> CloseCode {
    match reason {
        CloseReason::Duplicate => CloseCode::Duplicate,
        CloseReason::Stranger => CloseCode::Stranger,
        CloseReason::Stalled => CloseCode::Stalled,
        CloseReason::Protocol => CloseCode::Protocol,
    }
}
