//! Two devices that share a workspace, each mounted by the program, on loopback.

mod kit;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kit::{Mount, tidefs};

/// How long a change may take to be seen on the other device, however busy the machine.
const SEEN_WAIT: Duration = Duration::from_mins(1);

fn told(base: &Path, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidefs"));
    command.current_dir(base).arg("--state").arg(base.join("state")).args(words);
    let output = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// A second device, joined and mounted on `there` beside a state of its own.
struct Joined {
    dir: tempfile::TempDir,
}

impl Joined {
    fn new(ada: &Mount) -> Self {
        // Mounted again to listen on loopback alone.
        tidefs(ada.base(), &["umount", "point"]);
        tidefs(ada.base(), &["mount", "-o", "listen=127.0.0.1:0", "point"]);
        let ticket = told(ada.base(), &["invite", "point"]).expect("a ticket");
        let dir = tempfile::tempdir().expect("a directory");
        let words = ["join", ticket.trim(), "there", "-o", "listen=127.0.0.1:0"];
        told(dir.path(), &words).expect("joins");
        let again = told(dir.path(), &["join", ticket.trim(), "elsewhere"]);
        assert!(again.expect_err("it is good once").contains("used already"));
        Self { dir }
    }

    fn point(&self) -> std::path::PathBuf {
        self.dir.path().join("there")
    }

    fn stop(&self) {
        tidefs(self.dir.path(), &["umount", "there"]);
    }

    fn start(&self) {
        tidefs(self.dir.path(), &["mount", "-o", "listen=127.0.0.1:0", "there"]);
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.point()).status());
    }
}

#[track_caller]
fn seen(what: &str, is_there: impl Fn() -> bool) {
    let until = Instant::now() + SEEN_WAIT;
    while !is_there() {
        assert!(Instant::now() < until, "not seen on the other device: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn holds(path: &Path, bytes: &[u8]) -> bool {
    fs::read(path).is_ok_and(|found| found == bytes)
}

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
