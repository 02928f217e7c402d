//! `tidefs log`.

use std::collections::VecDeque;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::HumanCount;
use tidefs::engine::{self, LogEnd, LogLine};
use tidefs::env::Env;

use super::share::duration;
use super::state::StateDir;

/// `tidefs log`'s arguments.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LogArgs {
    #[command(subcommand)]
    what: Option<LogCommand>,
    /// A workspace's name or mount point, or a file or directory below one: what was done to it and
    /// to what is in it [default: the only workspace]
    path: Option<PathBuf>,
    /// Only what this device did: its name, or the first digits of its id
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only what was done since: a time in UTC as `2026-11-20` or `2026-11-20T09:00`, or how long ago,
    /// as `90s`, `2h` or `7d`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the last so many changes
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    lines: Option<u32>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum LogCommand {
    /// Check every signature and every link of all journals; fail at the first that is broken
    Verify {
        /// A workspace's name or mount point [default: the only one]
        workspace: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which changes are asked for.
struct Filter {
    path: Option<String>,
    device: Option<String>,
    since_us: u64,
}

impl Filter {
    fn takes(&self, line: &LogLine) -> bool {
        let is_below = |path: &String| {
            let mut below = line.paths().filter_map(|it| it.strip_prefix(path.as_str()));
            below.any(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let is_by = |device: &String| line.name == *device || line.device.starts_with(device);
        line.unix_us >= self.since_us
            && self.path.as_ref().is_none_or(is_below)
            && self.device.as_ref().is_none_or(is_by)
    }
}

/// Prints the log, or verifies it.
pub fn run(args: &LogArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    if let Some(LogCommand::Verify { workspace, json }) = &args.what {
        let name = state.find(workspace.as_deref())?;
        state.store_all(&name);
        let mut silent = |_| ControlFlow::Continue(());
        let end = engine::log(&state.workspace(&name)?, &Env::real(), &mut silent)?;
        return Ok(verified(&name, &end, *json));
    }
    let (name, below) = state.find_below(args.path.as_deref())?;
    state.store_all(&name);
    let path = below.map(|below| below.to_string_lossy().trim_end_matches('/').to_owned());
    let since_us = args.since.as_deref().map(since).transpose()?.unwrap_or(0);
    let filter = Filter { path, device: args.device.clone(), since_us };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut failed = None;
    let mut last = VecDeque::new();
    let mut tell = |line: LogLine| {
        if !filter.takes(&line) {
            return ControlFlow::Continue(());
        }
        if let Some(count) = args.lines {
            if last.len() == count as usize {
                last.pop_front();
            }
            last.push_back(line);
            return ControlFlow::Continue(());
        }
        match print(&mut out, &line, args.json) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    };
    let end = engine::log(&state.workspace(&name)?, &Env::real(), &mut tell)?;
    for line in last {
        print(&mut out, &line, args.json)?;
    }
    out.flush()?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    drop(out);
    Ok(match end {
        LogEnd::Whole { .. } => ExitCode::SUCCESS,
        LogEnd::Broken { name, seq, why, .. } => {
            eprintln!("tidefs: the journal of {name} is broken at change {seq}: {why}");
            ExitCode::FAILURE
        }
    })
}

fn verified(workspace: &str, end: &LogEnd, json: bool) -> ExitCode {
    let is_whole = matches!(end, LogEnd::Whole { .. });
    match end {
        _ if json => println!("{}", serde_json::to_string_pretty(end).expect("plain fields")),
        LogEnd::Whole { journals, batches, ops, absent } => {
            let missing = match absent {
                0 => "none missing".to_owned(),
                _ => format!("{} from before this device joined not here yet", HumanCount(*absent)),
            };
            println!(
                "{workspace}: {} journals, {} batches, {} changes: each signed by its device, {missing}",
                HumanCount(*journals),
                HumanCount(*batches),
                HumanCount(*ops)
            );
        }
        LogEnd::Broken { device, name, seq, why } => {
            println!(
                "{workspace}: the journal of {name} ({device}) is broken at change {seq}: {why}"
            );
        }
    }
    if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(out: &mut impl Write, line: &LogLine, json: bool) -> std::io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(line)?);
    }
    writeln!(out, "{}", told(line))
}

/// A line for a person: when, who, what, to what.
pub fn told(line: &LogLine) -> String {
    let when = utc(line.unix_us);
    let plain = |path: &String| path.escape_debug().to_string();
    let from = line.from.as_ref().map(|from| format!("from {}", plain(from)));
    let detail = Some(line.detail.clone()).filter(|detail| !detail.is_empty());
    let void = line.void.then(|| "(does not count: it was not allowed)".to_owned());
    let what: Vec<String> =
        line.path.as_ref().map(plain).into_iter().chain(from).chain(detail).chain(void).collect();
    format!("{when}  {:12}  {:9}  {}", line.name, line.action, what.join("  "))
}

/// A moment, given in microseconds since 1970.
pub fn utc(unix_us: u64) -> String {
    let micros = i64::try_from(unix_us).unwrap_or(i64::MAX);
    let moment = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
    moment.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A time, or how long ago, in microseconds since 1970.
pub fn since(text: &str) -> anyhow::Result<u64> {
    let us = if let Ok(ago) = duration(text) {
        Env::real().clock.now().secs * 1_000_000 - i64::try_from(Duration::as_micros(&ago))?
    } else {
        let at: jiff::civil::DateTime = text.parse().with_context(|| {
            format!("--since {text}: give a time as 2026-11-20T09:00, or how long ago, as 2h")
        })?;
        jiff::tz::TimeZone::UTC.to_timestamp(at)?.as_microsecond()
    };
    Ok(u64::try_from(us).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str, from: &str) -> LogLine {
        LogLine {
            unix_us: 5,
            device: "ab12".to_owned(),
            name: "ada".to_owned(),
            seq: 1,
            action: "move",
            path: Some(path.to_owned()),
            from: Some(from.to_owned()).filter(|from| !from.is_empty()),
            detail: String::new(),
            version: None,
            interim: false,
            file: None,
            void: false,
        }
    }

    #[test]
    fn a_path_takes_itself_and_what_is_below_but_no_name_that_begins_alike() {
        let filter = Filter { path: Some("docs".into()), device: Some("ab".into()), since_us: 5 };
        assert!(filter.takes(&line("docs", "")) && filter.takes(&line("docs/a", "")));
        assert!(filter.takes(&line("papers", "docs")));
        assert!(!filter.takes(&line("docs2", "")) && !filter.takes(&line("a/docs", "")));
        let other = Filter { device: Some("bob".into()), ..filter };
        assert!(!other.takes(&line("docs", "")));
    }

    #[test]
    fn times_are_told_as_dates_or_as_how_long_ago() {
        assert_eq!(since("1970-01-01T00:00:05").expect("a time"), 5_000_000);
        assert_eq!(since("1970-01-02").expect("a day"), 86_400_000_000);
        assert!(since("2h").expect("ago") > since("2026-01-01").expect("a day"));
        assert!(since("yesterday").is_err());
    }
}
