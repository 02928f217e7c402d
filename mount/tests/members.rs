//! Members that come and go, each mounted by the program, on loopback.

mod kit;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kit::pair::{Joined, holds, seen, told};
use kit::{Mount, tidefs};

fn says(base: &Path, words: &[&str], what: &str) -> bool {
    told(base, words).is_ok_and(|text| text.contains(what))
}

fn is_connected(base: &Path, to: &str) -> bool {
    let text = told(base, &["devices", "--json", "there"]).expect("is listed");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&text).expect("a list");
    rows.iter().any(|row| row["name"] == to && row["connected"] == true)
}

fn complains(base: &Path, words: &[&str], of: &str) {
    let error = told(base, words).expect_err("it is refused");
    assert!(error.contains(of), "{words:?}: {error}");
}

fn is_refused(result: &std::io::Result<()>) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EROFS))
}

/// Holds as long as it is looked at.
fn never(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert!(!is_so(), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_revoked_device_that_is_connected_hears_nothing_more_and_what_it_does_appears_nowhere() {
    let Some(ada) = Mount::new() else { return };
    let here = ada.point();
    fs::write(here.join("note"), b"from before").expect("is written");
    let bob = Joined::new(&ada);
    let (there, bobs) = (bob.point(), bob.dir.path().to_owned());
    seen("the file", || holds(&there.join("note"), b"from before"));
    fs::write(there.join("bob"), b"counts").expect("is written");
    seen("bob's file", || holds(&here.join("bob"), b"counts"));
    tidefs(ada.base(), &["devices", "revoke", "bob-laptop", "point"]);
    fs::write(here.join("note"), b"written after").expect("is written");
    fs::write(here.join("secret"), b"written after").expect("is written");
    let status = ["status", "there"];
    seen("on bob's own device that it is revoked", || says(&bobs, &status, "was revoked"));
    seen("that it changes nothing", || is_refused(&fs::write(there.join("late"), b"x")));
    assert!(holds(&there.join("note"), b"from before"));
    assert!(holds(&there.join("bob"), b"counts"));
    never("bob sees what was written after", || {
        there.join("secret").exists() || !holds(&there.join("note"), b"from before")
    });
    never("bob's late edit is seen", || here.join("late").exists());
    assert!(holds(&here.join("bob"), b"counts"));
    for (base, point) in [(ada.base(), "point"), (&bobs, "there")] {
        let rows = told(base, &["devices", point]).expect("is listed");
        let line = rows.lines().find(|line| line.starts_with("bob-laptop")).expect("a line");
        assert!(line.contains(" revoked "), "{rows}");
    }
    // Mounted again, it has what it had, and no more.
    bob.stop();
    tidefs(&bobs, &["verify", "there"]);
    bob.start();
    assert!(holds(&there.join("note"), b"from before"));
    assert!(is_refused(&fs::write(there.join("note"), b"x")));
    bob.stop();
}

#[test]
fn a_revocation_that_arrives_after_what_it_voids_takes_that_away_again() {
    let Some(ada) = Mount::new() else { return };
    let here = ada.point();
    fs::write(here.join("note"), b"from before").expect("is written");
    let bob = Joined::new(&ada);
    let cyd = Joined::named(&ada, "cyd");
    let (bobs, cyds) = (bob.point(), cyd.point());
    seen("the file", || holds(&bobs.join("note"), b"from before"));
    seen("the file", || holds(&cyds.join("note"), b"from before"));
    // Each then knows where the other is.
    seen("cyd by bob", || is_connected(bob.dir.path(), "cyd"));
    seen("bob by cyd", || is_connected(cyd.dir.path(), "bob-laptop"));
    bob.stop();
    cyd.stop();
    tidefs(ada.base(), &["devices", "revoke", "bob-laptop", "point"]);
    tidefs(ada.base(), &["umount", "point"]);
    bob.start();
    cyd.start();
    fs::write(bobs.join("note"), b"bob's, void").expect("bob has not heard");
    fs::create_dir(bobs.join("dir")).expect("is made");
    fs::write(bobs.join("dir/file"), b"bob's, void").expect("is written");
    seen("bob's edit", || holds(&cyds.join("note"), b"bob's, void"));
    seen("bob's file", || holds(&cyds.join("dir/file"), b"bob's, void"));
    let open = fs::File::open(cyds.join("dir/file")).expect("opens");
    fs::write(cyds.join("cyd"), b"stands").expect("is written");
    tidefs(ada.base(), &["mount", "-o", "listen=127.0.0.1:0", "point"]);
    seen("what cyd did", || holds(&here.join("cyd"), b"stands"));
    for point in [&here, &cyds, &bobs] {
        seen("the file as it was", || holds(&point.join("note"), b"from before"));
        seen("that bob's directory is gone", || !point.join("dir").exists());
    }
    assert_eq!(std::io::read_to_string(open).expect("reads"), "bob's, void");
    fs::write(cyds.join("note"), b"gone on").expect("is written");
    seen("what comes after", || holds(&here.join("note"), b"gone on"));
    bob.stop();
    cyd.stop();
    tidefs(cyd.dir.path(), &["verify", "there"]);
    tidefs(bob.dir.path(), &["verify", "there"]);
}

#[test]
fn roles_and_names_are_changed_by_those_who_may_and_the_rest_is_told_why_not() {
    let Some(ada) = Mount::new() else { return };
    let bob = Joined::new(&ada);
    let (base, bobs) = (ada.base(), bob.dir.path());
    seen("both", || says(bobs, &["devices", "there"], "ada-desk"));
    complains(base, &["devices", "revoke", "eve", "point"], "there is no device \"eve\"");
    complains(base, &["devices", "revoke", "ada-desk", "point"], "cannot revoke itself");
    complains(base, &["devices", "set-role", "ada-desk", "reader", "point"], "the last admin");
    complains(bobs, &["devices", "revoke", "ada-desk", "there"], "only an admin");
    complains(bobs, &["devices", "set-role", "bob-laptop", "admin", "there"], "only an admin");
    complains(bobs, &["key", "rotate", "there"], "only an admin");
    tidefs(base, &["key", "rotate", "point"]);
    fs::write(ada.point().join("rotated"), b"under a new key").expect("is written");
    seen("it on bob's", || holds(&bob.point().join("rotated"), b"under a new key"));
    tidefs(base, &["devices", "rename", "bob-laptop", "phone", "point"]);
    seen("the new name", || says(bobs, &["devices", "there"], "phone"));
    tidefs(base, &["devices", "set-role", "phone", "reader", "point"]);
    seen("bob a reader", || is_refused(&fs::write(bob.point().join("new"), b"x")));
    complains(bobs, &["devices", "rename", "phone", "mine", "there"], "may not");
    tidefs(base, &["devices", "set-role", "phone", "admin", "point"]);
    seen("bob an admin", || fs::write(bob.point().join("new"), b"x").is_ok());
    tidefs(base, &["devices", "rename", "phone", "ada-desk", "point"]);
    complains(base, &["devices", "revoke", "ada-desk", "point"], "2 devices are meant");
    bob.stop();
    complains(bobs, &["devices", "rename", "phone", "mine", "there"], "is not mounted");
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.expect("cp starts").success());
}

#[test]
fn a_device_restored_from_a_backup_goes_on_with_nothing_and_says_what_to_do() {
    let Some(ada) = Mount::new() else { return };
    let here = ada.point();
    let bob = Joined::new(&ada);
    let (there, bobs) = (bob.point(), bob.dir.path().to_owned());
    fs::write(there.join("old"), b"in the backup").expect("is written");
    seen("bob's file", || holds(&here.join("old"), b"in the backup"));
    bob.stop();
    copy(&bobs.join("state"), &bobs.join("backup"));
    bob.start();
    fs::write(there.join("new"), b"after the backup").expect("is written");
    seen("bob's new file", || holds(&here.join("new"), b"after the backup"));
    bob.stop();
    fs::remove_dir_all(bobs.join("state")).expect("is lost");
    copy(&bobs.join("backup"), &bobs.join("state"));
    tidefs(ada.base(), &["umount", "point"]);
    bob.start();
    // Nobody has told it yet.
    for n in 0..5 {
        fs::write(there.join(format!("apart{n}")), b"x").expect("is written");
    }
    tidefs(ada.base(), &["mount", "-o", "listen=127.0.0.1:0", "point"]);
    seen("what has come to pass", || says(&bobs, &["status", "there"], "restored from a backup"));
    seen("that it changes nothing", || is_refused(&fs::write(there.join("late"), b"x")));
    assert!(holds(&there.join("old"), b"in the backup"));
    assert!(holds(&there.join("apart4"), b"x"));
    assert!(holds(&here.join("new"), b"after the backup"));
    never("what was done apart is seen", || here.join("apart0").exists());
    bob.stop();
    bob.start();
    assert!(is_refused(&fs::write(there.join("late"), b"x")));
    assert!(holds(&there.join("apart4"), b"x"));
    bob.stop();
}
