//! How others ask the commit thread for something.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::EngineError;
use super::commit::PinSlot;
use super::error::DeliverError;
use crate::types::{ChunkId, DeviceId, DeviceName, EpochSecret, Role, SnapshotRows};

/// Drafts wait at most this long after the first write that is not stored.
const LATER: Duration = Duration::from_secs(1);
/// Changes of names and attributes, and closed files.
const SOON: Duration = Duration::from_millis(100);
/// The same while other devices share the workspace, so that they hear of it soon.
const SOON_SHARED: Duration = Duration::from_millis(4);
/// And from one such commit to the next, where changes come without end: each costs two syncs.
const GROUP_SHARED: Duration = Duration::from_millis(20);

/// How long a change may stay in memory alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Urgency {
    /// A second: a draft of a file that is still being written.
    Later,
    /// A tenth of a second: a group of other changes.
    Soon,
    /// Not at all: memory is needed.
    Now,
}

/// Called once, from the commit thread.
pub type SyncReply = Box<dyn FnOnce(Result<(), EngineError>) + Send>;

/// What a peer has sent.
pub(super) enum Delivery {
    /// Encoded batches, to be merged, and chunks that came along.
    Batches(Vec<Vec<u8>>, Vec<(ChunkId, Vec<u8>)>),
    /// What an admin says of members.
    Members(Vec<MemberAsk>),
    /// Another epoch is to begin.
    NewEpoch,
    /// Secrets of epochs that a member has told.
    Epochs(Vec<EpochSecret>),
    /// Proof that this device's journal goes on elsewhere.
    Overtaken,
    /// Batches from before the snapshot that this device was filled from.
    History(DeviceId, Vec<Vec<u8>>),
    /// A page of the snapshot that this device is filled from; is it the last?
    Page(Box<SnapshotRows>, bool),
    /// Another device is about to join; set once all is folded.
    Company(Arc<AtomicBool>),
    /// This moment of the store is to be pinned.
    Pin(PinSlot),
}

/// What this device is to say of a member.
pub(super) enum MemberAsk {
    /// It has this role from now on, and may be called so.
    Role(DeviceId, Role, Option<DeviceName>),
    /// Nothing of its journal counts behind what is here of it.
    Cut(DeviceId),
}

/// Called once, from the commit thread.
pub(super) type DeliveryReply = Box<dyn FnOnce(Result<(), DeliverError>) + Send>;

/// What is asked of the commit thread.
#[derive(Default)]
pub(super) struct Asked {
    pub deliveries: Vec<(Delivery, DeliveryReply)>,
    /// Wanted chunks, which have just been appended to the store.
    pub chunks: Vec<ChunkId>,
    pub urgency: Option<Urgency>,
    pub since: Option<Instant>,
    pub syncs: Vec<SyncReply>,
    pub stop: bool,
    /// The thread is gone: nobody will answer.
    pub gone: bool,
}

/// The commit thread's letter box. Cheap to clone.
#[derive(Clone, Default)]
pub struct CommitHandle {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    asked: Mutex<Asked>,
    wake: Condvar,
    /// When changes were last taken; the commit thread's own.
    taken: Mutex<Option<Instant>>,
    /// The urgency already asked for, so that most nudges take no lock: 0 for none.
    level: std::sync::atomic::AtomicU8,
    has_peers: std::sync::atomic::AtomicBool,
    /// Does the work on the caller's thread, where there is no commit thread.
    by_hand: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl CommitHandle {
    /// Something changed. Never waits; a nudge less urgent than the last costs one atomic read.
    pub fn nudge(&self, urgency: Urgency) {
        use std::sync::atomic::Ordering::AcqRel;
        let level = urgency as u8 + 1;
        if self.shared.level.fetch_max(level, AcqRel) >= level {
            return;
        }
        let mut asked = self.shared.asked.lock();
        asked.urgency = asked.urgency.max(Some(urgency));
        asked.since.get_or_insert_with(Instant::now);
        self.shared.wake.notify_one();
    }

    /// Memory is needed: commit at once.
    pub fn now(&self) {
        self.nudge(Urgency::Now);
    }

    /// Calls `reply` once all that was changed before is durable, or will not be. Never waits.
    pub fn sync(&self, reply: SyncReply) {
        let mut asked = self.shared.asked.lock();
        if asked.gone {
            drop(asked);
            return reply(Err(EngineError::Closed));
        }
        asked.syncs.push(reply);
        self.shared.wake.notify_one();
    }

    /// Waits for the reply that the sender of `replied` was given for. Where there is no commit
    /// thread, the commit's work is done here and now.
    ///
    /// # Errors
    /// If there will be no reply.
    pub(crate) fn wait_for<R>(&self, replied: &Receiver<R>) -> Result<R, RecvError> {
        if let Some(turn) = self.shared.by_hand.get() {
            turn();
        }
        replied.recv()
    }

    /// There is no commit thread: whoever waits calls `turn`.
    pub(super) fn work_by_hand(&self, turn: Box<dyn Fn() + Send + Sync>) {
        assert!(self.shared.by_hand.set(turn).is_ok(), "one committer for each handle");
    }

    /// Hands over what a peer has sent; `reply` hears once it is durable, or why it will not be.
    /// Never waits: each peer has one delivery under way.
    pub(super) fn deliver(&self, delivery: Delivery, reply: DeliveryReply) {
        let mut asked = self.shared.asked.lock();
        if asked.gone {
            drop(asked);
            return reply(Err(EngineError::Closed.into()));
        }
        asked.deliveries.push((delivery, reply));
        self.shared.wake.notify_one();
    }

    /// Wanted chunks have been appended to the store. Never waits; those that come while a commit
    /// is under way share the next one.
    pub(super) fn chunks_came(&self, chunks: Vec<ChunkId>) {
        let mut asked = self.shared.asked.lock();
        if !asked.gone {
            asked.chunks.extend(chunks);
            self.shared.wake.notify_one();
        }
    }

    /// Other devices share the workspace: changes are committed sooner.
    pub(super) fn set_shared(&self) {
        self.shared.has_peers.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Asks the thread to commit what is left and end.
    pub(super) fn stop(&self) {
        self.shared.asked.lock().stop = true;
        self.shared.wake.notify_one();
    }

    /// The thread ends: those who still wait hear it.
    pub(super) fn leave(&self) {
        let (syncs, deliveries) = {
            let mut asked = self.shared.asked.lock();
            asked.gone = true;
            (std::mem::take(&mut asked.syncs), std::mem::take(&mut asked.deliveries))
        };
        for (_, reply) in deliveries {
            reply(Err(EngineError::Closed.into()));
        }
        for reply in syncs {
            reply(Err(EngineError::Closed));
        }
    }

    /// Waits until something is due, and takes all that is asked.
    pub(super) fn next(&self) -> Asked {
        let taken = *self.shared.taken.lock();
        let mut asked = self.shared.asked.lock();
        loop {
            let is_asked = !asked.syncs.is_empty() || !asked.deliveries.is_empty();
            if asked.stop || is_asked || !asked.chunks.is_empty() {
                break;
            }
            let has_peers = self.shared.has_peers.load(std::sync::atomic::Ordering::Relaxed);
            let due = match (asked.urgency, asked.since) {
                (Some(Urgency::Now), _) => break,
                (Some(Urgency::Soon), Some(since)) if has_peers => {
                    let next = taken.map(|taken| taken + GROUP_SHARED);
                    next.max(Some(since + SOON_SHARED)).expect("one is given")
                }
                (Some(Urgency::Soon), Some(since)) => since + SOON,
                (Some(Urgency::Later), Some(since)) => since + LATER,
                _ => {
                    self.shared.wake.wait(&mut asked);
                    continue;
                }
            };
            if self.shared.wake.wait_until(&mut asked, due).timed_out() {
                break;
            }
        }
        if asked.urgency.is_some() {
            *self.shared.taken.lock() = Some(Instant::now());
        }
        self.take(&mut asked)
    }

    /// Takes all that is asked, due or not.
    pub(super) fn take_now(&self) -> Asked {
        self.take(&mut self.shared.asked.lock())
    }

    fn take(&self, asked: &mut Asked) -> Asked {
        self.shared.level.store(0, std::sync::atomic::Ordering::Release);
        std::mem::take(asked)
    }
}
