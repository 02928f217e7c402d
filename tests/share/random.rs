//! Random work on three devices that hear of each other now and then.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use tidefs::types::ConflictResolution;

use super::devices::{Device, exchange, found, join};

const ROUNDS: usize = 8;
const STEPS: usize = 12;

pub fn run(seed: u64) {
    let home = tempfile::tempdir().expect("a directory");
    let mut random = StdRng::seed_from_u64(seed);
    let ada = found(home.path(), "ada");
    let bob = join(home.path(), "bob", &ada);
    let cyd = join(home.path(), "cyd", &ada);
    let conflicts = match seed % 2 {
        0 => ConflictResolution::KeepBoth,
        _ => ConflictResolution::LastWriteWins,
    };
    let devices = [ada, bob, cyd].map(|device| device.showing(conflicts));
    exchange(&devices.each_ref());
    for round in 0..ROUNDS {
        for device in &devices {
            for _ in 0..random.random_range(0..STEPS) {
                let did = step(device, &mut random);
                check_as_shown(device, &format!("seed {seed}, {conflicts}: {did}"));
            }
        }
        let left_out = random.random_range(0..6);
        let meeting: Vec<&Device> =
            devices.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, d)| d).collect();
        exchange(&meeting);
        let first = meeting[0].tree();
        for device in &meeting[1..] {
            assert_eq!(device.tree(), first, "seed {seed}, round {round}");
        }
        let roots: Vec<_> = meeting.iter().map(|device| device.tree_root()).collect();
        assert!(roots[0].is_some(), "seed {seed}, round {round}: all is folded");
        assert!(
            roots.iter().all(|root| *root == roots[0]),
            "seed {seed}, round {round}: {roots:?}"
        );
    }
    exchange(&devices.each_ref());
    let first = devices[0].tree();
    for device in devices {
        assert_eq!(device.tree(), first, "seed {seed}, at the end");
        device.finish();
    }
}

/// What a change leaves is what a local filesystem would: merged, it looks no different. But for
/// what stands beside a name, which goes where it becomes equal, and siblings' names follow.
fn check_as_shown(device: &Device, did: &str) {
    let before = device.tree();
    device.settle();
    let after = device.tree();
    let is_beside = |path: &String| path.contains("(conflict");
    let crowded = before.keys().chain(after.keys()).any(is_beside);
    let real = |tree: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let rows = tree.iter().filter(|(path, _)| !is_beside(path));
        rows.map(|(path, what)| {
            (path.clone(), if crowded { without_links(what) } else { what.clone() })
        })
        .collect()
    };
    assert_eq!(real(&after), real(&before), "{did}, whole: {after:#?} {before:#?}");
}

fn without_links(what: &str) -> String {
    what.split(' ').enumerate().filter(|(i, _)| *i != 2).map(|(_, word)| word).collect()
}

/// One random change; says which.
pub fn step(device: &Device, random: &mut StdRng) -> String {
    let tree: Vec<(String, bool)> = device
        .tree()
        .into_iter()
        .map(|(path, what)| (path, what.starts_with("Directory")))
        .collect();
    let mut dirs: Vec<String> = vec![String::new()];
    dirs.extend(tree.iter().filter(|(_, is_dir)| *is_dir).map(|(path, _)| path.clone()));
    let files: Vec<&String> =
        tree.iter().filter(|(_, is_dir)| !is_dir).map(|(path, _)| path).collect();
    let dir = &dirs[random.random_range(0..dirs.len())];
    let name = ["a", "b", "c", "d"][random.random_range(0..4)];
    let new = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    let taken = tree.iter().find(|(path, _)| *path == new).map(|(_, is_dir)| *is_dir);
    let may_write = device.tree().get(&new).is_none_or(|what| what.starts_with("file"));
    let content = format!("{}", random.random_range(0..5));
    let file = (!files.is_empty()).then(|| files[random.random_range(0..files.len())].clone());
    let number = random.random_range(0..10);
    let did = format!("{number} {new:?}, {dir:?} {file:?}");
    match (number, file) {
        (0..=2, _) if may_write => device.write(&new, content.as_bytes()),
        (3, _) if taken.is_none() => device.mkdir(&new),
        (4, Some(file)) => device.unlink(&file),
        (5, Some(file)) => drop(device.try_rename(&file, &new)),
        (6, _) if !dir.is_empty() => drop(device.try_rename(dir, &new)),
        (7, Some(file)) if taken.is_none() => drop(device.link(&file, &new)),
        (8, Some(file)) => device.chmod(&file, 0o600 + random.random_range(0..8)),
        (9, _) if taken.is_none() => device.symlink(&new, &content),
        _ if !dir.is_empty() => drop(device.try_rmdir(dir)),
        _ => {}
    }
    did
}
