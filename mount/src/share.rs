//! Sharing a mounted workspace with other devices: replication's life beside the mount, and what
//! of it other processes may read.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use tidefs::engine::sync::{PeerStatus, SyncConfig, SyncHandle, SyncThread};
use tidefs::engine::{Filling, Workspace};
use tidefs::env::Env;
use tidefs::fs::{Fetch, Filesystem};
use tidefs::types::{Addresses, ChunkId, DeviceId, Frontier, SnapshotHead};

/// What a process that shares a workspace tells others, in the workspace's directory.
const NET_FILE: &str = "net.json";
/// How long a reader waits for bytes that other devices have.
const FETCH_WAIT: Duration = Duration::from_secs(30);
/// How often what is told is brought up to date.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Where a device listens and whom it reaches.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetState {
    /// This device, in hexadecimal digits.
    pub device: String,
    /// Where it can be reached, while it can.
    pub addresses: Addresses,
    /// The relays that it was told to use.
    pub relays: Vec<String>,
    /// The port that it listens at, taken again the next time.
    pub port: Option<u16>,
    /// It is being made ready for a first other device.
    pub preparing: bool,
    /// Members, by their hexadecimal digits.
    pub peers: BTreeMap<String, PeerState>,
}

/// What is known of a member.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerState {
    /// Where it was found, or may be.
    pub addresses: Addresses,
    /// Is there a connection?
    pub connected: bool,
    /// The way that its packets take, while connected.
    pub way: Option<Way>,
    /// Seconds since 1970 when it was last heard.
    pub last_seen_unix_s: Option<i64>,
    /// How far it has each journal, by their devices' digits, as it last said.
    pub has: BTreeMap<String, u64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// It had heard the same changes, and showed another tree, when that was last compared.
    pub diverged: bool,
}

/// The way that a connection's packets take.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Way {
    /// By which kind of path.
    pub kind: WayKind,
    /// The other device's socket, or the relay's URL.
    pub address: String,
}

/// A kind of path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WayKind {
    /// From device to device.
    Direct,
    /// Through a relay.
    Relayed,
    /// Both, while the better one is found out.
    Mixed,
}

impl PeerState {
    /// How far it has each journal, as it last said; `None` if it never has.
    pub fn frontier(&self) -> Option<Frontier> {
        let has = self.has.iter();
        let has: Frontier = has.filter_map(|(id, seq)| Some((device(id)?, *seq))).collect();
        (!has.is_empty()).then_some(has)
    }
}

impl NetState {
    /// What the last process that shared the workspace in `dir` told.
    pub fn read(dir: &Path) -> Self {
        let bytes = Env::real().disk.read(&dir.join(NET_FILE)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Tells others.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(NET_FILE);
        let text = serde_json::to_vec(self)?;
        Env::real().disk.write(&path, &text).with_context(|| format!("writing {}", path.display()))
    }

    fn members(&self) -> Vec<(DeviceId, Addresses)> {
        let known = self.peers.iter();
        known.filter_map(|(id, peer)| Some((device(id)?, peer.addresses.clone()))).collect()
    }
}

/// A device from its hexadecimal digits.
pub fn device(digits: &str) -> Option<DeviceId> {
    DeviceId::from_hex(digits)
}

/// How to share.
#[derive(Clone, Debug, Default)]
pub struct ShareOptions {
    /// Where to listen; none: on any interface.
    pub listen: Vec<SocketAddr>,
    /// The relays to use; none: nobody but members is contacted.
    pub relays: Vec<String>,
    /// Find and be found on the local network.
    pub lan_discovery: bool,
    /// Chunk requests under way at once; none: the default.
    pub max_concurrent_ops: Option<usize>,
    /// Chunks in one request; none: the default.
    pub batch_size: Option<usize>,
}

/// Replication beside a mount. Cheap to clone.
#[derive(Clone)]
pub struct Share {
    inner: Arc<Inner>,
}

struct Inner {
    fs: Filesystem,
    dir: PathBuf,
    options: ShareOptions,
    running: Mutex<Option<SyncHandle>>,
    ending: Mutex<bool>,
    wake: Condvar,
}

struct Fetcher(SyncHandle);

impl Fetch for Fetcher {
    fn fetch(&self, chunk: &ChunkId) -> Result<(), String> {
        self.0.want(vec![*chunk], FETCH_WAIT).map_err(|error| error.to_string())
    }
}

impl Share {
    /// Of a workspace whose state is in `dir`. Nothing runs yet, whatever a process that was killed
    /// has left told.
    ///
    /// # Errors
    /// The disk's.
    pub fn new(fs: Filesystem, dir: &Path, options: ShareOptions) -> anyhow::Result<Self> {
        stop_telling(dir)?;
        let inner = Inner {
            fs,
            dir: dir.to_owned(),
            options,
            running: Mutex::new(None),
            ending: Mutex::new(false),
            wake: Condvar::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Listens and replicates, unless it does already, or has ended.
    ///
    /// # Errors
    /// The network's, if nothing can be listened at.
    pub fn start(&self) -> anyhow::Result<()> {
        let mut running = self.inner.running.lock();
        if running.is_some() || *self.inner.ending.lock() {
            return Ok(());
        }
        let handle = self.inner.listen()?;
        self.inner.fs.set_fetcher(Arc::new(Fetcher(handle.clone())));
        let changed = handle.clone();
        let published = self.inner.fs.replica().published();
        published.watch(Box::new(move || changed.local_changed()));
        handle.local_changed();
        *running = Some(handle.clone());
        // What is being made ready must not keep the end waiting.
        drop(running);
        self.inner.prepare()?;
        if *self.inner.ending.lock() {
            return Ok(());
        }
        self.inner.tell(&handle)?;
        let inner = Arc::clone(&self.inner);
        #[expect(clippy::disallowed_methods, reason = "tells others what replication does")]
        std::thread::Builder::new().name("share".into()).spawn(move || inner.keep_telling())?;
        Ok(())
    }

    /// Ends replication; what it knew stays for the next time.
    pub fn finish(&self) {
        *self.inner.ending.lock() = true;
        self.inner.wake.notify_all();
        let running = self.inner.running.lock().take();
        if let Some(handle) = running {
            if let Err(error) = self.inner.tell(&handle) {
                tracing::warn!("{error:#}");
            }
            handle.finish();
            if let Err(error) = stop_telling(&self.inner.dir) {
                tracing::warn!("{error:#}");
            }
        }
    }
}

/// Asks for a snapshot of the workspace in `dir`, if this device has joined it and knows nothing of it
/// yet: of the device that has invited it, which is the only one that it knows of. None if that tells
/// none: then the journals are to be heard.
///
/// # Errors
/// This device's own.
pub fn begin_filling(
    dir: &Path,
    options: &ShareOptions,
) -> anyhow::Result<Option<(Filling, Box<SnapshotHead>)>> {
    let env = Env::real();
    if !Workspace::is_empty(dir, &env)? {
        return Ok(None);
    }
    let config = SyncConfig {
        bind: options.listen.clone(),
        relays: options.relays.clone(),
        lan_discovery: options.lan_discovery,
        ..SyncConfig::default()
    };
    for (peer, addresses) in NetState::read(dir).members() {
        match Filling::begin(dir, &env, &config, (&peer, &addresses)) {
            Ok(filling) => return Ok(Some(filling)),
            Err(error) => tracing::info!("{peer} tells no snapshot: {error}"),
        }
    }
    Ok(None)
}

/// No process listens; what is known of the members stays.
fn stop_telling(dir: &Path) -> anyhow::Result<()> {
    let before = NetState::read(dir);
    let mut state =
        NetState { addresses: Addresses::default(), preparing: false, ..before.clone() };
    state.peers.values_mut().for_each(|peer| (peer.connected, peer.way) = (false, None));
    if state == before { Ok(()) } else { state.write(dir) }
}

impl Inner {
    fn listen(&self) -> anyhow::Result<SyncHandle> {
        let env = Env::real();
        let seed = Workspace::device_seed(&self.dir, &env)?;
        let known = NetState::read(&self.dir);
        let start = |bind: Vec<SocketAddr>| {
            let default = SyncConfig::default();
            let config = SyncConfig {
                bind,
                relays: self.options.relays.clone(),
                peers: known.members(),
                lan_discovery: self.options.lan_discovery,
                max_concurrent_ops: self
                    .options
                    .max_concurrent_ops
                    .unwrap_or(default.max_concurrent_ops),
                batch_size: self.options.batch_size.unwrap_or(default.batch_size),
            };
            let replica = Arc::clone(self.fs.replica());
            SyncThread::start(&config, &seed, &env, replica)
        };
        // The port of the last time, where others may look; any, if it is taken.
        let again = |socket: SocketAddr, port| match socket.port() {
            0 => SocketAddr::new(socket.ip(), port),
            _ => socket,
        };
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let asked = self.options.listen.clone();
        let wanted = if asked.is_empty() { vec![any] } else { asked.clone() };
        if let Some(port) = known.port
            && let Ok(handle) = start(wanted.iter().map(|socket| again(*socket, port)).collect())
        {
            return Ok(handle);
        }
        start(asked).context("listening for other devices")
    }

    /// Whoever listens has invited someone, or shares already: makes ready what is asked for first.
    fn prepare(&self) -> anyhow::Result<()> {
        let before = NetState::read(&self.dir);
        NetState { preparing: true, ..before.clone() }.write(&self.dir)?;
        let prepared = self.fs.replica().expect_company();
        NetState { preparing: false, ..before }.write(&self.dir)?;
        Ok(prepared?)
    }

    fn keep_telling(&self) {
        loop {
            let mut ending = self.ending.lock();
            if !*ending {
                self.wake.wait_for(&mut ending, TELL_EVERY);
            }
            if *ending {
                return;
            }
            drop(ending);
            let Some(handle) = self.running.lock().clone() else { return };
            if let Err(error) = self.tell(&handle) {
                tracing::warn!("{error:#}");
            }
        }
    }

    fn tell(&self, handle: &SyncHandle) -> anyhow::Result<()> {
        use tidefs::engine::sync::Replica as _;
        let replica = self.fs.replica();
        let own = replica.device();
        let before = NetState::read(&self.dir);
        let addresses = handle.addresses();
        let port = addresses.sockets.first().map(SocketAddr::port).or(before.port);
        let mut peers = before.peers.clone();
        for peer in handle.peers() {
            let id = peer.device.to_string();
            let state = peer_state(peer, peers.get(&id));
            peers.insert(id, state);
        }
        let relays = self.options.relays.clone();
        let (device, preparing) = (own.to_string(), false);
        let state = NetState { device, addresses, relays, port, preparing, peers };
        if state == before { Ok(()) } else { state.write(&self.dir) }
    }
}

fn peer_state(peer: PeerStatus, before: Option<&PeerState>) -> PeerState {
    let before = before.cloned().unwrap_or_default();
    let digits = |(device, seq): (DeviceId, u64)| (device.to_string(), seq);
    let has: BTreeMap<String, u64> = peer.frontier.into_iter().map(digits).collect();
    PeerState {
        addresses: if peer.addresses.is_empty() { before.addresses } else { peer.addresses },
        connected: peer.connected,
        way: peer.path.map(|path| Way {
            kind: match (path.mixed, path.relayed) {
                (true, _) => WayKind::Mixed,
                (_, true) => WayKind::Relayed,
                (_, false) => WayKind::Direct,
            },
            address: path.address,
        }),
        // Told by the minute, so that an idle device writes nothing.
        last_seen_unix_s: peer
            .last_seen
            .map(|time| time.secs / 60 * 60)
            .or(before.last_seen_unix_s),
        has: if has.is_empty() { before.has } else { has },
        last_error: peer.last_error,
        diverged: peer.diverged,
    }
}
