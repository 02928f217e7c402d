//! What the commit thread tells other threads: how far each journal is here, and who is a member.

use std::collections::BTreeMap;

use parking_lot::{Condvar, Mutex};

use crate::types::{DeviceId, Role};

/// Kept up to date by the commit thread; read by any.
#[derive(Default)]
pub struct Published {
    now: Mutex<Now>,
    changed: Condvar,
    watcher: Mutex<Option<Box<dyn Fn() + Send>>>,
}

#[derive(Clone, Default)]
struct Now {
    frontier: BTreeMap<DeviceId, u64>,
    roles: Vec<(DeviceId, Role)>,
    named: u64,
}

impl Published {
    pub(super) fn set(&self, frontier: BTreeMap<DeviceId, u64>, roles: Vec<(DeviceId, Role)>) {
        let is_new = {
            let mut now = self.now.lock();
            let is_new = now.frontier != frontier;
            (now.frontier, now.roles) = (frontier, roles);
            is_new
        };
        self.changed.notify_all();
        if is_new {
            self.tell();
        }
    }

    /// Chunks that have come name others, which are not here.
    pub(super) fn set_named(&self) {
        self.now.lock().named += 1;
        self.tell();
    }

    fn tell(&self) {
        if let Some(watcher) = &*self.watcher.lock() {
            watcher();
        }
    }

    /// How often chunks that came have named others. A batch that names some is not counted.
    pub fn named(&self) -> u64 {
        self.now.lock().named
    }

    /// Calls `watcher`, which must not wait, whenever a journal has grown durably, and whenever
    /// chunks that came have named others.
    pub fn watch(&self, watcher: Box<dyn Fn() + Send>) {
        *self.watcher.lock() = Some(watcher);
    }

    /// The last op of each journal that is durable here.
    pub fn frontier(&self) -> BTreeMap<DeviceId, u64> {
        self.now.lock().frontier.clone()
    }

    /// The members and their roles, as far as this device has heard.
    pub fn roles(&self) -> Vec<(DeviceId, Role)> {
        self.now.lock().roles.clone()
    }

    /// What a device may do; `None` if it is no member.
    pub fn role(&self, device: &DeviceId) -> Option<Role> {
        self.now.lock().roles.iter().find(|(of, _)| of == device).map(|(_, role)| *role)
    }

    /// Waits until this device is a member, at most `wait`. False if it is not even then.
    pub fn wait_for_role(&self, device: &DeviceId, wait: std::time::Duration) -> bool {
        let mut now = self.now.lock();
        let is_member = |now: &Now| now.roles.iter().any(|(of, _)| of == device);
        self.changed.wait_while_for(&mut now, |now| !is_member(now), wait);
        is_member(&now)
    }
}
