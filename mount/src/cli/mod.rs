//! The command line: one definition, from which help, completions and manual pages are made.

mod background;
mod devices;
mod export;
mod history;
mod key;
mod log;
mod mount;
mod options;
mod report;
mod share;
mod state;
mod umount;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

use state::StateDir;

/// A folder that is the same on every device.
#[derive(Parser)]
#[command(name = "tidefs", version, max_term_width = 100)]
struct Cli {
    /// Where workspaces are kept [default: the XDG data directory, `~/.local/share/tidefs`]
    #[arg(long, global = true, env = "TIDEFS_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mount a workspace on a directory; make the workspace if there is none
    Mount(mount::MountArgs),
    /// Unmount, and wait until everything is on the disk
    #[command(alias = "unmount")]
    Umount(umount::UmountArgs),
    /// Show what a workspace holds
    Status(report::StatusArgs),
    /// List the workspaces, and where they are mounted
    List(report::ListArgs),
    /// Read and check every chunk, row and reference of a workspace that is not mounted
    Verify(report::VerifyArgs),
    /// Print a ticket with which another device joins a mounted workspace
    Invite(share::InviteArgs),
    /// Join a workspace of another device with a ticket, and mount it
    Join(share::JoinArgs),
    /// List the devices that share a workspace, or change what one may do
    Devices(share::DevicesArgs),
    /// List the files that devices have changed apart and nobody has settled
    Conflicts(report::ConflictsArgs),
    /// Show who did what and when, from the signed journals
    Log(log::LogArgs),
    /// Show what became of a file: who wrote which version, when, and its names
    History(history::HistoryArgs),
    /// Put a version of a file back, also of one that is gone
    Restore(history::RestoreArgs),
    /// Give the workspace another content key
    Key(key::KeyArgs),
    /// Copy a workspace that is not mounted out into plain files
    Export(export::ExportArgs),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// Write the pages into this directory instead
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Does what the command line asks.
///
/// # Errors
/// Whatever went wrong, said for a person.
pub fn run() -> anyhow::Result<ExitCode> {
    let cli = match options::as_mount_helper(std::env::args_os().collect()) {
        Some(arguments) => Cli::parse_from(arguments?),
        None => Cli::parse(),
    };
    if !matches!(
        cli.command,
        Command::Mount(_) | Command::Join(_) | Command::Umount(_) | Command::Restore(_)
    ) {
        end_with_the_reader()?;
    }
    let state = || StateDir::open(cli.state.as_deref());
    match cli.command {
        Command::Mount(args) => mount::run(&args, cli.state.as_deref()),
        Command::Umount(args) => umount::run(&args, &state()?),
        Command::Status(args) => report::status(&args, &state()?),
        Command::List(args) => report::list(&args, &state()?),
        Command::Verify(args) => report::verify(&args, &state()?),
        Command::Invite(args) => share::invite(&args, &state()?),
        Command::Join(args) => share::join(&args, &state()?, cli.state.as_deref()),
        Command::Devices(args) => share::devices(&args, &state()?),
        Command::Conflicts(args) => report::conflicts(&args, &state()?),
        Command::Log(args) => log::run(&args, &state()?),
        Command::History(args) => history::history(&args, &state()?),
        Command::Restore(args) => history::restore(&args, &state()?),
        Command::Key(args) => key::run(&args, &state()?),
        Command::Export(args) => export::run(&args, &state()?),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tidefs", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { out } => man(out),
    }
}

fn man(out: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let command = Cli::command();
    if let Some(out) = out {
        std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
        clap_mangen::generate_to(command, &out)
            .with_context(|| format!("writing manual pages into {}", out.display()))?;
    } else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        std::io::stdout().write_all(&page)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Commands that only tell end when nobody reads any more, as programs do (`SIGPIPE`), rather than
/// fail over the next line. Those that do something go on, see [`say`].
fn end_with_the_reader() -> anyhow::Result<()> {
    use std::sync::{Arc, atomic::AtomicBool};
    let always = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_default(signal_hook::consts::SIGPIPE, always)?;
    Ok(())
}

/// Tells what was done. What a closed pipe does not hear is not said: the work goes on.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Is this word one of our commands?
fn is_command(word: &std::ffi::OsStr) -> bool {
    Cli::command().find_subcommand(word).is_some()
}

/// The arguments of this process, for a process that does the same in the background.
fn own_arguments() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}
