//! Snapshots that no honest device tells: each is refused, by name, and leaves nothing.

use std::path::Path;

use tidefs::chunk::{Sealer, WorkspaceSecret};
use tidefs::codec::{
    decode_page, decode_part, encode_page, encode_part, encode_unsigned_part, part_hash,
};
use tidefs::engine::Workspace;
use tidefs::engine::sync::Replica;
use tidefs::env::Env;
use tidefs::keys::DeviceKey;
use tidefs::types::{
    DeviceId, FileId, Ino, OpId, SnapshotHead, SnapshotPage, SnapshotPart, SnapshotRows,
    WorkspaceId,
};

use super::devices::{Device, Joiner, exchange, found, parts};

/// Room for any page.
const PAGE_BYTES: usize = 8 << 20;

/// A member that signs whatever it likes.
struct Forger {
    key: DeviceKey,
    sealer: Sealer,
    workspace: WorkspaceId,
}

fn context(index: u32) -> Vec<u8> {
    [&b"snapshot"[..], &index.to_le_bytes()].concat()
}

impl Forger {
    fn new(device: &Device) -> Self {
        let env = Env::real();
        let seed = Workspace::device_seed(&device.dir, &env).expect("is read");
        let secret = Workspace::secret(&device.dir, &env).expect("is read");
        let sealer = Sealer::new(Some(&WorkspaceSecret(secret.0)), true);
        let workspace = device.fs.replica().workspace();
        Self { key: DeviceKey::from_seed(&seed), sealer, workspace }
    }

    fn open(&self, encoded: &[u8]) -> Vec<u8> {
        let part = decode_part(encoded).expect("a part");
        let opened = self.sealer.open_record(&context(part.index), (0, &part.sealed), PAGE_BYTES);
        opened.expect("opens")
    }

    /// Pages as a snapshot, signed as if all were well.
    fn sign(&self, pages: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut previous = [0; 32];
        let mut parts = Vec::new();
        for (index, page) in (0..).zip(pages) {
            let mut part = SnapshotPart {
                workspace: self.workspace,
                index,
                is_last: index as usize == pages.len() - 1,
                previous,
                sealed: self.sealer.seal_record(&context(index), page).1,
                signature: [0; 64],
            };
            part.signature = self.key.sign(&encode_unsigned_part(&part));
            parts.push(encode_part(&part));
            previous = part_hash(parts.last().expect("one"));
        }
        parts
    }
}

/// What a joiner says to these parts.
fn take(joiner: &Joiner, teller: DeviceId, parts: &[Vec<u8>]) -> Result<(), String> {
    let hearing = Workspace::hearing(&joiner.dir, &Env::real(), teller);
    let mut hearing = hearing.expect("a workspace");
    let mut device: Option<Device> = None;
    let mut taken = Ok(());
    for part in parts {
        let page = match hearing.hear(part) {
            Ok(page) => page,
            Err(error) => return Err(error.to_string()),
        };
        taken = match (page, &device) {
            ((SnapshotPage::Head(head), _), _) => joiner
                .fill(&head)
                .map(|opened| device = Some(opened))
                .map_err(|error| error.to_string()),
            ((SnapshotPage::Rows(rows), is_last), Some(device)) => {
                let laid = device.fs.replica().lay_page(rows, is_last);
                laid.map_err(|error| error.to_string())
            }
            (_, None) => panic!("no head"),
        };
        if taken.is_err() {
            break;
        }
    }
    if let Some(device) = device {
        device.fs.close().expect("closes");
    }
    taken
}

/// A workspace of some files on `ada`, and a snapshot of it that `forge` has changed: what a joiner
/// says to it. Nothing of it may be left, and the journals are to be had afterwards.
fn refusal(forge: impl FnOnce(&Forger, &mut Vec<Vec<u8>>)) -> String {
    let home = tempfile::tempdir().expect("a directory");
    let ada = some_files(home.path());
    let joiner = Joiner::new(home.path(), "bob", &ada);
    let forger = Forger::new(&ada);
    let mut parts = parts(&ada);
    forge(&forger, &mut parts);
    let refused = take(&joiner, ada.fs.replica().device(), &parts).expect_err("is refused");
    let bob = joiner.open();
    assert!(bob.tree().is_empty(), "{refused}: something is left");
    exchange(&[&ada, &bob]);
    assert_eq!(bob.tree(), ada.tree());
    bob.finish();
    refused
}

fn some_files(home: &Path) -> Device {
    let ada = found(home, "ada");
    ada.mkdir("docs");
    ada.write("docs/plan.txt", b"one");
    ada.write("note", b"two");
    ada
}

/// Refused when the pages are changed so, before they are signed.
fn refusal_of(change: impl FnOnce(&mut SnapshotHead, &mut SnapshotRows)) -> String {
    refusal(|forger, parts| {
        let mut pages: Vec<SnapshotPage> =
            parts.iter().map(|part| decode_page(&forger.open(part)).expect("a page")).collect();
        let [SnapshotPage::Head(head), SnapshotPage::Rows(rows)] = &mut pages[..] else {
            panic!("few files make a head and one page")
        };
        change(head, rows);
        *parts = forger.sign(&pages.iter().map(encode_page).collect::<Vec<_>>());
    })
}

#[test]
fn a_snapshot_that_is_not_signed_by_its_teller_is_refused() {
    let refused = refusal(|_, parts| *parts[1].last_mut().expect("bytes") ^= 1);
    assert_eq!(refused, "the signature of part 1 of the snapshot is wrong");
    let refused = refusal(|forger, parts| {
        let pages: Vec<Vec<u8>> = parts.iter().map(|part| forger.open(part)).collect();
        let key = DeviceKey::from_seed(&[9; 32]);
        *parts = Forger { key, sealer: Sealer::new(None, false), ..*forger }.sign(&pages);
    });
    assert_eq!(refused, "the signature of part 0 of the snapshot is wrong");
}

#[test]
fn a_snapshot_of_another_workspace_or_in_another_order_is_refused() {
    let refused = refusal(|forger, parts| {
        let mut part = decode_part(&parts[0]).expect("a part");
        part.workspace = WorkspaceId([1; 16]);
        part.signature = forger.key.sign(&encode_unsigned_part(&part));
        parts[0] = encode_part(&part);
    });
    assert_eq!(refused, "the snapshot is of another workspace");
    let refused = refusal(|_, parts| parts.swap(0, 1));
    assert_eq!(refused, "part 1 of the snapshot came where part 0 follows");
    let refused = refusal(|_, parts| parts.insert(1, parts[0].clone()));
    assert_eq!(refused, "part 0 of the snapshot came where part 1 follows");
}

#[test]
fn a_page_that_is_larger_than_one_may_be_is_refused() {
    let refused = refusal(|forger, parts| {
        let pages = [forger.open(&parts[0]), vec![0; 6 << 20]];
        *parts = forger.sign(&pages);
    });
    assert!(refused.contains("does not open"), "{refused}");
}

#[test]
fn a_name_with_a_slash_is_refused() {
    let refused = refusal(|forger, parts| {
        let mut pages: Vec<Vec<u8>> = parts.iter().map(|part| forger.open(part)).collect();
        let at = pages[1].windows(8).position(|bytes| bytes == b"plan.txt").expect("is there");
        pages[1][at + 4] = b'/';
        *parts = forger.sign(&pages);
    });
    assert!(refused.contains("snapshot page is malformed"), "{refused}");
}

#[test]
fn rows_that_hang_in_the_air_or_go_in_a_circle_are_refused() {
    let refused = refusal_of(|_, rows| {
        let file = rows.entries.iter().find(|entry| entry.name.as_bytes() == b"note");
        let ino = file.expect("is there").ino;
        rows.nodes.retain(|(number, _)| *number != ino);
    });
    assert!(refused.contains("leads nowhere"), "{refused}");
    let refused = refusal_of(|_, rows| rows.entries[0].parent = Ino(77));
    assert!(refused.contains("stands where no names are to come"), "{refused}");
    let refused = refusal_of(|_, rows| {
        let plan = rows.entries.iter_mut().find(|entry| entry.name.as_bytes() == b"plan.txt");
        let plan = plan.expect("is there");
        plan.ino = plan.parent;
    });
    assert!(refused.contains("has two names"), "{refused}");
    let refused = refusal_of(|_, rows| rows.listed.clear());
    assert!(refused.contains("names of directory"), "{refused}");
    let refused = refusal_of(|_, rows| rows.listed.push(Ino::ROOT));
    assert!(refused.contains("is listed twice"), "{refused}");
}

#[test]
fn numbers_that_nothing_has_are_refused() {
    let refused = refusal_of(|_, rows| {
        for (_, node) in &mut rows.nodes {
            node.size_bytes = 1 << 63;
        }
    });
    assert!(refused.contains("is longer than any file"), "{refused}");
    let refused = refusal_of(|_, rows| rows.nodes[0].1.file = Some(FileId(OpId::new(900, 1))));
    assert!(refused.contains("names a journal that is not there"), "{refused}");
    let refused = refusal_of(|_, rows| rows.folded[0].1 -= 1);
    assert!(refused.contains("is not the last of its journal"), "{refused}");
    let refused = refusal_of(|_, rows| rows.batches.clear());
    assert!(refused.contains("has not come"), "{refused}");
    let refused = refusal_of(|_, rows| rows.members.clear());
    assert!(refused.contains("knows nothing of this device"), "{refused}");
}

#[test]
fn a_head_that_does_not_suit_is_refused() {
    let refused = refusal_of(|head, _| head.journals.truncate(1));
    assert!(refused.contains("knows nothing of this device"), "{refused}");
    let refused = refusal_of(|head, _| head.journals.swap(0, 1));
    assert!(refused.contains("another device has founded"), "{refused}");
    let refused = refusal_of(|head, _| head.journals.push(head.journals[0]));
    assert!(refused.contains("two journals"), "{refused}");
}
