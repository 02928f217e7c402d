//! `tidefs devices revoke`, `set-role` and `rename`: what an admin says of members.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use tidefs::engine::{self, Member, Members};
use tidefs::env::Env;
use tidefs::types::{DeviceName, Role};
use tidefs_mount::ask::{Ask, ask};

use super::say;
use super::share::RoleName;
use super::state::StateDir;

/// What can be said of a device.
#[derive(Subcommand)]
pub enum DeviceCommand {
    /// Take a device out of the workspace: it hears nothing more, and nothing that it does counts
    ///
    /// What it did before, as far as it is here, stays. It keeps what it has, and can read that.
    Revoke {
        /// Its name, or the first digits of its id, as `tidefs devices` shows them
        device: String,
        /// A workspace's name or mount point [default: the only one]
        workspace: Option<PathBuf>,
    },
    /// Let a device do more, or less
    SetRole {
        /// Its name, or the first digits of its id, as `tidefs devices` shows them
        device: String,
        /// What it may do
        #[arg(value_enum)]
        role: RoleName,
        /// A workspace's name or mount point [default: the only one]
        workspace: Option<PathBuf>,
    },
    /// Call a device otherwise, on all devices
    Rename {
        /// Its name, or the first digits of its id, as `tidefs devices` shows them
        device: String,
        /// Its new name
        new: String,
        /// A workspace's name or mount point [default: the only one]
        workspace: Option<PathBuf>,
    },
}

/// Does it.
pub fn run(command: &DeviceCommand, state: &StateDir) -> anyhow::Result<ExitCode> {
    let (device, workspace) = match command {
        DeviceCommand::Revoke { device, workspace }
        | DeviceCommand::SetRole { device, workspace, .. }
        | DeviceCommand::Rename { device, workspace, .. } => (device, workspace),
    };
    let name = state.find(workspace.as_deref())?;
    let dir = state.workspace(&name)?;
    let served = state
        .served(&name)
        .with_context(|| format!("workspace {name:?} is not mounted: mount it first"))?;
    let known = engine::members(&dir, &Env::real())?;
    let member = find(&known, device)?;
    match command {
        DeviceCommand::Revoke { .. } => revoke(&known, member, &dir, served.pid)?,
        DeviceCommand::SetRole { role, .. } => {
            set_role(&known, member, (*role).into(), &dir, served.pid)?;
        }
        DeviceCommand::Rename { new, .. } => {
            let may_write = known.own().is_some_and(Member::may_write);
            ensure!(may_write, "only who may write can name devices, and this device may not");
            let new = DeviceName::new(new)?;
            ask(&dir, served.pid, &Ask::Rename(member.device, new.clone()))?;
            say(&format!("{} is called {new} from now on", member.label));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn revoke(known: &Members, member: &Member, dir: &Path, pid: i32) -> anyhow::Result<()> {
    ensure!(
        !member.is_own,
        "a device cannot revoke itself: ask another admin, or delete the workspace here"
    );
    ensure!(!member.is_revoked, "{} is revoked already", member.label);
    need_admin(known)?;
    ask(dir, pid, &Ask::Revoke(member.device))?;
    say(&format!(
        "{} is revoked: nothing that it does from now on counts, and no device talks to it that has \
         heard of this",
        member.label
    ));
    Ok(())
}

fn set_role(
    known: &Members,
    member: &Member,
    role: Role,
    dir: &Path,
    pid: i32,
) -> anyhow::Result<()> {
    ensure!(
        !member.is_revoked,
        "{} is revoked for good: invite it anew, and it joins as a new device",
        member.label
    );
    need_admin(known)?;
    let admins = known.members.iter().filter(|other| other.is_admin());
    let is_last = member.is_admin() && admins.count() == 1;
    ensure!(
        !is_last || role == Role::Admin,
        "{} is the last admin: make another device admin first",
        member.label
    );
    ask(dir, pid, &Ask::SetRole(member.device, role))?;
    say(&format!("{} is {} from now on", member.label, role.name()));
    Ok(())
}

fn need_admin(known: &Members) -> anyhow::Result<()> {
    let is_admin = known.own().is_some_and(Member::is_admin);
    ensure!(is_admin, "only an admin can do this, and this device is none");
    Ok(())
}

/// The one member that is meant.
fn find<'a>(known: &'a Members, given: &str) -> anyhow::Result<&'a Member> {
    let named = |member: &&Member| {
        member.name.as_ref().is_some_and(|name| name.as_str() == given) || member.label == given
    };
    let by_digits = |member: &&Member| {
        given.len() >= 4 && member.device.to_string().starts_with(&given.to_lowercase())
    };
    let mut found: Vec<&Member> = known.members.iter().filter(named).collect();
    if found.is_empty() {
        found = known.members.iter().filter(by_digits).collect();
    }
    let lively: Vec<&Member> = found.iter().copied().filter(|member| !member.is_revoked).collect();
    match (&found[..], &lively[..]) {
        ([only], _) | (_, [only]) => Ok(only),
        ([], _) => bail!("there is no device {given:?}; `tidefs devices` lists them"),
        _ => {
            let ids: Vec<String> =
                found.iter().map(|member| member.device.to_string()[..8].to_owned()).collect();
            bail!(
                "{} devices are meant by {given:?}: say which, by id: {}",
                ids.len(),
                ids.join(", ")
            )
        }
    }
}
