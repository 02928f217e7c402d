//! `tidefs umount`, and what there is to know of mount points.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use rustix::mount::UnmountFlags;

use super::state::{StateDir, is_alive};

const PAUSE: Duration = Duration::from_millis(20);
/// How long a mount may be in use before it is said so: a program that starts another one holds its
/// files twice for a moment, and one that ends closes them a little later.
const BUSY_WAIT: Duration = Duration::from_millis(500);
/// Processes named when a mount is busy.
const HOLDERS_MAX: usize = 10;

/// `tidefs umount`'s arguments.
#[derive(Args)]
pub struct UmountArgs {
    /// Where it is mounted
    dir: PathBuf,
    /// Detach at once, and finish when the last program has closed its files
    #[arg(long)]
    lazy: bool,
    /// How long to wait for everything to be on the disk
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// Unmounts and waits for the process that serves.
pub fn run(args: &UmountArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    let dir = std::path::absolute(&args.dir)?;
    if is_stale(&dir) {
        detach_mount(&dir)?;
        super::say("cleaned a mount whose process is gone");
        return Ok(ExitCode::SUCCESS);
    }
    match mounted_type(&dir) {
        Some(kind) if is_ours(Some(&kind)) => {}
        Some(kind) => bail!("{} is a mount of type {kind}, not tidefs", dir.display()),
        None => bail!("nothing is mounted on {}", dir.display()),
    }
    if args.lazy {
        detach_mount(&dir)?;
        return Ok(ExitCode::SUCCESS);
    }
    // The mount may be of another state directory than ours: then the kernel tells.
    let mut served = state.names().into_iter().filter_map(|name| state.served(&name));
    let served = served.find(|served| served.is_at(&dir)).map(|served| served.pid);
    let served = served.or_else(|| serving_process(&dir));
    unmount(&dir)?;
    let Some(pid) = served else {
        bail!(
            "{} is unmounted, but which process served it is not known here: whether everything \
             is on the disk yet, `tidefs --state DIR status` of its own state directory tells",
            dir.display()
        )
    };
    let until = Instant::now() + Duration::from_secs(args.timeout);
    while is_alive(pid) {
        if Instant::now() >= until {
            bail!(
                "process {pid} still writes to the disk after {} s; it goes on by itself",
                args.timeout
            );
        }
        std::thread::sleep(PAUSE);
    }
    Ok(ExitCode::SUCCESS)
}

/// May a mount of this type be ours? fusermount3 writes the subtype, mount(2) does not.
pub fn is_ours(kind: Option<&str>) -> bool {
    matches!(kind, Some("fuse.tidefs" | "fuse"))
}

fn unmount(dir: &Path) -> anyhow::Result<()> {
    let until = Instant::now() + BUSY_WAIT;
    let result = loop {
        match rustix::mount::unmount(dir, UnmountFlags::empty()) {
            Err(rustix::io::Errno::BUSY) if Instant::now() < until => std::thread::sleep(PAUSE),
            result => break result,
        }
    };
    match result {
        Ok(()) => Ok(()),
        // What fusermount3 says of a mount in use does not say by whom.
        Err(rustix::io::Errno::PERM) => fusermount(dir, &["-u"])
            .map_err(|error| if error.to_string().contains("busy") { in_use(dir) } else { error }),
        Err(rustix::io::Errno::BUSY) => Err(in_use(dir)),
        Err(error) => Err(error).with_context(|| format!("unmounting {}", dir.display())),
    }
}

fn in_use(dir: &Path) -> anyhow::Error {
    let (place, holders) = (dir.display(), holders(dir));
    anyhow::anyhow!("{place} is in use{holders}. Close those programs, or unmount with --lazy")
}

/// Takes a mount out of the tree, whatever uses it.
pub fn detach_mount(dir: &Path) -> anyhow::Result<()> {
    match rustix::mount::unmount(dir, UnmountFlags::DETACH) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) => fusermount(dir, &["-u", "-z"]),
        Err(error) => Err(error).with_context(|| format!("unmounting {}", dir.display())),
    }
}

fn fusermount(dir: &Path, flags: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("fusermount3")
        .args(flags)
        .arg("--")
        .arg(dir)
        .output()
        .context("an ordinary user unmounts with fusermount3: install the package fuse3")?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{}", String::from_utf8_lossy(&output.stderr).trim())
}

/// Is a mount left here whose process is gone?
pub fn is_stale(dir: &Path) -> bool {
    use rustix::io::Errno;
    // The kernel may still know the directory's attributes, so they prove nothing. A process that
    // goes while we ask aborts the request.
    matches!(rustix::fs::statvfs(dir), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// The type of the filesystem that is mounted right here.
pub fn mounted_type(dir: &Path) -> Option<String> {
    mount_line(dir)?.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}

/// The process that serves the mount on `dir`, by what `/proc` says of the files it has open
/// (`fuse_connection` in `fs/fuse/dev.c`; older kernels do not).
fn serving_process(dir: &Path) -> Option<i32> {
    let line = mount_line(dir)?;
    let (_, minor) = line.split(' ').nth(2)?.split_once(':')?;
    let entries = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
    let is_ours = |info: &str| {
        info.lines().any(|line| {
            line.strip_prefix("fuse_connection:").is_some_and(|number| number.trim() == minor)
        })
    };
    entries("/proc".into()).find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        entries(process.path().join("fdinfo"))
            .any(|info| std::fs::read_to_string(info.path()).is_ok_and(|text| is_ours(&text)))
            .then_some(pid)
    })
}

/// What `mountinfo` says of the filesystem that is mounted right here.
fn mount_line(dir: &Path) -> Option<String> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    let table = String::from_utf8_lossy(&table);
    let canonical = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let is_here = |line: &&str| {
        line.split(' ').nth(4).is_some_and(|point| Path::new(&unescape(point)) == canonical)
    };
    table.lines().rfind(is_here).map(str::to_owned)
}

/// `mountinfo` writes blanks and backslashes in octal (`proc_pid_mountinfo(5)`).
fn unescape(field: &str) -> String {
    let mut out = field.to_owned();
    for (code, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(code, plain);
    }
    out
}

/// The processes with a file or directory open below `dir`, as far as we may see.
fn holders(dir: &Path) -> String {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name().to_string_lossy().into_owned();
        if !name.chars().all(|c| c.is_ascii_digit()) {
            continue;
        }
        let links = ["cwd", "root"].map(|link| process.path().join(link));
        let fds = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut links = links.into_iter().chain(fds.map(|fd| fd.path()));
        if links.any(|link| std::fs::read_link(link).is_ok_and(|path| path.starts_with(dir))) {
            let comm = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("{} ({name})", comm.trim()));
        }
    }
    found.truncate(HOLDERS_MAX);
    if found.is_empty() { String::new() } else { format!(" by {}", found.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_told_from_directories() {
        assert_eq!(mounted_type(Path::new("/proc")).as_deref(), Some("proc"));
        assert_eq!(mounted_type(Path::new("/proc/self")), None);
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
