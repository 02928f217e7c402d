//! Two devices with no path between them but a relay of their own.

#[path = "sync/memory.rs"]
#[expect(dead_code, reason = "this test uses a part of it")]
mod memory;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use memory::Memory;
use tidefs::engine::sync::{SyncConfig, SyncHandle, SyncThread};
use tidefs::env::Env;

/// No test waits longer for anything.
const BOUND: Duration = Duration::from_mins(1);

fn start(memory: &Arc<Memory>, bind: SocketAddr, relay: &str) -> SyncHandle {
    let config =
        SyncConfig { bind: vec![bind], relays: vec![relay.to_owned()], ..SyncConfig::default() };
    SyncThread::start(&config, &memory.seed(), &Env::real(), memory.clone()).expect("it listens")
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < BOUND, "{what} took too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One listens on IPv4 alone and the other on IPv6 alone, so neither can send the other a packet.
#[test]
fn two_devices_without_a_direct_path_meet_through_their_relay() {
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if UdpSocket::bind(v6).is_err() {
        eprintln!("not tried: there is no IPv6 here");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new((Ipv4Addr::LOCALHOST, 0)));
    let relay = runtime.block_on(Server::spawn(config)).expect("the relay runs");
    let url = format!("http://{}/", relay.http_addr().expect("it listens"));
    let (ada, bob) = (Memory::new(1), Memory::new(2));
    for memory in [&ada, &bob] {
        memory.add_members(&[ada.device(), bob.device()]);
    }
    ada.write(&[b"through the relay"]);
    let ada_sync = start(&ada, (Ipv4Addr::LOCALHOST, 0).into(), &url);
    let bob_sync = start(&bob, v6, &url);
    until("ada's relay", || ada_sync.addresses().relays == [url.clone()]);
    // All of ada's addresses, as a ticket has them: her sockets are of no use to bob.
    bob_sync.add_peer(ada.device(), ada_sync.addresses()).expect("it runs");
    until("the exchange", || ada.journals() == bob.journals() && bob.lacking() == 0);
    let peers = bob_sync.peers();
    let path = peers[0].path.as_ref().expect("a path");
    assert!(path.relayed && path.address == url, "{path:?}");
    bob.write(&[b"and back"]);
    bob_sync.local_changed();
    until("the way back", || ada.journals() == bob.journals() && ada.lacking() == 0);
    bob_sync.finish();
    ada_sync.finish();
    runtime.block_on(relay.shutdown()).expect("the relay ends");
}
