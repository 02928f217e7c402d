use super::*;
use crate::types::{EntryId, EntryRecord, FileId, Ino, Name, NameHash, OpId, PlaceId, VersionId};

fn fresh() -> (tempfile::TempDir, Env) {
    let dir = tempfile::tempdir().expect("a directory");
    let env = Env::real();
    Store::create(dir.path(), &env).expect("created");
    (dir, env)
}

fn entry(parent: u64, hash: u64, seq: u64) -> EntryRecord {
    let id = OpId::new(0, seq);
    EntryRecord {
        parent: Ino(parent),
        hash: NameHash(hash),
        entry: EntryId(id),
        place: PlaceId(id),
        ino: Ino(seq),
        kind_bits: 8,
        name: Name::new(format!("name {seq}").as_bytes()).expect("a name"),
    }
}

#[test]
fn a_chunk_is_readable_before_and_after_its_commit_and_after_a_new_start() {
    let (dir, env) = fresh();
    let id = ChunkId::of(b"sealed");
    {
        let (store, mut writer) = Store::open(dir.path(), &env).expect("opens");
        store.append(&id, b"sealed").expect("appends");
        assert_eq!(store.read_chunk(&id).expect("reads"), b"sealed");
        writer.commit(&Commit::default(), Sync::Durable).expect("commits");
        assert_eq!(store.read_chunk(&id).expect("reads"), b"sealed");
    }
    let (store, _writer) = Store::open(dir.path(), &env).expect("opens");
    assert_eq!(store.read_chunk(&id).expect("reads"), b"sealed");
}

#[test]
fn what_no_commit_named_is_cut_off_at_the_next_start() {
    let (dir, env) = fresh();
    let (kept, lost) = (ChunkId::of(b"kept"), ChunkId::of(b"lost"));
    {
        let (store, mut writer) = Store::open(dir.path(), &env).expect("opens");
        store.append(&kept, b"kept").expect("appends");
        writer.commit(&Commit::default(), Sync::Durable).expect("commits");
        store.append(&lost, b"lost").expect("appends");
    }
    let (store, mut writer) = Store::open(dir.path(), &env).expect("opens");
    assert!(matches!(store.read_chunk(&lost), Err(StoreError::MissingChunk(_))));
    store.append(&lost, b"lost").expect("appends");
    writer.commit(&Commit::default(), Sync::Durable).expect("commits");
    assert_eq!(store.read_chunk(&kept).expect("reads"), b"kept");
    assert_eq!(store.read_chunk(&lost).expect("reads"), b"lost");
}

#[test]
fn a_chunk_changed_on_the_disk_is_an_error_and_never_content() {
    let (dir, env) = fresh();
    let id = ChunkId::of(b"sealed");
    let (store, mut writer) = Store::open(dir.path(), &env).expect("opens");
    store.append(&id, b"sealed").expect("appends");
    writer.commit(&Commit::default(), Sync::Durable).expect("commits");
    let segment = dir.path().join(SEGMENTS_DIR).join("00000001.seg");
    let mut bytes = std::fs::read(&segment).expect("reads");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&segment, bytes).expect("writes");
    assert!(matches!(store.read_chunk(&id), Err(StoreError::CorruptChunk { .. })));
}

#[test]
fn entries_are_paged_in_hash_order_and_removed_by_identity() {
    let (dir, env) = fresh();
    let (store, mut writer) = Store::open(dir.path(), &env).expect("opens");
    let entries_put: Vec<_> = (2..12).map(|n| entry(1, 1000 - n * 10, n)).collect();
    let commit = Commit { entries_put: entries_put.clone(), ..Commit::default() };
    writer.commit(&commit, Sync::Later).expect("commits");
    let first = store.entries_page(Ino(1), None, 4).expect("reads");
    let hashes: Vec<u64> = first.iter().map(|entry| entry.hash.0).collect();
    assert_eq!(hashes, [890, 900, 910, 920]);
    let rest = store.entries_page(Ino(1), Some(NameHash(920)), 100).expect("reads");
    assert_eq!(rest.len(), 6);

    let gone = &entries_put[0];
    let entries_removed = vec![(gone.parent, gone.hash, gone.entry)];
    let commit = Commit { entries_removed, ..Commit::default() };
    writer.commit(&commit, Sync::Later).expect("commits");
    assert!(store.entry(Ino(1), gone.hash).expect("reads").is_empty());
}

#[test]
fn a_sweep_removes_only_what_nothing_names() {
    let (dir, env) = fresh();
    let (store, mut writer) = Store::open(dir.path(), &env).expect("opens");
    let ids: Vec<ChunkId> = (0..10u8)
        .map(|n| {
            let bytes = vec![n; 5000];
            let id = ChunkId::of(&bytes);
            store.append(&id, &bytes).expect("appends");
            id
        })
        .collect();
    writer.commit(&Commit::default(), Sync::Durable).expect("commits");
    writer.sweep_begin().expect("begins");
    ids[..5].iter().for_each(|id| writer.sweep_mark(id).expect("marks"));
    assert_eq!(writer.sweep_unmarked().expect("counts"), (5, 25_000));
    writer.sweep_remove().expect("removes");
    ids[..5].iter().for_each(|id| drop(store.read_chunk(id).expect("is there")));
    ids[5..].iter().for_each(|id| assert!(!store.has_chunk(id).expect("looks")));
}

#[test]
fn a_newer_format_is_refused() {
    let (dir, env) = fresh();
    let db = rusqlite::Connection::open(dir.path().join(DATABASE_FILE)).expect("opens");
    db.pragma_update(None, "user_version", 99).expect("sets");
    drop(db);
    assert!(matches!(Store::open(dir.path(), &env), Err(StoreError::Version { .. })));
    assert!(matches!(Store::look(dir.path(), &env), Err(StoreError::Version { .. })));
}

#[test]
fn a_full_disk_is_told_and_does_not_latch() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = crate::env::FakeDisk::default();
    let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
    Store::create(dir.path(), &env).expect("created");
    let (store, mut writer) = Store::open(dir.path(), &env).expect("opens");
    disk.set_free_bytes(10);
    let (id, bytes) = (ChunkId::of(&[1; 100]), [1; 100]);
    assert!(matches!(store.append(&id, &bytes), Err(StoreError::Full { .. })));
    disk.set_free_bytes(1 << 20);
    store.append(&id, &bytes).expect("appends");
    writer.commit(&Commit::default(), Sync::Durable).expect("commits");
    assert_eq!(store.read_chunk(&id).expect("reads"), bytes);
}

#[test]
fn a_failed_sync_latches_the_writer() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = crate::env::FakeDisk::default();
    let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
    Store::create(dir.path(), &env).expect("created");
    let (store, mut writer) = Store::open(dir.path(), &env).expect("opens");
    store.append(&ChunkId::of(b"x"), b"x").expect("appends");
    disk.cut_before(disk.calls() + 1);
    assert!(matches!(writer.commit(&Commit::default(), Sync::Durable), Err(StoreError::Disk(_))));
    assert!(matches!(writer.commit(&Commit::default(), Sync::Durable), Err(StoreError::Latched)));
    let version = store.version(FileId::ROOT, VersionId(OpId::new(0, 1)));
    assert!(version.expect("reading goes on").is_none());
}
