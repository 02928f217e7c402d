//! `tidefs status`, `list`, `conflicts` and `verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;
use tidefs::engine::{self, Progress, Status};
use tidefs::env::Env;
use tidefs::types::Standing;

use super::log::utc;
use super::state::{Served, StateDir};

/// `tidefs status`'s arguments.
#[derive(Args)]
pub struct StatusArgs {
    /// A workspace's name or mount point [default: the only one]
    workspace: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `tidefs list`'s arguments.
#[derive(Args)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `tidefs conflicts`'s arguments.
#[derive(Args)]
pub struct ConflictsArgs {
    /// A workspace's name or mount point [default: the only one]
    workspace: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `tidefs verify`'s arguments.
#[derive(Args)]
pub struct VerifyArgs {
    /// A workspace's name [default: the only one]
    workspace: Option<PathBuf>,
    /// Mend what can be mended, and give back the room of chunks that nothing names
    #[arg(long)]
    repair: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    status: Status,
    mounted: Option<Served>,
    /// What this device may do, once it is known.
    role: Option<&'static str>,
    /// Why changes are refused, if they are.
    read_only: Option<String>,
}

/// Shows one workspace.
pub fn status(args: &StatusArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    let name = state.find(args.workspace.as_deref())?;
    let dir = state.workspace(&name)?;
    let status = engine::status(&dir, &Env::real())?;
    let members = engine::members(&dir, &Env::real())?;
    let standing = members.own_standing();
    let is_whole = status.loading_names.is_none();
    let read_only =
        (is_whole && !standing.may_write()).then(|| tidefs::fs::why_read_only(standing).to_owned());
    let role = match standing {
        Standing::Member(role) => Some(role.name()),
        _ => None,
    };
    let shown = Shown { status, mounted: state.served(&name), role, read_only };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(ExitCode::SUCCESS);
    }
    let Shown { status, mounted, role, read_only } = shown;
    let on_off = |on: bool| if on { "on" } else { "off" };
    println!("workspace    {} ({})", status.name, status.id);
    match mounted {
        Some(served) => println!("mounted      {} (process {})", served.dir.display(), served.pid),
        None => println!("mounted      no"),
    }
    if let Some(names) = status.loading_names {
        let (names, files) = (HumanCount(names), HumanCount(status.counts.files));
        println!("coming       {names} of {files} files named so far; changes wait");
    }
    println!("role         {}", role.unwrap_or("none"));
    if let Some(why) = read_only {
        println!("read-only    {why}");
    }
    println!("files        {}", HumanCount(status.counts.files));
    println!("versions     {}", HumanCount(status.counts.versions));
    println!(
        "chunks       {}, {}",
        HumanCount(status.counts.chunks),
        HumanBytes(status.counts.chunk_bytes)
    );
    let listed = if status.conflicts > 0 { "; `tidefs conflicts` lists them" } else { "" };
    let how = status.conflict_resolution;
    println!("conflicts    {}, shown by {how}{listed}", status.conflicts);
    println!("batches      {}", HumanCount(status.counts.batches));
    if status.journals_cut > 0 {
        println!("history      of {} journals still coming", HumanCount(status.journals_cut));
    }
    println!("encryption   {}", on_off(status.encryption));
    println!("compression  {}", on_off(status.compression));
    println!(
        "disk         {} of {} free",
        HumanBytes(status.disk_free_bytes),
        HumanBytes(status.disk_total_bytes)
    );
    Ok(ExitCode::SUCCESS)
}

/// Lists all workspaces.
pub fn list(args: &ListArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    #[derive(Serialize)]
    struct Row {
        name: String,
        mounted: Option<Served>,
    }
    let rows: Vec<Row> =
        state.names().into_iter().map(|name| Row { mounted: state.served(&name), name }).collect();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(ExitCode::SUCCESS);
    }
    for row in rows {
        let place = row.mounted.map_or("-".into(), |served| served.dir.display().to_string());
        println!("{}\t{place}", row.name);
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists what is to be settled, and how that is done.
pub fn conflicts(args: &ConflictsArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    let name = state.find(args.workspace.as_deref())?;
    state.store_all(&name);
    let found = engine::conflicts(&state.workspace(&name)?, &Env::real())?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(ExitCode::SUCCESS);
    }
    for conflict in &found {
        println!("{}", conflict.path);
        for version in &conflict.versions {
            let place = match &version.path {
                Some(path) if *path == conflict.path => "at the name",
                Some(path) => path,
                None => "hidden",
            };
            println!(
                "    {}  {}, {}  {place}",
                utc(version.written_unix_us),
                version.device,
                HumanBytes(version.size_bytes)
            );
        }
        for path in &conflict.beside {
            println!("    another file of that name  {path}");
        }
    }
    if found.iter().flat_map(|conflict| &conflict.versions).any(|it| it.path.is_none()) {
        println!(
            "What is hidden stands beside its file once the workspace is mounted with \
             `-o conflict_resolution=KeepBoth`. The next write of a file settles it."
        );
    } else if !found.is_empty() {
        println!(
            "To settle: delete what is not wanted, rename what is to be a file of its own, or \
             rename over the file what is to take its place."
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Verifies one workspace; fails if something is wrong that was not mended.
pub fn verify(args: &VerifyArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    let name = state.find(args.workspace.as_deref())?;
    let bar = bar();
    let mut show = |progress: Progress| show(&bar, progress);
    let dir = state.workspace(&name)?;
    let report = engine::verify(&dir, &Env::real(), args.repair, &mut show)?;
    bar.finish_and_clear();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for problem in &report.problems {
            let then = if problem.repaired { "mended" } else { problem.remedy };
            println!("{}: {then}", problem.what);
        }
        println!(
            "{name}: {} chunks, {} files, {} versions, {} batches read; {} problems",
            HumanCount(report.chunks),
            HumanCount(report.nodes),
            HumanCount(report.versions),
            HumanCount(report.batches),
            report.problems.len() as u64 + report.problems_left_out
        );
        if report.unnamed_chunks > 0 {
            let then = match (args.repair, report.is_clean()) {
                (false, _) => "--repair gives it back",
                (true, true) => "given back",
                (true, false) => "kept until the problems are mended",
            };
            println!("{} that nothing names: {then}", HumanBytes(report.unnamed_bytes));
        }
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A progress bar on a terminal, nothing elsewhere.
pub fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:10} {wide_bar} {human_pos}/{human_len} {eta}")
        .expect("the template is well formed");
    ProgressBar::new(0).with_style(style)
}

/// Moves a bar.
pub fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_message(progress.what);
    bar.set_length(progress.total);
    bar.set_position(progress.done);
}
