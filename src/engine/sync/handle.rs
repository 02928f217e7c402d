//! How others ask replication for something.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::driver::Driver;
use super::{Replica, SyncConfig, SyncError, WantError};
use crate::env::Env;
use crate::net::{Net, PathView};
use crate::types::limits::SYNC_COMMANDS_MAX;
use crate::types::{Addresses, ChunkId, DeviceId, Frontier, Timestamp};

/// Threads that serve connections.
const WORKERS: usize = 2;
/// Calls of the workspace that may block at once.
const BLOCKING_MAX: usize = 8;

/// Starts replication.
#[derive(Debug)]
pub struct SyncThread;

/// What is known of a member.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Which.
    pub device: DeviceId,
    /// Is there a connection?
    pub connected: bool,
    /// The way that its packets take, while connected.
    pub path: Option<PathView>,
    /// Where it may be found.
    pub addresses: Addresses,
    /// What it has, as it last said.
    pub frontier: Frontier,
    /// When it was last heard since this process began.
    pub last_seen: Option<Timestamp>,
    /// Why the last connection, or the last dial, failed.
    pub last_error: Option<String>,
    /// It had heard the same changes, and showed another tree, when that was last compared.
    pub diverged: bool,
}

/// What is asked of the driver.
pub(super) enum Command {
    Want(Vec<ChunkId>, Instant, SyncSender<Result<(), WantError>>),
    AddPeer(DeviceId, Addresses),
    Peers(SyncSender<Vec<PeerStatus>>),
    Stop,
}

/// Replication's letter box. Cheap to clone; its calls are for ordinary threads, not for tasks.
#[derive(Clone)]
pub struct SyncHandle {
    commands: mpsc::Sender<Command>,
    changed: Arc<Notify>,
    /// Until it finishes: an endpoint that is held keeps its sockets.
    running: Arc<Mutex<Option<Running>>>,
}

struct Running {
    net: Net,
    thread: JoinHandle<()>,
}

impl SyncThread {
    /// Listens, and replicates until [`SyncHandle::finish`].
    ///
    /// # Errors
    /// [`SyncError::Net`] if it cannot listen, [`SyncError::System`].
    pub fn start(
        config: &SyncConfig,
        key_seed: &[u8; 32],
        env: &Env,
        replica: Arc<dyn Replica>,
    ) -> Result<SyncHandle, SyncError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(BLOCKING_MAX)
            .thread_name("tidefs-net")
            .enable_all()
            .build()?;
        let net = runtime.block_on(Net::bind(&config.net(), key_seed))?;
        let (commands, received) = mpsc::channel(SYNC_COMMANDS_MAX);
        let changed = Arc::new(Notify::new());
        let driver = Driver::new(config, env, replica, net.clone(), Arc::clone(&changed));
        #[expect(clippy::disallowed_methods, reason = "replication's thread; finish joins it")]
        let thread = std::thread::Builder::new().name("tidefs-sync".into()).spawn(move || {
            runtime.block_on(driver.run(received));
            // Dropping it waits for the calls of the workspace that are under way.
            drop(runtime);
        })?;
        let running = Arc::new(Mutex::new(Some(Running { net, thread })));
        Ok(SyncHandle { commands, changed, running })
    }
}

impl SyncHandle {
    /// Something was committed, or the members changed. Never waits, and many calls cost one look.
    pub fn local_changed(&self) {
        self.changed.notify_one();
    }

    /// Waits until these chunks are stored: for a reader that is blocked.
    ///
    /// # Errors
    /// [`WantError`]; what was asked for goes on being fetched.
    pub fn want(&self, chunks: Vec<ChunkId>, within: Duration) -> Result<(), WantError> {
        let deadline = Instant::now() + within;
        let (reply, replied) = sync_channel(1);
        let mut command = Command::Want(chunks, deadline, reply);
        // The letter box is emptied within moments; a full one must not hold a reader for ever.
        while let Err(back) = self.commands.try_send(command) {
            match back {
                mpsc::error::TrySendError::Closed(_) => return Err(WantError::Closed),
                mpsc::error::TrySendError::Full(back) => command = back,
            }
            if Instant::now() >= deadline {
                return Err(WantError::TimedOut);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        match replied.recv_timeout(within) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(WantError::TimedOut),
            Err(RecvTimeoutError::Disconnected) => Err(WantError::Closed),
        }
    }

    /// All members but this device. Empty once replication has ended.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let (reply, replied) = sync_channel(1);
        match self.commands.blocking_send(Command::Peers(reply)) {
            Ok(()) => replied.recv().unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Where this device can be reached: for an invitation. Nowhere once replication has ended.
    pub fn addresses(&self) -> Addresses {
        self.running.lock().as_ref().map(|running| running.net.addresses()).unwrap_or_default()
    }

    /// Where a member is: it is dialled there soon. Of a device that is no member (yet), nothing
    /// is kept until it is one.
    ///
    /// # Errors
    /// [`SyncError::Closed`].
    pub fn add_peer(&self, device: DeviceId, addresses: Addresses) -> Result<(), SyncError> {
        let sent = self.commands.blocking_send(Command::AddPeer(device, addresses));
        sent.map_err(|_| SyncError::Closed)
    }

    /// Closes all connections, frees the sockets and joins all threads. No call of the workspace
    /// is under way after.
    pub fn finish(&self) {
        let _ = self.commands.blocking_send(Command::Stop);
        let running = self.running.lock().take();
        if let Some(Running { net, thread }) = running {
            drop(net);
            if thread.join().is_err() {
                tracing::error!("replication's thread panicked");
            }
        }
    }
}
