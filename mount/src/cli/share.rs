//! `tidefs invite`, `join` and `devices`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tidefs::codec::{decode_ticket, encode_ticket};
use tidefs::engine::sync::{SyncConfig, join as ask_to_join};
use tidefs::engine::{self, Invitations, Member, Members, Workspace};
use tidefs::env::Env;
use tidefs::types::{Addresses, DeviceName, Hlc, Role, Ticket};
use tidefs_mount::share::{NetState, PeerState, Way, WayKind, device};

use super::devices::DeviceCommand;
use super::options;
use super::say;
use super::state::{Served, StateDir};

/// How long the process that serves may take to listen, once asked.
const LISTEN_WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// What a member may do, as the command line has it.
#[derive(Clone, Copy, ValueEnum)]
pub enum RoleName {
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
#[command(args_conflicts_with_subcommands = true)]
pub struct DevicesArgs {
    #[command(subcommand)]
    command: Option<DeviceCommand>,
    /// A workspace's name or mount point [default: the only one]
    workspace: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn duration(text: &str) -> Result<Duration, String> {
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
    let mut is_told = false;
    loop {
        let net = NetState::read(dir);
        if net.preparing {
            if !std::mem::replace(&mut is_told, true) {
                eprintln!(
                    "Making the workspace ready to be shared: the first time, it takes a while."
                );
            }
            let is_there = rustix::process::Pid::from_raw(served.pid)
                .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
            ensure!(is_there, "the process that serves the mount has ended; its log says why");
            std::thread::sleep(POLL);
            continue;
        }
        // A relay's answer comes later than the first socket.
        let wants_relay = !net.relays.is_empty() && net.addresses.relays.is_empty();
        if !net.addresses.is_empty() && (!wants_relay || waited >= LISTEN_WAIT) {
            if wants_relay {
                eprintln!(
                    "No relay answers: the ticket leads to this device's own addresses only."
                );
            }
            return Ok(net);
        }
        ensure!(
            waited < LISTEN_WAIT,
            "the process that serves the mount (process {}) does not listen; its log says why",
            served.pid
        );
        if waited.is_zero() && net.addresses.is_empty() {
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
    let own_name = device_name(args.name.as_deref())?;
    let share = options::parse(&args.options)?.share;
    let config = SyncConfig {
        bind: share.listen,
        relays: share.relays,
        lan_discovery: share.lan_discovery,
        ..SyncConfig::default()
    };
    let (seed, _) = Workspace::draw_seed(&env);
    let welcome = ask_to_join(&ticket, own_name.as_str(), &seed, &config).with_context(|| {
        format!("asking the device that made the ticket ({})", &ticket.inviter.to_string()[..8])
    })?;
    let name = wanted.unwrap_or_else(|| welcome.settings.name.clone());
    let dir = state.workspace(&name)?;
    Workspace::join(&dir, &welcome, &seed, &env)?;
    let mut net = NetState::default();
    let peer = PeerState { addresses: ticket.addresses.clone(), ..PeerState::default() };
    net.peers.insert(ticket.inviter.to_string(), peer);
    net.write(&dir)?;
    say(&format!(
        "joined workspace {:?} of {} as {}, called {:?}\nkept as {name:?} in {}",
        welcome.settings.name,
        welcome.inviter_name,
        welcome.role.name(),
        own_name.as_str(),
        dir.display()
    ));
    let Some(mount_point) = &args.dir else {
        say(&format!("mount it with `tidefs mount DIR --workspace {name:?}`"));
        return Ok(ExitCode::SUCCESS);
    };
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
    say(&format!("mounted on {}", mount_point.display()));
    Ok(ExitCode::SUCCESS)
}

/// What this device is to be called: as asked for, or like the machine.
pub fn device_name(given: Option<&str>) -> anyhow::Result<DeviceName> {
    match given {
        Some(name) => Ok(DeviceName::new(name)?),
        None => Ok(DeviceName::nearest(&rustix::system::uname().nodename().to_string_lossy())),
    }
}

/// A member, as `tidefs devices` shows it.
#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Row {
    device: String,
    name: Option<String>,
    #[serde(skip)]
    label: String,
    role: &'static str,
    revoked: bool,
    forked_at_op: Option<u64>,
    own: bool,
    connected: bool,
    path: Option<Way>,
    last_seen_unix_s: Option<i64>,
    lag_ops: Option<u64>,
    lag_s: Option<u64>,
    addresses: Addresses,
    last_error: Option<String>,
    diverged: bool,
}

/// Lists the members that are known here.
pub fn devices(args: &DevicesArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    if let Some(command) = &args.command {
        return super::devices::run(command, state);
    }
    let name = state.find(args.workspace.as_deref())?;
    let dir = state.workspace(&name)?;
    let env = Env::real();
    let now_s = env.clock.now().secs;
    let known = engine::members(&dir, &env)?;
    let net = NetState::read(&dir);
    let is_served = state.served(&name).is_some();
    let mut rows = Vec::with_capacity(known.members.len());
    for member in &known.members {
        let mut peer = net.peers.get(&member.device.to_string()).cloned().unwrap_or_default();
        if member.is_own {
            peer.addresses.clone_from(&net.addresses);
        }
        rows.push(row(member, peer, &known, (now_s, is_served))?);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(ExitCode::SUCCESS);
    }
    let width = rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0).max(4);
    println!("{:width$}  DEVICE    ROLE     SEEN         LAG               PATH", "NAME");
    for row in rows {
        println!(
            "{:width$}  {:8}  {:7}  {:11}  {:16}  {}",
            row.label,
            &row.device[..8],
            if row.revoked { "revoked" } else { row.role },
            seen(&row, now_s),
            lag(&row),
            path(&row),
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn row(
    member: &Member,
    peer: PeerState,
    known: &Members,
    (now_s, is_served): (i64, bool),
) -> anyhow::Result<Row> {
    let lag = peer
        .frontier()
        .filter(|_| !member.is_own && !member.is_revoked)
        .map(|has| known.lag(&has))
        .transpose()?;
    let age_s = |since: Hlc| u64::try_from(now_s).unwrap_or(0).saturating_sub(since.0 / 1_000_000);
    let connected = peer.connected && is_served;
    Ok(Row {
        device: member.device.to_string(),
        name: member.name.as_ref().map(ToString::to_string),
        label: member.label.clone(),
        role: member.role.name(),
        revoked: member.is_revoked,
        forked_at_op: member.forked_at,
        own: member.is_own,
        connected,
        path: peer.way.filter(|_| connected),
        last_seen_unix_s: if connected { Some(now_s) } else { peer.last_seen_unix_s },
        lag_ops: lag.map(|lag| lag.ops),
        lag_s: lag.map(|lag| lag.since.map_or(0, age_s)),
        addresses: peer.addresses,
        last_error: peer.last_error,
        diverged: peer.diverged,
    })
}

fn seen(row: &Row, now_s: i64) -> String {
    match row.last_seen_unix_s {
        _ if row.own => "this device".into(),
        _ if row.connected => "now".into(),
        Some(then_s) => format!("{} ago", span(u64::try_from(now_s - then_s).unwrap_or(0))),
        None => "never".into(),
    }
}

fn lag(row: &Row) -> String {
    match (row.lag_ops, row.lag_s) {
        (Some(0), _) => "none".into(),
        (Some(ops), Some(lag_s)) => format!("{ops} ops, {}", span(lag_s)),
        _ => "-".into(),
    }
}

fn path(row: &Row) -> String {
    if row.diverged {
        return "SHOWS ANOTHER TREE, though it has heard the same: see the log".into();
    }
    if let Some(seq) = row.forked_at_op {
        return format!(
            "its key has signed two journals, which part at op {seq} or before: revoke it"
        );
    }
    match (&row.path, &row.last_error) {
        (Some(Way { kind: WayKind::Direct, address }), _) => format!("direct, {address}"),
        (Some(Way { kind: WayKind::Relayed, address }), _) => format!("relayed, {address}"),
        (Some(Way { kind: WayKind::Mixed, address }), _) => format!("mixed, {address}"),
        (None, Some(error)) if !row.own && !row.revoked => error.clone(),
        (None, _) => String::new(),
    }
}

/// A time in its largest unit, rounded down.
fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
