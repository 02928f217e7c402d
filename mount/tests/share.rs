//! Two devices that share a workspace, each mounted by the program, on loopback.

mod kit;

use std::fs;
use std::io::{Read, Write};

use kit::pair::{Joined, holds, seen, told};
use kit::{Mount, tidefs};

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
