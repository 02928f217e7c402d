//! Cases by hand, for what the seeds have found and only a power cut can show.

use std::collections::HashSet;
use std::path::PathBuf;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tidefs::engine::sync::{Replica, collect};
use tidefs::fs::Filesystem;
use tidefs::types::Frontier;

use super::device::{Calls, Death, Device, How};

/// Hands over what `to` lacks of `from`.
fn hand_over(from: &Filesystem, to: &Filesystem) {
    let (from, to) = (from.replica(), to.replica());
    loop {
        let known = to.frontier();
        let seq = |device| known.get(device).copied().unwrap_or(0);
        let after: Frontier = from.frontier().keys().map(|device| (*device, seq(device))).collect();
        let (batches, _) = collect(&**from, &after).expect("are read");
        if batches.is_empty() {
            return;
        }
        let batches = batches.into_iter().map(|batch| batch.0).collect();
        to.deliver(&from.device(), batches, Vec::new()).expect("are taken");
    }
}

#[test]
fn a_start_shows_what_was_synced_through_a_file_that_had_stayed_open() {
    for seed in 0..8 {
        let dir = |n| PathBuf::from(format!("/cases/{seed}/{n}"));
        let mut ada = Device::found(dir(0), seed);
        let fs = ada.open();
        let bob = Device::join(dir(1), seed + 100, &ada, &fs);
        let peer = bob.open();
        let (calls, theirs) = (Calls(&fs), Calls(&peer));
        let write = |calls: &Calls<'_>, ino, data: &[u8]| {
            calls.write(ino, How::Replace, data).expect("is written");
            calls.0.sync_now(Some(ino)).expect("is synced");
        };
        let open = calls.open("note").expect("is made");
        write(&calls, open, b"first");
        hand_over(&fs, &peer);
        let ino = theirs.open("note").expect("opens");
        write(&theirs, ino, b"theirs");
        hand_over(&peer, &fs);
        write(&calls, open, b"synced last");
        ada.go_down(fs, Death::Power, &mut SmallRng::seed_from_u64(seed));
        ada.power_on();
        let fs = ada.open();
        let calls = Calls(&fs);
        let ino = calls.find("note").expect("is there").ino;
        assert_eq!(calls.read(ino).expect("is read"), b"synced last", "seed {seed}");
    }
}

#[test]
fn what_a_manifest_names_is_missing_even_if_the_disk_was_full_when_that_came() {
    let dir = |n| PathBuf::from(format!("/cases/manifest/{n}"));
    let ada = Device::found(dir(0), 1);
    let fs = ada.open();
    let bob = Device::join(dir(1), 2, &ada, &fs);
    let peer = bob.open();
    let calls = Calls(&fs);
    let ino = calls.open("large").expect("is made");
    let bytes: Vec<u8> = (0..150_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    calls.write(ino, How::Replace, &bytes).expect("is written");
    fs.sync_now(None).expect("is synced");
    hand_over(&fs, &peer);
    let missing = || peer.replica().missing_chunks(100, &HashSet::new());
    let [root] = missing()[..] else { panic!("the manifest alone is known of") };
    let sealed = fs.replica().read_chunk(&root).expect("is read").expect("is there");
    // Room for the chunk and its segment, and for nothing else.
    bob.disk.set_free_bytes(sealed.len() as u64 + 100);
    peer.replica().store_chunks(vec![(root, sealed)]).expect("is kept");
    peer.turn();
    assert!(missing().is_empty(), "the manifest is here, and could not be noted");
    bob.disk.set_free_bytes(1 << 40);
    peer.turn();
    assert!(missing().len() > 1, "its chunks are missing now");
}
