//! Small cases by hand. `sim.rs` beside this has the random ones.

use super::*;

mod sim;

const SELF: DeviceId = DeviceId([5; 32]);

fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

fn chunk(n: u8) -> ChunkId {
    ChunkId([n; 32])
}

fn address(port: u16) -> Addresses {
    Addresses { sockets: vec![([127, 0, 0, 1], port).into()], relays: vec![] }
}

struct Hand {
    machine: Machine,
    now_ms: u64,
}

impl Hand {
    fn new(ops_max: usize) -> Self {
        let tuning =
            Tuning { device: SELF, seed: 1, ops_max, request_chunks_max: 2, dial_unknown: false };
        let mut hand = Self { machine: Machine::new(&tuning), now_ms: 0 };
        hand.input(Input::Members(vec![SELF, device(1), device(2), device(9)]));
        hand
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.machine.handle(self.now_ms, input, &mut out);
        out.retain(|output| !matches!(output, Output::WakeAt(_)));
        out
    }

    fn at(&mut self, now_ms: u64) -> Vec<Output> {
        self.now_ms = now_ms;
        self.input(Input::Tick)
    }

    fn connect(&mut self, n: u8, conn: u64, dialled: bool) -> Vec<Output> {
        self.connect_life(n, conn, dialled, 1)
    }

    fn connect_life(&mut self, n: u8, conn: u64, dialled: bool, life: u64) -> Vec<Output> {
        let (conn, peer) = (ConnId(conn), device(n));
        let (frontier, told) = (Frontier::new(), Frontier::new());
        self.input(Input::Connected { conn, peer, dialled, frontier, told, life })
    }

    fn fetched(&mut self, request: u64, stored: &[ChunkId], lacking: &[ChunkId]) -> Vec<Output> {
        self.input(Input::Fetched {
            request: RequestId(request),
            stored: stored.to_vec(),
            lacking: lacking.to_vec(),
            bytes: stored.len() as u64 * 65_536,
            store_failed: false,
        })
    }
}

fn fetches(out: &[Output]) -> Vec<(u64, u64, bool, Vec<ChunkId>)> {
    let fetches = out.iter().filter_map(|output| match output {
        Output::Fetch { request, conn, urgent, chunks } => {
            Some((request.0, conn.0, *urgent, chunks.clone()))
        }
        _ => None,
    });
    fetches.collect()
}

fn closed(out: &[Output]) -> Vec<(u64, CloseReason)> {
    let closed = out.iter().filter_map(|output| match output {
        Output::Close { conn, reason } => Some((conn.0, *reason)),
        _ => None,
    });
    closed.collect()
}

fn dials(out: &[Output]) -> Vec<DeviceId> {
    let dials = out.iter().filter_map(|output| match output {
        Output::Dial { peer, .. } => Some(*peer),
        _ => None,
    });
    dials.collect()
}

fn frontier(of: &[(u8, u64)]) -> Frontier {
    of.iter().map(|(n, seq)| (device(*n), *seq)).collect()
}

fn pushes(out: &[Output]) -> Vec<(u64, Frontier)> {
    let pushes = out.iter().filter_map(|output| match output {
        Output::Push { conn, after } => Some((conn.0, after.clone())),
        _ => None,
    });
    pushes.collect()
}

#[test]
fn a_member_is_dialled_once_its_address_is_known_and_again_after_a_wait() {
    let mut hand = Hand::new(10);
    assert!(dials(&hand.at(10)).is_empty());
    let out = hand.input(Input::PeerAddresses(device(1), address(7)));
    assert_eq!(dials(&out), vec![device(1)]);
    let out = hand.input(Input::DialFailed(device(1), Loss::Link));
    assert!(dials(&out).is_empty());
    assert_eq!(dials(&hand.at(1_010)), vec![device(1)]);
    hand.input(Input::DialFailed(device(1), Loss::Refused));
    assert!(dials(&hand.at(20_000)).is_empty(), "who refused is left alone for longer");
    assert_eq!(dials(&hand.at(62_000)), vec![device(1)]);
}

#[test]
fn of_two_connections_made_at_once_both_sides_keep_the_same() {
    // Own id 5; 9 is higher, so the one dialled from here stays, whichever came first.
    let mut hand = Hand::new(10);
    hand.connect(9, 1, false);
    assert_eq!(closed(&hand.connect(9, 2, true)), vec![(1, CloseReason::Duplicate)]);
    assert_eq!(closed(&hand.connect(9, 3, false)), vec![(3, CloseReason::Duplicate)]);
    // 1 is lower: the one that it dialled stays.
    hand.connect(1, 4, true);
    assert_eq!(closed(&hand.connect(1, 5, false)), vec![(4, CloseReason::Duplicate)]);
    assert_eq!(closed(&hand.connect(1, 6, true)), vec![(6, CloseReason::Duplicate)]);
    // Later the peer has lost the old one, and the new one stays.
    hand.at(60_000);
    assert_eq!(closed(&hand.connect(9, 7, false)), vec![(2, CloseReason::Duplicate)]);
}

#[test]
fn a_peer_that_was_killed_and_is_back_is_met_at_once() {
    // 9 dials again within moments: from its first process, that would be a tie which it loses.
    let mut hand = Hand::new(10);
    hand.connect_life(9, 1, true, 1);
    assert_eq!(closed(&hand.connect_life(9, 2, false, 1)), vec![(2, CloseReason::Duplicate)]);
    assert_eq!(closed(&hand.connect_life(9, 3, false, 2)), vec![(1, CloseReason::Duplicate)]);
}

#[test]
fn who_is_no_member_loses_its_connection() {
    let mut hand = Hand::new(10);
    assert_eq!(closed(&hand.connect(7, 1, false)), vec![(1, CloseReason::Stranger)]);
    hand.connect(2, 2, false);
    let out = hand.input(Input::Members(vec![SELF, device(1)]));
    assert_eq!(closed(&out), vec![(2, CloseReason::Stranger)]);
}

#[test]
fn a_commit_is_pushed_at_once_and_not_back_to_whom_it_came_from() {
    let mut hand = Hand::new(10);
    hand.connect(1, 1, false);
    hand.input(Input::Sent(ConnId(1)));
    let out = hand.input(Input::LocalFrontier(frontier(&[(5, 3)])));
    assert_eq!(pushes(&out), vec![(1, frontier(&[(5, 0)]))]);
    hand.input(Input::Pushed(ConnId(1), frontier(&[(5, 3)])));
    hand.input(Input::LocalFrontier(frontier(&[(5, 3), (1, 4)])));
    assert!(pushes(&hand.input(Input::Delivered(ConnId(1), frontier(&[(1, 4)])))).is_empty());
    let out = hand.input(Input::LocalFrontier(frontier(&[(5, 5), (1, 4)])));
    assert_eq!(pushes(&out), vec![(1, frontier(&[(5, 3)]))]);
}

#[test]
fn what_its_author_sends_by_itself_is_passed_on_only_if_still_lacking() {
    let mut hand = Hand::new(10);
    hand.connect(1, 1, false);
    hand.input(Input::Sent(ConnId(1)));
    let note = crate::types::PeerNote {
        device: device(9),
        connected: true,
        addresses: Addresses::default(),
    };
    hand.input(Input::Frame(ConnId(1), Frame::Peers(vec![note])));
    assert!(pushes(&hand.input(Input::LocalFrontier(frontier(&[(9, 3)])))).is_empty());
    hand.at(499);
    hand.input(Input::Sent(ConnId(1)));
    assert_eq!(pushes(&hand.at(500)), vec![(1, frontier(&[(9, 0)]))]);
    hand.input(Input::Pushed(ConnId(1), frontier(&[(9, 3)])));
    let out = hand.input(Input::LocalFrontier(frontier(&[(9, 4), (2, 1)])));
    let both = frontier(&[(2, 0), (9, 3)]);
    assert_eq!(pushes(&out), vec![(1, both)], "2's batch may build on 9's");
}

#[test]
fn batches_that_were_not_taken_are_sent_again_after_a_wait() {
    let mut hand = Hand::new(10);
    hand.connect(1, 1, false);
    hand.input(Input::Sent(ConnId(1)));
    hand.input(Input::LocalFrontier(frontier(&[(5, 3)])));
    hand.input(Input::Pushed(ConnId(1), frontier(&[(5, 3)])));
    let have = Frame::Have { handled: 1, grown: Frontier::new() };
    assert!(pushes(&hand.input(Input::Frame(ConnId(1), have.clone()))).is_empty());
    assert!(pushes(&hand.at(999)).is_empty());
    hand.input(Input::Sent(ConnId(1)));
    assert_eq!(pushes(&hand.at(1_000)), vec![(1, frontier(&[(5, 0)]))]);
}

#[test]
fn requests_stay_within_their_bound_and_a_reader_goes_first() {
    let mut hand = Hand::new(3);
    hand.connect(1, 1, false);
    let out = hand.input(Input::Missing { chunks: (0..20).map(chunk).collect(), later_ms: None });
    let bulk = fetches(&out);
    assert_eq!(bulk.len(), 2, "one place of three is kept for readers");
    assert!(bulk.iter().all(|(_, _, urgent, chunks)| !urgent && chunks.len() == 2));
    let out = hand.input(Input::Want(vec![chunk(15), chunk(16), chunk(17)]));
    assert_eq!(fetches(&out), vec![(2, 1, true, vec![chunk(15), chunk(16)])]);
    let out = hand.fetched(0, &[chunk(0), chunk(1)], &[]);
    assert_eq!(fetches(&out), vec![(3, 1, true, vec![chunk(17)])]);
    let out = hand.fetched(2, &[chunk(15), chunk(16)], &[]);
    assert!(fetches(&out).iter().all(|(.., chunks)| !chunks.contains(&chunk(15))));
}

#[test]
fn a_chunk_that_one_peer_lacks_is_asked_of_another_then_parked_until_someone_has_it() {
    let mut hand = Hand::new(2);
    hand.connect(1, 1, false);
    hand.connect(2, 2, false);
    let out = hand.input(Input::Missing { chunks: vec![chunk(1)], later_ms: None });
    assert_eq!(fetches(&out), vec![(0, 1, false, vec![chunk(1)])]);
    let out = hand.fetched(0, &[], &[chunk(1)]);
    assert_eq!(fetches(&out), vec![(1, 2, false, vec![chunk(1)])]);
    assert!(fetches(&hand.fetched(1, &[], &[chunk(1)])).is_empty());
    let out = hand.input(Input::Frame(ConnId(2), Frame::Offer(vec![chunk(1)])));
    assert_eq!(fetches(&out), vec![(2, 2, false, vec![chunk(1)])]);
    hand.fetched(2, &[], &[chunk(1)]);
    assert_eq!(fetches(&hand.at(60_000)).len(), 1, "its turn comes again");
}

#[test]
fn a_request_that_stalls_ends_and_its_peer_loses_the_connection_at_last() {
    let mut hand = Hand::new(2);
    hand.connect(1, 1, false);
    hand.input(Input::Missing { chunks: vec![chunk(1)], later_ms: None });
    for round in 0..3 {
        hand.at(round * 100_000 + 60_000);
        let out = hand.at(round * 100_000 + 90_000);
        let cancel = Output::Cancel { request: RequestId(round) };
        assert!(round == 0 || out.contains(&cancel), "{out:?}");
        let out = hand.fetched(round, &[], &[]);
        assert_eq!(closed(&out).len(), usize::from(round == 2));
    }
}

#[test]
fn what_arrived_is_offered_to_those_it_did_not_come_from() {
    let mut hand = Hand::new(2);
    for (n, conn) in [(1, 1), (2, 2)] {
        hand.connect(n, conn, false);
        hand.input(Input::Sent(ConnId(conn)));
    }
    hand.input(Input::Missing { chunks: vec![chunk(1)], later_ms: None });
    hand.fetched(0, &[chunk(1)], &[]);
    let out = hand.at(50);
    let offer = Output::Send { conn: ConnId(2), frame: Frame::Offer(vec![chunk(1)]) };
    assert!(out.contains(&offer), "{out:?}");
    assert_eq!(out.iter().filter(|o| matches!(o, Output::Send { .. })).count(), 1);
}

#[test]
fn many_missing_chunks_are_looked_for_window_by_window() {
    let mut hand = Hand::new(2);
    let out = hand.connect(1, 1, false);
    assert!(out.iter().any(|o| matches!(o, Output::Refill { limit: 1024, .. })));
    let ids: Vec<ChunkId> = (0..1024_u32)
        .map(|n| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_le_bytes());
            ChunkId(id)
        })
        .collect();
    let mut out = hand.input(Input::Missing { chunks: ids, later_ms: None });
    let mut rounds = 0;
    while !out.iter().any(|o| matches!(o, Output::Refill { .. })) {
        let (request, _, _, chunks) = fetches(&out).remove(0);
        out = hand.fetched(request, &chunks, &[]);
        rounds += 1;
    }
    assert!((200..300).contains(&rounds), "half of the window went first: {rounds}");
}

#[test]
fn a_reader_does_not_wait_long_for_a_peer_that_stalls() {
    let mut hand = Hand::new(2);
    hand.connect(1, 1, false);
    hand.connect(2, 2, false);
    hand.input(Input::Missing { chunks: vec![chunk(1)], later_ms: None });
    hand.at(1_000);
    hand.input(Input::Want(vec![chunk(1)]));
    assert!(!hand.at(5_999).contains(&Output::Cancel { request: RequestId(0) }));
    assert!(hand.at(6_000).contains(&Output::Cancel { request: RequestId(0) }));
    assert_eq!(fetches(&hand.fetched(0, &[], &[])), vec![(1, 2, true, vec![chunk(1)])]);
}

#[test]
fn what_came_while_missing_chunks_were_looked_for_is_not_asked_again() {
    let mut hand = Hand::new(2);
    hand.connect(1, 1, false);
    hand.input(Input::Want(vec![chunk(1)]));
    hand.fetched(0, &[chunk(1)], &[]);
    let out = hand.input(Input::Missing { chunks: vec![chunk(1), chunk(2)], later_ms: None });
    assert_eq!(fetches(&out), vec![(1, 1, false, vec![chunk(2)])]);
}

#[test]
fn old_addresses_give_way_to_new_ones() {
    let mut hand = Hand::new(2);
    for port in 1..=40 {
        hand.input(Input::PeerAddresses(device(2), address(port)));
    }
    let (_, book) = hand.machine.address_book().remove(0);
    assert_eq!(book.sockets[0].port(), 40);
    assert_eq!(book.sockets.len(), 8);
    hand.connect(1, 1, false);
    let note =
        crate::types::PeerNote { device: device(2), connected: true, addresses: address(99) };
    hand.input(Input::Frame(ConnId(1), Frame::Peers(vec![note])));
    let (_, book) = hand.machine.address_book().remove(0);
    assert_eq!(book.sockets.last().map(std::net::SocketAddr::port), Some(99));
}

fn refills(out: &[Output]) -> usize {
    out.iter().filter(|output| matches!(output, Output::Refill { .. })).count()
}

#[test]
fn what_a_manifest_names_is_looked_for_once_that_is_read() {
    let mut hand = Hand::new(10);
    hand.connect(1, 1, true);
    assert_eq!(
        fetches(&hand.input(Input::Missing { chunks: vec![chunk(1)], later_ms: None })),
        [(0, 1, false, vec![chunk(1)])]
    );
    hand.fetched(0, &[chunk(1)], &[]);
    assert_eq!(refills(&hand.input(Input::Named)), 1);
    let out = hand.input(Input::Missing { chunks: vec![chunk(2)], later_ms: None });
    assert_eq!(fetches(&out), [(1, 1, false, vec![chunk(2)])]);
}

#[test]
fn of_two_devices_that_fetch_the_same_each_asks_the_author_for_its_share() {
    let mut hand = Hand::new(64);
    hand.connect(1, 1, true);
    hand.connect(2, 2, true);
    let chunks: Vec<ChunkId> = (0..40).map(|n| ChunkId::of(&[n])).collect();
    // Device 2 offers what is wanted here, so it fetches the same.
    hand.input(Input::Want(vec![chunk(1)]));
    hand.input(Input::Frame(ConnId(2), Frame::Offer(vec![chunk(1)])));
    let out = hand.input(Input::Missing { chunks: chunks.clone(), later_ms: None });
    let asked: Vec<ChunkId> = fetches(&out).into_iter().flat_map(|fetch| fetch.3).collect();
    assert!(fetches(&out).iter().all(|fetch| fetch.1 == 1), "device 2 has none of them yet");
    assert!((10..30).contains(&asked.len()), "{} of 40 are this device's turn", asked.len());
    let (offered, late) =
        chunks.into_iter().filter(|c| !asked.contains(c)).partition(|c| c.0[0] > 99);
    let (offered, late): (Vec<ChunkId>, Vec<ChunkId>) = (offered, late);
    let out = hand.input(Input::Frame(ConnId(2), Frame::Offer(offered.clone())));
    let mut of_two: Vec<ChunkId> = fetches(&out).into_iter().flat_map(|fetch| fetch.3).collect();
    assert!(fetches(&out).iter().all(|fetch| fetch.1 == 2));
    of_two.sort_unstable();
    let mut sorted = offered;
    sorted.sort_unstable();
    assert_eq!(of_two, sorted);
    // What it does not offer in time is asked for all the same.
    let mut rest: Vec<ChunkId> =
        fetches(&hand.at(2_000)).into_iter().flat_map(|fetch| fetch.3).collect();
    rest.sort_unstable();
    let mut late = late;
    late.sort_unstable();
    assert_eq!(rest, late);
}

#[test]
fn what_will_be_missing_later_is_looked_for_then() {
    let mut hand = Hand::new(10);
    hand.connect(1, 1, true);
    hand.input(Input::Missing { chunks: vec![], later_ms: None });
    hand.input(Input::Missing { chunks: vec![], later_ms: Some(5_000) });
    assert_eq!(refills(&hand.at(4_999)), 0);
    assert_eq!(refills(&hand.at(5_000)), 1);
    let out = hand.input(Input::Missing { chunks: vec![chunk(1)], later_ms: None });
    assert_eq!(fetches(&out), [(0, 1, false, vec![chunk(1)])]);
}

#[test]
fn chunks_of_batches_whose_connection_broke_meanwhile_are_looked_for() {
    let mut hand = Hand::new(10);
    hand.connect(1, 1, true);
    hand.connect(2, 2, true);
    hand.input(Input::Missing { chunks: vec![], later_ms: None });
    assert_eq!(refills(&hand.input(Input::Missing { chunks: vec![], later_ms: None })), 0);
    hand.input(Input::Lost(ConnId(1), Loss::Link));
    let out = hand.input(Input::LocalFrontier(frontier(&[(5, 3)])));
    assert_eq!(refills(&out), 0, "what this device wrote is here");
    let out = hand.input(Input::LocalFrontier(frontier(&[(1, 1), (5, 3)])));
    assert_eq!(refills(&out), 1);
    hand.input(Input::Missing { chunks: vec![], later_ms: None });
    let out = hand.input(Input::LocalFrontier(frontier(&[(1, 1), (5, 4)])));
    assert_eq!(refills(&out), 0);
}
