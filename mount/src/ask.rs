//! What another process asks of the one that serves a workspace: a file in the workspace's directory,
//! a signal, and an answer beside it. The directory is its user's alone, as are the keys in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tidefs::engine::sync::Replica as _;
use tidefs::env::Env;
use tidefs::fs::{Filesystem, Wait};
use tidefs::types::{DeviceId, DeviceName, Role};

const DIR: &str = "asked";
const ASKED: &str = "ask";
const ANSWERED: &str = "answer";
/// A fold anew reads the whole journal.
const ANSWER_WAIT: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(5);

/// What is asked. Devices are named by their hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Nothing of a device counts from here on.
    Revoke(DeviceId),
    /// A device has another role.
    SetRole(DeviceId, Role),
    /// Another epoch begins.
    NewEpoch,
    /// A device is called otherwise.
    Rename(DeviceId, DeviceName),
}

/// Why it was not done; nothing if it was.
type Answer = Result<(), String>;

/// Asks the process `pid`, which serves the workspace in `dir`, and waits until it has done so.
///
/// # Errors
/// Why it did not.
pub fn ask(dir: &Path, pid: i32, ask: &Ask) -> anyhow::Result<()> {
    let env = Env::real();
    let mut drawn = [0; 8];
    env.random.fill(&mut drawn);
    let name = format!("{:016x}", u64::from_le_bytes(drawn));
    let asked = dir.join(DIR);
    env.disk.create_dir_all(&asked)?;
    let (question, answer) = (path(&asked, &name, ASKED), path(&asked, &name, ANSWERED));
    env.disk.write(&question, &serde_json::to_vec(ask)?)?;
    let pid = rustix::process::Pid::from_raw(pid).context("the process has no number")?;
    rustix::process::kill_process(pid, rustix::process::Signal::USR1)?;
    let mut waited = Duration::ZERO;
    loop {
        if let Ok(bytes) = env.disk.read(&answer) {
            env.disk.remove(&answer)?;
            let answer: Answer = serde_json::from_slice(&bytes)?;
            return answer.map_err(anyhow::Error::msg);
        }
        if waited >= ANSWER_WAIT {
            let _ = env.disk.remove(&question);
            bail!("the process that serves the mount does not answer; its log may say why");
        }
        std::thread::sleep(POLL);
        waited += POLL;
    }
}

fn path(dir: &Path, name: &str, kind: &str) -> PathBuf {
    dir.join(format!("{name}.{kind}"))
}

/// Takes away what was asked of a process that is no more: who asked has been told so.
pub fn forget(dir: &Path) {
    let env = Env::real();
    for name in env.disk.list(&dir.join(DIR)).unwrap_or_default() {
        let _ = env.disk.remove(&dir.join(DIR).join(name));
    }
}

/// Does all that is asked of this process, which serves the workspace in `dir`.
pub fn answer(fs: &Filesystem, dir: &Path) {
    let env = Env::real();
    let asked = dir.join(DIR);
    for name in env.disk.list(&asked).unwrap_or_default() {
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".ask")) else { continue };
        let question = path(&asked, name, ASKED);
        let answered: anyhow::Result<()> = (|| {
            let bytes = env.disk.read(&question)?;
            env.disk.remove(&question)?;
            let ask: Ask = serde_json::from_slice(&bytes)?;
            let done = act(fs, &ask).map_err(|error| format!("{error:#}"));
            tracing::info!("asked to {ask:?}: {done:?}");
            env.disk.write(&path(&asked, name, ANSWERED), &serde_json::to_vec(&done)?)?;
            Ok(())
        })();
        if let Err(error) = answered {
            tracing::warn!("{} cannot be answered: {error:#}", question.display());
        }
    }
}

fn act(fs: &Filesystem, ask: &Ask) -> anyhow::Result<()> {
    let replica = fs.replica();
    let without_effect = "it had no effect: another admin has changed what this device may do";
    match ask {
        Ask::Revoke(device) => {
            replica.revoke(device)?;
            anyhow::ensure!(replica.parting(device).is_some(), without_effect);
        }
        Ask::SetRole(device, role) => {
            replica.set_role(device, *role)?;
            anyhow::ensure!(replica.published().role(device) == Some(*role), without_effect);
        }
        Ask::NewEpoch => anyhow::ensure!(replica.begin_epoch()?, without_effect),
        Ask::Rename(device, name) => {
            fs.name_device(device, name, Wait::May)?;
            fs.sync_now(None)?;
        }
    }
    Ok(())
}
