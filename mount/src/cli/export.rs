//! `tidefs export`: a workspace's files as plain ones, without a mount.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use tidefs::engine::Progress;
use tidefs::fs::{Attr, DirEntry, Filesystem, Options, Seek, Wait};
use tidefs::types::{Ino, Kind};

use super::report::{bar, show};
use super::state::StateDir;

const READ_BYTES: u32 = 1 << 20;

/// `tidefs export`'s arguments.
#[derive(Args)]
pub struct ExportArgs {
    /// Where to: an empty directory, made if it is not there
    dir: PathBuf,
    /// Which workspace [default: the only one]
    #[arg(long, value_name = "NAME")]
    workspace: Option<PathBuf>,
}

struct Export<'a> {
    fs: Filesystem,
    bar: &'a ProgressBar,
    total: u64,
    files: u64,
    bytes: u64,
    /// Files of several names, by the first name that was written.
    linked: HashMap<Ino, PathBuf>,
    skipped: Vec<PathBuf>,
}

/// Exports one workspace.
pub fn run(args: &ExportArgs, state: &StateDir) -> anyhow::Result<ExitCode> {
    let name = state.find(args.workspace.as_deref())?;
    let to = std::path::absolute(&args.dir)?;
    std::fs::create_dir_all(&to).with_context(|| format!("making {}", to.display()))?;
    let is_empty = std::fs::read_dir(&to)?.next().is_none();
    ensure!(is_empty, "{} is not empty; export into an empty directory", to.display());
    let options = Options { read_only: true, ..Options::default() };
    let fs = Filesystem::open(&state.workspace(&name)?, &options)?;
    let bar = bar();
    let total = fs.statfs()?.files;
    let mut export = Export {
        fs,
        bar: &bar,
        total,
        files: 0,
        bytes: 0,
        linked: HashMap::new(),
        skipped: Vec::new(),
    };
    let root = export.fs.lookup(Ino::ROOT, b".", Wait::May)?;
    export.directory(&root, &to)?;
    export.fs.close()?;
    bar.finish_and_clear();
    for path in &export.skipped {
        eprintln!("tidefs: {} was left out: not permitted to make it", path.display());
    }
    let (files, bytes) = (HumanCount(export.files), HumanBytes(export.bytes));
    println!("{name}: {files} files, {bytes} exported to {}", to.display());
    Ok(ExitCode::SUCCESS)
}

impl Export<'_> {
    /// Writes what is in a directory, then the directory's own attributes.
    fn directory(&mut self, attr: &Attr, to: &Path) -> anyhow::Result<()> {
        let mut offset = 0;
        loop {
            let rows = self.page(attr.ino, offset)?;
            let Some(last) = rows.last() else { break };
            offset = last.next_offset;
            for row in rows.iter().filter(|row| !matches!(row.name.as_slice(), b"." | b"..")) {
                let path = to.join(OsStr::from_bytes(&row.name));
                let child = self.fs.lookup(attr.ino, &row.name, Wait::May)?;
                self.node(&child, &path).with_context(|| format!("{}", path.display()))?;
                self.fs.forget(child.ino, 1);
                self.files += 1;
                let (done, total) = (self.files, self.total);
                show(self.bar, Progress { what: "files", done, total });
            }
        }
        self.attributes(attr, to)
    }

    fn page(&self, dir: Ino, offset: u64) -> anyhow::Result<Vec<DirEntry>> {
        let mut rows = Vec::new();
        self.fs.readdir(dir, offset, false, Wait::May, &mut |row| {
            rows.push(row);
            false
        })?;
        Ok(rows)
    }

    fn node(&mut self, attr: &Attr, to: &Path) -> anyhow::Result<()> {
        if attr.nlink > 1 && attr.kind != Kind::Directory {
            if let Some(first) = self.linked.get(&attr.ino) {
                return Ok(std::fs::hard_link(first, to)?);
            }
            self.linked.insert(attr.ino, to.to_owned());
        }
        let special = |kind, number| rustix::fs::mknodat(CWD, to, kind, Mode::RUSR, number);
        let made = match &attr.kind {
            Kind::Directory => {
                std::fs::create_dir(to)?;
                return self.directory(attr, to);
            }
            Kind::Regular => {
                self.content(attr, to)?;
                Ok(())
            }
            Kind::Symlink(target) => rustix::fs::symlink(target.as_slice(), to),
            Kind::Fifo => special(FileType::Fifo, 0),
            Kind::Socket => special(FileType::Socket, 0),
            Kind::CharDevice(number) => special(FileType::CharacterDevice, (*number).into()),
            Kind::BlockDevice(number) => special(FileType::BlockDevice, (*number).into()),
        };
        match made {
            Ok(()) => self.attributes(attr, to),
            Err(rustix::io::Errno::PERM) => {
                self.skipped.push(to.to_owned());
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the data and leaves the holes.
    fn content(&mut self, attr: &Attr, to: &Path) -> anyhow::Result<()> {
        let file = File::create_new(to)?;
        file.set_len(attr.size_bytes)?;
        let mut at = 0;
        while at < attr.size_bytes {
            let Ok(start) = self.fs.seek(attr.ino, Seek::Data, at, Wait::May) else { break };
            let end = self.fs.seek(attr.ino, Seek::Hole, start, Wait::May)?;
            at = start;
            while at < end {
                let len = u64::from(READ_BYTES).min(end - at);
                let len = u32::try_from(len).expect("at most what is read at once");
                let bytes = self.fs.read(attr.ino, at, len, Wait::May)?;
                ensure!(!bytes.is_empty(), "the content ends at byte {at}");
                file.write_all_at(&bytes, at)?;
                at += bytes.len() as u64;
                self.bytes += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Owner (if we may), extended attributes (where they are taken), mode, times: in this order,
    /// since each may undo a later one.
    fn attributes(&self, attr: &Attr, to: &Path) -> anyhow::Result<()> {
        let owner = (Some(Uid::from_raw(attr.uid)), Some(Gid::from_raw(attr.gid)));
        let chown = rustix::fs::chownat(CWD, to, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW);
        if chown.is_err() && rustix::process::geteuid().is_root() {
            chown?;
        }
        for name in self.fs.listxattr(attr.ino, Wait::May)? {
            let value = self.fs.getxattr(attr.ino, &name, Wait::May)?;
            // The other filesystem may not take it: a copy without it is better than none.
            let _ = rustix::fs::lsetxattr(to, name.as_slice(), &value, XattrFlags::empty());
        }
        if !matches!(attr.kind, Kind::Symlink(_)) {
            rustix::fs::chmod(to, Mode::from_raw_mode(attr.mode))?;
        }
        let spec = |time: tidefs::types::Timestamp| Timespec {
            tv_sec: time.secs,
            tv_nsec: time.nanos.into(),
        };
        let times =
            Timestamps { last_access: spec(attr.atime), last_modification: spec(attr.mtime) };
        rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}
