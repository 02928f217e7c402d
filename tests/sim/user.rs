//! The users: one on each device, who does one thing after the other, and notes what was promised.

use std::collections::HashSet;

use rand::RngExt;
use tidefs::engine::sync::Replica;
use tidefs::fs::{FsError, FsResult, RenameMode, Wait};
use tidefs::keys::DeviceKey;
use tidefs::types::{Ino, Role};

use super::device::{Calls, How};
use super::network::Event;
use super::work::{Step, draw};
use super::world::{Acknowledged, Life, World};

/// How often the first device says something of members, in steps of all.
const VISIT_STEPS: u64 = 23;

impl World {
    pub fn work_later(&mut self, n: usize) {
        let in_ms = match self.random.random_range(0..4) {
            0 => self.random.random_range(0..5),
            1 => self.random.random_range(0..200),
            _ => self.random.random_range(0..2000),
        };
        if !self.is_healed {
            self.at(self.now_ms + in_ms, n, Event::Work);
        }
    }

    /// Syncs, as `fsync` does; false if the disk is full, or the power failed.
    pub fn sync(&mut self, n: usize, file: Option<Ino>) -> bool {
        self.note(n);
        let result = self.life(n).fs.sync_now(file);
        if self.places[n].device.disk.is_off() {
            return false;
        }
        match &result {
            Ok(()) => self.note_durable(n),
            Err(FsError::NoSpace { .. }) if self.places[n].is_full => {
                self.stats.add("syncs that found the disk full", 1);
            }
            Err(error) => panic!("a sync fails: {error}"),
        }
        self.refresh(n);
        result.is_ok()
    }

    /// Syncs a file, and notes what was promised by that.
    fn sync_file(&mut self, n: usize, path: &str, ino: Ino) {
        if !self.sync(n, Some(ino)) {
            return;
        }
        let calls = Calls(&self.places[n].life.as_ref().expect("it runs").fs);
        let attr = calls.0.getattr(ino, Wait::May).expect("it is open");
        if attr.nlink > 0
            && attr.size_bytes > 0
            && let Ok(bytes) = calls.read(ino)
        {
            let bytes = blake3::hash(&bytes);
            let at_ms = self.now_ms;
            self.acknowledged.push(Acknowledged { device: n, at_ms, path: path.into(), bytes });
            self.stats.add("syncs of a file", 1);
        }
    }

    pub fn work(&mut self, n: usize) {
        if self.is_healed {
            return;
        }
        let own = self.places[n].id;
        if self.life(n).fs.replica().published().role(&own).is_none() {
            // As a mount does: before its first contact, a device changes nothing.
            return self.work_later(n);
        }
        if n == 0 && self.steps.is_multiple_of(VISIT_STEPS) && !self.visit() {
            return;
        }
        if self.step(n) {
            self.turn_later(n);
            self.work_later(n);
        }
    }

    /// The first device admits one that never speaks, or revokes it: each Cut has the tree folded anew
    /// and begins an epoch. False if the power failed meanwhile.
    fn visit(&mut self) -> bool {
        self.steps += 1;
        self.note(0);
        let replica = self.life(0).fs.replica().clone();
        let visitors = (0..u8::MAX).map(|number| DeviceKey::from_seed(&[number; 32]).device());
        let mut visitors = visitors.skip_while(|it| replica.published().revoked(it).is_some());
        let visitor = visitors.next().expect("few come");
        let said = if replica.published().role(&visitor).is_none() {
            replica.set_role(&visitor, Role::Writer)
        } else {
            self.stats.add("revoked", 1);
            replica.revoke(&visitor)
        };
        if self.has_died(0, true) {
            return false;
        }
        assert!(said.is_ok() || self.places[0].is_full, "{said:?}");
        self.tell(0, || format!("says of a visitor: {}", said.is_ok()));
        self.note_durable(0);
        self.refresh(0);
        true
    }

    /// A user does something. False if the power failed meanwhile.
    fn step(&mut self, n: usize) -> bool {
        self.steps += 1;
        let tag = format!("{n}.{};", self.steps);
        let life = self.places[n].life.as_ref().expect("it runs");
        let paths = Calls(&life.fs).paths();
        let step = draw(&mut self.random, &paths, life.open.len(), &tag);
        let result = self.perform(n, &step);
        if self.has_died(n, false) {
            return false;
        }
        self.check(n, &step, &result);
        self.tell(n, || format!("{step:?} -> {:?}", result.as_ref().map_err(ToString::to_string)));
        self.stats.add("steps", 1);
        self.note(n);
        true
    }

    /// Fails if a step failed for a reason that it could not have.
    fn check(&mut self, n: usize, step: &Step, result: &FsResult<()>) {
        match result {
            Err(FsError::Io(_)) => {
                // What a manifest names that has just come is missing once that is read.
                let look = |life: &Life| life.fs.replica().missing_chunks(1, &HashSet::new());
                let mut missing = look(self.life(n));
                if missing.is_empty() {
                    self.life(n).fs.turn();
                    missing = look(self.life(n));
                }
                assert!(!missing.is_empty(), "{step:?}: {result:?}");
            }
            Err(FsError::NoSpace { .. }) => assert!(self.places[n].is_full, "{step:?}: {result:?}"),
            Err(FsError::ReadOnly(_) | FsError::Stale(_) | FsError::WouldBlock) => {
                panic!("{step:?}: {result:?}")
            }
            _ => {}
        }
    }

    fn perform(&mut self, n: usize, step: &Step) -> FsResult<()> {
        let fs = self.life(n).fs.clone();
        let calls = Calls(&fs);
        match step {
            Step::Write { path, how, data, sync, stay } => {
                let ino = calls.open(path)?;
                let result = calls.write(ino, *how, &data.0);
                if result.is_ok() && *sync {
                    self.sync_file(n, path, ino);
                }
                if *stay && result.is_ok() {
                    self.life(n).open.push((path.clone(), ino));
                } else {
                    calls.close(ino);
                }
                result
            }
            Step::Save { path, data } => {
                let beside = format!("{path}~");
                let ino = calls.open(&beside)?;
                let result = calls.write(ino, How::Replace, &data.0);
                self.sync_file(n, &beside, ino);
                calls.close(ino);
                result?;
                calls.rename(&beside, path, RenameMode::Replace)
            }
            Step::WriteOpen { index, how, data, sync } => {
                let (path, ino) = self.life(n).open[*index].clone();
                calls.write(ino, *how, &data.0)?;
                if *sync {
                    self.sync_file(n, &path, ino);
                }
                Ok(())
            }
            Step::Close(index) => {
                let (_, ino) = self.life(n).open.swap_remove(*index);
                calls.close(ino);
                Ok(())
            }
            Step::Mkdir(path) => calls.mkdir(path),
            Step::Rmdir(path) => calls.rmdir(path),
            Step::Unlink(path) => calls.unlink(path),
            Step::Rename(from, to, mode) => calls.rename(from, to, *mode),
            Step::Link(from, to) => calls.link(from, to),
            Step::Symlink(path, target) => calls.symlink(path, target),
            Step::Truncate(path, size_bytes) => calls.truncate(path, *size_bytes),
            Step::Chmod(path, mode) => calls.chmod(path, *mode),
            Step::Xattr(path, value) => calls.setxattr(path, &[*value]),
            Step::Sync => {
                self.sync(n, None);
                Ok(())
            }
        }
    }

    /// The first device's work before there is any other: what it commits then need not be durable.
    pub fn alone(&mut self) {
        for _ in 0..self.random.random_range(0..12) {
            self.now_ms += self.random.random_range(0..1500);
            self.places[0].device.set_time(self.now_ms);
            self.step(0);
            if self.random.random_bool(0.5) {
                self.turn(0);
            }
        }
        self.now_ms = 0;
    }
}
