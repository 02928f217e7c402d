//! `tidefs key`: the workspace's content key.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use tidefs::engine::{self, Member, Workspace};
use tidefs::env::Env;
use tidefs_mount::ask::{Ask, ask};

use super::say;
use super::state::StateDir;

/// `tidefs key`'s arguments.
#[derive(Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Seal what is written from now on under a new key, which every member gets
    ///
    /// Revoking a device does this by itself. What was written before keeps its key.
    Rotate {
        /// A workspace's name or mount point [default: the only one]
        workspace: Option<PathBuf>,
    },
}

/// Does it.
pub fn run(args: &KeyArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    let KeyCommand::Rotate { workspace } = &args.command;
    let name = state.find(workspace.as_deref())?;
    let dir = state.workspace(&name)?;
    let env = Env::real();
    let served = state
        .served(&name)
        .with_context(|| format!("workspace {name:?} is not mounted: mount it first"))?;
    ensure!(
        Workspace::settings(&dir, &env)?.encryption,
        "workspace {name:?} is not encrypted: there is no key"
    );
    let known = engine::members(&dir, &env)?;
    ensure!(
        known.own().is_some_and(Member::is_admin),
        "only an admin can do this, and this device is none"
    );
    ask(&dir, served.pid, &Ask::NewEpoch)?;
    say("what is written from now on is sealed under a new key");
    Ok(ExitCode::SUCCESS)
}
