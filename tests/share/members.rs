//! Members that come and go: what counts is the same everywhere, whatever arrived first.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use tidefs::engine::sync::Replica as _;
use tidefs::types::{ConflictResolution, Role};

use super::devices::{
    Device, bring_history, exchange, fetch_all, found, hand_over, join, join_as, join_filled,
};
use super::oracle::{Shown, tree_from_scratch};
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
    let ada = found(home.path(), "ada");
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
                hand_over(&devices[from], &devices[to]);
                fetch_all(&devices[to], &devices.each_ref());
            }
        }
    }
    exchange(&devices.each_ref());
    let first = devices[0].tree();
    let expected = tree_from_scratch(&devices[0], conflicts, &mut random);
    let shown = first.keys().collect::<Vec<_>>();
    assert_eq!(shown, expected.keys().collect::<Vec<_>>(), "seed {seed}");
    for (path, what) in &expected {
        match what {
            Shown::Directory => assert!(first[path].starts_with("Directory"), "{path}"),
            Shown::File(Some(content)) if !first[path].starts_with("Symlink") => {
                assert!(first[path].ends_with(&format!("{content:?}")), "{path} {first:?}");
            }
            Shown::File(_) => {}
        }
    }
    for device in &devices {
        device.settle();
        let root = device.tree_root();
        assert!(root.is_some() && root == devices[0].tree_root(), "seed {seed}: {root:?}");
    }
    for device in devices {
        assert_eq!(device.tree(), first, "seed {seed}, at the end");
        device.finish();
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
