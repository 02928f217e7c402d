//! A workspace mounted for a test, through the program and the kernel.
#![allow(dead_code, reason = "each test uses its part")]

pub mod pair;

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A workspace on its mount point, which goes away with it.
pub struct Mount {
    dir: tempfile::TempDir,
}

impl Mount {
    /// Mounts a new workspace; none where an ordinary user may not use `/dev/fuse`.
    pub fn new() -> Option<Self> {
        if File::options().read(true).write(true).open("/dev/fuse").is_err() {
            eprintln!("not tried: /dev/fuse cannot be opened here; run it as root");
            return None;
        }
        let mount = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        std::fs::create_dir(mount.point()).expect("an empty directory");
        mount_again(mount.dir.path());
        Some(mount)
    }

    /// The mount point.
    pub fn point(&self) -> PathBuf {
        self.dir.path().join("point")
    }

    /// The directory beside which all of it lies.
    pub fn base(&self) -> &Path {
        self.dir.path()
    }

    /// Mounts it anew so that all users may use it.
    pub fn remount_for_all(&self) {
        let base = self.dir.path();
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(base, all).expect("it is ours");
        tidefs(base, &["umount", "point"]);
        tidefs(base, &["mount", "-o", "allow_other", "point"]);
    }

    /// What takes the mount away and brings it back.
    pub fn restart(&self) -> Box<dyn FnMut()> {
        let base = self.dir.path().to_owned();
        Box::new(move || {
            tidefs(&base, &["umount", "point"]);
            assert!(std::fs::read_dir(base.join("point")).expect("a directory").next().is_none());
            mount_again(&base);
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let point = self.point();
        if std::thread::panicking() {
            drop(Command::new("umount").arg("-l").arg(point).status());
        } else {
            tidefs(self.dir.path(), &["umount", "point"]);
        }
    }
}

/// Mounts the workspace `point`, made before or not.
pub fn mount_again(base: &Path) {
    let more = std::env::var("TIDEFS_MODEL_MOUNT").unwrap_or_default();
    let words: Vec<&str> = ["mount"].into_iter().chain(more.split_whitespace()).collect();
    tidefs(base, &[&words[..], &["point"]].concat());
    let device = |path: &Path| path.metadata().expect("it is there").dev();
    assert_ne!(device(base), device(&base.join("point")), "nothing is mounted");
}

/// Runs the program beside its state and mount point.
pub fn tidefs(base: &Path, words: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidefs"));
    command.current_dir(base).arg("--state").arg(base.join("state")).args(words);
    let status = command.status().expect("the program starts");
    assert!(status.success(), "{words:?}: {status}");
}
