//! Serving in the background: this program starts itself anew and waits for one line from it.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};

const READY: &str = "ready";
const LOG_BYTES_MAX: u64 = 10 << 20;
const LOG_FILE: &str = "tidefs.log";

/// The hidden argument of the process that serves.
pub const SERVE_ARGUMENT: &str = "--serve-in-background";

/// Starts this program again, with the same arguments, as a process of its own session; returns
/// once it serves, or with what it says went wrong. Its log is in the workspace's directory.
pub fn start(workspace: &Path) -> anyhow::Result<ExitCode> {
    let path = workspace.join(LOG_FILE);
    let too_long = std::fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX);
    let log = OpenOptions::new()
        .create(true)
        .append(!too_long)
        .write(true)
        .truncate(too_long)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg0("tidefs")
        .args(serving_arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("starting the process that serves")?;
    let output = child.stdout.take().context("it has a pipe")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    match line.trim_end() {
        READY => Ok(ExitCode::SUCCESS),
        "" => bail!("the process that serves ended at once; see {}", path.display()),
        why => bail!("{why}"),
    }
}

fn serving_arguments() -> Vec<std::ffi::OsString> {
    // Called by mount(8), the arguments are those of a helper: say it in our own form.
    let own = super::options::as_mount_helper(std::env::args_os().collect());
    let mut arguments = match own {
        Some(Ok(ours)) => ours.into_iter().skip(1).collect(),
        _ => super::own_arguments(),
    };
    arguments.push(SERVE_ARGUMENT.into());
    arguments
}

/// In the process that serves: leaves the terminal's session.
pub fn detach() {
    // Fails only for the leader of a session, which is detached already.
    let _ = rustix::process::setsid();
}

/// In the process that serves: tells the one that waits, and lets go of its pipe and directory.
pub fn tell_ready() -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(null)?;
    std::env::set_current_dir("/")?;
    Ok(())
}

/// In the process that serves: tells the one that waits why it cannot.
pub fn tell_failed(error: &anyhow::Error) {
    // One line: the other side reads no more.
    let text = format!("{error:#}").replace('\n', " ");
    let _ = writeln!(std::io::stdout(), "{text}");
}
