//! What this device may do, shown to the kernel: while it may only read, its mount is read-only.
//!
//! The filesystem itself refuses every change of a reader, so this is for programs that ask before
//! they try (`access(2)`, `statvfs(2)`). Only root may change a mount's flags; for others the refusal
//! alone must do.

use std::path::Path;
use std::sync::Arc;

use rustix::fs::StatVfsMountFlags;
use rustix::mount::MountFlags;
use tidefs::engine::sync::Replica as _;
use tidefs::fs::{Filesystem, why_read_only};
use tidefs::types::Standing;

/// Follows what the device may do, as long as the process lives. The mount is on `dir`.
///
/// # Errors
/// The system's, if it gives no thread.
pub fn follow(fs: &Filesystem, dir: &Path) -> std::io::Result<()> {
    let (replica, device) = (Arc::clone(fs.replica()), fs.replica().device());
    let published = Arc::clone(replica.published());
    let (dir, first) = (dir.to_owned(), published.role(&device));
    #[expect(
        clippy::disallowed_methods,
        reason = "waits for another role, in a thread of its own"
    )]
    std::thread::Builder::new().name("role".into()).spawn(move || {
        let mut role = first;
        // Asks the mount, which is served by now or soon.
        show(&dir, replica.standing());
        loop {
            role = published.wait_for_other_role(&device, role);
            show(&dir, replica.standing());
        }
    })?;
    Ok(())
}

fn show(dir: &Path, standing: Standing) {
    let may_write = standing.may_write();
    if !may_write {
        tracing::info!("changes are refused: {}", why_read_only(standing));
    }
    if let Err(error) = set_read_only(dir, !may_write) {
        tracing::debug!("the flags of {} stay as they are: {error}", dir.display());
    }
}

/// Changes one flag of the mount, which takes naming all of them (`mount(2)`).
fn set_read_only(dir: &Path, read_only: bool) -> rustix::io::Result<()> {
    let now = rustix::fs::statvfs(dir)?.f_flag;
    if now.contains(StatVfsMountFlags::RDONLY) == read_only {
        return Ok(());
    }
    let flags = [
        (MountFlags::RDONLY, read_only),
        (MountFlags::NOSUID, now.contains(StatVfsMountFlags::NOSUID)),
        (MountFlags::NODEV, now.contains(StatVfsMountFlags::NODEV)),
        (MountFlags::NOEXEC, now.contains(StatVfsMountFlags::NOEXEC)),
        (MountFlags::NOATIME, now.contains(StatVfsMountFlags::NOATIME)),
        (MountFlags::NODIRATIME, now.contains(StatVfsMountFlags::NODIRATIME)),
        (MountFlags::RELATIME, now.contains(StatVfsMountFlags::RELATIME)),
    ];
    let flags: MountFlags =
        flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag).collect();
    rustix::mount::mount_remount(dir, flags | MountFlags::BIND, c"")
}
