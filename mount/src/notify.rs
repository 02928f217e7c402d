//! Telling the kernel what other devices changed.
//!
//! From a thread of its own, which holds nothing and answers no request: the kernel takes a
//! directory's lock for it, and whoever holds that may be waiting for us (Linux,
//! `fs/fuse/dir.c`, `fuse_reverse_inval_entry`).

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::{INodeNo, Notifier};
use parking_lot::{Condvar, Mutex};
use tidefs::fs::{Filesystem, Notice};
use tidefs::types::Ino;

/// What the kernel is still to hear: of each name and inode once, so no more than the workspace has.
/// The commit thread cannot wait for it to shrink: what holds the kernel up may be waiting for a
/// commit.
#[derive(Default)]
struct Queue {
    waiting: Mutex<HashSet<Notice>>,
    wake: Condvar,
}

/// Tells the kernel, through `notifier`, what `fs` hears from other devices, as long as the process
/// lives.
///
/// # Errors
/// The system's, if it gives no thread.
pub fn start(fs: &Filesystem, notifier: Notifier) -> std::io::Result<()> {
    let queue = Arc::new(Queue::default());
    let filling = Arc::clone(&queue);
    fs.set_watcher(Box::new(move |notices| {
        filling.waiting.lock().extend(notices.iter().cloned());
        filling.wake.notify_one();
    }));
    #[expect(clippy::disallowed_methods, reason = "the kernel is told from a thread of its own")]
    std::thread::Builder::new().name("notify".into()).spawn(move || {
        loop {
            let notices = {
                let mut waiting = queue.waiting.lock();
                while waiting.is_empty() {
                    queue.wake.wait(&mut waiting);
                }
                std::mem::take(&mut *waiting)
            };
            for notice in notices {
                // What the kernel does not know it need not forget: ENOENT.
                let _unknown = tell(&notifier, &notice);
            }
        }
    })?;
    Ok(())
}

fn tell(notifier: &Notifier, notice: &Notice) -> std::io::Result<()> {
    let number = |ino: &Ino| INodeNo(ino.0);
    match notice {
        Notice::Name(parent, name) => {
            notifier.inval_entry(number(parent), OsStr::from_bytes(name.as_bytes()))
        }
        // A negative offset: attributes alone.
        Notice::Attributes(ino) => notifier.inval_inode(number(ino), -1, 0),
        Notice::Listing(ino) => notifier.inval_inode(number(ino), 0, 0),
    }
}
