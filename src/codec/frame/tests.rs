use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::types::limits::FRAME_BATCHES_MAX;
use crate::types::{
    Blob, ChunkId, Held, JoinRequest, PeerNote, Refusal, Role, Settings, SharedSecret, Token,
    TreeRoot, Welcome, WorkspaceId,
};

fn device() -> impl Strategy<Value = DeviceId> {
    any::<[u8; 32]>().prop_map(DeviceId)
}

fn workspace() -> impl Strategy<Value = WorkspaceId> {
    any::<[u8; 16]>().prop_map(WorkspaceId)
}

fn addresses() -> impl Strategy<Value = Addresses> {
    let socket = any::<(std::net::IpAddr, u16)>().prop_map(std::net::SocketAddr::from);
    (vec(socket, 0..4), vec("https://[a-z]{1,9}", 0..3))
        .prop_map(|(sockets, relays)| Addresses { sockets, relays })
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let role = prop_oneof![Just(Role::Admin), Just(Role::Keeper)];
    (workspace(), ".{0,9}", any::<Option<[u8; 32]>>(), device(), role).prop_map(
        |(workspace, name, secret, founder, role)| Welcome {
            settings: Settings {
                workspace,
                name: name.clone(),
                encryption: true,
                compression: false,
            },
            secret: secret.map(SharedSecret),
            founder,
            role,
            inviter_name: name,
        },
    )
}

fn frame() -> impl Strategy<Value = Frame> {
    let frontier = || btree_map(device(), any::<u64>(), 0..5);
    let note = (device(), any::<bool>(), addresses())
        .prop_map(|(device, connected, addresses)| PeerNote { device, connected, addresses });
    let blobs = || vec(vec(any::<u8>(), 0..50).prop_map(Blob), 0..5);
    prop_oneof![
        (
            workspace(),
            frontier(),
            proptest::option::of(any::<[u8; 32]>().prop_map(TreeRoot)),
            any::<u64>()
        )
            .prop_map(|(workspace, frontier, root, life)| {
                let yours = (life % 2 == 0).then_some(Held { seq: life, hash: [7; 32] });
                Frame::Hello { workspace, frontier, root, life, yours }
            }),
        (workspace(), any::<[u8; 16]>(), "[a-zü日]{1,20}").prop_map(|(workspace, token, name)| {
            Frame::Join { workspace, request: JoinRequest { token: Token(token), name } }
        }),
        welcome().prop_map(Frame::Welcome),
        Just(Frame::Refused(Refusal::ExpiredInvitation)),
        (any::<u64>(), frontier()).prop_map(|(handled, grown)| Frame::Have { handled, grown }),
        (blobs(), blobs()).prop_map(|(batches, chunks)| Frame::Batches { batches, chunks }),
        vec(note, 0..4).prop_map(Frame::Peers),
        vec(any::<[u8; 32]>().prop_map(ChunkId), 0..4).prop_map(Frame::Offer),
    ]
}

proptest! {
    #[test]
    fn a_frame_comes_back_as_it_went(frame in frame()) {
        let bytes = encode_frame(&frame);
        let (length, body) = bytes.split_first_chunk().expect("a length");
        prop_assert_eq!(frame_len(*length, Sender::Member).expect("bounded"), body.len());
        prop_assert_eq!(decode_frame(body).expect("decodes"), frame);
        for cut in 0..body.len() {
            prop_assert!(decode_frame(&body[..cut]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(mut bytes in vec(any::<u8>(), 0..400), known in any::<bool>()) {
        if let (true, Some(first)) = (known, bytes.first_mut()) {
            *first = 1;
        }
        let _ = decode_frame(&bytes);
        let _ = decode_request(&bytes);
        let _ = batch_span(&bytes);
        if let Some((length, _)) = bytes.split_first_chunk() {
            let _ = frame_len(*length, Sender::Stranger);
            let _ = decode_chunk_len(*length);
        }
    }

    #[test]
    fn a_changed_frame_does_not_make_a_decoder_panic(
        frame in frame(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut bytes = encode_frame(&frame).split_off(LENGTH_BYTES);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode_frame(&bytes);
    }
}

#[test]
fn a_length_beyond_the_bound_is_refused_before_anything_is_read() {
    let long = u32::try_from(STRANGER_FRAME_BYTES_MAX + 1).expect("small").to_le_bytes();
    assert!(frame_len(long, Sender::Stranger).is_err());
    assert!(frame_len(long, Sender::Member).is_ok());
    assert!(frame_len([0xff; 4], Sender::Member).is_err());
    assert!(frame_len([0; 4], Sender::Member).is_err());
    assert!(decode_chunk_len([0xff; 4]).is_err());
    assert_eq!(decode_chunk_len(encode_chunk_len(None)).expect("good"), None);
    assert_eq!(decode_chunk_len(encode_chunk_len(Some(&[1; 300]))).expect("good"), Some(300));
}

#[test]
fn a_list_beyond_its_bound_is_refused() {
    let empty = |count| Frame::Batches { batches: vec![Blob(vec![]); count], chunks: vec![] };
    let most = empty(FRAME_BATCHES_MAX);
    assert!(decode_frame(&encode_frame(&most)[LENGTH_BYTES..]).is_ok());
    let more = empty(FRAME_BATCHES_MAX + 1);
    assert!(decode_frame(&encode_frame(&more)[LENGTH_BYTES..]).is_err());
    for name in ["n".repeat(DEVICE_NAME_BYTES_MAX + 1), String::new(), "a/b".into()] {
        let request = JoinRequest { token: Token([0; 16]), name };
        let join = Frame::Join { workspace: WorkspaceId([0; 16]), request };
        assert!(decode_frame(&encode_frame(&join)[LENGTH_BYTES..]).is_err());
    }
}

#[test]
fn the_span_of_a_batch_is_read_from_its_front() {
    let batch = crate::types::Batch {
        journal: DeviceId([1; 32]),
        seq: 5,
        count: 3,
        hlc: Hlc(77),
        epoch: 0,
        previous: [2; 32],
        frontier_delta: vec![],
        sealed_ops: vec![],
        signature: [3; 64],
    };
    let span = batch_span(&crate::codec::encode_batch(&batch)).expect("reads");
    let expected =
        BatchSpan { journal: DeviceId([1; 32]), first_seq: 5, last_seq: 7, hlc: Hlc(77) };
    assert_eq!(span, expected);
    let empty = crate::types::Batch { count: 0, ..batch };
    assert!(batch_span(&crate::codec::encode_batch(&empty)).is_err());
}
