//! Going back: what became of a file, and its versions put back through the mount.

mod kit;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kit::Mount;
use kit::pair::{Joined, holds, seen, told};

/// Written and synced: a version of its own.
fn version(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("is written");
    fs::File::open(path).expect("opens").sync_all().expect("is synced");
}

/// The versions that are kept, oldest first: each with its length.
fn kept(base: &Path, path: &str) -> Vec<(String, String)> {
    let listed = told(base, &["history", path]).expect("is told");
    let rows = listed.lines().filter(|line| line.contains(" bytes"));
    rows.map(|line| {
        let bytes = line.split("  ").find(|part| part.ends_with(" bytes")).expect("a length");
        (line.split(' ').next().expect("a version").to_owned(), bytes.trim().to_owned())
    })
    .collect()
}

#[test]
fn a_version_is_put_back_by_its_name_or_its_time_and_what_was_there_stays_in_history() {
    let Some(ada) = Mount::new() else { return };
    let plan = ada.point().join("plan");
    let long = vec![b'l'; 300_000];
    version(&plan, b"one");
    version(&plan, &long);
    version(&plan, b"three");
    fs::set_permissions(&plan, fs::Permissions::from_mode(0o640)).expect("is ours");
    let before = kept(ada.base(), "point/plan");
    let lengths: Vec<&str> = before.iter().map(|(_, bytes)| bytes.as_str()).collect();
    assert_eq!(lengths, ["3 bytes", "300000 bytes", "5 bytes"]);
    told(ada.base(), &["restore", "point/plan"]).expect("the one before");
    assert!(holds(&plan, &long));
    assert_eq!(fs::metadata(&plan).expect("is there").permissions().mode() & 0o777, 0o640);
    told(ada.base(), &["restore", "point/plan", "--at", &before[0].0]).expect("by its name");
    assert!(holds(&plan, b"one"));
    assert_eq!(kept(ada.base(), "point/plan").len(), 5, "restoring is a change like another");
    let to = ["restore", "point/plan", "--at", &before[1].0, "--to", "outside/copy"];
    told(ada.base(), &to).expect("to another place");
    assert!(holds(&ada.base().join("outside/copy"), &long));
    let refused = told(ada.base(), &to).expect_err("it is there already");
    assert!(refused.contains("outside/copy is there already"), "{refused}");
    for (at, why) in [("1999-01-01", "from before"), ("abc.7", "no such version")] {
        let refused = told(ada.base(), &["restore", "point/plan", "--at", at]).expect_err(at);
        assert!(refused.contains(why), "{refused}");
    }
    let refused = told(ada.base(), &["restore", "point/never"]).expect_err("never was");
    assert!(refused.contains("nothing was ever called"), "{refused}");
}

#[test]
fn a_file_that_is_gone_comes_back_under_a_name_that_it_had_with_its_directory() {
    let Some(ada) = Mount::new() else { return };
    let docs = ada.point().join("docs");
    fs::create_dir(&docs).expect("is made");
    version(&docs.join("draft"), b"words");
    fs::rename(docs.join("draft"), docs.join("final")).expect("is renamed");
    fs::remove_dir_all(&docs).expect("is removed");
    let listed = told(ada.base(), &["history", "point/docs/final"]).expect("is told");
    for part in ["make", "docs/final  from docs/draft", "remove"] {
        assert!(listed.contains(part), "{listed}");
    }
    told(ada.base(), &["restore", "point/docs/final"]).expect("comes back");
    assert!(holds(&docs.join("final"), b"words"));
}

#[test]
fn what_another_device_wrote_and_the_newest_hides_is_put_back_from_history() {
    let Some(ada) = Mount::new() else { return };
    let bob = Joined::new(&ada);
    bob.meet(&ada);
    let note = |root: &Path| root.join("note");
    version(&note(&ada.point()), b"before");
    bob.meet(&ada);
    bob.apart(
        &ada,
        |root| version(&note(root), b"by ada"),
        |root| version(&note(root), b"by bob, the newest"),
    );
    seen("the newest", || holds(&note(&ada.point()), b"by bob, the newest"));
    let versions = kept(bob.dir.path(), "there/note");
    let lost = versions.iter().find(|(_, bytes)| bytes == "6 bytes" && versions[0].1 == "6 bytes");
    assert!(lost.is_some() && versions.len() == 3, "{versions:?}");
    let at = &versions[1].0;
    told(bob.dir.path(), &["restore", "there/note", "--at", at]).expect("is put back");
    assert!(holds(&note(&bob.point()), b"by ada"));
    seen("what was put back", || holds(&note(&ada.point()), b"by ada"));
    bob.stop();
}

#[test]
fn a_file_with_the_longest_name_is_put_back() {
    let Some(ada) = Mount::new() else { return };
    let name = "n".repeat(255);
    version(&ada.point().join(&name), b"one");
    version(&ada.point().join(&name), b"two");
    told(ada.base(), &["restore", &format!("point/{name}")]).expect("is put back");
    assert!(holds(&ada.point().join(&name), b"one"));
}
