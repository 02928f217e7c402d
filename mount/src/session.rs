//! A mount's life: mounted, served, unmounted.

use std::io;
use std::path::Path;

use fuser::{Config, MountOption, SessionACL, SessionUnmounter};
use tidefs::fs::Filesystem;

use crate::adapter::{Adapter, Switches};

/// How a workspace is mounted.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct MountOptions {
    /// Other users may use the mount.
    pub allow_other: bool,
    /// The kernel refuses every change.
    pub read_only: bool,
    /// What stands in the first column of `/proc/mounts`.
    pub fsname: String,
    /// Further options for the kernel, as `nodev` or `noatime`.
    pub options: Vec<String>,
    /// Let the kernel collect writes (a switch for measurements).
    pub writeback: bool,
    /// Answer OPEN with `ENOSYS` (a switch for measurements).
    pub no_open: bool,
}

/// A workspace that is mounted.
pub struct Session {
    session: fuser::Session<Adapter>,
}

/// Unmounts from another thread.
pub struct Unmounter(SessionUnmounter);

impl Session {
    /// Mounts `fs` on `dir`. When this returns, the kernel and we agree on how to talk.
    ///
    /// # Errors
    /// The system's: no `/dev/fuse`, no permission, an option that the kernel does not know.
    pub fn mount(fs: Filesystem, dir: &Path, options: &MountOptions) -> io::Result<Self> {
        let switches = Switches { writeback: options.writeback, no_open: options.no_open };
        let adapter = Adapter::new(fs, switches)?;
        let mut config = Config::default();
        config.n_threads = Some(1);
        config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.mount_options = vec![
            MountOption::DefaultPermissions,
            MountOption::FSName(options.fsname.clone()),
            // Tells fusermount3; mount(2) is told `fuse` alone, which xfstests' `FSTYP=fuse` wants.
            MountOption::Subtype("tidefs".into()),
        ];
        if options.read_only {
            config.mount_options.push(MountOption::RO);
        }
        config.mount_options.extend(options.options.iter().map(|option| kernel_option(option)));
        Ok(Self { session: fuser::Session::new(adapter, dir, &config)? })
    }

    /// For another thread, to end the session.
    pub fn unmounter(&mut self) -> Unmounter {
        Unmounter(self.session.unmount_callable())
    }

    /// Tells the kernel what other devices change, from now on.
    ///
    /// # Errors
    /// The system's, if it gives no thread.
    pub fn watch(&self, fs: &Filesystem) -> io::Result<()> {
        crate::notify::start(fs, self.session.notifier())
    }

    /// Serves until somebody unmounts. Every request that was taken is then answered; the
    /// filesystem is still open.
    ///
    /// # Errors
    /// The system's, if the connection to the kernel breaks.
    pub fn wait(self) -> io::Result<()> {
        self.session.run()
    }
}

impl Unmounter {
    /// Unmounts.
    ///
    /// # Errors
    /// `EBUSY` while a program uses the mount.
    pub fn unmount(&mut self) -> io::Result<()> {
        self.0.unmount()
    }
}

fn kernel_option(option: &str) -> MountOption {
    match option {
        "dev" => MountOption::Dev,
        "nodev" => MountOption::NoDev,
        "suid" => MountOption::Suid,
        "nosuid" => MountOption::NoSuid,
        "exec" => MountOption::Exec,
        "noexec" => MountOption::NoExec,
        "atime" => MountOption::Atime,
        "noatime" => MountOption::NoAtime,
        "dirsync" => MountOption::DirSync,
        "sync" => MountOption::Sync,
        "async" => MountOption::Async,
        other => MountOption::CUSTOM(other.into()),
    }
}
