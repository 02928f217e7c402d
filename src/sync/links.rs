//! Whom to connect to: members, where they are, when to try again.

use std::collections::{BTreeMap, BTreeSet};

use super::backoff::{Backoff, Jitter};
use super::machine::{ConnId, Loss, Output};
use crate::types::limits::{ADDRESSES_MAX, PEER_NOTES_MAX};
use crate::types::{Addresses, DeviceId, PeerNote};

/// Dials under way at once.
const DIALS_MAX: usize = 8;
/// A connection that lived this long counts as one that worked.
const LASTING_MS: u64 = 10_000;
/// The first dial after the loss of such a connection.
const REDIAL_MS: u64 = 100;
/// Two connections made by both sides within this time are one made twice.
const TIE_MS: u64 = 5_000;

/// What is known of a member.
#[derive(Debug, Default)]
struct Link {
    addresses: Addresses,
    dialling: bool,
    up: Option<Up>,
    next_dial_ms: u64,
    backoff: Backoff,
}

/// A connection that stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Up {
    pub conn: ConnId,
    /// By this device.
    pub dialled: bool,
    /// Which process of the peer it is with.
    pub life: u64,
    pub since_ms: u64,
}

/// What becomes of a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is the connection to that peer from now on.
    Keep,
    /// It is, and this older one is closed.
    Replace(ConnId),
    /// The older one stays.
    Duplicate,
    /// The peer is no member.
    Stranger,
}

/// All members but this device.
#[derive(Debug)]
pub(super) struct Links {
    device: DeviceId,
    own: Addresses,
    dial_unknown: bool,
    peers: BTreeMap<DeviceId, Link>,
}

impl Links {
    pub fn new(device: DeviceId, dial_unknown: bool) -> Self {
        Self { device, own: Addresses::default(), dial_unknown, peers: BTreeMap::new() }
    }

    /// Takes the members as they now are; returns the connections of those who are no longer.
    pub fn set_members(&mut self, members: Vec<DeviceId>, now_ms: u64) -> Vec<ConnId> {
        let members: BTreeSet<DeviceId> =
            members.into_iter().filter(|member| *member != self.device).collect();
        let gone = self.peers.extract_if(.., |member, _| !members.contains(member));
        let gone: Vec<ConnId> = gone.filter_map(|(_, link)| link.up.map(|up| up.conn)).collect();
        for member in members {
            let new = || Link { next_dial_ms: now_ms, ..Link::default() };
            self.peers.entry(member).or_insert_with(new);
        }
        gone
    }

    pub fn set_own(&mut self, own: Addresses) {
        self.own = own;
    }

    /// Where a member is, as it says itself or as was seen: goes before what was known.
    pub fn learn(&mut self, device: &DeviceId, addresses: Addresses, now_ms: u64) {
        let Some(link) = self.peers.get_mut(device) else { return };
        // What is old makes room for what others may tell of it later.
        let keep = |now: usize| now.max(ADDRESSES_MAX / 2);
        let keep = (keep(addresses.sockets.len()), keep(addresses.relays.len()));
        let before = std::mem::replace(&mut link.addresses, addresses);
        let old = merge(&mut link.addresses, before.clone());
        link.addresses.sockets.truncate(keep.0);
        link.addresses.relays.truncate(keep.1);
        if link.addresses != before && !old {
            link.next_dial_ms = link.next_dial_ms.min(now_ms);
        }
    }

    /// Where a member is, as another says: goes behind what was known.
    fn hear(&mut self, device: &DeviceId, addresses: Addresses, now_ms: u64) {
        let Some(link) = self.peers.get_mut(device) else { return };
        let before = link.addresses.clone();
        merge(&mut link.addresses, addresses);
        if link.addresses != before {
            link.next_dial_ms = link.next_dial_ms.min(now_ms);
        }
    }

    /// Takes in what a peer told; returns whom it is connected to.
    pub fn take_notes(
        &mut self,
        peer: &DeviceId,
        notes: Vec<PeerNote>,
        now_ms: u64,
    ) -> BTreeSet<DeviceId> {
        let connected = notes.iter().filter(|note| note.connected).map(|note| note.device);
        let connected = connected.collect();
        for note in notes {
            if note.device == *peer {
                self.learn(&note.device, note.addresses, now_ms);
            } else {
                self.hear(&note.device, note.addresses, now_ms);
            }
        }
        connected
    }

    /// What to tell a peer: of this device and of all members whose place is known.
    pub fn notes(&self, peer: &DeviceId) -> Vec<PeerNote> {
        let own = PeerNote { device: self.device, connected: false, addresses: self.own.clone() };
        let others = self.peers.iter().filter(|(device, link)| {
            *device != peer && (link.up.is_some() || !link.addresses.is_empty())
        });
        let others = others.map(|(device, link)| PeerNote {
            device: *device,
            connected: link.up.is_some(),
            addresses: link.addresses.clone(),
        });
        std::iter::once(own).chain(others).take(PEER_NOTES_MAX).collect()
    }

    /// Where each member is, to be remembered on disk.
    pub fn book(&self) -> Vec<(DeviceId, Addresses)> {
        let known = self.peers.iter().filter(|(_, link)| !link.addresses.is_empty());
        known.map(|(device, link)| (*device, link.addresses.clone())).collect()
    }

    pub fn connected(&mut self, peer: &DeviceId, up: Up) -> Verdict {
        let own = self.device;
        let Some(link) = self.peers.get_mut(peer) else { return Verdict::Stranger };
        link.dialling &= !up.dialled;
        let Some(old) = link.up else {
            link.up = Some(up);
            return Verdict::Keep;
        };
        // Both sides dialled at once. Each sees both connections, so each keeps the one that the
        // lower id dialled. Later, or from a new process of the peer, a second connection means that
        // the peer has lost the first.
        let is_soon = up.life == old.life && up.since_ms < old.since_ms + TIE_MS;
        let is_tie = old.dialled != up.dialled && is_soon;
        let new_stays = !is_tie || up.dialled == (own < *peer);
        if new_stays {
            link.up = Some(up);
            Verdict::Replace(old.conn)
        } else {
            Verdict::Duplicate
        }
    }

    pub fn dial_failed(&mut self, peer: &DeviceId, loss: Loss, jitter: &mut Jitter, now_ms: u64) {
        let Some(link) = self.peers.get_mut(peer) else { return };
        link.dialling = false;
        if link.up.is_none() {
            link.wait(loss, jitter, now_ms);
        }
    }

    /// A connection is gone; was it the one to its peer?
    pub fn lost(
        &mut self,
        peer: &DeviceId,
        conn: ConnId,
        loss: Loss,
        jitter: &mut Jitter,
        now_ms: u64,
    ) -> bool {
        let Some(link) = self.peers.get_mut(peer) else { return false };
        let Some(up) = link.up.take_if(|up| up.conn == conn) else { return false };
        if loss == Loss::Link && now_ms >= up.since_ms + LASTING_MS {
            link.backoff.reset();
            link.next_dial_ms = now_ms + REDIAL_MS + jitter.below(REDIAL_MS);
        } else {
            link.wait(loss, jitter, now_ms);
        }
        true
    }

    /// Dials whom it is time to dial.
    pub fn dial(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let dial_unknown = self.dial_unknown;
        let mut under_way = self.peers.values().filter(|link| link.dialling).count();
        for (peer, link) in &mut self.peers {
            if under_way < DIALS_MAX && link.may_dial(dial_unknown) && link.next_dial_ms <= now_ms {
                link.dialling = true;
                under_way += 1;
                out.push(Output::Dial { peer: *peer, addresses: link.addresses.clone() });
            }
        }
    }

    /// When the next dial is due, if the number under way allows it.
    pub fn next_dial_ms(&self) -> Option<u64> {
        if self.peers.values().filter(|link| link.dialling).count() >= DIALS_MAX {
            return None;
        }
        let waiting = self.peers.values().filter(|link| link.may_dial(self.dial_unknown));
        waiting.map(|link| link.next_dial_ms).min()
    }
}

impl Link {
    fn may_dial(&self, dial_unknown: bool) -> bool {
        !self.dialling && self.up.is_none() && (dial_unknown || !self.addresses.is_empty())
    }

    fn wait(&mut self, loss: Loss, jitter: &mut Jitter, now_ms: u64) {
        if loss == Loss::Refused {
            self.backoff.give_up();
        }
        self.next_dial_ms = now_ms + self.backoff.next_delay_ms(jitter);
    }
}

/// Puts `more` behind `into`, as far as it is new and there is room. Says whether all of `into` was
/// in `more`.
fn merge(into: &mut Addresses, more: Addresses) -> bool {
    let old = into.sockets.iter().all(|socket| more.sockets.contains(socket))
        && into.relays.iter().all(|relay| more.relays.contains(relay));
    for socket in more.sockets {
        if !into.sockets.contains(&socket) {
            into.sockets.push(socket);
        }
    }
    for relay in more.relays {
        if !into.relays.contains(&relay) {
            into.relays.push(relay);
        }
    }
    into.sockets.truncate(ADDRESSES_MAX);
    into.relays.truncate(ADDRESSES_MAX);
    old
}
