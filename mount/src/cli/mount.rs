//! `tidefs mount`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use rustix::mount::MountFlags;
use tidefs::engine::{Filling, NewWorkspace, OpenWorkspace, Workspace};
use tidefs::env::Env;
use tidefs::fs::{Filesystem, Wait};
use tidefs::types::limits::CHUNK_BYTES_MAX;
use tidefs::types::{ConflictResolution, Role};
use tidefs_mount::session::{MountOptions, Session, Unmounter};
use tidefs_mount::share::{Share, begin_filling};

use super::background;
use super::options::{self, Options};
use super::say;
use super::state::{Served, StateDir, read_served, remove_served, write_served};
use super::umount::{detach_mount, is_ours, is_stale, mounted_type};

const MEMORY_MIB: u64 = 512;
const MEMORY_MIB_MIN: u64 = 16;
/// How long a mount waits for a process that is just ending to let go of the workspace.
const LOCK_WAIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// How long a device that has just joined waits for its first contact.
const FIRST_CONTACT_WAIT: Duration = Duration::from_secs(30);

/// `tidefs mount`'s arguments.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct MountArgs {
    /// Where to mount: an empty directory, made if it is not there
    dir: PathBuf,
    /// Which workspace [default: the directory's own name]
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// Stay in the foreground
    #[arg(short, long)]
    foreground: bool,
    /// Options as `mount(8)` has them: `allow_other`, `ro`, `noatime`, …; to meet other devices:
    /// `listen=ADDRESS:PORT`, `lan` (look for them on the local network), `relay=URL` (of yours);
    /// `chunk_size=` (the longest that new content is cut, 4M); when content is fetched,
    /// `max_concurrent_ops=` (requests at once, 10) and `batch_size=` (chunks in each, 50)
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Make the workspace without encryption (when it is made)
    #[arg(long)]
    no_encryption: bool,
    /// Make the workspace without compression (when it is made)
    #[arg(long)]
    no_compression: bool,
    /// Memory for unsaved writes and caches, in MiB [default: 512]
    #[arg(long, value_name = "MIB")]
    max_memory_mb: Option<u64>,
    /// What to call this device from now on [default: as before, at first the machine's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Of a file changed on two devices apart, show the newest alone (`LastWriteWins`, the default)
    /// or the others beside it (`KeepBoth`, `Manual`), or `Merge` texts
    #[arg(long, value_name = "HOW")]
    conflict_resolution: Option<ConflictResolution>,
    /// Log more
    #[arg(short, long)]
    verbose: bool,
    #[arg(long = "serve-in-background", hide = true)]
    serving: bool,
}

/// What is to be mounted, where and how.
struct Plan {
    dir: PathBuf,
    workspace: PathBuf,
    name: String,
    options: Options,
    memory_bytes: u64,
    conflict_resolution: ConflictResolution,
}

/// Mounts, and stays or returns.
pub fn run(args: &MountArgs, state: Option<&Path>) -> anyhow::Result<ExitCode> {
    if args.serving {
        background::detach();
        start_log(args.verbose);
        return plan(args, state).and_then(|plan| serve(&plan, args)).inspect_err(|error| {
            tracing::error!("{error:#}");
            background::tell_failed(error);
        });
    }
    if let Some(name) = &args.name {
        tidefs::types::DeviceName::new(name)?;
    }
    let plan = plan(args, state)?;
    if plan.options.remount {
        return remount(&plan.dir, &plan.options.mount);
    }
    prepare(&plan, args)?;
    if args.foreground {
        start_log(args.verbose);
        return serve(&plan, args);
    }
    background::start(&plan.workspace)
}

fn start_log(verbose: bool) {
    use tracing_subscriber::EnvFilter;
    // After every orderly end the library warns that it could not unmount once more.
    let quiet = "info,fuser::session=error";
    let level = if verbose { "tidefs=debug,tidefs_mount=debug,info" } else { quiet };
    let filter = EnvFilter::try_from_env("TIDEFS_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(false).init();
}

fn plan(args: &MountArgs, state: Option<&Path>) -> anyhow::Result<Plan> {
    let mut options = options::parse(&args.options)?;
    options.no_encryption |= args.no_encryption;
    options.no_compression |= args.no_compression;
    let dir = std::path::absolute(&args.dir)?;
    let name = match args.workspace.clone().or_else(|| options.workspace.clone()) {
        Some(name) => name,
        None => dir
            .file_name()
            .map(OsString::from)
            .and_then(|name| name.into_string().ok())
            .with_context(|| format!("{}: name the workspace with --workspace", dir.display()))?,
    };
    let state = StateDir::open(state.or(options.state.as_deref()))?;
    let workspace = state.workspace(&name)?;
    let memory_mib = args.max_memory_mb.or(options.max_memory_mb).unwrap_or(MEMORY_MIB);
    ensure!(
        memory_mib >= MEMORY_MIB_MIN,
        "{memory_mib} MiB of memory are too few: give at least {MEMORY_MIB_MIN} \
         (--max-memory-mb)"
    );
    if options.mount.fsname.is_empty() {
        options.mount.fsname.clone_from(&name);
    }
    let conflict_resolution =
        args.conflict_resolution.or(options.conflict_resolution).unwrap_or_default();
    let memory_bytes = memory_mib << 20;
    Ok(Plan { dir, workspace, name, options, memory_bytes, conflict_resolution })
}

/// Changes the flags of a mount that is there, in the kernel; the process that serves sees nothing
/// of it.
fn remount(dir: &Path, options: &MountOptions) -> anyhow::Result<ExitCode> {
    ensure!(is_ours(mounted_type(dir).as_deref()), "no tidefs is mounted on {}", dir.display());
    let has = |name| options.options.iter().any(|option| option == name);
    let flags = [
        (MountFlags::RDONLY, options.read_only),
        (MountFlags::NOSUID, !has("suid")),
        (MountFlags::NODEV, !has("dev")),
        (MountFlags::NOEXEC, has("noexec")),
        (MountFlags::NOATIME, has("noatime")),
        (MountFlags::SYNCHRONOUS, has("sync")),
        (MountFlags::DIRSYNC, has("dirsync")),
    ];
    let flags = flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag).collect();
    rustix::mount::mount_remount(dir, flags, c"")
        .with_context(|| format!("remounting {}", dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Checks and makes what must be there before anything is served.
fn prepare(plan: &Plan, args: &MountArgs) -> anyhow::Result<()> {
    if is_stale(&plan.dir) {
        eprintln!("tidefs: cleaning a mount whose process is gone at {}", plan.dir.display());
        detach_mount(&plan.dir)?;
    }
    if let Some(served) = wait_for_leaving(&plan.workspace) {
        bail!(
            "workspace {:?} is mounted on {} already (process {})",
            plan.name,
            served.dir.display(),
            served.pid
        );
    }
    check_mount_point(&plan.dir)?;
    let env = Env::real();
    if !Workspace::exists(&plan.workspace, &env) {
        let new = NewWorkspace {
            name: plan.name.clone(),
            encryption: !plan.options.no_encryption,
            compression: !plan.options.no_compression,
            mode: 0o755,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        };
        Workspace::create(&plan.workspace, &new, &env).context("making the workspace")?;
        if !args.foreground {
            say(&format!("made workspace {:?} in {}", plan.name, plan.workspace.display()));
        }
        return Ok(());
    }
    let settings = Workspace::settings(&plan.workspace, &env)?;
    let other = |no: bool, is: bool, what: &str| {
        if no && is {
            bail!("workspace {:?} was made with {what}, which cannot be changed", plan.name);
        }
        Ok(())
    };
    other(plan.options.no_encryption, settings.encryption, "encryption")?;
    other(plan.options.no_compression, settings.compression, "compression")
}

/// Who serves the workspace and goes on doing so. A process whose mount is gone already gets some
/// time to store the rest: `umount(8)` does not wait for it.
fn wait_for_leaving(workspace: &Path) -> Option<Served> {
    let mut waited = Duration::ZERO;
    loop {
        let served = read_served(workspace)?;
        if mounted_type(&served.dir).is_some() || waited >= LOCK_WAIT {
            return Some(served);
        }
        std::thread::sleep(PAUSE);
        waited += PAUSE;
    }
}

fn check_mount_point(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    if let Some(what) = mounted_type(dir) {
        bail!("{} is a mount point already (of type {what})", dir.display());
    }
    let mut names = std::fs::read_dir(dir).with_context(|| format!("{}", dir.display()))?;
    ensure!(
        names.next().is_none(),
        "{} is not empty, and a mount would hide what is in it. Mount on an empty directory, then \
         copy the files in",
        dir.display()
    );
    Ok(())
}

fn serve(plan: &Plan, args: &MountArgs) -> anyhow::Result<ExitCode> {
    let (filling, fs) = open(plan)?;
    tidefs_mount::ask::forget(&plan.workspace);
    let share = Share::new(fs.clone(), &plan.workspace, plan.options.share.clone())?;
    if filling.is_none() {
        if let Err(error) = begin_sharing(&fs, &share) {
            share.finish();
            fs.close()?;
            return Err(error);
        }
        name_device(&fs, args.name.as_deref());
    }
    let mount: &MountOptions = &plan.options.mount;
    let mut session = Session::mount(fs.clone(), &plan.dir, mount)
        .with_context(|| format!("mounting on {}", plan.dir.display()))?;
    session.watch(&fs)?;
    let follows = (!mount.read_only).then(|| plan.dir.clone());
    match filling {
        Some(filling) => fill(filling, &fs, &share, args.name.clone(), follows)?,
        None => follow_role(&fs, follows.as_deref())?,
    }
    heed_signals(session.unmounter(), plan, share.clone(), fs.clone())?;
    write_served(&plan.workspace, &plan.dir)?;
    if args.serving {
        background::tell_ready()?;
    } else {
        // Nobody listens unless a service manager started us.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }
    tracing::info!("workspace {:?} is mounted on {}", plan.name, plan.dir.display());
    let served = session.wait();
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    share.finish();
    // While the workspace is still ours: the next process may serve it once it is closed.
    remove_served(&plan.workspace);
    let closed = fs.close();
    served.context("serving the kernel's requests")?;
    closed.context("the last commit")?;
    tracing::info!("unmounted");
    Ok(ExitCode::SUCCESS)
}

/// Fills the workspace while it is mounted already, and then shares it.
fn fill(
    filling: Filling,
    fs: &Filesystem,
    share: &Share,
    name: Option<String>,
    follows: Option<PathBuf>,
) -> anyhow::Result<()> {
    let (fs, share) = (fs.clone(), share.clone());
    let filled = move || -> anyhow::Result<()> {
        filling.run(fs.replica()).context(
            "the workspace has not come whole: unmount it and mount it again, and it comes anew",
        )?;
        tracing::info!("the workspace has come whole");
        share.start()?;
        name_device(&fs, name.as_deref());
        follow_role(&fs, follows.as_deref())
    };
    #[expect(clippy::disallowed_methods, reason = "beside the session, which serves meanwhile")]
    std::thread::Builder::new().name("fill".into()).spawn(move || {
        if let Err(error) = filled() {
            tracing::error!("{error:#}");
        }
    })?;
    Ok(())
}

/// Shows the kernel whether this device may write, if it is to follow that.
fn follow_role(fs: &Filesystem, dir: Option<&Path>) -> anyhow::Result<()> {
    Ok(dir.map_or(Ok(()), |dir| tidefs_mount::role::follow(fs, dir))?)
}

/// Calls this device as asked for, or like the machine if it has no name yet.
fn name_device(fs: &Filesystem, given: Option<&str>) {
    use tidefs::engine::sync::Replica as _;
    let own = fs.replica().device();
    let named = || -> anyhow::Result<()> {
        let before = fs.replica().device_names()?.get(&own).cloned();
        let name = super::share::device_name(given)?;
        let is_wanted =
            if given.is_some() { before.as_ref() != Some(&name) } else { before.is_none() };
        let may_write = fs.replica().own_role().is_some_and(Role::may_write);
        if is_wanted && (may_write || given.is_some()) {
            fs.name_device(&own, &name, Wait::May)?;
            fs.sync_now(None)?;
        }
        Ok(())
    };
    if let Err(error) = named() {
        tracing::warn!("this device keeps the name that it has: {error:#}");
    }
}

/// Opens the workspace; a process that is just unmounting gets some time to let go of it. One that
/// this device knows nothing of yet is opened to be filled from a snapshot, if there is one.
fn open(plan: &Plan) -> anyhow::Result<(Option<Filling>, Filesystem)> {
    let options = tidefs::fs::Options {
        read_only: plan.options.mount.read_only,
        memory_bytes_max: plan.memory_bytes,
        conflict_resolution: plan.conflict_resolution,
        chunk_bytes_max: plan.options.chunk_bytes_max.unwrap_or(CHUNK_BYTES_MAX),
    };
    if let Some((filling, head)) = begin_filling(&plan.workspace, &plan.options.share)? {
        let workspace = OpenWorkspace::fill(&plan.workspace, &Env::real(), &head)?;
        return Ok((Some(filling), Filesystem::serve(workspace, &options)?));
    }
    let mut waited = Duration::ZERO;
    loop {
        match Filesystem::open(&plan.workspace, &options) {
            Err(tidefs::engine::EngineError::Locked(_)) if waited < LOCK_WAIT => {
                std::thread::sleep(PAUSE);
                waited += PAUSE;
            }
            other => return Ok((None, other?)),
        }
    }
}

/// Replicates, if other devices share the workspace. One that has just joined knows nothing of it
/// until it has heard from a member, so that comes before the mount.
fn begin_sharing(fs: &Filesystem, share: &Share) -> anyhow::Result<()> {
    use tidefs::engine::sync::Replica as _;
    let replica = fs.replica();
    let standing = replica.standing();
    if !standing.takes_part() {
        tracing::warn!("{}", tidefs::fs::why_read_only(standing));
        return Ok(());
    }
    let is_member = replica.published().role(&replica.device()).is_some();
    if is_member && replica.members().len() < 2 {
        return Ok(());
    }
    match share.start() {
        Err(error) if is_member => tracing::warn!("working alone: {error:#}"),
        other => other?,
    }
    ensure!(
        is_member || replica.published().wait_for_role(&replica.device(), FIRST_CONTACT_WAIT),
        "no other device was reached, and this one has not heard of the workspace yet; try again \
         when the device that made the ticket is mounted and connected"
    );
    Ok(())
}

/// On SIGINT, SIGTERM or SIGHUP: unmount, so that the session drains and ends. On SIGUSR1: listen
/// for other devices, for one has been invited, and do what else is asked.
fn heed_signals(
    mut unmounter: Unmounter,
    plan: &Plan,
    share: Share,
    fs: Filesystem,
) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    let (dir, workspace) = (plan.dir.clone(), plan.workspace.clone());
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1])?;
    #[expect(clippy::disallowed_methods, reason = "signals need a thread of their own")]
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                if let Err(error) = share.start() {
                    tracing::error!("cannot listen for other devices: {error:#}");
                }
                tidefs_mount::ask::answer(&fs, &workspace);
                continue;
            }
            tracing::info!("signal {signal}: unmounting");
            if let Err(error) = unmounter.unmount() {
                tracing::warn!("{error}: unmounting once the last program has closed its files");
                if let Err(error) = detach_mount(&dir) {
                    tracing::error!("{error:#}");
                }
            }
        }
    })?;
    Ok(())
}
