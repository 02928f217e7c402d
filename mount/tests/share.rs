//! Two devices that share a workspace, each mounted by the program, on loopback.

mod kit;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use kit::pair::{Joined, holds, listen, seen, ticket, told};
use kit::{Mount, mount_again, tidefs};
use tidefs::codec::{decode_ticket, encode_ticket};
use tidefs::types::Ticket;

#[test]
fn what_is_done_on_one_mount_shows_on_the_other() {
    let Some(ada) = Mount::new() else { return };
    let (here, large) = (ada.point(), vec![42_u8; 3 << 20]);
    fs::create_dir(here.join("d")).expect("is made");
    fs::write(here.join("d/large"), &large).expect("is written");
    let bob = Joined::new(&ada);
    let there = bob.point();
    seen("a file from before", || holds(&there.join("d/large"), &large));
    fs::write(there.join("d/note"), b"by bob").expect("is written");
    seen("a new file", || holds(&here.join("d/note"), b"by bob"));
    fs::write(here.join("d/note"), b"changed by ada").expect("is written");
    seen("an edit", || holds(&there.join("d/note"), b"changed by ada"));
    fs::rename(here.join("d"), here.join("e")).expect("is renamed");
    seen("a rename", || holds(&there.join("e/note"), b"changed by ada"));
    assert!(!there.join("d").exists());
    fs::remove_dir_all(there.join("e")).expect("is removed");
    seen("a removal", || !here.join("e").exists());
    assert!(told(ada.base(), &["devices", "point"]).expect("is listed").contains("writer"));
    bob.stop();
    told(bob.dir.path(), &["verify", "there"]).expect("is whole");
}

#[test]
fn edits_made_apart_meet_again() {
    let Some(ada) = Mount::new() else { return };
    let here = ada.point();
    fs::write(here.join("note"), b"first").expect("is written");
    let bob = Joined::new(&ada);
    let there = bob.point();
    seen("a file from before", || holds(&there.join("note"), b"first"));
    bob.stop();
    fs::write(here.join("note"), b"while bob is away").expect("is written");
    fs::create_dir(here.join("both")).expect("is made");
    fs::write(here.join("both/ada"), b"ada").expect("is written");
    tidefs(ada.base(), &["umount", "point"]);
    bob.start();
    fs::create_dir(there.join("both")).expect("is made");
    fs::write(there.join("both/bob"), b"bob").expect("is written");
    tidefs(ada.base(), &["mount", "-o", "listen=127.0.0.1:0", "point"]);
    seen("bob's file", || holds(&here.join("both/bob"), b"bob"));
    seen("ada's file", || holds(&there.join("both/ada"), b"ada"));
    seen("ada's edit", || holds(&there.join("note"), b"while bob is away"));
    bob.stop();
}

#[test]
fn a_file_that_is_open_keeps_what_it_opened() {
    let Some(ada) = Mount::new() else { return };
    let here = ada.point();
    fs::write(here.join("note"), b"opened").expect("is written");
    let bob = Joined::new(&ada);
    let there = bob.point();
    seen("the file", || holds(&there.join("note"), b"opened"));
    let mut open =
        fs::File::options().read(true).append(true).open(there.join("note")).expect("opens");
    fs::write(here.join("note"), b"changed by ada").expect("is written");
    seen("the edit", || holds(&there.join("note"), b"changed by ada"));
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).expect("reads");
    assert_eq!(bytes, b"opened");
    open.write_all(b", and gone on").expect("writes");
    drop(open);
    seen("what the old handle wrote", || holds(&here.join("note"), b"opened, and gone on"));
    bob.stop();
}

fn devices(base: &Path, workspace: &str) -> Vec<serde_json::Value> {
    let text = told(base, &["devices", "--json", workspace]).expect("is listed");
    serde_json::from_str(&text).expect("a list")
}

fn device(base: &Path, workspace: &str, name: &str) -> serde_json::Value {
    let mut rows = devices(base, workspace).into_iter();
    rows.find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name} is listed"))
}

#[test]
fn devices_are_listed_by_name_with_lag_and_last_sight_that_outlive_a_restart() {
    let Some(ada) = Mount::new() else { return };
    let bob = Joined::new(&ada);
    fs::write(ada.point().join("note"), b"seen by both").expect("is written");
    seen("the file", || holds(&bob.point().join("note"), b"seen by both"));
    let on_bobs = device(bob.dir.path(), "there", "ada-desk");
    assert_eq!((&on_bobs["role"], &on_bobs["own"]), (&"admin".into(), &false.into()));
    seen("both in step", || {
        let row = device(ada.base(), "point", "bob-laptop");
        row["connected"] == true && row["path"]["kind"] == "direct" && row["lag_ops"] == 0
    });
    bob.stop();
    seen("bob's leaving", || device(ada.base(), "point", "bob-laptop")["connected"] == false);
    tidefs(ada.base(), &["umount", "point"]);
    tidefs(ada.base(), &["mount", "-o", "listen=127.0.0.1:0", "point"]);
    for n in 0..3 {
        fs::create_dir(ada.point().join(format!("while bob is away {n}"))).expect("is made");
    }
    seen("what bob lacks", || device(ada.base(), "point", "bob-laptop")["lag_ops"] == 3);
    let row = device(ada.base(), "point", "bob-laptop");
    assert!(row["last_seen_unix_s"].as_i64() > Some(0) && row["lag_s"].is_u64(), "{row}");
    assert!(row["path"].is_null(), "{row}");
    let text = told(ada.base(), &["devices", "point"]).expect("is listed");
    let line = text.lines().find(|line| line.starts_with("bob-laptop")).expect("a line");
    assert!(line.contains("writer") && line.contains(" ago") && line.contains("3 ops"), "{text}");
}

#[test]
fn a_readers_mount_is_read_only_and_says_why() {
    let Some(ada) = Mount::new() else { return };
    fs::write(ada.point().join("note"), b"to be read").expect("is written");
    let bob = Joined::with_role(&ada, "reader");
    let there = bob.point();
    seen("the file", || holds(&there.join("note"), b"to be read"));
    let refused = [
        fs::write(there.join("new"), b"x"),
        fs::write(there.join("note"), b"x"),
        fs::create_dir(there.join("d")),
        fs::remove_file(there.join("note")),
        fs::rename(there.join("note"), there.join("other")),
        fs::set_permissions(
            there.join("note"),
            fs::metadata(&there).expect("it is there").permissions(),
        ),
    ];
    for (index, result) in refused.into_iter().enumerate() {
        let error = result.expect_err("a reader changes nothing");
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "change {index}");
    }
    let status = told(bob.dir.path(), &["status", "there"]).expect("is told");
    assert!(status.contains("role         reader") && status.contains("an admin can"), "{status}");
    if rustix::process::geteuid().is_root() {
        seen("the kernel's flag", || {
            let flags = rustix::fs::statvfs(&there).expect("it is mounted").f_flag;
            flags.contains(rustix::fs::StatVfsMountFlags::RDONLY)
        });
    }
    fs::write(ada.point().join("note"), b"changed").expect("ada may");
    seen("the edit", || holds(&there.join("note"), b"changed"));
    bob.stop();
    bob.start();
    assert_eq!(fs::read(there.join("note")).expect("reads"), b"changed");
    bob.stop();
    told(bob.dir.path(), &["verify", "there"]).expect("is whole");
}

#[test]
fn a_ticket_that_is_no_good_is_refused_with_the_reason() {
    let Some(ada) = Mount::new() else { return };
    listen(&ada, "");
    let home = tempfile::tempdir().expect("a directory");
    let refused = |ticket: &str, expected: &str| {
        let error = told(home.path(), &["join", ticket]).expect_err(expected);
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!home.path().join("state/point").exists(), "nothing is left of it: {expected}");
    };
    let good = ticket(&ada, &[]);
    refused("docaaacbpq5x", "not a ticket of tidefs");
    refused(&good[..good.len() - 2], "damaged or incomplete");
    let again = |change: &dyn Fn(&mut Ticket)| {
        let mut ticket = decode_ticket(&good, 0).expect("a ticket");
        change(&mut ticket);
        encode_ticket(&ticket)
    };
    refused(&again(&|ticket| ticket.workspace.0[0] ^= 1), "does not serve this workspace");
    refused(&again(&|ticket| ticket.token.0[0] ^= 1), "not known there");
    refused(&again(&|ticket| ticket.expires_unix_s = 1), "expired");
    // Its time is over by the clock of the device that made it.
    let brief = ticket(&ada, &["--expires", "1"]);
    std::thread::sleep(Duration::from_millis(1_100));
    refused(&brief, "expired");
    let mut late = decode_ticket(&brief, 0).expect("a ticket");
    late.expires_unix_s += 3600;
    refused(&encode_ticket(&late), "has expired");
    let mut words = vec!["join", &good, "--workspace", "first", "--name", "no/name"];
    assert!(told(home.path(), &words).expect_err("a bad name").contains("cannot name a device"));
    words.truncate(4);
    told(home.path(), &words).expect("it is good once");
    refused(&good, "used already");
    let unused = ticket(&ada, &[]);
    tidefs(ada.base(), &["umount", "point"]);
    refused(&unused, "asking the device that made the ticket");
    mount_again(ada.base());
}

#[test]
fn an_invitation_after_a_kill_leads_to_the_process_that_serves_now() {
    let Some(ada) = Mount::new() else { return };
    ticket(&ada, &[]);
    let status = told(ada.base(), &["status", "--json", "point"]).expect("is told");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let pid = i32::try_from(status["mounted"]["pid"].as_i64().expect("a number")).expect("small");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
    mount_again(ada.base());
    let second = ticket(&ada, &[]);
    let home = tempfile::tempdir().expect("a directory");
    told(home.path(), &["join", &second]).expect("somebody listens");
}

#[test]
fn a_device_that_joins_is_filled_and_then_fetches_what_came_before() {
    let Some(ada) = Mount::new() else { return };
    let here = ada.point();
    for dir in 0..20 {
        fs::create_dir(here.join(format!("d{dir}"))).expect("is made");
        for n in 0..100 {
            fs::write(here.join(format!("d{dir}/f{n}")), format!("{dir} {n}")).expect("is written");
        }
    }
    std::os::unix::fs::symlink("d1/f1", here.join("link")).expect("is made");
    let bob = Joined::new(&ada);
    let there = bob.point();
    // Nothing is waited for here: what is listed is whole, at whatever moment it is asked for.
    assert_eq!(fs::read_dir(&there).expect("is listed").count(), 21);
    assert_eq!(fs::read_dir(there.join("d19")).expect("is listed").count(), 100);
    assert_eq!(fs::read(there.join("link")).expect("is read"), b"1 1");
    fs::write(there.join("d3/f3"), b"changed by bob").expect("waits, and is written");
    seen("a change", || holds(&here.join("d3/f3"), b"changed by bob"));
    let log = fs::read_to_string(bob.dir.path().join("state/there/tidefs.log")).expect("a log");
    assert!(log.contains("the workspace has come whole"), "{log}");
    seen("the history", || {
        let status = told(bob.dir.path(), &["status", "there", "--json"]).expect("is told");
        status.contains("\"journals_cut\": 0") && status.contains("\"loading_names\": null")
    });
    bob.stop();
    told(bob.dir.path(), &["verify", "there"]).expect("is whole");
}

#[test]
fn a_device_that_is_killed_while_it_is_filled_begins_anew() {
    let Some(ada) = Mount::new() else { return };
    let here = ada.point();
    for n in 0..3000 {
        fs::write(here.join(format!("f{n}")), b"x").expect("is written");
    }
    let bob = Joined::new(&ada);
    bob.kill();
    bob.start();
    seen("everything", || fs::read_dir(bob.point()).is_ok_and(|names| names.count() == 3000));
    fs::write(bob.point().join("f1"), b"changed by bob").expect("is written");
    seen("a change", || holds(&here.join("f1"), b"changed by bob"));
    bob.stop();
    told(bob.dir.path(), &["verify", "there"]).expect("is whole");
}
