//! `tidefs history` and `restore`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Serialize;
use tidefs::engine::{History, HistoryLine, LogLine, VersionReader};
use tidefs::env::Env;

use super::log::{since, told, utc};
use super::say;
use super::state::StateDir;

/// `tidefs history`'s arguments.
#[derive(Args)]
pub struct HistoryArgs {
    /// A file in a mounted workspace; it may be gone
    path: PathBuf,
    /// Also show states on the way while the file was written, versions that are not kept, and
    /// changes of attributes
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `tidefs restore`'s arguments.
#[derive(Args)]
pub struct RestoreArgs {
    /// A file in a mounted workspace; it may be gone
    path: PathBuf,
    /// Which version, as `tidefs history` calls it; or the one of then: a time in UTC as
    /// `2026-11-20T09:00`, or how long ago, as `2h` [default: the one before the newest; of a file
    /// that is gone, the newest]
    #[arg(long, value_name = "VERSION|TIME")]
    at: Option<String>,
    /// Put it there instead, where nothing is yet; any directory will do
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    said: &'a LogLine,
    kept: bool,
}

fn history_of(path: &Path, state: &StateDir) -> anyhow::Result<History> {
    let (name, below) = state.find_below(Some(path))?;
    let below = below.with_context(|| {
        format!("{} is a workspace; give a file below its mount point", path.display())
    })?;
    state.store_all(&name);
    let below = below.to_string_lossy();
    let history = History::of(&state.workspace(&name)?, &Env::real(), below.trim_end_matches('/'))?;
    ensure!(!history.lines.is_empty(), "nothing was ever called {}", path.display());
    Ok(history)
}

/// Shows what became of a file.
pub fn history(args: &HistoryArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    let history = history_of(&args.path, state)?;
    let is_shown = |line: &&HistoryLine| match line.said.version {
        Some(_) => args.all || line.is_kept && !line.said.interim,
        None => args.all || line.said.action != "attribute",
    };
    let lines: Vec<&HistoryLine> = history.lines.iter().filter(is_shown).collect();
    if args.json {
        let row = |line: &&HistoryLine| {
            serde_json::to_value(Row { said: &line.said, kept: line.is_kept })
        };
        let rows = lines.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(ExitCode::SUCCESS);
    }
    for HistoryLine { said, is_kept } in lines {
        let version = said.version.as_ref().map_or_else(String::new, ToString::to_string);
        let gone = if said.version.is_some() && !is_kept { "  (not kept)" } else { "" };
        println!("{version:16}  {}{gone}", told(said));
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts a version back. That is a new change: what is there now stays in history.
pub fn restore(args: &RestoreArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    let history = history_of(&args.path, state)?;
    let is_there = args.path.symlink_metadata().is_ok();
    let said = choose(&history, args.at.as_deref(), is_there)?;
    let (Some(file), Some(version)) = (said.file, &said.version) else {
        unreachable!("only versions are chosen from")
    };
    let content = history.content(file, version.id)?;
    let to = args.to.as_ref().unwrap_or(&args.path);
    match &args.to {
        Some(to) => ensure!(
            to.symlink_metadata().is_err(),
            "{} is there already; restore to another place, or remove it first",
            to.display()
        ),
        None => ensure!(
            !is_there || args.path.symlink_metadata()?.is_file(),
            "{} is no file now; restore to another place with --to",
            to.display()
        ),
    }
    put(&content, to).with_context(|| format!("restoring {}", to.display()))?;
    say(&format!(
        "{}: version {version} of {}, by {}, {} bytes",
        to.display(),
        utc(said.unix_us),
        said.name,
        content.size_bytes()
    ));
    Ok(ExitCode::SUCCESS)
}

fn choose<'a>(
    history: &'a History,
    at: Option<&str>,
    is_there: bool,
) -> anyhow::Result<&'a LogLine> {
    let kept: Vec<&LogLine> =
        history.lines.iter().filter(|line| line.is_kept).map(|line| &line.said).collect();
    let whole = || kept.iter().rev().filter(|line| !line.interim);
    let Some(at) = at else {
        let back = usize::from(is_there);
        return whole().nth(back).copied().with_context(|| match kept.len() {
            0 => "no version is kept".to_owned(),
            _ => "there is no version before this one".to_owned(),
        });
    };
    let named = |line: &&&LogLine| line.version.as_ref().is_some_and(|version| version.is(at));
    if let Some(line) = kept.iter().find(named) {
        return Ok(line);
    }
    if history.lines.iter().map(|line| &line.said).any(|line| named(&&line)) {
        bail!("version {at} is not kept any more; `tidefs history` lists those that are");
    }
    let then_us = since(at).ok().with_context(|| {
        format!("--at {at}: no such version, and no time as 2026-11-20T09:00 or 2h")
    })?;
    let then = whole().find(|line| line.unix_us <= then_us);
    then.copied().with_context(|| format!("no version is kept from before {at}"))
}

/// Writes beside the place and renames over it, so that it holds either what it did or all of this.
fn put(content: &VersionReader<'_>, to: &Path) -> anyhow::Result<()> {
    let to = std::path::absolute(to)?;
    let Some(dir) = to.parent() else { bail!("that is no place for a file") };
    std::fs::create_dir_all(dir)?;
    let beside = dir.join(format!(".tidefs-restore-{}", std::process::id()));
    let written = write(content, &beside, &to).and_then(|()| Ok(std::fs::rename(&beside, &to)?));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written?;
    // The name itself is to last, too.
    Ok(File::open(dir)?.sync_all()?)
}

fn write(content: &VersionReader<'_>, beside: &Path, to: &Path) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(beside)?;
    if let Ok(before) = std::fs::metadata(to) {
        // The owner may be another, where only the mode can be kept.
        let _ = fchown(&file, Some(before.uid()), Some(before.gid()));
        file.set_permissions(before.permissions())?;
    }
    file.set_len(content.size_bytes())?;
    let mut at = 0;
    content.read(&mut |bytes: &[u8]| {
        // Holes stay holes.
        if bytes.iter().any(|byte| *byte != 0) {
            file.write_all_at(bytes, at)?;
        }
        at += bytes.len() as u64;
        Ok::<_, anyhow::Error>(())
    })?;
    file.flush()?;
    Ok(file.sync_all()?)
}
