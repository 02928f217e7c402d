//! Whether the workspace is still being filled from a snapshot, and waiting for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::store::Store;
use crate::types::Ino;

/// How far it is. Told by the commit thread; asked by any.
#[derive(Default)]
pub struct Loading {
    /// Most ask when there is nothing to wait for.
    is_coming: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Grows with each page.
    pages: u64,
    /// Why no more will come.
    broken: Option<String>,
}

impl Loading {
    /// Is something still to come?
    pub fn is_coming(&self) -> bool {
        self.is_coming.load(Ordering::Acquire)
    }

    pub(super) fn begin(&self) {
        self.is_coming.store(true, Ordering::Release);
    }

    pub(super) fn page_came(&self) {
        self.state.lock().pages += 1;
        self.changed.notify_all();
    }

    pub(super) fn end(&self) {
        self.is_coming.store(false, Ordering::Release);
        self.page_came();
    }

    /// Nothing more will come until the workspace is opened anew: who waits hears why.
    pub fn give_up(&self, why: &str) {
        self.state.lock().broken.get_or_insert_with(|| why.to_owned());
        self.changed.notify_all();
    }

    /// Waits until all names of a directory are in the store.
    ///
    /// # Errors
    /// Why they are not, once `within` is over or no more will come.
    pub fn wait_for_listing(
        &self,
        store: &Store,
        dir: Ino,
        within: Duration,
    ) -> Result<(), String> {
        let is_here = || store.is_unlisted(dir).map(|is_unlisted| !is_unlisted);
        self.wait(within, || Ok(!self.is_coming() || is_here().map_err(|e| e.to_string())?))
    }

    /// Waits until everything is in the store.
    ///
    /// # Errors
    /// As [`Loading::wait_for_listing`].
    pub fn wait_until_whole(&self, within: Duration) -> Result<(), String> {
        self.wait(within, || Ok(!self.is_coming()))
    }

    fn wait(
        &self,
        within: Duration,
        is_done: impl Fn() -> Result<bool, String>,
    ) -> Result<(), String> {
        let until = Instant::now() + within;
        loop {
            let seen = self.state.lock().pages;
            if is_done()? {
                return Ok(());
            }
            let mut state = self.state.lock();
            if let Some(why) = &state.broken {
                return Err(format!("the workspace has not come whole: {why}; mount it again"));
            }
            if state.pages == seen && self.changed.wait_until(&mut state, until).timed_out() {
                return Err("the workspace is still coming from the other device".into());
            }
        }
    }
}
