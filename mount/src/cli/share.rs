//! `tidefs invite`, `join` and `devices`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use tidefs::codec::{decode_ticket, encode_ticket};
use tidefs::engine::sync::{SyncConfig, join as ask_to_join};
use tidefs::engine::{Invitations, Workspace};
use tidefs::env::Env;
use tidefs::types::{Role, Ticket};
use tidefs_mount::share::{NetState, PeerState, device};

use super::state::{Served, StateDir};

/// How long the process that serves may take to listen, once asked.
const LISTEN_WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// What a member may do, as the command line has it.
#[derive(Clone, Copy, ValueEnum)]
enum RoleName {
    /// Write, and say who is a member
    Admin,
    /// Read and write
    Writer,
    /// Read
    Reader,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Admin => Self::Admin,
            RoleName::Writer => Self::Writer,
            RoleName::Reader => Self::Reader,
        }
    }
}

/// `tidefs invite`'s arguments.
#[derive(Args)]
pub struct InviteArgs {
    /// A workspace's name or mount point [default: the only one]
    workspace: Option<PathBuf>,
    /// What the new device may do
    #[arg(long, value_enum, default_value = "writer")]
    role: RoleName,
    /// How long the invitation is good: seconds, or with m, h or d behind
    #[arg(long, default_value = "1h", value_parser = duration)]
    expires: Duration,
}

/// `tidefs join`'s arguments.
#[derive(Args)]
pub struct JoinArgs {
    /// The ticket that `tidefs invite` printed on another device
    ticket: String,
    /// Where to mount; without it, `tidefs mount` does later
    dir: Option<PathBuf>,
    /// What to call the workspace here [default: as it is called there]
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// What to call this device [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Options for the mount, as `tidefs mount` has them
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
}

/// `tidefs devices`'s arguments.
#[derive(Args)]
pub struct DevicesArgs {
    /// A workspace's name or mount point [default: the only one]
    workspace: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, text.as_bytes()[text.len() - 1]),
        None => (text, b's'),
    };
    let seconds = match unit {
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => 1,
    };
    let number: u64 =
        number.parse().map_err(|_| format!("{text:?} is no time, as 90s, 1h or 2d"))?;
    match number.checked_mul(seconds).filter(|seconds| (1..=366 * 86_400).contains(seconds)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err("an invitation is good for one second to a year".into()),
    }
}

/// Prints a ticket with which another device can join.
pub fn invite(args: &InviteArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    let name = state.find(args.workspace.as_deref())?;
    let dir = state.workspace(&name)?;
    let env = Env::real();
    let served = state.served(&name).with_context(|| {
        format!("workspace {name:?} is not mounted: mount it, for a device that joins asks here")
    })?;
    let settings = Workspace::settings(&dir, &env)?;
    let net = listening(&dir, &served)?;
    let now = u64::try_from(env.clock.now().secs)?;
    let expires_unix_s = now + args.expires.as_secs();
    let role = Role::from(args.role);
    let token = Invitations::of(&dir, &env).add(role, expires_unix_s)?;
    let inviter = device(&net.device).context("net.json names no device")?;
    let addresses = net.addresses;
    let workspace = settings.workspace;
    let ticket = Ticket { workspace, inviter, addresses, token, expires_unix_s, role };
    let text = encode_ticket(&ticket);
    eprintln!("On the other device, once and within {:?}:", args.expires);
    eprintln!("    tidefs join TICKET DIR");
    if std::io::stdout().is_terminal()
        && let Ok(code) = qrcode::QrCode::new(text.as_bytes())
    {
        println!("{}", code.render::<qrcode::render::unicode::Dense1x2>().build());
    }
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Where the process that serves the workspace listens; asks it to, if it does not yet.
fn listening(dir: &Path, served: &Served) -> anyhow::Result<NetState> {
    let mut waited = Duration::ZERO;
    loop {
        let net = NetState::read(dir);
        if !net.addresses.is_empty() {
            return Ok(net);
        }
        ensure!(
            waited < LISTEN_WAIT,
            "the process that serves the mount (process {}) does not listen; its log says why",
            served.pid
        );
        if waited.is_zero() {
            let pid = rustix::process::Pid::from_raw(served.pid).context("it has no number")?;
            rustix::process::kill_process(pid, rustix::process::Signal::USR1)?;
        }
        std::thread::sleep(POLL);
        waited += POLL;
    }
}

/// Makes this device a member, and mounts the workspace.
pub fn join(args: &JoinArgs, state: &StateDir, given: Option<&Path>) -> anyhow::Result<ExitCode> {
    let env = Env::real();
    let now = u64::try_from(env.clock.now().secs)?;
    let ticket = decode_ticket(args.ticket.trim(), now)?;
    let from_dir = args.dir.as_ref().and_then(|dir| Some(dir.file_name()?.to_str()?.to_owned()));
    let wanted = args.workspace.clone().or(from_dir);
    if let Some(name) = &wanted {
        ensure!(
            !Workspace::exists(&state.workspace(name)?, &env),
            "there is a workspace {name:?} here already: say another name with --workspace"
        );
    }
    let (seed, _) = Workspace::draw_seed(&env);
    let own_name = args.name.clone().unwrap_or_else(host_name);
    let welcome = ask_to_join(&ticket, &own_name, &seed, &SyncConfig::default())
        .context("asking the device that made the ticket")?;
    let name = wanted.unwrap_or_else(|| welcome.settings.name.clone());
    let dir = state.workspace(&name)?;
    Workspace::join(&dir, &welcome, &seed, &env)?;
    let mut net = NetState::default();
    let peer = PeerState { addresses: ticket.addresses.clone(), ..PeerState::default() };
    net.peers.insert(ticket.inviter.to_string(), peer);
    net.write(&dir)?;
    println!("joined workspace {:?} as {:?}, kept in {}", name, welcome.role, dir.display());
    let Some(mount_point) = &args.dir else { return Ok(ExitCode::SUCCESS) };
    let mut mount = Command::new(std::env::current_exe()?);
    if let Some(given) = given {
        mount.arg("--state").arg(given);
    }
    mount.arg("mount").arg(mount_point).args(["--workspace", &name]);
    for option in &args.options {
        mount.args(["-o", option]);
    }
    let status = mount.status().context("mounting")?;
    if !status.success() {
        bail!("this device is a member now; `tidefs mount` it once the other device is reached");
    }
    Ok(ExitCode::SUCCESS)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Lists the members that are known here.
pub fn devices(args: &DevicesArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    let name = state.find(args.workspace.as_deref())?;
    let dir = state.workspace(&name)?;
    let env = Env::real();
    let members = tidefs::engine::members(&dir, &env)?;
    let net = NetState::read(&dir);
    let served = state.served(&name).is_some();
    let mut shown = Vec::new();
    for (member, role, is_own) in members {
        let id = member.to_string();
        let mut peer = net.peers.get(&id).cloned().unwrap_or_default();
        peer.connected &= served;
        shown.push((id, role, is_own, peer));
    }
    if args.json {
        let rows: Vec<serde_json::Value> = shown
            .iter()
            .map(|(id, role, is_own, peer)| {
                serde_json::json!({ "device": id, "role": role_name(*role), "own": is_own,
                    "peer": peer })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:16}  {:7}  {:12}  {:8}  WAY", "DEVICE", "ROLE", "STATE", "LAG");
    for (id, role, is_own, peer) in shown {
        let state = match (is_own, peer.connected) {
            (true, _) => "this device",
            (_, true) => "connected",
            _ => "away",
        };
        let lag = peer.lag_ops.map_or("-".into(), |ops| format!("{ops} ops"));
        let way = peer.path.or(peer.last_error).unwrap_or_default();
        println!("{:16}  {:7}  {state:12}  {lag:8}  {way}", &id[..16], role_name(role));
    }
    Ok(ExitCode::SUCCESS)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Writer => "writer",
        Role::Reader => "reader",
        Role::Keeper => "keeper",
    }
}
