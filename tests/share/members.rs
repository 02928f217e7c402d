//! Members that come and go: what counts is the same everywhere, whatever arrived first.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use tidefs::chunk::Sealer;
use tidefs::engine::sync::Replica as _;
use tidefs::types::{ConflictResolution, Role};

use super::devices::{
    Device, bring_history, exchange, fetch_all, found, found_with, hand_over, join, join_as,
    join_filled, reopened,
};
use super::oracle::{Shown, Tree, journals, sealer, tree_from_scratch};
use super::random::step;

fn revoke(by: &Device, whom: &Device) {
    by.fs.replica().revoke(&whom.fs.replica().device()).expect("is revoked");
}

#[test]
fn what_a_revoked_device_did_behind_the_cut_goes_again_from_who_had_it_already() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("note", b"draft");
    ada.mkdir("docs");
    let bob = join(home.path(), "bob", &ada);
    let cyd = join(home.path(), "cyd", &ada);
    exchange(&[&ada, &bob, &cyd]);
    bob.write("before", b"counts");
    exchange(&[&ada, &bob, &cyd]);
    let tree = ada.tree();
    bob.write("note", b"bob's");
    bob.write("docs/new", b"bob's");
    bob.mkdir("dir");
    bob.write("dir/inside", b"bob's");
    bob.rename("docs", "dir/docs");
    bob.unlink("before");
    exchange(&[&bob, &cyd]);
    assert_eq!(cyd.read("dir/docs/new"), b"bob's");
    cyd.write("dir/cyd", b"rests on what is void");
    cyd.write("note", b"cyd's, over bob's");
    cyd.write("cyd", b"stands");
    let opened = cyd.open("dir/inside");
    revoke(&ada, &bob);
    exchange(&[&ada, &cyd]);
    exchange(&[&ada, &bob, &cyd]);
    for device in [&ada, &bob, &cyd] {
        let mut now = device.tree();
        assert_eq!(device.read("note"), b"cyd's, over bob's");
        assert_eq!(device.read("cyd"), b"stands");
        assert!(now.remove("cyd").is_some());
        let (note, before) = (now.remove("note"), tree.get("note"));
        assert_ne!(note.as_ref(), before);
        now.insert("note".into(), before.expect("was there").clone());
        assert_eq!(now, tree);
    }
    // What was open stays readable.
    assert_eq!(cyd.read_open(opened), b"bob's");
    cyd.close(opened);
    assert!(bob.fs.replica().own_role().is_none());
    for device in [ada, bob, cyd] {
        let device = device.showing(ConflictResolution::KeepBoth);
        assert_eq!(device.read("cyd"), b"stands");
        device.finish();
    }
}

#[test]
fn of_two_admins_that_revoke_each_other_the_senior_stays_and_what_was_void_stands_again() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join_as(home.path(), "bob", &ada, Role::Admin);
    let cyd = join(home.path(), "cyd", &ada);
    exchange(&[&ada, &bob, &cyd]);
    ada.write("ada", b"one");
    ada.sync();
    exchange(&[&ada, &bob]);
    ada.write("ada", b"two, not heard by bob");
    ada.mkdir("dir");
    ada.write("dir/ada", b"three");
    exchange(&[&ada, &cyd]);
    revoke(&bob, &ada);
    exchange(&[&bob, &cyd]);
    assert_eq!(cyd.read("ada"), b"one");
    assert!(cyd.find("dir").is_none());
    bob.write("bob", b"behind the cut");
    cyd.write("cyd", b"while ada was away");
    exchange(&[&bob, &cyd]);
    revoke(&ada, &bob);
    exchange(&[&ada, &cyd]);
    assert_eq!(cyd.read("ada"), b"two, not heard by bob");
    assert_eq!(cyd.read("dir/ada"), b"three");
    exchange(&[&ada, &bob, &cyd]);
    let tree = ada.tree();
    assert!(!tree.contains_key("bob"), "{tree:?}");
    for device in [ada, bob, cyd] {
        assert_eq!(device.tree(), tree);
        device.finish();
    }
}

#[test]
fn what_is_written_after_a_revocation_opens_to_the_others_alone() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join_as(home.path(), "bob", &ada, Role::Admin);
    let cyd = join(home.path(), "cyd", &ada);
    exchange(&[&ada, &bob, &cyd]);
    ada.write("before", b"for all three");
    exchange(&[&ada, &bob, &cyd]);
    revoke(&ada, &bob);
    ada.write("after", b"not for bob");
    ada.write("large", &vec![7; 300_000]);
    ada.sync();
    // The secret comes along in the journal.
    while hand_over(&ada, &cyd) {}
    fetch_all(&cyd, &[&ada]);
    assert_eq!(cyd.read("after"), b"not for bob");
    cyd.write("cyd", b"not for bob either");
    cyd.sync();
    while hand_over(&cyd, &ada) {}
    // Bob has everything stored, and is told of no secret.
    while hand_over(&ada, &bob) {
        if bob.fs.replica().own_role().is_none() {
            break;
        }
    }
    assert!(bob.find("after").is_none() && bob.find("cyd").is_none());
    assert!(cyd.fs.replica().epochs_for(&bob.fs.replica().device()).is_empty());
    let (bobs, cyds) = (sealer(&bob), sealer(&cyd));
    let mut after = 0;
    for batch in journals(&cyd).iter().flatten().filter(|batch| batch.epoch > 0) {
        let context = [&batch.journal.0[..], &batch.seq.to_le_bytes()].concat();
        let open = |sealer: &Sealer| {
            sealer.open_record(&context, (batch.epoch, &batch.sealed_ops), 1 << 24).is_ok()
        };
        assert!(open(&cyds) && !open(&bobs), "{} {}", batch.journal, batch.seq);
        after += 1;
    }
    assert!(after >= 2, "{after} batches");
    // Who joins later reads what was before and after; and again after another epoch.
    let dan = join(home.path(), "dan", &ada);
    exchange(&[&ada, &cyd, &dan]);
    assert_eq!(dan.read("before"), b"for all three");
    assert_eq!(dan.read("after"), b"not for bob");
    assert!(ada.fs.replica().begin_epoch().expect("begins"));
    assert!(!cyd.fs.replica().begin_epoch().expect("is no admin"));
    ada.write("later", b"in the second epoch");
    let dan = dan.showing(ConflictResolution::KeepBoth);
    exchange(&[&ada, &cyd, &dan]);
    assert_eq!(dan.read("later"), b"in the second epoch");
    let tree = ada.tree();
    for device in [ada, cyd, dan] {
        assert_eq!(device.tree(), tree);
        device.finish();
    }
}

#[test]
fn a_clones_two_journals_are_proven_and_shown_and_cost_no_other_device_its_connection() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join(home.path(), "bob", &ada);
    let cyd = join(home.path(), "cyd", &ada);
    exchange(&[&ada, &bob, &cyd]);
    let copy = home.path().join("clone");
    bob.sync();
    let bob = bob.closed();
    let status = std::process::Command::new("cp").arg("-a").arg(&bob).arg(&copy).status();
    assert!(status.expect("cp starts").success());
    let bob = reopened(bob);
    let clone = reopened(copy);
    bob.write("bob", b"one");
    bob.sync();
    clone.write("clone", b"other");
    clone.sync();
    clone.write("clone2", b"another");
    clone.sync();
    hand_over(&bob, &ada);
    hand_over(&clone, &cyd);
    assert!(forked(&ada).is_empty() && forked(&cyd).is_empty());
    hand_over(&cyd, &ada);
    assert_eq!(forked(&ada), ["bob"]);
    assert!(ada.find("bob").is_some() && ada.find("clone2").is_none());
    // What others do goes on.
    ada.write("ada", b"x");
    exchange(&[&ada]);
    ada.finish();
    cyd.finish();
}

/// What the devices are called that are forked, as one knows.
fn forked(device: &Device) -> Vec<String> {
    let known = tidefs::engine::members(&device.dir, &tidefs::env::Env::real()).expect("reads");
    let forked = known.members.into_iter().filter(|member| member.forked_at.is_some());
    forked.map(|member| member.label).collect()
}

#[test]
fn one_admitted_by_an_admin_who_had_not_heard_of_an_epoch_reads_it_once_it_meets_a_member() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    let bob = join_as(home.path(), "bob", &ada, Role::Admin);
    exchange(&[&ada, &bob]);
    assert!(ada.fs.replica().begin_epoch().expect("begins"));
    assert!(bob.fs.replica().begin_epoch().expect("begins"));
    ada.write("ada", b"in ada's epoch");
    ada.sync();
    bob.write("bob", b"in bob's epoch");
    bob.sync();
    let dan = join(home.path(), "dan", &bob);
    exchange(&[&ada, &bob]);
    while hand_over(&ada, &dan) {
        if dan.find("bob").is_some() {
            break;
        }
    }
    exchange(&[&ada, &bob, &dan]);
    assert_eq!(dan.read("ada"), b"in ada's epoch");
    let tree = ada.tree();
    for device in [ada, bob, dan] {
        assert_eq!(device.tree(), tree);
        device.finish();
    }
}

#[test]
fn whatever_the_order_of_ops_roles_and_cuts_all_show_what_the_merge_makes_of_them() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or(1..=10, |seed: u64| seed..=seed) {
        eprintln!("seed {seed}");
        run(seed);
    }
}

const ROUNDS: usize = 7;
const STEPS: usize = 8;
const DEVICES: usize = 4;

fn run(seed: u64) {
    let home = tempfile::tempdir().expect("a directory");
    let mut random = StdRng::seed_from_u64(seed);
    let is_encrypted = seed % 4 < 2;
    let ada = found_with(home.path(), "ada", is_encrypted);
    let bob = join_as(home.path(), "bob", &ada, Role::Admin);
    let cyd = join_as(home.path(), "cyd", &ada, Role::Admin);
    let dan = join(home.path(), "dan", &ada);
    let conflicts = match seed % 2 {
        0 => ConflictResolution::KeepBoth,
        _ => ConflictResolution::LastWriteWins,
    };
    let devices: [Device; DEVICES] = [ada, bob, cyd, dan].map(|device| device.showing(conflicts));
    exchange(&devices.each_ref());
    for _ in 0..ROUNDS {
        for device in &devices {
            for _ in 0..random.random_range(0..STEPS) {
                if device.fs.replica().own_role().is_some_and(Role::may_write) {
                    step(device, &mut random);
                }
            }
            device.sync();
        }
        if random.random_range(0..3) == 0 {
            let (by, whom) = (random.random_range(0..DEVICES), random.random_range(0..DEVICES));
            if by != whom && devices[by].fs.replica().own_role() == Some(Role::Admin) {
                say(&devices[by], &devices[whom], &mut random);
            }
        }
        for _ in 0..random.random_range(0..6) {
            let (from, to) = (random.random_range(0..DEVICES), random.random_range(0..DEVICES));
            if from != to {
                let (has, learns) = (devices[from].fs.replica(), devices[to].fs.replica());
                learns.learn_epochs(has.epochs_for(&learns.device())).expect("are kept");
                hand_over(&devices[from], &devices[to]);
                fetch_all(&devices[to], &devices.each_ref());
            }
        }
    }
    exchange(&devices.each_ref());
    // Who is revoked can open nothing of what came after, where that is encrypted.
    let takes_part =
        |device: &&Device| !is_encrypted || device.fs.replica().standing().takes_part();
    let Some(first) = devices.iter().find(takes_part) else { return };
    let tree = first.tree();
    check(&tree, &tree_from_scratch(first, conflicts, &mut random), seed);
    for device in devices.iter().filter(takes_part) {
        assert_eq!(device.tree(), tree, "seed {seed}, at the end");
        device.settle();
        let root = device.tree_root();
        assert!(root.is_some() && root == first.tree_root(), "seed {seed}: {root:?}");
    }
    for device in devices {
        device.finish();
    }
}

fn check(shown: &BTreeMap<String, String>, expected: &Tree, seed: u64) {
    let paths: Vec<&String> = shown.keys().collect();
    assert_eq!(paths, expected.keys().collect::<Vec<_>>(), "seed {seed}");
    for (path, what) in expected {
        match what {
            Shown::Directory => assert!(shown[path].starts_with("Directory"), "{path}"),
            Shown::File(Some(content)) if !shown[path].starts_with("Symlink") => {
                assert!(shown[path].ends_with(&format!("{content:?}")), "{path} {shown:?}");
            }
            Shown::File(_) => {}
        }
    }
}

fn say(by: &Device, of: &Device, random: &mut StdRng) {
    let device = of.fs.replica().device();
    let role = [Role::Admin, Role::Writer, Role::Reader][random.random_range(0..3)];
    if random.random_range(0..2) == 0 {
        by.fs.replica().set_role(&device, role).expect("is said");
    } else {
        revoke(by, of);
    }
}

#[test]
fn what_a_cut_voids_of_a_snapshot_goes_once_the_history_is_here() {
    let home = tempfile::tempdir().expect("a directory");
    let ada = found(home.path(), "ada");
    ada.write("note", b"before");
    let bob = join(home.path(), "bob", &ada);
    let cyd = join_as(home.path(), "cyd", &ada, Role::Admin);
    exchange(&[&ada, &bob, &cyd]);
    // So that the batch of the Cut rests on nothing of which only the history tells.
    cyd.write("cyd", b"has heard of all so far");
    exchange(&[&ada, &bob, &cyd]);
    bob.write("note", b"bob's");
    bob.write("bob", b"bob's");
    exchange(&[&ada, &bob]);
    let dan = join_filled(home.path(), "dan", &ada);
    exchange(&[&ada, &dan]);
    assert_eq!(dan.read("note"), b"bob's");
    // Cyd has not heard of it.
    revoke(&cyd, &bob);
    hand_over(&cyd, &dan);
    dan.write("dan", b"goes on meanwhile");
    dan.settle();
    assert_eq!(dan.read("note"), b"bob's", "what to show instead is not here yet");
    assert_eq!(dan.tree_root(), None, "so it is not compared");
    exchange(&[&ada, &cyd, &dan]);
    bring_history(&dan, &ada);
    exchange(&[&ada, &cyd, &dan]);
    for device in [&ada, &cyd, &dan] {
        assert_eq!(device.read("note"), b"before");
        assert!(device.find("bob").is_none());
        assert_eq!(device.tree(), ada.tree());
        assert!(device.tree_root().is_some() && device.tree_root() == ada.tree_root());
    }
    [ada, bob, cyd, dan].into_iter().for_each(Device::finish);
}
