//! What two devices say to each other about a workspace.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::limits::{
    ADDRESSES_MAX, CARRY_CHUNKS_MAX, EPOCHS_MAX, FRAME_BATCHES_MAX, OFFER_CHUNKS_MAX,
    PEER_NOTES_MAX, REQUEST_CHUNKS_MAX,
};
use super::{
    BatchHash, Blob, ChunkId, DeviceId, EpochSecret, JoinRequest, Refusal, TreeRoot, Welcome,
    WorkspaceId,
};

/// The last seq heard of each journal, durable here.
pub type Frontier = BTreeMap<DeviceId, u64>;

/// Where a device can be reached.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Addresses {
    /// Of its sockets, the likeliest first; at most `ADDRESSES_MAX`.
    #[serde(deserialize_with = "bounded::<_, _, ADDRESSES_MAX>")]
    pub sockets: Vec<SocketAddr>,
    /// URLs of relays that it listens at; at most `ADDRESSES_MAX`.
    #[serde(deserialize_with = "bounded::<_, _, ADDRESSES_MAX>")]
    pub relays: Vec<String>,
}

impl Addresses {
    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty() && self.relays.is_empty()
    }
}

/// What a device tells a peer about another device, or about itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerNote {
    /// Whom it is about.
    pub device: DeviceId,
    /// The teller has a connection to it, so it need not be told the same by others.
    pub connected: bool,
    /// Where the teller knows it to be.
    pub addresses: Addresses,
}

/// How much a device has of a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    /// The last op.
    pub seq: u64,
    /// The hash of the batch that ends with it.
    pub hash: BatchHash,
}

/// One message on a connection's control stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Frame {
    /// The first of each side between members.
    Hello {
        /// What both must have in common.
        workspace: WorkspaceId,
        /// All that the sender has.
        frontier: Frontier,
        /// The root of the tree that this makes there, if all of it is folded.
        root: Option<TreeRoot>,
        /// Which process of the sender it is: drawn at random when that began.
        life: u64,
        /// What the sender has of the receiver's own journal, if it has any.
        yours: Option<Held>,
    },
    /// The first of a device that wants to become a member.
    Join {
        /// The workspace that its ticket names.
        workspace: WorkspaceId,
        /// What it shows.
        request: JoinRequest,
    },
    /// The answer to a `Join` that was accepted.
    Welcome(Welcome),
    /// The answer to a `Join` or `Hello` that was not.
    Refused(Refusal),
    /// The journals of which the sender has more than it last said.
    Have {
        /// How many `Batches` frames of this connection it has taken in.
        handled: u64,
        /// Their last seqs.
        grown: Frontier,
    },
    /// Batches, and small content with them, so that it need not be asked for.
    Batches {
        /// Encoded; of each journal consecutive ones, causes before effects.
        #[serde(deserialize_with = "bounded::<_, _, FRAME_BATCHES_MAX>")]
        batches: Vec<Blob>,
        /// Sealed chunks that the batches name, directly or through a manifest among them.
        #[serde(deserialize_with = "bounded::<_, _, CARRY_CHUNKS_MAX>")]
        chunks: Vec<Blob>,
    },
    /// Where members are, the sender itself among them.
    Peers(#[serde(deserialize_with = "bounded::<_, _, PEER_NOTES_MAX>")] Vec<PeerNote>),
    /// Chunks that have come to the sender since the connection began.
    Offer(#[serde(deserialize_with = "bounded::<_, _, OFFER_CHUNKS_MAX>")] Vec<ChunkId>),
    /// The first of a member that has nothing yet: it asks for a snapshot.
    Bootstrap {
        /// The workspace that it has joined.
        workspace: WorkspaceId,
    },
    /// An encoded part of a snapshot.
    Part(Blob),
    /// The secrets of epochs after the first: from one member to another, whom they may not have
    /// reached through the journals.
    Epochs(#[serde(deserialize_with = "bounded::<_, _, EPOCHS_MAX>")] Vec<EpochSecret>),
}

/// What a stream of its own asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Chunks.
    Chunks(ChunkRequest),
    /// Batches of a journal of which a snapshot stood for the beginning.
    History {
        /// Whose.
        journal: DeviceId,
        /// The last op before them.
        after_seq: u64,
    },
}

/// Which chunks are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkRequest {
    /// A reader waits for it: answer before others.
    pub urgent: bool,
    /// At most `REQUEST_CHUNKS_MAX`.
    #[serde(deserialize_with = "bounded::<_, _, REQUEST_CHUNKS_MAX>")]
    pub chunks: Vec<ChunkId>,
}

/// A list that is refused as soon as it is longer than it may be: small elements could otherwise
/// take many times the memory of the frame that they came in.
pub(super) fn bounded<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MAX: usize>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = seq.next_element()? {
                if list.len() == MAX {
                    return Err(Error::custom("a list is too long"));
                }
                list.push(element);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(List::<T, MAX>(std::marker::PhantomData))
}
