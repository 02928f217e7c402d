//! The design's table of outcomes, row by row: what two devices do apart, and what both then see,
//! on two real mounts with ordinary calls.

mod kit;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use kit::Mount;
use kit::pair::{Joined, seen, told};

/// What is there: each path with its kind, mode and content.
type Tree = BTreeMap<String, String>;

fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, "", &mut tree);
    tree
}

fn walk(root: &Path, below: &str, tree: &mut Tree) {
    for entry in fs::read_dir(root.join(below)).expect("is listed") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full).expect("what is listed is there");
        let what = if meta.is_dir() {
            walk(root, &path, tree);
            "directory".to_owned()
        } else if meta.is_symlink() {
            format!("-> {}", fs::read_link(&full).expect("is read").display())
        } else {
            fs::read_to_string(&full).expect("is read")
        };
        tree.insert(path, format!("{:o} {what}", meta.mode() & 0o7777));
    }
}

/// Both devices, as one test has left them.
struct Both {
    ada: Mount,
    bob: Joined,
}

impl Both {
    /// Two devices that have `before`; `more` are options of both mounts.
    fn with(more: &str, before: impl FnOnce(&Path)) -> Option<Self> {
        let ada = Mount::new()?;
        before(&ada.point());
        let bob = Joined::with(&ada, more);
        bob.meet(&ada);
        Some(Self { ada, bob })
    }

    fn apart(&self, by_ada: impl FnOnce(&Path), by_bob: impl FnOnce(&Path)) {
        self.bob.apart(&self.ada, by_ada, by_bob);
    }

    /// The tree that both show: names without what a device is called and when.
    fn tree(&self) -> Tree {
        let (here, there) = (self.ada.point(), self.bob.point());
        seen("one tree", || tree(&here) == tree(&there));
        tree(&here).into_iter().map(|(path, what)| (generic(&path), what)).collect()
    }

    fn finish(self) {
        self.bob.stop();
        told(self.bob.dir.path(), &["verify", "there"]).expect("is whole");
    }
}

/// What `tidefs conflicts` prints on the joined device.
fn conflicts(both: &Both) -> String {
    told(both.bob.dir.path(), &["conflicts", "there"]).expect("is told")
}

#[test]
fn what_is_to_be_settled_is_listed_until_a_person_has_settled_it() {
    let before = |root: &Path| {
        fs::create_dir(root.join("letters")).expect("is made");
        fs::write(root.join("letters/to eve"), "dear eve\n").expect("is written");
    };
    let Some(both) = Both::with(",conflict_resolution=Manual", before) else { return };
    assert_eq!(conflicts(&both), "");
    both.apart(
        |root| {
            fs::write(root.join("letters/to eve"), "by ada\n").expect("is written");
            fs::write(root.join("new"), "ada's\n").expect("is written");
        },
        |root| {
            fs::write(root.join("letters/to eve"), "by bob, later\n").expect("is written");
            fs::write(root.join("new"), "bob's\n").expect("is written");
        },
    );
    let _ = both.tree();
    let listed = conflicts(&both);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines[0], "letters/to eve", "{listed}");
    assert!(lines[1].contains("bob-laptop, 14 B  at the name"), "{listed}");
    assert!(lines[2].contains("ada-desk, 7 B  letters/to eve (conflict, ada-desk, "), "{listed}");
    assert_eq!(lines[3], "new", "{listed}");
    assert!(lines[4].contains("another file of that name  new (conflict, "), "{listed}");
    let status = told(both.bob.dir.path(), &["status", "there"]).expect("is told");
    assert!(
        status.contains("conflicts    1, shown by Manual; `tidefs conflicts` lists"),
        "{status}"
    );
    let sibling = lines[2].split("7 B  ").last().expect("its path");
    fs::remove_file(both.bob.point().join(sibling)).expect("is removed");
    let other = lines[4].split("that name  ").last().expect("its path");
    fs::rename(both.bob.point().join(other), both.bob.point().join("newer")).expect("is renamed");
    both.bob.meet(&both.ada);
    seen("nothing to settle", || conflicts(&both).is_empty());
    both.finish();
}

#[test]
fn what_is_hidden_is_listed_as_hidden_and_settled_by_the_next_write() {
    let before = |root: &Path| fs::write(root.join("a"), "old\n").expect("is written");
    let Some(both) = Both::with("", before) else { return };
    let write = |root: &Path, text| fs::write(root.join("a"), text).expect("is written");
    both.apart(|root| write(root, "by ada\n"), |root| write(root, "by bob\n"));
    let _ = both.tree();
    let listed = conflicts(&both);
    assert!(listed.contains("ada-desk, 7 B  hidden") && listed.contains("KeepBoth"), "{listed}");
    write(&both.bob.point(), "settled\n");
    both.bob.meet(&both.ada);
    seen("nothing to settle", || conflicts(&both).is_empty());
    both.finish();
}

/// `x (conflict, ada, 2026-11-26 13.20).odt` is `x (conflict).odt`.
fn generic(path: &str) -> String {
    match (path.find(" (conflict, "), path.rfind(')')) {
        (Some(start), Some(end)) => format!("{} (conflict){}", &path[..start], &path[end + 1..]),
        _ => path.to_owned(),
    }
}

/// A tree of files of mode 644 and directories, which are those without content.
fn expected(rows: &[(&str, &str)]) -> Tree {
    let what = |content: &str| match content {
        "/" => "755 directory".to_owned(),
        content => format!("644 {content}"),
    };
    rows.iter().map(|(path, content)| ((*path).to_owned(), what(content))).collect()
}

fn write(root: &Path, path: &str, content: &str) {
    fs::write(root.join(path), content).expect("is written");
}

fn rename(root: &Path, from: &str, to: &str) {
    fs::rename(root.join(from), root.join(to)).expect("is renamed");
}

fn mkdir(root: &Path, path: &str) {
    fs::create_dir(root.join(path)).expect("is made");
}

/// What comes of it where the newest alone is shown.
#[track_caller]
fn outcome(
    before: impl FnOnce(&Path),
    by_ada: impl FnOnce(&Path),
    by_bob: impl FnOnce(&Path),
    rows: &[(&str, &str)],
) {
    let Some(both) = Both::with("", before) else { return };
    both.apart(by_ada, by_bob);
    assert_eq!(both.tree(), expected(rows));
    both.finish();
}

#[test]
fn edit_and_edit_of_one_file_leave_the_newest_at_the_name() {
    outcome(
        |root| write(root, "report.odt", "first"),
        |root| write(root, "report.odt", "ada's"),
        |root| write(root, "report.odt", "bob's"),
        &[("report.odt", "bob's")],
    );
}

#[test]
fn edit_and_edit_of_one_file_leave_the_other_as_a_sibling_where_both_are_kept() {
    let before = |root: &Path| write(root, "report.odt", "first");
    let Some(both) = Both::with(",conflict_resolution=KeepBoth", before) else { return };
    both.apart(|ada| write(ada, "report.odt", "ada's"), |bob| write(bob, "report.odt", "bob's"));
    let rows = [("report.odt", "bob's"), ("report (conflict).odt", "ada's")];
    assert_eq!(both.tree(), expected(&rows));
    both.finish();
}

#[test]
fn edit_and_delete_leave_the_edited_file() {
    outcome(
        |root| write(root, "note", "first"),
        |root| write(root, "note", "edited"),
        |root| fs::remove_file(root.join("note")).expect("is removed"),
        &[("note", "edited")],
    );
}

#[test]
fn rename_and_delete_leave_the_renamed_file() {
    outcome(
        |root| write(root, "note", "first"),
        |root| rename(root, "note", "renamed"),
        |root| fs::remove_file(root.join("note")).expect("is removed"),
        &[("renamed", "first")],
    );
}

#[test]
fn rename_and_rename_leave_the_later_name() {
    outcome(
        |root| write(root, "note", "first"),
        |root| rename(root, "note", "by ada"),
        |root| rename(root, "note", "by bob"),
        &[("by bob", "first")],
    );
}

#[test]
fn directories_moved_into_each_other_leave_the_earlier_move() {
    outcome(
        |root| ["a", "b"].iter().for_each(|dir| mkdir(root, dir)),
        |root| rename(root, "a", "b/a"),
        |root| rename(root, "b", "a/b"),
        &[("b", "/"), ("b/a", "/")],
    );
}

#[test]
fn one_directory_moved_to_two_places_is_at_the_later_once() {
    outcome(
        |root| {
            for dir in ["d", "x", "y"] {
                mkdir(root, dir);
            }
            write(root, "d/inside", "it");
        },
        |root| rename(root, "d", "x/d"),
        |root| rename(root, "d", "y/d"),
        &[("x", "/"), ("y", "/"), ("y/d", "/"), ("y/d/inside", "it")],
    );
}

#[test]
fn directories_made_with_one_name_are_one_with_both_contents() {
    let make = |name: &'static str| {
        move |root: &Path| {
            mkdir(root, "d");
            write(root, &format!("d/{name}"), name);
        }
    };
    let rows = [("d", "/"), ("d/ada", "ada"), ("d/bob", "bob")];
    outcome(|_| {}, make("ada"), make("bob"), &rows);
}

#[test]
fn what_is_done_to_directories_that_are_one_is_done_to_all_of_them() {
    let Some(both) = Both::with("", |_| {}) else { return };
    for dir in ["moved", "removed"] {
        let make = |name: &'static str| {
            move |root: &Path| {
                mkdir(root, dir);
                write(root, &format!("{dir}/{name}"), name);
            }
        };
        both.apart(make("ada"), make("bob"));
    }
    let there = both.bob.point();
    rename(&there, "moved", "elsewhere");
    fs::remove_dir_all(there.join("removed")).expect("is removed");
    let mode = fs::Permissions::from_mode(0o700);
    fs::set_permissions(there.join("elsewhere"), mode).expect("is set");
    both.bob.meet(&both.ada);
    let mut rows =
        expected(&[("elsewhere", "/"), ("elsewhere/ada", "ada"), ("elsewhere/bob", "bob")]);
    rows.insert("elsewhere".into(), "700 directory".into());
    assert_eq!(both.tree(), rows);
    both.finish();
}

#[test]
fn files_made_with_one_name_stand_side_by_side_the_earlier_at_the_name() {
    outcome(
        |_| {},
        |root| write(root, "new.txt", "ada's"),
        |root| write(root, "new.txt", "bob's"),
        &[("new.txt", "ada's"), ("new (conflict).txt", "bob's")],
    );
}

#[test]
fn equal_files_made_with_one_name_are_one_file() {
    outcome(
        |_| {},
        |root| write(root, "new.txt", "the same"),
        |root| write(root, "new.txt", "the same"),
        &[("new.txt", "the same")],
    );
}

#[test]
fn a_row_of_equal_files_is_removed_renamed_and_written_as_one() {
    let Some(both) = Both::with("", |_| {}) else { return };
    let make = |root: &Path| {
        for name in ["removed", "renamed", "written"] {
            write(root, name, "the same");
        }
    };
    both.apart(make, make);
    let there = both.bob.point();
    fs::remove_file(there.join("removed")).expect("is removed");
    rename(&there, "renamed", "elsewhere");
    write(&there, "written", "anew");
    both.bob.meet(&both.ada);
    assert_eq!(both.tree(), expected(&[("elsewhere", "the same"), ("written", "anew")]));
    both.finish();
}

#[test]
fn links_of_one_name_to_different_places_stand_side_by_side() {
    let Some(both) = Both::with("", |_| {}) else { return };
    both.apart(
        |ada| symlink("by-ada", ada.join("link")).expect("is made"),
        |bob| symlink("by-bob", bob.join("link")).expect("is made"),
    );
    let targets: Vec<String> = both.tree().into_values().collect();
    assert_eq!(targets, ["777 -> by-ada", "777 -> by-bob"], "at the name, then beside it");
    both.finish();
}

#[test]
fn of_a_file_and_a_directory_of_one_name_the_directory_keeps_it() {
    outcome(
        |_| {},
        |root| write(root, "x.d", "a file"),
        |root| {
            mkdir(root, "x.d");
            write(root, "x.d/inside", "it");
        },
        &[("x.d", "/"), ("x.d/inside", "it"), ("x (conflict).d", "a file")],
    );
}

#[test]
fn rmdir_and_create_inside_leave_the_directory_with_the_new_file() {
    outcome(
        |root| mkdir(root, "d"),
        |root| fs::remove_dir(root.join("d")).expect("is removed"),
        |root| write(root, "d/new", "it"),
        &[("d", "/"), ("d/new", "it")],
    );
}

#[test]
fn a_removed_directory_that_shows_again_and_is_used_stays_when_it_is_emptied() {
    let Some(both) = Both::with("", |root| mkdir(root, "d")) else { return };
    both.apart(
        |ada| fs::remove_dir(ada.join("d")).expect("is removed"),
        |bob| write(bob, "d/new", "it"),
    );
    let here = both.ada.point();
    write(&here, "d/more", "used");
    for name in ["d/new", "d/more"] {
        fs::remove_file(here.join(name)).expect("is removed");
    }
    both.bob.meet(&both.ada);
    assert_eq!(both.tree(), expected(&[("d", "/")]));
    both.finish();
}

#[test]
fn delete_of_one_link_and_edit_through_the_other_leave_the_other_edited() {
    outcome(
        |root| {
            write(root, "one", "first");
            fs::hard_link(root.join("one"), root.join("two")).expect("is linked");
        },
        |root| fs::remove_file(root.join("one")).expect("is removed"),
        |root| write(root, "two", "edited"),
        &[("two", "edited")],
    );
}

#[test]
fn chmod_and_chmod_leave_the_later_and_other_attributes_alone() {
    let Some(both) = Both::with("", |root| write(root, "note", "first")) else { return };
    let chmod = |mode| {
        move |root: &Path| {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(root.join("note"), mode).expect("is set");
        }
    };
    let by_ada = |root: &Path| {
        chmod(0o600)(root);
        write(root, "note", "edited too");
    };
    both.apart(by_ada, chmod(0o640));
    assert_eq!(both.tree(), Tree::from([("note".into(), "640 edited too".into())]));
    both.finish();
}

#[test]
fn names_that_differ_in_case_or_unicode_form_are_both_there() {
    outcome(
        |_| {},
        |root| ["Note", "caf\u{e9}"].iter().for_each(|name| write(root, name, "ada's")),
        |root| ["note", "cafe\u{301}"].iter().for_each(|name| write(root, name, "bob's")),
        &[("Note", "ada's"), ("note", "bob's"), ("caf\u{e9}", "ada's"), ("cafe\u{301}", "bob's")],
    );
}

#[test]
fn a_name_that_is_freed_does_not_rename_what_stands_beside_it() {
    let Some(both) = Both::with("", |_| {}) else { return };
    both.apart(|ada| write(ada, "x", "ada's"), |bob| write(bob, "x", "bob's"));
    fs::remove_file(both.ada.point().join("x")).expect("is removed");
    both.bob.meet(&both.ada);
    assert_eq!(both.tree(), expected(&[("x (conflict)", "bob's")]));
    both.finish();
}

/// One file with a sibling, on two devices that keep both: its path and the sibling's.
fn conflicted(both: &Both) -> (String, String) {
    both.apart(|ada| write(ada, "note.txt", "ada's"), |bob| write(bob, "note.txt", "bob's"));
    let rows = expected(&[("note.txt", "bob's"), ("note (conflict).txt", "ada's")]);
    assert_eq!(both.tree(), rows);
    let sibling = tree(&both.ada.point()).into_keys().find(|path| path.contains("conflict"));
    ("note.txt".into(), sibling.expect("it is there"))
}

fn keeping_both() -> Option<Both> {
    Both::with(",conflict_resolution=KeepBoth", |root| write(root, "note.txt", "first"))
}

#[test]
fn a_sibling_that_is_deleted_is_resolved_everywhere() {
    let Some(both) = keeping_both() else { return };
    let (_, sibling) = conflicted(&both);
    fs::remove_file(both.ada.point().join(sibling)).expect("is removed");
    both.bob.meet(&both.ada);
    assert_eq!(both.tree(), expected(&[("note.txt", "bob's")]));
    assert!(
        told(both.ada.base(), &["status", "point"]).expect("is shown").contains("conflicts    0")
    );
    both.finish();
}

#[test]
fn a_sibling_that_is_renamed_away_is_a_file_of_its_own() {
    let Some(both) = keeping_both() else { return };
    let (_, sibling) = conflicted(&both);
    rename(&both.bob.point(), &sibling, "mine.txt");
    both.bob.meet(&both.ada);
    assert_eq!(both.tree(), expected(&[("note.txt", "bob's"), ("mine.txt", "ada's")]));
    write(&both.ada.point(), "mine.txt", "edited");
    both.bob.meet(&both.ada);
    assert_eq!(both.tree(), expected(&[("note.txt", "bob's"), ("mine.txt", "edited")]));
    both.finish();
}

#[test]
fn a_sibling_that_is_written_to_is_a_file_of_its_own() {
    let Some(both) = keeping_both() else { return };
    let (_, sibling) = conflicted(&both);
    write(&both.bob.point(), &sibling, "gone on with");
    both.bob.meet(&both.ada);
    let rows = [("note.txt", "bob's"), ("note (conflict).txt", "gone on with")];
    assert_eq!(both.tree(), expected(&rows));
    assert!(
        told(both.ada.base(), &["status", "point"]).expect("is shown").contains("conflicts    0")
    );
    both.finish();
}

#[test]
fn a_sibling_that_is_renamed_over_its_file_is_chosen() {
    let Some(both) = keeping_both() else { return };
    let (file, sibling) = conflicted(&both);
    rename(&both.ada.point(), &sibling, &file);
    both.bob.meet(&both.ada);
    assert_eq!(both.tree(), expected(&[("note.txt", "ada's")]));
    both.finish();
}

#[test]
fn an_edit_leaves_the_sibling_and_a_removal_makes_it_a_file() {
    let Some(both) = keeping_both() else { return };
    let (file, _) = conflicted(&both);
    write(&both.ada.point(), &file, "edited");
    both.bob.meet(&both.ada);
    assert_eq!(both.tree(), expected(&[("note.txt", "edited"), ("note (conflict).txt", "ada's")]));
    fs::remove_file(both.bob.point().join(file)).expect("is removed");
    both.bob.meet(&both.ada);
    assert_eq!(both.tree(), expected(&[("note (conflict).txt", "ada's")]));
    both.finish();
}

#[test]
fn how_conflicts_are_shown_can_be_changed_at_each_mount() {
    let Some(both) = keeping_both() else { return };
    conflicted(&both);
    both.bob.stop();
    kit::tidefs(both.bob.dir.path(), &["mount", "there"]);
    let rows = expected(&[("note.txt", "bob's")]);
    seen("the newest alone", || tree(&both.bob.point()) == rows);
    both.bob.stop();
    kit::tidefs(both.bob.dir.path(), &["mount", "--conflict-resolution", "Manual", "there"]);
    seen("both", || tree(&both.bob.point()).len() == 2);
    let status = told(both.bob.dir.path(), &["status", "there"]).expect("is shown");
    assert!(status.contains("conflicts    1, shown by Manual"), "{status}");
    both.finish();
}

const POEM: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\n";

#[test]
fn texts_whose_changes_do_not_touch_are_merged() {
    let before = |root: &Path| write(root, "poem", POEM);
    let Some(both) = Both::with(",conflict_resolution=Merge", before) else { return };
    both.apart(
        |ada| write(ada, "poem", &POEM.replace("one", "1")),
        |bob| write(bob, "poem", &POEM.replace("seven", "7")),
    );
    let merged = POEM.replace("one", "1").replace("seven", "7");
    let rows = expected(&[("poem", &merged)]);
    seen("the merged text", || tree(&both.ada.point()) == rows);
    assert_eq!(both.tree(), rows);
    both.finish();
}

#[test]
fn texts_whose_changes_touch_stand_side_by_side_without_markers() {
    let before = |root: &Path| write(root, "poem", POEM);
    let Some(both) = Both::with(",conflict_resolution=Merge", before) else { return };
    let (adas, bobs) = (POEM.replace("four", "4"), POEM.replace("four", "IV"));
    both.apart(|ada| write(ada, "poem", &adas), |bob| write(bob, "poem", &bobs));
    assert_eq!(both.tree(), expected(&[("poem", &bobs), ("poem (conflict)", &adas)]));
    both.finish();
}
