//! A second device that shares a mounted workspace, on loopback.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Mount, tidefs};

const LISTEN: &str = "listen=127.0.0.1:0";
/// How long a change may take to be seen on the other device, however busy the machine.
const SEEN_WAIT: Duration = Duration::from_mins(1);

/// What the program prints, or what it complains of.
pub fn told(base: &Path, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidefs"));
    command.current_dir(base).arg("--state").arg(base.join("state")).args(words);
    let output = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Mounts again, to listen on loopback alone, as the device `ada-desk`.
pub fn listen(ada: &Mount, more: &str) {
    let options = format!("{LISTEN}{more}");
    tidefs(ada.base(), &["umount", "point"]);
    tidefs(ada.base(), &["mount", "-o", &options, "--name", "ada-desk", "point"]);
}

/// A new ticket.
pub fn ticket(ada: &Mount, more: &[&str]) -> String {
    let ticket = told(ada.base(), &[&["invite", "point"], more].concat()).expect("a ticket");
    ticket.trim().to_owned()
}

/// A second device, joined and mounted on `there` beside a state of its own.
pub struct Joined {
    pub dir: tempfile::TempDir,
    options: String,
}

impl Joined {
    pub fn new(ada: &Mount) -> Self {
        Self::with(ada, "")
    }

    /// Both mounted with these options, after a comma, beside those for the network.
    pub fn with(ada: &Mount, more: &str) -> Self {
        Self::admitted(ada, more, "writer", "bob-laptop")
    }

    /// With this role.
    pub fn with_role(ada: &Mount, role: &str) -> Self {
        Self::admitted(ada, "", role, "bob-laptop")
    }

    /// One more, called so.
    pub fn named(ada: &Mount, name: &str) -> Self {
        Self::admitted(ada, "", "writer", name)
    }

    fn admitted(ada: &Mount, more: &str, role: &str, name: &str) -> Self {
        let options = format!("{LISTEN}{more}");
        listen(ada, more);
        let ticket = ticket(ada, &["--role", role]);
        let dir = tempfile::tempdir().expect("a directory");
        let words = ["join", &ticket, "there", "--name", name, "-o", &options];
        let said = told(dir.path(), &words).expect("joins");
        let of_whom = format!("joined workspace \"point\" of ada-desk as {role}");
        let called = format!("called {name:?}");
        assert!(said.contains(&of_whom) && said.contains(&called), "{said}");
        assert!(said.contains("mounted on there"), "{said}");
        Self { dir, options }
    }

    pub fn point(&self) -> std::path::PathBuf {
        self.dir.path().join("there")
    }

    /// What `by_ada` and then `by_bob` do while neither hears of the other; both mounts are there
    /// again, and have heard all, when this returns.
    pub fn apart(&self, ada: &Mount, by_ada: impl FnOnce(&Path), by_bob: impl FnOnce(&Path)) {
        self.stop();
        by_ada(&ada.point());
        tidefs(ada.base(), &["umount", "point"]);
        self.start();
        by_bob(&self.point());
        tidefs(ada.base(), &["mount", "-o", &self.options, "point"]);
        self.meet(ada);
    }

    /// Returns once each has heard what the other has done so far.
    pub fn meet(&self, ada: &Mount) {
        let (here, there) = (ada.point(), self.point());
        // What is heard comes in the order in which it was done.
        for (from, to) in [(&there, &here), (&here, &there)] {
            fs::write(from.join("marker"), b"").expect("is written");
            seen("a marker", || to.join("marker").exists());
            fs::remove_file(to.join("marker")).expect("is removed");
            seen("a marker's end", || !from.join("marker").exists());
        }
    }

    pub fn stop(&self) {
        tidefs(self.dir.path(), &["umount", "there"]);
    }

    /// Ends the process at once, and takes away the mount that it leaves.
    pub fn kill(&self) {
        let status = told(self.dir.path(), &["status", "there", "--json"]).expect("is told");
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        let pid = status["mounted"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(rustix::process::Pid::from_raw).expect("a number");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
        drop(Command::new("umount").arg("-l").arg(self.point()).status());
    }

    pub fn start(&self) {
        tidefs(self.dir.path(), &["mount", "-o", &self.options, "there"]);
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.point()).status());
    }
}

/// Waits until it is so.
#[track_caller]
pub fn seen(what: &str, is_there: impl Fn() -> bool) {
    let until = Instant::now() + SEEN_WAIT;
    while !is_there() {
        assert!(Instant::now() < until, "not seen on the other device: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Has the file this content?
pub fn holds(path: &Path, bytes: &[u8]) -> bool {
    fs::read(path).is_ok_and(|found| found == bytes)
}
