//! What goes wrong, and when: drawn from the seed before the run.

use rand::RngExt;
use rand::rngs::SmallRng;
use tidefs::types::limits::RESERVE_BYTES;

use super::device::{Calls, Death, Listing};
use super::network::Event;
use super::world::{WORK_MS, World};

const ROOM_BYTES: u64 = 1 << 40;

/// What may go wrong at any time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A connection breaks.
    Cut,
    /// Two devices do not reach each other for a while.
    Part,
    /// A disk is full for a while.
    Full,
    /// A frame is taken in again, late, and turned around.
    Stale,
    /// A chunk comes damaged.
    Damage,
}

/// What goes wrong in a run, drawn from its seed: each run knows only some of it.
pub struct Faults {
    crashes: u64,
    skew_ms: i64,
    pub may: Vec<Fault>,
}

impl Faults {
    pub fn draw(random: &mut SmallRng) -> Self {
        let crashes = random.random_range(0..4);
        let skew_ms = [0, 0, 50, 3_000, 120_000, 900_000][random.random_range(0..6)];
        let odds = [
            (Fault::Cut, 0.6),
            (Fault::Part, 0.5),
            (Fault::Full, 0.3),
            (Fault::Stale, 0.5),
            (Fault::Damage, 0.2),
        ];
        let may = odds.into_iter().filter(|(_, odds)| random.random_bool(*odds));
        let may = may.map(|(fault, _)| fault).collect();
        Self { crashes, skew_ms, may }
    }
}

impl World {
    /// Lays out what will go wrong, and when.
    pub fn plan(&mut self) {
        for _ in 0..self.faults.crashes {
            let (at_ms, n) = self.moment();
            self.at(at_ms, n, Event::Doom);
        }
        if self.may(Fault::Part) {
            for _ in 0..self.random.random_range(1..4) {
                let (at_ms, a) = self.moment();
                let b = (a + self.random.random_range(1..self.places.len())) % self.places.len();
                let for_ms = self.random.random_range(100..WORK_MS / 2);
                self.at(at_ms, a, Event::Part(b));
                self.at(at_ms + for_ms, a, Event::Rejoin(b));
            }
        }
        if self.may(Fault::Full) {
            for _ in 0..self.random.random_range(1..3) {
                let (at_ms, n) = self.moment();
                self.at(at_ms, n, Event::Fill);
            }
        }
        for n in 0..self.places.len() {
            self.skew(n);
            if self.faults.skew_ms > 0 {
                let (at_ms, _) = self.moment();
                self.at(at_ms, n, Event::Skew);
            }
        }
        self.at(WORK_MS, 0, Event::Heal);
    }

    fn moment(&mut self) -> (u64, usize) {
        (self.random.random_range(0..WORK_MS), self.random.random_range(0..self.places.len()))
    }

    /// From now on each step is noted, for this life will end soon.
    pub fn doom(&mut self, n: usize) {
        if self.is_healed || !self.is_alive(n) {
            return;
        }
        let listing = Calls(&self.life(n).fs).listing();
        self.life(n).watched = Some(vec![listing]);
        if !self.sync(n, None) {
            self.life(n).watched = None;
            return;
        }
        let in_ms = self.random.random_range(1..2500);
        let death = match self.random.random_range(0..8) {
            0 => Death::Close,
            1..3 => Death::Kill,
            _ => Death::Power,
        };
        if death == Death::Power && self.random.random_bool(0.8) {
            let disk = &self.places[n].device.disk;
            let call = disk.calls() + self.random.random_range(1..60);
            disk.cut_before(call);
        }
        self.tell(n, || format!("is doomed: {death:?}"));
        self.at(self.now_ms + in_ms, n, Event::Die(death));
    }

    pub fn die(&mut self, n: usize, death: Death) {
        if death == Death::Close {
            self.turn(n);
            if !self.is_alive(n) {
                return;
            }
        }
        self.tell(n, || format!("goes down: {death:?}"));
        self.stats.add(death_name(death), 1);
        // A full disk takes a commit, and keeps it from being merged.
        if self.places[n].is_full && !self.is_simple(n) {
            self.life(n).watched = None;
        }
        let place = &mut self.places[n];
        let life = place.life.take().expect("it runs");
        place.lives += 1;
        place.expected = life.watched;
        let is_closed = place.device.go_down(life.fs, death, &mut self.random);
        assert!(is_closed || place.is_full, "a workspace closes");
        self.unlink_all(n);
        let in_ms = self.random.random_range(20..4000);
        self.at(self.now_ms + in_ms, n, Event::Start);
    }

    /// Has its power failed just now? Then the life is over, and nothing that it was about to say
    /// is said. What its tree is at the next start nobody knows, if it was `merging`.
    pub fn has_died(&mut self, n: usize, merging: bool) -> bool {
        let is_off = self.places[n].device.disk.is_off();
        if is_off {
            if merging || !self.is_simple(n) {
                self.life(n).watched = None;
            }
            self.stats.add("cut in a call", 1);
            self.die(n, Death::Power);
        }
        is_off
    }

    /// Do its own changes show as they did once they are merged? Not for certain where something
    /// stands beside, or a file stays open over a peer's change of it.
    fn is_simple(&mut self, n: usize) -> bool {
        let life = self.life(n);
        let is_plain = |listing: &Listing| !listing.keys().any(|path| path.contains("(conflict"));
        life.open.is_empty()
            && life.watched.as_ref().and_then(|all| all.last()).is_some_and(is_plain)
    }

    pub fn part(&mut self, a: usize, b: usize) {
        if self.is_healed {
            return;
        }
        self.blocked.insert((a.min(b), a.max(b)));
        self.tell(a, || format!("reaches {b} no more"));
        self.stats.add("partitions", 1);
        let between: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_between(a, b))
            .map(|(id, _)| *id)
            .collect();
        for conn in between {
            self.cut(conn);
        }
    }

    pub fn fill(&mut self, n: usize) {
        if self.is_healed {
            return;
        }
        let free_bytes = match self.random.random_range(0..3) {
            0 => RESERVE_BYTES + self.random.random_range(0..100_000),
            _ => self.random.random_range(0..300_000),
        };
        self.places[n].device.disk.set_free_bytes(free_bytes);
        self.places[n].is_full = true;
        self.tell(n, || format!("has {free_bytes} bytes left"));
        self.stats.add("disks filled", 1);
        let for_ms = self.random.random_range(200..4000);
        self.at(self.now_ms + for_ms, n, Event::Room);
    }

    pub fn make_room(&mut self, n: usize) {
        self.places[n].device.disk.set_free_bytes(ROOM_BYTES);
        self.places[n].is_full = false;
        self.tell(n, || "has room".into());
        if self.is_alive(n) {
            self.turn_later(n);
        }
    }

    /// Sets a clock wrong anew.
    pub fn skew(&mut self, n: usize) {
        let most_ms = if self.is_healed { 0 } else { self.faults.skew_ms };
        self.places[n].device.skew_ms = self.random.random_range(-most_ms..=most_ms);
        self.places[n].device.set_time(self.now_ms);
        let skew_ms = self.places[n].device.skew_ms;
        self.tell(n, || format!("is {skew_ms} ms ahead"));
        self.stats.add("clocks set wrong", u64::from(skew_ms != 0));
    }

    pub fn heal(&mut self) {
        self.is_healed = true;
        self.blocked.clear();
        for n in 0..self.places.len() {
            self.make_room(n);
            self.skew(n);
            let Some(life) = &mut self.places[n].life else { continue };
            for (_, ino) in std::mem::take(&mut life.open) {
                Calls(&life.fs).close(ino);
            }
            self.turn_later(n);
        }
        self.tell(0, || "all is healed".into());
    }
}

fn death_name(death: Death) -> &'static str {
    match death {
        Death::Power => "power cuts",
        Death::Kill => "kills",
        Death::Close => "restarts",
    }
}
