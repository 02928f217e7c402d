//! Can we still read what last year's build wrote, and do we still write it so?
//!
//! Each golden file in `tests/format` holds the bytes of one record in hexadecimal, as
//! `docs/FORMAT.md` describes them. `BLESS=1 cargo test --test format` writes those that are not
//! there; one that is there is never rewritten.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use tidefs::chunk::{ChunkError, Item, Manifest, Sealer, WorkspaceSecret};
use tidefs::codec::{
    decode_batch, decode_frame, decode_node, decode_ops, decode_page, decode_part, decode_request,
    decode_ticket, decode_version, encode_batch, encode_frame, encode_node, encode_ops,
    encode_page, encode_part, encode_request, encode_ticket, encode_version,
};
use tidefs::types::merged::{
    AttrName, Entry, Inode, Key, MemberChange, MemberOp, Move, Removal, Standing, Version,
};
use tidefs::types::{
    Addresses, AttrChange, Batch, Blob, ChunkId, ChunkKey, ChunkRef, ChunkRequest, Content,
    ContentHash, DeviceId, EntryId, EpochId, EpochSecret, FileId, Frame, Frontier, Held, Hlc, Ino,
    JoinRequest, Kind, Name, NodeRecord, Op, OpId, PatchData, PatchExtent, PeerNote, PlaceId,
    Refusal, Request, Role, Settings, SharedSecret, SnapshotEntry, SnapshotHead, SnapshotPage,
    SnapshotPart, SnapshotRows, Ticket, Timestamp, Token, TreeRoot, VersionId, VersionRecord,
    Welcome, WorkspaceId, WrappedSecret,
};

fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/format/{name}.hex"));
    if !path.exists() && std::env::var_os("BLESS").is_some() {
        let mut hex = String::new();
        for line in bytes.chunks(32) {
            for byte in line {
                write!(hex, "{byte:02x}").expect("a string takes it");
            }
            hex.push('\n');
        }
        std::fs::write(&path, hex).expect("writes");
    }
    let text = std::fs::read_to_string(&path).expect("the golden file is there");
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex"))
        .collect()
}

fn id(seq: u64) -> OpId {
    OpId::new(0, seq)
}

fn chunk_ref() -> ChunkRef {
    ChunkRef { id: ChunkId([0xc1; 32]), key: Some(ChunkKey([0x6b; 32])), plain_bytes: 70_000 }
}

fn time() -> Timestamp {
    Timestamp { secs: 1_795_000_000, nanos: 123_456_789 }
}

fn node() -> NodeRecord {
    NodeRecord {
        file: Some(FileId(id(300))),
        kind: Kind::Regular,
        mode: 0o644,
        uid: 1000,
        gid: 100,
        nlink: 2,
        size_bytes: 70_000,
        stored_bytes: 70_000,
        atime: time(),
        mtime: Timestamp { secs: -1, nanos: 999_999_999 },
        ctime: time(),
        btime: time(),
        head: Some(VersionId(id(301))),
        parent: Ino(1),
        xattrs: BTreeMap::from([(b"user.note".to_vec(), b"hello".to_vec())]),
        company: None,
    }
}

fn ops() -> Vec<Op> {
    let name = |text: &str| Name::new(text.as_bytes()).expect("a name");
    let file = FileId(id(2));
    let write = |content| Op::Write {
        file,
        parents: vec![VersionId(id(9))],
        size_bytes: 70_000,
        content,
        mtime: time(),
        interim: false,
    };
    let patch = vec![
        PatchExtent { offset: 5, data: PatchData::Bytes(b"page".to_vec()) },
        PatchExtent { offset: 4096, data: PatchData::Zero(4096) },
    ];
    vec![
        Op::Found {
            settings: Settings {
                workspace: WorkspaceId([7; 16]),
                name: "work".into(),
                encryption: true,
                compression: true,
            },
            mode: 0o755,
            uid: 1000,
            gid: 100,
        },
        Op::Make {
            parent: FileId::ROOT,
            name: name("a"),
            kind: Kind::Symlink(b"target".to_vec()),
            mode: 0o777,
            uid: 1,
            gid: 2,
        },
        Op::Link { parent: FileId::ROOT, name: name("b"), file },
        write(Content::Inline(b"hello".to_vec())),
        write(Content::Chunk(chunk_ref())),
        write(Content::Manifest(chunk_ref())),
        write(Content::Patch { base: VersionId(id(8)), extents: patch }),
        Op::Place { entry: EntryId(id(2)), parent: FileId::ROOT, name: name("c") },
        Op::Unlink {
            entry: EntryId(id(2)),
            seen_place: PlaceId(OpId::new(1, 3)),
            seen_heads: vec![VersionId(id(9))],
        },
        Op::Attr { file, change: AttrChange::Mode(0o600) },
        Op::Attr { file, change: AttrChange::Xattr(b"user.a".to_vec(), None) },
        Op::Attr { file, change: AttrChange::Mtime(time()) },
    ]
}

#[test]
fn a_node_is_stored_as_ever() {
    let bytes = golden("node-1", &encode_node(&node()));
    assert_eq!(decode_node(&bytes).expect("decodes"), node());
    assert_eq!(encode_node(&node()), bytes);
}

#[test]
fn a_version_is_stored_as_ever() {
    let version = VersionRecord {
        hlc: Hlc(1_795_000_000_000_000),
        size_bytes: 70_000,
        mtime: time(),
        content: Content::Chunk(chunk_ref()),
        interim: true,
    };
    let bytes = golden("version-1", &encode_version(&version));
    assert_eq!(decode_version(&bytes).expect("decodes"), version);
    assert_eq!(encode_version(&version), bytes);
}

#[test]
fn every_kind_of_op_is_written_as_ever() {
    let device = |number: u16| DeviceId([u8::try_from(number).expect("small") + 1; 32]);
    let number = |device: &DeviceId| Some(u16::from(device.0[0]) - 1);
    let bytes = golden("ops-1", &encode_ops(&ops(), device));
    assert_eq!(decode_ops(&bytes, number).expect("decodes"), ops());
    assert_eq!(encode_ops(&ops(), device), bytes);
}

#[test]
fn every_op_about_members_is_written_as_ever() {
    let ops = [
        Op::Ack,
        Op::Role { journal: 1, role: Role::Admin },
        Op::Role { journal: 1, role: Role::Writer },
        Op::Role { journal: 0, role: Role::Reader },
        Op::Role { journal: 0, role: Role::Keeper },
        Op::Cut { last: id(300), hash: [7; 32] },
        Op::Epoch { number: 2, wrapped: vec![(1, wrapped(0x11)), (0, wrapped(0x22))] },
    ];
    let device = |number: u16| DeviceId([u8::try_from(number).expect("small") + 1; 32]);
    let number = |device: &DeviceId| Some(u16::from(device.0[0]) - 1);
    let bytes = golden("ops-members-1", &encode_ops(&ops, device));
    assert_eq!(decode_ops(&bytes, number).expect("decodes"), ops);
    assert_eq!(encode_ops(&ops, device), bytes);
}

#[test]
fn a_batch_is_signed_and_written_as_ever() {
    let batch = Batch {
        journal: DeviceId([1; 32]),
        seq: 5,
        count: 3,
        hlc: Hlc(1_795_000_000_000_000),
        epoch: 0,
        previous: [2; 32],
        frontier_delta: vec![(DeviceId([4; 32]), 9)],
        sealed_ops: b"sealed ops".to_vec(),
        signature: [3; 64],
    };
    let bytes = golden("batch-1", &encode_batch(&batch));
    assert_eq!(decode_batch(&bytes).expect("decodes"), batch);
    assert_eq!(encode_batch(&batch), bytes);
}

#[test]
fn a_chunk_is_sealed_as_ever() {
    let sealer = Sealer::new(Some(&WorkspaceSecret([9; 32])), false);
    let sealed = sealer.seal(b"The bytes of a chunk.");
    let bytes = golden("chunk-1", &sealed.bytes);
    assert_eq!(sealed.bytes, bytes, "equal content under one secret seals to equal bytes");
    assert_eq!(sealer.open(&sealed.chunk, &bytes).expect("opens"), b"The bytes of a chunk.");
}

#[test]
fn a_manifest_is_a_tree_of_nodes_as_ever() {
    let sealer = Sealer::new(None, false);
    let chunk = ChunkRef { key: None, ..chunk_ref() };
    let items = vec![Item::Chunk(chunk.clone()), Item::Hole(1 << 30), Item::Chunk(chunk)];
    let manifest = Manifest::new(items);
    let mut nodes = Vec::new();
    let root = manifest
        .save::<ChunkError>(&sealer, &mut |sealed| {
            nodes.push(sealed);
            Ok(())
        })
        .expect("saves");
    assert_eq!(nodes.len(), 1, "few items make one node");
    let bytes = golden("manifest-1", &nodes[0].bytes);
    assert_eq!(nodes[0].bytes, bytes);
    let loaded = Manifest::load::<ChunkError>(&root, &sealer, &mut |_| Ok(bytes.clone()));
    assert_eq!(loaded.expect("loads").items(), manifest.items());
}

fn settings() -> Settings {
    Settings {
        workspace: WorkspaceId([7; 16]),
        name: "work".into(),
        encryption: true,
        compression: true,
    }
}

fn addresses() -> Addresses {
    Addresses {
        sockets: vec![
            "192.0.2.7:4433".parse().expect("an address"),
            "[2001:db8::7]:4433".parse().expect("an address"),
        ],
        relays: vec!["https://relay.example".into()],
    }
}

fn frames() -> Vec<Frame> {
    let workspace = WorkspaceId([7; 16]);
    let frontier = Frontier::from([(DeviceId([1; 32]), 300), (DeviceId([2; 32]), 5)]);
    let request = JoinRequest { token: Token([5; 16]), name: "bob-laptop".into() };
    let note = PeerNote { device: DeviceId([1; 32]), connected: true, addresses: addresses() };
    vec![
        Frame::Hello {
            workspace,
            frontier: frontier.clone(),
            root: Some(TreeRoot([6; 32])),
            life: 0x0123_4567_89ab_cdef,
            yours: Some(Held { seq: 300, hash: [0x5a; 32] }),
        },
        Frame::Join { workspace, request },
        Frame::Welcome(Welcome {
            settings: settings(),
            secret: Some(SharedSecret([9; 32])),
            founder: DeviceId([1; 32]),
            role: Role::Writer,
            inviter_name: "ada-laptop".into(),
        }),
        Frame::Refused(Refusal::UsedInvitation),
        Frame::Have { handled: 3, grown: frontier },
        Frame::Batches {
            batches: vec![Blob(b"a batch".to_vec()), Blob(b"another".to_vec())],
            chunks: vec![Blob(b"a sealed chunk".to_vec())],
        },
        Frame::Peers(vec![note]),
        Frame::Offer(vec![ChunkId([0xc1; 32])]),
        Frame::Bootstrap { workspace },
        Frame::Part(Blob(b"a part".to_vec())),
        Frame::Epochs(vec![EpochSecret {
            epoch: EpochId { number: 2, author: DeviceId([1; 32]), seq: 300 },
            secret: SharedSecret([8; 32]),
        }]),
    ]
}

fn wrapped(byte: u8) -> WrappedSecret {
    WrappedSecret::from_bytes(&[byte; 80]).expect("80 bytes")
}

#[test]
fn every_frame_is_sent_as_ever() {
    let request = ChunkRequest { urgent: true, chunks: vec![ChunkId([0xc1; 32])] };
    let mut encoded: Vec<u8> = frames().iter().flat_map(encode_frame).collect();
    let requests =
        [Request::Chunks(request), Request::History { journal: DeviceId([1; 32]), after_seq: 300 }];
    encoded.extend(requests.iter().flat_map(encode_request));
    let bytes = golden("frames-1", &encoded);
    assert_eq!(encoded, bytes);
    let mut rest = bytes.as_slice();
    for frame in frames() {
        assert_eq!(decode_frame(next_frame(&mut rest)).expect("decodes"), frame);
    }
    for request in requests {
        assert_eq!(decode_request(next_frame(&mut rest)).expect("decodes"), request);
    }
}

fn next_frame<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (length, behind) = rest.split_first_chunk().expect("a length");
    let (frame, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
    *rest = behind;
    frame
}

#[test]
fn a_ticket_is_written_as_ever() {
    let ticket = Ticket {
        workspace: WorkspaceId([7; 16]),
        inviter: DeviceId([1; 32]),
        addresses: addresses(),
        token: Token([5; 16]),
        expires_unix_s: 1_795_000_000,
        role: Role::Writer,
    };
    let text = encode_ticket(&ticket);
    assert_eq!(golden("ticket-1", text.as_bytes()), text.as_bytes());
    assert_eq!(decode_ticket(&text, 0).expect("decodes"), ticket);
}

#[test]
fn a_part_of_a_snapshot_is_signed_and_written_as_ever() {
    let part = SnapshotPart {
        workspace: WorkspaceId([7; 16]),
        index: 3,
        is_last: true,
        previous: [2; 32],
        sealed: b"a sealed page".to_vec(),
        signature: [3; 64],
    };
    let bytes = golden("snapshot-part-1", &encode_part(&part));
    assert_eq!(decode_part(&bytes).expect("decodes"), part);
    assert_eq!(encode_part(&part), bytes);
}

#[test]
fn the_pages_of_a_snapshot_are_written_as_ever() {
    let head = SnapshotHead {
        journals: vec![DeviceId([1; 32]), DeviceId([2; 32])],
        live_nodes: 300,
        conflicts: 1,
        root: NodeRecord { kind: Kind::Directory, head: None, ..node() },
        tree_root: TreeRoot([8; 32]),
        folds_anew: 2,
    };
    let head = SnapshotPage::Head(Box::new(head));
    let bytes = golden("snapshot-head-1", &encode_page(&head));
    assert_eq!(decode_page(&bytes).expect("decodes"), head);
    assert_eq!(encode_page(&head), bytes);
    let rows = SnapshotPage::Rows(Box::new(snapshot_rows()));
    let bytes = golden("snapshot-rows-1", &encode_page(&rows));
    assert_eq!(decode_page(&bytes).expect("decodes"), rows);
    assert_eq!(encode_page(&rows), bytes);
}

fn snapshot_rows() -> SnapshotRows {
    let (file, entry, place) = (FileId(id(300)), EntryId(id(300)), PlaceId(id(300)));
    let (version, device) = (VersionId(id(301)), DeviceId([1; 32]));
    let key = Key { hlc: Hlc(1_795_000_000_000_000), device };
    let name = Name::new(b"report.odt").expect("a name");
    let standing = Standing { key, op: place, parent: FileId::ROOT, name: name.clone() };
    let removal = Removal { key, seen_place: place, seen_heads: [version].into() };
    let content = Content::Inline(b"hello".to_vec());
    let hash = ContentHash::of(5, &content, None);
    let attr = (AttrName::Mode, (key, AttrChange::Mode(0o600)));
    SnapshotRows {
        nodes: vec![(Ino(300), node())],
        entries: vec![SnapshotEntry { parent: Ino(1), entry, place, ino: Ino(300), name }],
        listed: vec![Ino(1)],
        versions: vec![(
            file,
            version,
            VersionRecord { hlc: key.hlc, size_bytes: 5, mtime: time(), content, interim: false },
        )],
        batches: vec![(0, Blob(b"a batch".to_vec()))],
        heard: vec![(1, 0, 300)],
        folded: vec![(0, 301)],
        members: vec![MemberOp {
            id: id(2),
            key,
            frontier: BTreeMap::from([(1, 5)]),
            body: MemberChange::Role(1, Role::Writer),
        }],
        voids: vec![(id(9), 1)],
        merged_entries: vec![(
            entry,
            Entry {
                is_directory: false,
                inode: file,
                place: Some(standing.clone()),
                removals: vec![removal],
            },
        )],
        merged_inodes: vec![(
            file,
            Inode {
                is_directory: false,
                special: None,
                entries: [entry].into(),
                heads: [version].into(),
                attrs: [attr].into(),
                removed: [VersionId(id(299))].into(),
                touch: 7,
            },
        )],
        specials: vec![(FileId(id(302)), Kind::Symlink(b"target".to_vec()))],
        merged_versions: vec![(file, version, Version { key, content: hash })],
        moves: vec![Move { to: standing, entry, before: None, is_applied: true }],
        faces: vec![(file, Ino(302))],
        crowded: vec![Ino(1)],
    }
}
