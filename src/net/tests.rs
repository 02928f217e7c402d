use iroh::endpoint::{Connection, presets};
use iroh::{Endpoint, EndpointAddr, RelayMode, SecretKey};

use super::*;
use crate::codec::{Sender, encode_frame, encode_request};
use crate::types::limits::{FRAME_BYTES_MAX, STRANGER_FRAME_BYTES_MAX};
use crate::types::{Addresses, Blob, ChunkId, ChunkRequest, DeviceId, Frame, Frontier, Request};

fn config() -> NetConfig {
    NetConfig { bind: vec![([127, 0, 0, 1], 0).into()], ..NetConfig::default() }
}

/// Two devices and the connection that the first dialled, as each sees it.
async fn pair() -> (Net, Net, Link, Link) {
    let ada = Net::bind(&config(), &[1; 32]).await.expect("binds");
    let bob = Net::bind(&config(), &[2; 32]).await.expect("binds");
    let (peer, addresses) = (bob.device(), bob.addresses());
    let (out, come) = tokio::join!(ada.dial(&peer, &addresses), async {
        bob.accept().await.expect("one comes").finish().await
    });
    (ada, bob, out.expect("dialled"), come.expect("accepted"))
}

/// A device that speaks the protocol's name and then whatever it likes.
async fn hostile() -> (Endpoint, Net, Connection, Link) {
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&[3; 32]))
        .relay_mode(RelayMode::Disabled)
        .bind()
        .await
        .expect("binds");
    let bob = Net::bind(&config(), &[2; 32]).await.expect("binds");
    let id = iroh::EndpointId::from_bytes(&bob.device().0).expect("a key");
    let addr = EndpointAddr::new(id).with_ip_addr(bob.addresses().sockets[0]);
    let (out, come) = tokio::join!(endpoint.connect(addr, ALPN), async {
        bob.accept().await.expect("one comes").finish().await
    });
    (endpoint, bob, out.expect("dialled"), come.expect("accepted"))
}

fn batches(bytes: usize) -> Frame {
    Frame::Batches { batches: vec![Blob(vec![7; bytes])], chunks: vec![] }
}

#[tokio::test]
async fn frames_go_both_ways_and_each_side_knows_the_other() {
    let (ada, bob, out, come) = pair().await;
    assert_eq!((out.peer(), come.peer()), (bob.device(), ada.device()));
    assert!(!out.path().expect("a path").relayed);
    let (mut writer, mut reader) = out.open_control().await.expect("opens");
    let large = batches(3 << 20);
    let (sent, read) = tokio::join!(writer.write(&large), async {
        let (mut back, mut reader) = come.accept_control().await.expect("accepts");
        let frame = reader.read(Sender::Member).await.expect("a frame");
        back.write(&Frame::Have { handled: 1, grown: Frontier::new() }).await.expect("writes");
        (frame, back)
    });
    sent.expect("written");
    assert_eq!(read.0, large);
    let answer = reader.read(Sender::Member).await.expect("a frame");
    assert_eq!(answer, Frame::Have { handled: 1, grown: Frontier::new() });
    come.close(CloseCode::Stranger);
    assert!(matches!(out.closed().await, NetError::Closed(CloseCode::Stranger)));
    ada.close().await;
    bob.close().await;
}

#[tokio::test]
async fn chunks_are_answered_in_order_some_lacking_some_later() {
    let (ada, bob, out, come) = pair().await;
    let chunks: Vec<ChunkId> = (0..3).map(|n| ChunkId([n; 32])).collect();
    let request = ChunkRequest { urgent: true, chunks: chunks.clone() };
    let (answer, served) = tokio::join!(out.request(&request), async {
        let (asked, mut writer) =
            come.accept_request().await.expect("comes").read().await.expect("reads");
        writer.write(&[Some(vec![9; 300_000]), None]).await.expect("writes");
        asked
    });
    assert_eq!(served, Request::Chunks(request));
    let mut answer = answer.expect("answered");
    let mut steps = 0;
    let mut progress = || steps += 1;
    let first = answer.next(&mut progress).await.expect("reads");
    assert_eq!(first, Some((chunks[0], Some(vec![9; 300_000]))));
    assert_eq!(answer.next(&mut progress).await.expect("reads"), Some((chunks[1], None)));
    assert_eq!(answer.next(&mut progress).await.expect("reads"), None);
    assert_eq!(steps, 2);
    ada.close().await;
    bob.close().await;
}

#[tokio::test]
async fn hostile_bytes_are_errors_before_they_are_memory() {
    let (endpoint, bob, raw, come) = hostile().await;
    let long = u32::try_from(STRANGER_FRAME_BYTES_MAX + 1).expect("small").to_le_bytes();
    let longer = u32::try_from(FRAME_BYTES_MAX + 1).expect("small").to_le_bytes();
    let join = encode_frame(&batches(5_000));
    let cases: [(&[u8], Sender); 4] = [
        (&long, Sender::Stranger),
        (&longer, Sender::Member),
        (&join, Sender::Stranger),
        (&[4, 0, 0, 0, 1, 250, 250, 250], Sender::Member),
    ];
    for (bytes, sender) in cases {
        let (mut send, _receive) = raw.open_bi().await.expect("opens");
        send.write_all(bytes).await.expect("writes");
        let (_, mut reader) = come.accept_control().await.expect("accepts");
        let read = reader.read(sender).await;
        assert!(matches!(read, Err(NetError::Codec(_))), "{read:?}");
    }
    let (mut send, _receive) = raw.open_bi().await.expect("opens");
    send.write_all(&longer).await.expect("writes");
    let read = come.accept_request().await.expect("accepts").read().await;
    assert!(matches!(read, Err(NetError::Codec(_))), "{read:?}");
    endpoint.close().await;
    bob.close().await;
}

#[tokio::test]
async fn an_answer_to_more_than_was_asked_is_an_error() {
    let (endpoint, bob, raw, come) = hostile().await;
    let request = ChunkRequest { urgent: false, chunks: vec![ChunkId([1; 32])] };
    let (answer, ()) = tokio::join!(come.request(&request), async {
        let (mut send, mut receive) = raw.accept_bi().await.expect("comes");
        let mut asked = vec![0; encode_request(&Request::Chunks(request.clone())).len()];
        receive.read_exact(&mut asked).await.expect("reads");
        send.write_all(&[1, 0, 0, 0, 0, 0, 0, 0, 0]).await.expect("writes");
    });
    let mut answer = answer.expect("asked");
    assert!(matches!(answer.next(&mut || {}).await, Ok(Some((_, None)))));
    assert!(matches!(answer.next(&mut || {}).await, Err(NetError::Answer)));
    endpoint.close().await;
    bob.close().await;
}

#[tokio::test]
async fn nobody_else_can_answer_for_a_device() {
    let ada = Net::bind(&config(), &[1; 32]).await.expect("binds");
    let eve = Net::bind(&config(), &[9; 32]).await.expect("binds");
    let bob = DeviceId(*SecretKey::from_bytes(&[2; 32]).public().as_bytes());
    let addresses = eve.addresses();
    let dial = ada.dial(&bob, &addresses);
    let (dialled, ()) = tokio::join!(dial, async {
        if let Some(arriving) = eve.accept().await {
            let _ = arriving.finish().await;
        }
    });
    assert!(matches!(dialled, Err(NetError::Connect(_))), "{dialled:?}");
    let mut no_point = [0; 32];
    no_point[0] = 2;
    let nobody = ada.dial(&DeviceId(no_point), &Addresses::default()).await;
    assert!(matches!(nobody, Err(NetError::NoDevice)), "{nobody:?}");
    let url = NetConfig { relays: vec!["not a url".into()], ..config() };
    assert!(matches!(Net::bind(&url, &[1; 32]).await, Err(NetError::Relay { .. })));
    ada.close().await;
    eve.close().await;
}
