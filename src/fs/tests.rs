use super::*;
use crate::engine::{NewWorkspace, Workspace, verify};
use crate::types::Kind;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let new = NewWorkspace {
            name: "test".into(),
            encryption: true,
            compression: true,
            mode: 0o755,
            uid: 0,
            gid: 0,
        };
        Workspace::create(&dir.path().join("ws"), &new, &Env::real()).expect("created");
        Self { dir }
    }

    fn open(&self) -> Filesystem {
        Filesystem::open(&self.dir.path().join("ws"), &Options::default()).expect("opens")
    }

    fn verify(&self) {
        let dir = self.dir.path().join("ws");
        let report = verify(&dir, &Env::real(), false, &mut |_| ()).expect("verifies");
        assert!(report.is_clean(), "{:?}", report.problems);
    }
}

fn making(parent: Ino, name: &str, kind: Kind) -> Making<'_> {
    let caller = Caller { uid: 0, gid: 0 };
    Making { parent, name: name.as_bytes(), kind, mode: 0o644, umask: 0o022, caller }
}

fn make(fs: &Filesystem, name: &str) -> Ino {
    let attr = fs.make(&making(Ino::ROOT, name, Kind::Regular), Wait::May).expect("made");
    attr.ino
}

fn write(fs: &Filesystem, ino: Ino, offset: u64, data: &[u8]) {
    let writing = Writing { offset, data, append: false, kill_suid: false };
    assert_eq!(fs.write(ino, &writing, Wait::May).expect("writes"), data.len());
}

fn read_all(fs: &Filesystem, ino: Ino) -> Vec<u8> {
    fs.read(ino, 0, u32::MAX, Wait::May).expect("reads")
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    use rand::{Rng, SeedableRng};
    let mut out = vec![0; len];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut out);
    out
}

#[test]
fn what_was_written_is_read_after_a_new_start_whatever_its_size() {
    let fixture = Fixture::new();
    let sizes = [0, 1, 2048, 2049, 70_000, 3_000_000];
    let fs = fixture.open();
    for size in sizes {
        let ino = make(&fs, &format!("f{size}"));
        write(&fs, ino, 0, &noise(size, 1));
        fs.release(ino, true);
        if size == 70_000 {
            fs.sync_now(Some(ino)).expect("syncs");
            write(&fs, ino, 100, b"patched");
            fs.sync_now(Some(ino)).expect("syncs");
        }
    }
    fs.close().expect("closes");
    drop(fs);
    fixture.verify();
    let fs = fixture.open();
    for size in sizes {
        let name = format!("f{size}");
        let attr = fs.lookup(Ino::ROOT, name.as_bytes(), Wait::May).expect("is there");
        assert_eq!(attr.size_bytes, size as u64);
        let mut expected = noise(size, 1);
        if size == 70_000 {
            expected[100..107].copy_from_slice(b"patched");
        }
        assert!(read_all(&fs, attr.ino) == expected, "{size} bytes");
    }
    fs.close().expect("closes");
}

#[test]
fn a_save_by_rename_keeps_the_documents_identity_and_history() {
    let fixture = Fixture::new();
    let fs = fixture.open();
    let document = make(&fs, "report");
    write(&fs, document, 0, b"first");
    fs.sync_now(Some(document)).expect("syncs");
    let temp = make(&fs, "report.tmp");
    write(&fs, temp, 0, b"second");
    fs.sync_now(Some(temp)).expect("syncs");
    let (from, to) = ((Ino::ROOT, &b"report.tmp"[..]), (Ino::ROOT, &b"report"[..]));
    fs.rename(from, to, RenameMode::Replace, Wait::May).expect("renames");
    fs.sync_now(None).expect("syncs");
    let attr = fs.lookup(Ino::ROOT, b"report", Wait::May).expect("is there");
    assert_eq!(attr.ino, temp, "as rename(2) wants");
    assert_eq!(read_all(&fs, attr.ino), b"second");
    let node = fs.inner.store.node(temp).expect("reads").expect("is there");
    let file = node.file.expect("has a name");
    assert_eq!(Ino::from(file), document, "the document's identity");
    let versions = fs.inner.store.versions_page(None, 100).expect("reads");
    assert_eq!(versions.iter().filter(|(of, _, _)| *of == file).count(), 2);
    fs.close().expect("closes");
    drop(fs);
    fixture.verify();
    let fs = fixture.open();
    let attr = fs.lookup(Ino::ROOT, b"report", Wait::May).expect("is there");
    assert_eq!(attr.ino, temp, "stable across remounts");
    assert_eq!(read_all(&fs, attr.ino), b"second");
    fs.close().expect("closes");
}

#[test]
fn what_a_save_replaced_stays_readable_through_its_open_file() {
    let fixture = Fixture::new();
    let fs = fixture.open();
    let (old, new) = (noise(300_000, 1), noise(300_000, 2));
    for (name, bytes) in [("report", &old), ("report.tmp", &new)] {
        let ino = make(&fs, name);
        write(&fs, ino, 0, bytes);
    }
    fs.close().expect("closes");
    drop(fs);
    let fs = fixture.open();
    let find = |name: &[u8]| fs.lookup(Ino::ROOT, name, Wait::May).expect("is there").ino;
    let document = find(b"report");
    // Opened, and nothing read of it yet.
    fs.open_file(document, false, false, Wait::May).expect("opens");
    let (from, to) = ((Ino::ROOT, &b"report.tmp"[..]), (Ino::ROOT, &b"report"[..]));
    fs.rename(from, to, RenameMode::Replace, Wait::May).expect("renames");
    assert!(read_all(&fs, document) == old);
    fs.sync_now(None).expect("syncs");
    assert!(read_all(&fs, document) == old);
    assert!(read_all(&fs, find(b"report")) == new);
    fs.release(document, false);
    fs.close().expect("closes");
    drop(fs);
    fixture.verify();
}

#[test]
fn a_file_is_found_by_its_number_as_long_as_it_has_a_name() {
    let fixture = Fixture::new();
    let fs = fixture.open();
    let kept = make(&fs, "kept");
    let removed = make(&fs, "removed");
    write(&fs, removed, 0, &noise(100_000, 1));
    fs.release(removed, true);
    fs.sync_now(Some(removed)).expect("syncs");
    fs.unlink(Ino::ROOT, b"removed", Wait::May).expect("unlinks");
    fs.close().expect("closes");
    drop(fs);
    let fs = fixture.open();
    assert_eq!(fs.lookup(kept, b".", Wait::May).expect("is there").ino, kept);
    for gone in [removed, Ino(1 << 40)] {
        let found = fs.lookup(gone, b".", Wait::May);
        assert!(matches!(found, Err(FsError::NotFound | FsError::Stale(_))), "{found:?}");
    }
    fs.close().expect("closes");
}

#[test]
fn a_directory_holds_more_directories_than_a_file_has_links() {
    let fixture = Fixture::new();
    let fs = fixture.open();
    let count = crate::types::limits::LINKS_MAX + 10;
    for i in 0..count {
        let name = format!("d{i}");
        let attr = fs.make(&making(Ino::ROOT, &name, Kind::Directory), Wait::May).expect("made");
        fs.forget(attr.ino, 1);
    }
    let root = fs.getattr(Ino::ROOT, Wait::May).expect("is there");
    assert_eq!(root.nlink, count + 2);
    fs.close().expect("closes");
}

#[test]
fn a_second_process_is_refused_while_the_first_serves() {
    let fixture = Fixture::new();
    let fs = fixture.open();
    let again = Filesystem::open(&fixture.dir.path().join("ws"), &Options::default());
    assert!(matches!(again, Err(EngineError::Locked(_))));
    fs.close().expect("closes");
}

#[test]
fn every_change_waits_while_another_devices_changes_are_merged() {
    use crate::engine::Source as _;
    let fixture = Fixture::new();
    let fs = fixture.open();
    let ino = make(&fs, "file");
    write(&fs, ino, 0, b"bytes");
    fs.setxattr(ino, b"user.a", b"1", XattrMode::Set, false, Wait::May).expect("sets");
    fs.make(&making(Ino::ROOT, "dir", Kind::Directory), Wait::May).expect("made");
    fs.sync_now(None).expect("commits");
    fs.inner.hold(true);
    let (never, root) = (Wait::Never, Ino::ROOT);
    let writing = Writing { offset: 0, data: b"x", append: false, kill_suid: false };
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let found = [
        fs.write(ino, &writing, never).map(drop),
        fs.open_file(ino, true, true, never),
        fs.allocate(ino, Allocate::PunchHole, 0, 1, never),
        fs.allocate(ino, Allocate::Reserve { keep_size: false }, 0, 9, never),
        fs.allocate(ino, Allocate::Zero { keep_size: false }, 0, 9, never),
        fs.copy_range((ino, 0), (ino, 9), 3, never).map(drop),
        fs.setattr(ino, &mode, never).map(drop),
        fs.setxattr(ino, b"user.b", b"1", XattrMode::Set, false, never),
        fs.removexattr(ino, b"user.a", never),
        fs.make(&making(root, "new", Kind::Regular), never).map(drop),
        fs.link(ino, root, b"again", never).map(drop),
        fs.rename((root, b"file"), (root, b"other"), RenameMode::Replace, never),
        fs.unlink(root, b"file", never),
        fs.rmdir(root, b"dir", never),
    ];
    for (index, result) in found.iter().enumerate() {
        assert!(matches!(result, Err(FsError::WouldBlock)), "change {index}: {result:?}");
    }
    assert_eq!(read_all(&fs, ino), b"bytes");
    fs.inner.hold(false);
    fs.removexattr(ino, b"user.a", never).expect("goes on");
    fs.close().expect("closes");
}

#[test]
fn a_devices_name_is_an_attribute_that_nobody_sees() {
    use crate::types::{DeviceId, DeviceName, device_attr};
    let fixture = Fixture::new();
    let fs = fixture.open();
    let device = DeviceId([7; 32]);
    let name = DeviceName::new("ada-laptop").expect("a name");
    fs.name_device(&device, &name, Wait::May).expect("is named");
    fs.sync_now(None).expect("commits");
    let named = fs.replica().device_names().expect("reads");
    assert_eq!(named.get(&device), Some(&name));
    let attr = device_attr(&device);
    assert!(fs.listxattr(Ino::ROOT, Wait::May).expect("lists").is_empty());
    assert!(matches!(fs.getxattr(Ino::ROOT, &attr, Wait::May), Err(FsError::NotSupported(_))));
    let set = fs.setxattr(Ino::ROOT, &attr, b"eve", XattrMode::Set, false, Wait::May);
    assert!(matches!(set, Err(FsError::NotSupported(_))));
    assert!(fs.removexattr(Ino::ROOT, &attr, Wait::May).is_err());
    fs.close().expect("closes");
    let fs = fixture.open();
    assert_eq!(fs.replica().device_names().expect("reads").get(&device), Some(&name));
    fs.close().expect("closes");
    fixture.verify();
}

#[test]
fn what_a_sync_was_asked_for_stays_in_history_even_if_it_was_committed_before() {
    let fixture = Fixture::new();
    let fs = fixture.open();
    let ino = make(&fs, "file");
    fs.open_file(ino, true, false, Wait::May).expect("opens");
    write(&fs, ino, 0, b"one");
    fs.sync_now(None).expect("syncs");
    fs.sync_now(Some(ino)).expect("syncs");
    write(&fs, ino, 0, b"two");
    fs.sync_now(None).expect("syncs");
    write(&fs, ino, 0, b"six");
    fs.sync_now(None).expect("syncs");
    let versions = fs.inner.store.versions_page(None, 10).expect("reads");
    let contents = versions.into_iter().map(|(_, _, record)| record.expect("decodes").content);
    let inline = |bytes: &[u8]| crate::types::Content::Inline(bytes.to_vec());
    assert_eq!(contents.collect::<Vec<_>>(), [inline(b"one"), inline(b"six")]);
}
