//! The directory that holds all workspaces, and who serves which.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};
use tidefs::engine::Workspace;
use tidefs::env::Env;

const MOUNT_FILE: &str = "mount.json";
const NAME_BYTES_MAX: usize = 64;

/// The directory under which each workspace has one of its own.
pub struct StateDir {
    dir: PathBuf,
}

/// A mount that a process serves, as its workspace's directory says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Served {
    /// The process.
    pub pid: i32,
    /// Where it is mounted.
    pub dir: PathBuf,
}

impl Served {
    /// Is it mounted on `dir`, however that is spelled?
    pub fn is_at(&self, dir: &Path) -> bool {
        let plain = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.dir == dir || plain(&self.dir) == plain(dir)
    }
}

impl StateDir {
    /// The directory given, or the user's own.
    pub fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let dir = match given {
            Some(dir) => std::path::absolute(dir)?,
            None => etcetera::choose_base_strategy()
                .context("no home directory: say where with --state DIR")?
                .data_dir()
                .join("tidefs"),
        };
        Ok(Self { dir })
    }

    /// A workspace's own directory.
    pub fn workspace(&self, name: &str) -> anyhow::Result<PathBuf> {
        check_name(name)?;
        Ok(self.dir.join(name))
    }

    /// The names of all workspaces, in order.
    pub fn names(&self) -> Vec<String> {
        let env = Env::real();
        let names = env.disk.list(&self.dir).unwrap_or_default();
        let mut names: Vec<String> = names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .filter(|name| Workspace::exists(&self.dir.join(name), &env))
            .collect();
        names.sort();
        names
    }

    /// The workspace that a name or a mount point stands for; the only one, if none is given.
    pub fn find(&self, given: Option<&Path>) -> anyhow::Result<String> {
        let names = self.names();
        let Some(given) = given else {
            return match names.as_slice() {
                [] => bail!("there is no workspace in {} yet", self.dir.display()),
                [only] => Ok(only.clone()),
                _ => bail!("which workspace? There are: {}", names.join(", ")),
            };
        };
        if let Some(name) = given.to_str().filter(|name| names.iter().any(|known| known == name)) {
            return Ok(name.to_owned());
        }
        let dir = std::path::absolute(given)?;
        let mounted = |name: &&String| self.served(name).is_some_and(|served| served.is_at(&dir));
        match names.iter().find(mounted) {
            Some(name) => Ok(name.clone()),
            None => bail!("{} is no workspace, and none is mounted there", given.display()),
        }
    }

    /// The workspace that `given` stands for, as [`StateDir::find`] has it, or in whose mount it lies;
    /// then with the path below the mount point. It need not exist (any more).
    pub fn find_below(&self, given: Option<&Path>) -> anyhow::Result<(String, Option<PathBuf>)> {
        let found = self.find(given);
        let Some(path) = given.filter(|_| found.is_err()) else { return Ok((found?, None)) };
        let path = std::path::absolute(path)?;
        for above in path.ancestors().skip(1) {
            let at = |name: &&String| self.served(name).is_some_and(|served| served.is_at(above));
            if let Some(name) = self.names().iter().find(at) {
                return Ok((name.clone(), Some(path.strip_prefix(above)?.to_owned())));
            }
        }
        bail!("{} is no workspace, and lies in no mounted one", path.display())
    }

    /// Has what was done on the mount so far stored, if there is one, so that it can be told of.
    pub fn store_all(&self, name: &str) {
        if let Some(served) = self.served(name)
            && let Err(error) = std::fs::File::open(&served.dir).and_then(|dir| dir.sync_all())
        {
            eprintln!(
                "tidefs: what was done last may be missing: {}: {error}",
                served.dir.display()
            );
        }
    }

    /// The live process that serves a workspace.
    pub fn served(&self, name: &str) -> Option<Served> {
        read_served(&self.dir.join(name))
    }
}

/// Who serves the workspace in `dir`, if that process lives.
pub fn read_served(dir: &Path) -> Option<Served> {
    let bytes = Env::real().disk.read(&dir.join(MOUNT_FILE)).ok()?;
    let served: Served = serde_json::from_slice(&bytes).ok()?;
    is_alive(served.pid).then_some(served)
}

/// Notes that this process serves the workspace in `dir` at `mount_point`.
pub fn write_served(dir: &Path, mount_point: &Path) -> anyhow::Result<()> {
    let pid = i32::try_from(std::process::id())?;
    let served = Served { pid, dir: mount_point.to_owned() };
    let path = dir.join(MOUNT_FILE);
    let text = serde_json::to_vec(&served)?;
    Env::real().disk.write(&path, &text).with_context(|| format!("writing {}", path.display()))
}

/// This process serves the workspace no more.
pub fn remove_served(dir: &Path) {
    if let Err(error) = Env::real().disk.remove(&dir.join(MOUNT_FILE)) {
        tracing::warn!("{}: {error}", dir.join(MOUNT_FILE).display());
    }
}

/// Is there such a process, and not only its remains?
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// A name that can stand for a directory and on a command line.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    let plain = !name.starts_with('.')
        && !name.starts_with('-')
        && !name.chars().any(|c| c == '/' || c.is_control());
    ensure!(
        fits && plain,
        "{name:?} cannot name a workspace: give 1 to {NAME_BYTES_MAX} bytes without `/`, not \
         starting with `.` or `-` (--workspace NAME)"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_is_named_like_a_plain_file() {
        for good in ["work", "Arbeit 2026", "a.b", "日本"] {
            check_name(good).expect("good");
        }
        for bad in ["", ".hidden", "-o", "a/b", "a\nb", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn this_process_is_alive_and_an_unused_number_is_not() {
        assert!(is_alive(i32::try_from(std::process::id()).expect("a pid")));
        assert!(!is_alive(i32::MAX));
    }
}
