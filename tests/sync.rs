//! Replication over real connections on loopback, with workspaces in memory.

#[path = "sync/memory.rs"]
mod memory;

use std::sync::Arc;
use std::time::{Duration, Instant};

use memory::{Memory, WORKSPACE};
use tidefs::codec::{decode_ticket, encode_ticket};
use tidefs::engine::sync::{SyncConfig, SyncError, SyncHandle, SyncThread, WantError, join};
use tidefs::env::Env;
use tidefs::types::{Addresses, ChunkId, Refusal, Role, Ticket, Token, TreeRoot};

/// No test waits longer for anything.
const BOUND: Duration = Duration::from_mins(1);

fn config(peers: &[(&Memory, &SyncHandle)]) -> SyncConfig {
    SyncConfig {
        bind: vec![([127, 0, 0, 1], 0).into()],
        peers: peers.iter().map(|(m, handle)| (m.device(), handle.addresses())).collect(),
        ..SyncConfig::default()
    }
}

fn start(memory: &Arc<Memory>, config: &SyncConfig) -> SyncHandle {
    SyncThread::start(config, &memory.seed(), &Env::real(), memory.clone()).expect("it listens")
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < BOUND, "{what} took too long");
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}

fn are_in_step(memories: &[&Arc<Memory>]) -> bool {
    let first = memories[0];
    memories.iter().all(|m| m.journals() == first.journals() && m.lacking() == 0)
}

fn pair() -> (Arc<Memory>, Arc<Memory>) {
    let (ada, bob) = (Memory::new(1), Memory::new(2));
    for memory in [&ada, &bob] {
        memory.add_members(&[ada.device(), bob.device()]);
    }
    (ada, bob)
}

fn connected(handle: &SyncHandle) -> usize {
    handle.peers().iter().filter(|peer| peer.connected).count()
}

fn last_error(handle: &SyncHandle) -> Option<String> {
    handle.peers().first().and_then(|peer| peer.last_error.clone())
}

#[test]
fn two_peers_end_with_the_same_and_then_hear_at_once_of_what_is_new() {
    let (ada, bob) = pair();
    for n in 0..50 {
        ada.write(&[format!("ada's {n}").as_bytes()]);
        bob.write(&[format!("bob's {n}").as_bytes()]);
    }
    let ada_sync = start(&ada, &config(&[]));
    let bob_sync = start(&bob, &config(&[(&ada, &ada_sync)]));
    let took = until("the first exchange", || are_in_step(&[&ada, &bob]));
    eprintln!("first exchange: {took:?}");
    let mut times = Vec::new();
    for n in 0..50 {
        ada.write(&[format!("more of ada's {n}").as_bytes()]);
        ada_sync.local_changed();
        times.push(until("an edit", || are_in_step(&[&ada, &bob])));
    }
    times.sort();
    eprintln!("edit with its chunk until there: p50 {:?}, p95 {:?}", times[25], times[47]);
    assert!(times[25] < Duration::from_millis(500));
    let peers = ada_sync.peers();
    assert_eq!(peers.len(), 1);
    let peer = &peers[0];
    assert!(peer.connected && peer.last_seen.is_some(), "{peer:?}");
    assert!(!peer.path.as_ref().expect("a path").relayed);
    until("what bob says", || ada_sync.peers()[0].frontier == bob.journals());
    assert_eq!(ada.refused() + bob.refused(), 0);
    bob_sync.finish();
    until("bob's leaving", || connected(&ada_sync) == 0);
    ada_sync.finish();
}

#[test]
fn a_peer_that_has_heard_the_same_and_shows_another_tree_is_told_of_and_an_equal_one_is_not() {
    let (ada, bob) = pair();
    ada.write(&[b"one"]);
    let (right, wrong) = (TreeRoot([1; 32]), TreeRoot([2; 32]));
    ada.shows(right);
    bob.shows(wrong);
    let ada_sync = start(&ada, &config(&[]));
    let diverged = || ada_sync.peers().iter().any(|peer| peer.diverged);
    let meet = |what| {
        let bob_sync = start(&bob, &config(&[(&ada, &ada_sync)]));
        let both = || connected(&ada_sync) == 1 && connected(&bob_sync) == 1;
        until(what, || both() && are_in_step(&[&ada, &bob]));
        let seen = diverged();
        assert_eq!(bob_sync.peers()[0].diverged, seen);
        bob_sync.finish();
        until("bob's leaving", || connected(&ada_sync) == 0);
        seen
    };
    assert!(!meet("the first meeting"), "they had not heard the same");
    assert!(meet("the second meeting"), "they had");
    bob.shows(right);
    assert!(!meet("the third meeting"), "it is mended");
    ada_sync.finish();
}

#[test]
fn three_peers_of_whom_two_know_only_the_first_form_a_mesh() {
    let memories: Vec<Arc<Memory>> = (1..=3).map(Memory::new).collect();
    let members: Vec<_> = memories.iter().map(|m| m.device()).collect();
    for memory in &memories {
        memory.add_members(&members);
        for n in 0..20 {
            memory.write(&[format!("{n} of {}", memory.device()).as_bytes()]);
        }
    }
    let first = start(&memories[0], &config(&[]));
    let known = config(&[(&memories[0], &first)]);
    let handles = [first, start(&memories[1], &known), start(&memories[2], &known)];
    let all: Vec<&Arc<Memory>> = memories.iter().collect();
    until("the exchange", || are_in_step(&all));
    until("the mesh", || handles.iter().all(|handle| connected(handle) == 2));
    handles[0].finish();
    memories[2].write(&[b"while the first is away"]);
    handles[2].local_changed();
    until("an edit past the first", || are_in_step(&all[1..]));
    for memory in &memories {
        assert_eq!(memory.arrived_twice(), 0);
    }
    handles[1].finish();
    handles[2].finish();
}

#[test]
fn both_sides_that_dial_at_once_end_with_one_connection() {
    let (ada, bob) = pair();
    let (ada_sync, bob_sync) = (start(&ada, &config(&[])), start(&bob, &config(&[])));
    ada_sync.add_peer(bob.device(), bob_sync.addresses()).expect("it runs");
    bob_sync.add_peer(ada.device(), ada_sync.addresses()).expect("it runs");
    until("a connection", || connected(&ada_sync) == 1 && connected(&bob_sync) == 1);
    std::thread::sleep(Duration::from_millis(300));
    ada.write(&[b"something"]);
    ada_sync.local_changed();
    until("an edit", || are_in_step(&[&ada, &bob]));
    assert_eq!((connected(&ada_sync), connected(&bob_sync)), (1, 1));
    ada_sync.finish();
    bob_sync.finish();
}

#[test]
fn a_stranger_is_refused_and_learns_nothing() {
    let (ada, bob) = pair();
    let eve = Memory::new(9);
    eve.add_members(&[ada.device(), eve.device()]);
    ada.write(&[b"secret"]);
    let ada_sync = start(&ada, &config(&[]));
    let eve_sync = start(&eve, &config(&[(&ada, &ada_sync)]));
    until("the refusal", || last_error(&eve_sync).is_some());
    let error = last_error(&eve_sync).expect("one");
    assert!(error.contains("not a member"), "{error}");
    assert!(eve.journals().is_empty());
    // A member that is cut loses its connection.
    let bob_sync = start(&bob, &config(&[(&ada, &ada_sync)]));
    until("bob", || connected(&ada_sync) == 1);
    ada.cut(&bob.device());
    ada_sync.local_changed();
    until("the cut", || connected(&bob_sync) == 0);
    for handle in [ada_sync, eve_sync, bob_sync] {
        handle.finish();
    }
}

#[test]
fn what_is_wrong_costs_the_peer_its_connection() {
    let (ada, bob) = pair();
    let ada_sync = start(&ada, &config(&[]));
    let bob_sync = start(&bob, &config(&[(&ada, &ada_sync)]));
    until("a connection", || connected(&ada_sync) == 1);
    bob.write_unsigned();
    bob_sync.local_changed();
    until("the end of it", || connected(&ada_sync) == 0);
    assert_eq!(ada.refused(), 1);
    let error = last_error(&ada_sync).expect("one");
    assert!(error.contains("refused"), "{error}");
    ada_sync.finish();
    bob_sync.finish();
}

/// 1,024 chunks of 64 KiB that do not repeat.
fn write_64_mib(memory: &Memory) {
    let chunk = |n: u32| n.to_le_bytes().repeat(16 << 10);
    for part in 0..16 {
        let chunks: Vec<Vec<u8>> = (part * 64..(part + 1) * 64).map(chunk).collect();
        memory.write(&chunks.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
}

#[test]
fn a_large_content_arrives_and_no_chunk_twice() {
    let (ada, bob) = pair();
    write_64_mib(&ada);
    let ada_sync = start(&ada, &config(&[]));
    let bob_sync = start(&bob, &config(&[(&ada, &ada_sync)]));
    let took = until("64 MiB", || are_in_step(&[&ada, &bob]));
    let rate = 64.0 / took.as_secs_f64();
    eprintln!("64 MiB in {took:?}: {rate:.0} MiB/s");
    assert_eq!((bob.arrived(), bob.arrived_twice(), ada.served()), (1024, 0, 1024));
    ada_sync.finish();
    bob_sync.finish();
}

#[test]
fn a_transfer_that_is_killed_resumes_where_it_was() {
    let (ada, bob) = pair();
    write_64_mib(&ada);
    ada.serve_slowly(Duration::from_millis(1));
    let mut ada_config = config(&[]);
    let mut ada_sync = start(&ada, &ada_config);
    ada_config.bind = ada_sync.addresses().sockets;
    let mut bob_sync = start(&bob, &config(&[(&ada, &ada_sync)]));
    for part in 1..=4 {
        until("a part", || bob.arrived() >= part * 150);
        if part % 2 == 0 {
            bob_sync.finish();
            bob_sync = start(&bob, &config(&[(&ada, &ada_sync)]));
        } else {
            ada_sync.finish();
            ada_sync = start(&ada, &ada_config);
        }
    }
    until("the rest", || are_in_step(&[&ada, &bob]));
    assert_eq!((bob.arrived(), bob.arrived_twice()), (1024, 0));
    let again = ada.served() - 1024;
    eprintln!("{again} chunks were read again after four kills");
    assert!(again <= 4 * 10 * 16, "at most what was under way");
    ada_sync.finish();
    bob_sync.finish();
}

#[test]
fn two_that_fetch_the_same_serve_each_other() {
    let memories: Vec<Arc<Memory>> = (1..=3).map(Memory::new).collect();
    let members: Vec<_> = memories.iter().map(|m| m.device()).collect();
    for memory in &memories {
        memory.add_members(&members);
        memory.serve_slowly(Duration::from_millis(5));
    }
    let first = start(&memories[0], &config(&[]));
    let second = start(&memories[1], &config(&[(&memories[0], &first)]));
    let third = start(&memories[2], &config(&[(&memories[0], &first), (&memories[1], &second)]));
    let handles = [first, second, third];
    until("the mesh", || handles.iter().all(|handle| connected(handle) == 2));
    write_64_mib(&memories[0]);
    handles[0].local_changed();
    let all: Vec<&Arc<Memory>> = memories.iter().collect();
    until("the exchange", || are_in_step(&all));
    let served: Vec<usize> = memories.iter().map(|m| m.served()).collect();
    eprintln!("1,024 chunks to two devices; served: {served:?}");
    assert!(served[0] < 1_600, "the first sends little more than one copy");
    for handle in handles {
        handle.finish();
    }
}

#[test]
fn a_reader_goes_ahead_of_everything_and_its_wait_is_bounded() {
    let (ada, bob) = pair();
    write_64_mib(&ada);
    let last = ada.write(&[b"what the reader waits for"])[0];
    ada.serve_slowly(Duration::from_millis(2));
    let ada_sync = start(&ada, &config(&[]));
    let bob_sync = start(&bob, &config(&[(&ada, &ada_sync)]));
    until("the names", || bob.journals() == ada.journals());
    let began = Instant::now();
    bob_sync.want(vec![last], BOUND).expect("it comes");
    let (took, arrived) = (began.elapsed(), bob.arrived());
    eprintln!("a waiting reader had its chunk after {took:?}, {arrived} of 1,025 there");
    assert!(bob.has(&last) && arrived < 900, "{arrived} came before it");
    bob_sync.want(vec![last], BOUND).expect("it is here already");
    let nowhere = ChunkId([7; 32]);
    let refused = bob_sync.want(vec![nowhere], Duration::from_millis(50));
    assert_eq!(refused, Err(WantError::TimedOut));
    ada_sync.finish();
    bob_sync.finish();
    assert_eq!(bob_sync.want(vec![nowhere], BOUND), Err(WantError::Closed));
}

fn ticket(inviter: &Memory, addresses: Addresses, token: u8) -> Ticket {
    let text = encode_ticket(&Ticket {
        workspace: WORKSPACE,
        inviter: inviter.device(),
        addresses,
        token: Token([token; 16]),
        expires_unix_s: u64::MAX,
        role: Role::Writer,
    });
    decode_ticket(&text, 0).expect("a ticket")
}

#[test]
fn an_invitation_makes_a_member_once() {
    let (ada, bob, eve) = (Memory::new(1), Memory::new(2), Memory::new(9));
    ada.add_members(&[ada.device()]);
    ada.write(&[b"for members"]);
    ada.invite(&Token([5; 16]), false);
    ada.invite(&Token([6; 16]), true);
    let ada_sync = start(&ada, &config(&[]));
    let ask = |who: &Memory, token: u8| {
        let ticket = ticket(&ada, ada_sync.addresses(), token);
        join(&ticket, "a laptop", &who.seed(), &config(&[]))
    };
    let welcome = ask(&bob, 5).expect("bob is welcome");
    assert_eq!(welcome.settings.workspace, WORKSPACE);
    assert_eq!(welcome.role, Role::Writer);
    assert!(welcome.secret.is_some());
    ask(&bob, 5).expect("bob lost the answer and is told it again");
    let refusals = [
        (5, Refusal::UsedInvitation),
        (6, Refusal::ExpiredInvitation),
        (7, Refusal::UnknownInvitation),
    ];
    for (token, expected) in refusals {
        let refused = ask(&eve, token);
        assert!(
            matches!(&refused, Err(SyncError::Refused(found)) if *found == expected),
            "{refused:?}"
        );
    }
    bob.add_members(&[ada.device(), bob.device()]);
    let bob_sync = start(&bob, &config(&[(&ada, &ada_sync)]));
    until("the exchange", || are_in_step(&[&ada, &bob]) && !bob.journals().is_empty());
    ada_sync.finish();
    bob_sync.finish();
}
