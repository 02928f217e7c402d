//! The program, as a person or a service manager runs it.

mod kit;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use kit::{Mount, mount_again, tidefs};
use rustix::io::Errno;

fn run(base: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidefs"));
    command.current_dir(base).arg("--state").arg(base.join("state")).args(words);
    command.output().expect("the program starts")
}

fn refused(base: &Path, words: &[&str]) -> String {
    let output = run(base, words);
    assert!(!output.status.success(), "{words:?} succeeds");
    String::from_utf8(output.stderr).expect("text")
}

fn told(base: &Path, words: &[&str]) -> String {
    let output = run(base, words);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

fn pid(base: &Path) -> i32 {
    let status: serde_json::Value =
        serde_json::from_str(&told(base, &["status", "--json", "point"])).expect("JSON");
    let pid = status["mounted"]["pid"].as_i64().expect("it is mounted");
    i32::try_from(pid).expect("a pid")
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("it is ours");
}

/// Waits until a process is gone.
fn wait_for_end(pid: i32) {
    let until = Instant::now() + Duration::from_secs(30);
    let alive = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while alive() {
        assert!(Instant::now() < until, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn every_command_has_help() {
    let base = tempfile::tempdir().expect("a directory");
    let commands = ["mount", "umount", "status", "list", "verify", "export", "completions", "man"];
    let all = told(base.path(), &["--help"]);
    for command in commands {
        assert!(all.contains(command), "{command} is in the overview");
        assert!(told(base.path(), &[command, "--help"]).contains("Usage"));
    }
    assert!(told(base.path(), &["--version"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(told(base.path(), &["completions", "bash"]).contains("umount"));
    assert!(told(base.path(), &["man"]).contains(".TH"));
    told(base.path(), &["man", "--out", "pages"]);
    assert!(base.path().join("pages/tidefs-mount.1").exists());
}

#[test]
fn what_cannot_be_mounted_is_refused_with_what_to_do() {
    let base = tempfile::tempdir().expect("a directory");
    fs::create_dir(base.path().join("full")).expect("creates");
    fs::write(base.path().join("full/file"), b"x").expect("writes");
    let base = base.path();
    assert!(refused(base, &["mount", "full"]).contains("empty directory"));
    assert!(refused(base, &["mount", "new", "--workspace", "a/b"]).contains("cannot name"));
    assert!(refused(base, &["mount", "new", "-o", "no_such"]).contains("no_such"));
    assert!(refused(base, &["mount", "new", "--max-memory-mb", "1"]).contains("at least 16"));
    assert!(refused(base, &["status"]).contains("no workspace"));
    assert!(refused(base, &["umount", "full"]).contains("nothing is mounted"));
}

#[test]
fn a_workspace_is_served_by_one_process_and_shows_where() {
    let Some(mount) = Mount::new() else { return };
    let base = mount.base();
    fs::write(mount.point().join("file"), b"content").expect("writes");
    fs::File::open(mount.point().join("file")).expect("opens").sync_all().expect("syncs");
    assert!(told(base, &["status", "point"]).contains("files        1\n"), "the root is none");
    assert!(told(base, &["list"]).contains("point\t"));
    assert!(refused(base, &["mount", "point"]).contains("already"));
    let other = refused(base, &["mount", "other", "--workspace", "point"]);
    assert!(other.contains("mounted on"), "{other}");
    assert!(refused(base, &["verify", "point"]).contains("in use"));
}

#[test]
fn a_mount_whose_process_was_killed_is_cleaned_by_the_next() {
    let Some(mount) = Mount::new() else { return };
    let base = mount.base();
    fs::write(mount.point().join("file"), b"synced").expect("writes");
    fs::File::open(mount.point().join("file")).expect("opens").sync_all().expect("syncs");
    let pid = pid(base);
    signal(pid, rustix::process::Signal::KILL);
    wait_for_end(pid);
    // A request that meets the process's last moments is aborted; all later ones find none.
    let stale = rustix::fs::statvfs(mount.point()).err().expect("the mount is stale");
    assert!(matches!(stale, Errno::NOTCONN | Errno::CONNABORTED), "{stale}");
    mount_again(base);
    assert_eq!(fs::read(mount.point().join("file")).expect("reads"), b"synced");
}

#[test]
fn a_signal_stores_everything_and_unmounts() {
    let Some(mount) = Mount::new() else { return };
    let base = mount.base();
    fs::write(mount.point().join("file"), b"not synced").expect("writes");
    let pid = pid(base);
    signal(pid, rustix::process::Signal::TERM);
    wait_for_end(pid);
    assert_eq!(fs::read_dir(mount.point()).expect("lists").count(), 0);
    mount_again(base);
    assert_eq!(fs::read(mount.point().join("file")).expect("reads"), b"not synced");
}

#[test]
fn umount_of_a_busy_mount_says_who_holds_it() {
    let Some(mount) = Mount::new() else { return };
    fs::write(mount.point().join("file"), b"x").expect("writes");
    let held = fs::File::open(mount.point().join("file")).expect("opens");
    let told = refused(mount.base(), &["umount", "point"]);
    assert!(told.contains(&std::process::id().to_string()), "{told}");
    drop(held);
}

#[test]
fn umount_waits_for_the_disk_however_the_mount_is_named() {
    let is_alive = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    let Some(mount) = Mount::new() else { return };
    let base = mount.base();
    std::os::unix::fs::symlink(base, base.join("link")).expect("links");
    // By another spelling, and with a state directory that knows nothing of it.
    for (state, point) in [("state", "link/point"), ("nowhere", "point")] {
        fs::write(mount.point().join("file"), vec![7; 32 << 20]).expect("writes");
        let pid = pid(base);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidefs"));
        let status = command.current_dir(base).args(["--state", state, "umount", point]).status();
        let (done, alive) = (status.expect("runs").success(), is_alive(pid));
        mount_again(base);
        assert!(done && !alive, "{point} by {state}: done: {done}, still serving: {alive}");
    }
}

#[test]
fn a_mount_right_after_fusermount3_waits_for_the_process_before() {
    let Some(mount) = Mount::new() else { return };
    for _ in 0..5 {
        fs::write(mount.point().join("file"), vec![7; 8 << 20]).expect("writes");
        let status = Command::new("fusermount3").arg("-u").arg(mount.point()).status();
        let Ok(status) = status else {
            eprintln!("not tried: fusermount3 is not installed");
            return;
        };
        assert!(status.success());
        mount_again(mount.base());
    }
}

#[test]
fn umount_waits_for_a_program_that_is_just_closing_its_files() {
    let Some(mount) = Mount::new() else { return };
    fs::write(mount.point().join("file"), b"x").expect("writes");
    let held = fs::File::open(mount.point().join("file")).expect("opens");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(held);
        });
        tidefs(mount.base(), &["umount", "point"]);
    });
    mount_again(mount.base());
}

#[test]
fn fusermount3_unmounts_too_and_nothing_is_lost() {
    let Some(mount) = Mount::new() else { return };
    if Command::new("fusermount3").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("not tried: fusermount3 is not installed");
        return;
    }
    let base = mount.base();
    fs::write(mount.point().join("file"), b"not synced").expect("writes");
    let pid = pid(base);
    let status = Command::new("fusermount3").arg("-u").arg(mount.point()).status();
    assert!(status.expect("runs").success());
    wait_for_end(pid);
    mount_again(base);
    assert_eq!(fs::read(mount.point().join("file")).expect("reads"), b"not synced");
}

/// As umount(8), again while it is busy: a program that another test starts holds what is open in
/// this process until it has become itself.
fn unmount(point: &Path) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match rustix::mount::unmount(point, rustix::mount::UnmountFlags::empty()) {
            Err(Errno::BUSY) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result.expect("unmounts"),
        }
    }
}

#[test]
fn a_mount_right_after_an_unmount_waits_for_the_process_that_leaves() {
    let Some(mount) = Mount::new() else { return };
    let base = mount.base();
    for round in 0..5u8 {
        let bytes = vec![round; 8 << 20];
        fs::write(mount.point().join(format!("file{round}")), &bytes).expect("writes");
        // As umount(8): returns while the process still stores what was written.
        unmount(&mount.point());
        mount_again(base);
        assert!(fs::read(mount.point().join(format!("file{round}"))).expect("reads") == bytes);
    }
    assert!(told(base, &["list"]).contains("point\t"));
    assert!(pid(base) > 0, "the process that left has not taken the newer one's note with it");
}

#[test]
fn a_read_only_mount_shows_and_refuses() {
    let Some(mount) = Mount::new() else { return };
    let base = mount.base();
    fs::write(mount.point().join("file"), b"x").expect("writes");
    tidefs(base, &["umount", "point"]);
    tidefs(base, &["mount", "point", "-o", "ro"]);
    assert_eq!(fs::read(mount.point().join("file")).expect("reads"), b"x");
    let error = fs::write(mount.point().join("new"), b"x").expect_err("read-only");
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
}

#[test]
fn an_export_holds_the_same_files_without_a_mount() {
    let Some(mount) = Mount::new() else { return };
    let base = mount.base();
    let point = mount.point();
    fs::create_dir(point.join("dir")).expect("creates");
    fs::write(point.join("dir/file"), vec![7; 300_000]).expect("writes");
    fs::hard_link(point.join("dir/file"), point.join("again")).expect("links");
    std::os::unix::fs::symlink("dir/file", point.join("link")).expect("links");
    tidefs(base, &["umount", "point"]);
    assert!(told(base, &["verify"]).contains("0 problems"));
    assert!(told(base, &["export", "out"]).contains("exported"));
    assert!(fs::read(base.join("out/again")).expect("reads") == vec![7; 300_000]);
    let meta = fs::metadata(base.join("out/dir/file")).expect("stats");
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&meta), 2);
    assert_eq!(fs::read_link(base.join("out/link")).expect("reads"), Path::new("dir/file"));
    assert!(refused(base, &["export", "out"]).contains("not empty"));
    mount_again(base);
}

#[test]
fn a_workspace_without_encryption_or_compression_works_as_well() {
    if Mount::new().is_none() {
        return;
    }
    let base = tempfile::tempdir().expect("a directory");
    let base = base.path();
    for flag in ["--no-encryption", "--no-compression"] {
        let name = flag.trim_start_matches("--");
        let text = "plain words, over and over. ".repeat(10_000);
        tidefs(base, &["mount", name, flag]);
        fs::write(base.join(name).join("file"), &text).expect("writes");
        tidefs(base, &["umount", name]);
        assert!(told(base, &["verify", name]).contains("0 problems"));
        tidefs(base, &["mount", name]);
        assert_eq!(fs::read_to_string(base.join(name).join("file")).expect("reads"), text);
        tidefs(base, &["umount", name]);
    }
    tidefs(base, &["mount", "sealed"]);
    tidefs(base, &["umount", "sealed"]);
    assert!(refused(base, &["mount", "sealed", "--no-encryption"]).contains("cannot be changed"));
}

#[test]
fn a_line_of_fstab_mounts() {
    let Some(mount) = Mount::new() else { return };
    let base = mount.base();
    let helper = base.join("mount.tidefs");
    fs::copy(env!("CARGO_BIN_EXE_tidefs"), &helper).expect("copies");
    let options = format!("rw,nofail,state={}", base.join("state").display());
    let status =
        Command::new(&helper).args(["work", "work", "-o", &options]).current_dir(base).status();
    assert!(status.expect("runs").success());
    fs::write(base.join("work/file"), b"x").expect("writes");
    assert!(told(base, &["list"]).contains("work\t"));
    tidefs(base, &["umount", "work"]);
}

#[test]
fn a_remount_by_the_helper_changes_the_flags() {
    let Some(mount) = Mount::new() else { return };
    let base = mount.base();
    let helper = base.join("mount.fuse.tidefs");
    fs::copy(env!("CARGO_BIN_EXE_tidefs"), &helper).expect("copies");
    let state = format!("state={}", base.join("state").display());
    let remount = |options: &str| {
        let options = format!("remount,{options},user_id=0,group_id=0,{state}");
        let status = Command::new(&helper)
            .args(["point", "point", "-o", &options])
            .current_dir(base)
            .status();
        assert!(status.expect("runs").success());
    };
    let file = mount.point().join("file");
    remount("ro");
    let error = fs::write(&file, b"x").expect_err("read-only");
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    remount("rw,nosuid");
    fs::write(&file, b"x").expect("writable");
    let table = fs::read_to_string("/proc/self/mounts").expect("reads");
    let point = mount.point().display().to_string();
    let line = table.lines().find(|line| line.contains(&point)).expect("is mounted");
    assert!(line.contains(" rw,nosuid,"), "{line}");
    assert!(!line.contains("nodev"), "{line}");
}

#[test]
fn a_user_namespace_of_ones_own_is_enough_to_mount() {
    if Mount::new().is_none() {
        return;
    }
    let base = tempfile::tempdir().expect("a directory");
    let script = "set -e
        $0 --state state mount point
        echo inside > point/file
        test \"$(stat -c %u point/file)\" = 0
        $0 --state state umount point
        $0 --state state mount point
        cat point/file
        $0 --state state umount point";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_tidefs")])
        .current_dir(base.path())
        .output()
        .expect("unshare is there");
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.ends_with("inside\n"), "{out}{error}");
}

#[test]
fn verify_names_the_file_and_version_of_a_damaged_chunk() {
    let Some(mount) = Mount::new() else { return };
    let base = mount.base();
    fs::create_dir(mount.point().join("papers")).expect("creates");
    let noise: Vec<u8> =
        (0..75_000_u32).flat_map(|n| n.wrapping_mul(n).rotate_left(7).to_le_bytes()).collect();
    fs::write(mount.point().join("papers/thesis.odt"), noise).expect("writes");
    fs::write(mount.point().join("whole"), vec![1; 100_000]).expect("writes");
    tidefs(base, &["umount", "point"]);
    let segment = base.join("state/point/segments/00000000.seg");
    let segment =
        if segment.exists() { segment } else { base.join("state/point/segments/00000001.seg") };
    let mut bytes = fs::read(&segment).expect("reads");
    bytes[5_000] ^= 1;
    fs::write(&segment, bytes).expect("writes");
    let output = run(base, &["verify", "point"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(!output.status.success(), "{text}");
    let line = text.lines().next().expect("a problem");
    assert!(line.starts_with("papers/thesis.odt, version of 20"), "{text}");
    assert!(line.contains(" UTC: chunk ") && line.contains("from a backup"), "{text}");
    assert!(!text.contains("run `tidefs verify`") && text.contains("1 problems"), "{text}");
    mount_again(base);
}

#[test]
fn a_reader_that_goes_away_ends_a_command_without_a_word() {
    let Some(mount) = Mount::new() else { return };
    let base = mount.base();
    for words in [&["status", "point"][..], &["list"], &["devices", "point"], &["man"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidefs"));
        command.current_dir(base).arg("--state").arg(base.join("state")).args(words);
        let output = command.stdout(writer).output().expect("the program starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.is_empty(), "{words:?}: {error}");
        assert!(!output.status.success(), "{words:?} has written somewhere");
    }
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidefs"));
    command.current_dir(base).args(["--state", "state", "mount", "second"]).stdout(writer);
    assert!(command.status().expect("runs").success(), "a mount goes on");
    tidefs(base, &["umount", "second"]);
}
