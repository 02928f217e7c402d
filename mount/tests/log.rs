//! The log of two devices, and what it says of a journal that was tampered with.

mod kit;

use std::fs;
use std::process::Command;

use kit::pair::{Joined, told};
use kit::{Mount, mount_again, tidefs};
use serde_json::Value;

#[test]
fn the_log_tells_who_did_what_and_when_by_the_names_of_then() {
    let Some(ada) = Mount::new() else { return };
    fs::create_dir(ada.point().join("docs")).expect("is made");
    let bob = Joined::new(&ada);
    bob.meet(&ada);
    fs::write(ada.point().join("docs/plan"), "one").expect("is written");
    bob.meet(&ada);
    fs::rename(bob.point().join("docs/plan"), bob.point().join("docs/final")).expect("is renamed");
    // What is removed before it was ever stored never was.
    fs::write(bob.point().join("docs/final"), "longer").expect("is written");
    fs::File::open(bob.point().join("docs/final")).expect("opens").sync_all().expect("syncs");
    fs::remove_file(bob.point().join("docs/final")).expect("is removed");
    bob.meet(&ada);
    let log =
        |more: &[&str]| told(ada.base(), &[&["log", "--json"], more].concat()).expect("is told");
    let lines = |more: &[&str]| -> Vec<String> {
        let objects = log(more);
        let line = |line: &str| {
            let value: Value = serde_json::from_str(line).expect("JSON");
            let text = |key: &str| value[key].as_str().unwrap_or("-").to_owned();
            let from = value["from"].as_str().map(|from| format!("from {from}"));
            let rest = from.unwrap_or_else(|| text("detail"));
            format!("{} {} {} {rest}", text("name"), text("action"), text("path"))
        };
        objects.lines().map(line).collect()
    };
    let below_docs = lines(&["point/docs"]);
    let expected = [
        "ada-desk make docs directory",
        "ada-desk make docs/plan file",
        "ada-desk write docs/plan 3 bytes",
        "bob-laptop move docs/final from docs/plan",
        "bob-laptop write docs/final 6 bytes",
        "bob-laptop remove docs/final ",
    ];
    let without_attributes = below_docs.iter().filter(|line| !line.contains(" attribute "));
    let without_attributes: Vec<&String> =
        without_attributes.filter(|line| !line.contains("still being")).collect();
    assert_eq!(without_attributes, expected, "{below_docs:#?}");
    assert!(lines(&["--device", "bob-laptop"]).iter().all(|line| line.starts_with("bob-laptop ")));
    assert!(lines(&[]).contains(&"ada-desk role - bob-laptop is writer".to_owned()));
    assert!(lines(&["--since", "2099-01-01"]).is_empty());
    assert_eq!(lines(&["-n", "2", "point/docs"]), below_docs[below_docs.len() - 2..]);
    let text = told(ada.base(), &["log", "point/docs/plan"]).expect("is told");
    assert!(text.contains("bob-laptop") && text.contains("docs/final  from docs/plan"), "{text}");
    let whole = told(ada.base(), &["log", "verify"]).expect("is whole");
    assert!(whole.contains("2 journals") && whole.contains("none missing"), "{whole}");
}

#[test]
fn one_flipped_bit_in_a_journal_is_found_and_its_place_is_told() {
    let Some(ada) = Mount::new() else { return };
    for n in 0..20 {
        fs::write(ada.point().join(format!("f{n}")), "x").expect("is written");
        fs::File::open(ada.point().join(format!("f{n}")))
            .expect("opens")
            .sync_all()
            .expect("syncs");
    }
    tidefs(ada.base(), &["umount", "point"]);
    let database = ada.base().join("state/point/journal.db");
    let flip = |seq: i64, at: usize| {
        let db = rusqlite::Connection::open(&database).expect("opens");
        let mut bytes: Vec<u8> = db
            .query_row("SELECT bytes FROM batch WHERE seq = ?1", [seq], |row| row.get(0))
            .expect("is there");
        let at = at % bytes.len();
        bytes[at] ^= 4;
        let changed = db.execute("UPDATE batch SET bytes = ?1 WHERE seq = ?2", (bytes, seq));
        assert_eq!(changed.expect("is changed"), 1);
    };
    let seqs: Vec<i64> = {
        let db = rusqlite::Connection::open(&database).expect("opens");
        let mut select = db.prepare("SELECT seq FROM batch ORDER BY seq").expect("prepares");
        let rows = select.query_map([], |row| row.get(0)).expect("reads");
        rows.collect::<Result<_, _>>().expect("reads")
    };
    assert!(seqs.len() > 10, "{} batches", seqs.len());
    told(ada.base(), &["log", "verify"]).expect("is whole");
    for (n, seq) in seqs.iter().enumerate() {
        flip(*seq, 7 + n * 31);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidefs"));
        command.arg("--state").arg(ada.base().join("state")).args(["log", "verify"]);
        let output = command.output().expect("the program starts");
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(!output.status.success(), "batch {n}: {said}");
        assert!(said.contains(&format!("is broken at change {seq}: ")), "batch {n}: {said}");
        flip(*seq, 7 + n * 31);
    }
    told(ada.base(), &["log", "verify"]).expect("is whole again");
    mount_again(ada.base());
}
