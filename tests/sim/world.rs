//! All devices, what connects them, and what goes wrong: one seed is one schedule.
//!
//! Every call is made from here, in the order of one queue of events; so what happens depends on the
//! seed alone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tidefs::engine::sync::Replica;
use tidefs::fs::Filesystem;
use tidefs::sync::{Input, Machine, RequestId, Tuning};
use tidefs::types::{DeviceId, Frontier, Ino};

use super::device::{Calls, Device, Listing, agree};
use super::faults::{Fault, Faults};
use super::network::{Event, Link};
use super::trace::Trace;

/// Users work, and things go wrong, until then.
pub const WORK_MS: u64 = 20_000;
/// All must be well at the latest then: a clock that was ahead has to be caught up with.
const PATIENCE_MS: u64 = 3_600_000;
/// A commit that found the disk full is tried again after this time, as by the commit thread.
const FULL_RETRY_MS: u64 = 500;

/// What happened in a run, and how it ended.
pub struct Outcome {
    pub digest: blake3::Hash,
    pub stats: Stats,
}

/// How often each thing happened.
#[derive(Clone, Debug, Default)]
pub struct Stats(pub BTreeMap<&'static str, u64>);

impl Stats {
    pub fn add(&mut self, what: &'static str, by: u64) {
        *self.0.entry(what).or_default() += by;
    }
}

/// What a sync has returned for.
pub struct Acknowledged {
    pub device: usize,
    pub at_ms: u64,
    pub path: String,
    pub bytes: blake3::Hash,
}

/// From a start to a crash.
pub struct Life {
    pub fs: Filesystem,
    pub machine: Machine,
    pub wake_ms: u64,
    /// Requests that have not ended, with their connections.
    pub pending: BTreeMap<RequestId, u64>,
    /// Files left open.
    pub open: Vec<(String, Ino)>,
    pub turn_is_due: bool,
    /// What [`Replica::named`] was when the machine last heard.
    pub named: u64,
    /// Before a crash: what the tree was after each step since the last that is known to be
    /// durable.
    pub watched: Option<Vec<Listing>>,
}

/// A device, running or not.
pub struct Place {
    pub device: Device,
    pub id: DeviceId,
    pub life: Option<Life>,
    pub lives: u32,
    /// How far each journal was said to be durable here.
    told: Frontier,
    /// One of these is to be there at the next start.
    pub expected: Option<Vec<Listing>>,
    pub is_full: bool,
}

pub struct World {
    pub now_ms: u64,
    pub random: SmallRng,
    pub places: Vec<Place>,
    pub links: BTreeMap<u64, Link>,
    pub blocked: BTreeSet<(usize, usize)>,
    pub trace: Trace,
    pub stats: Stats,
    pub is_healed: bool,
    pub faults: Faults,
    events: BTreeMap<(u64, u64), (usize, u32, Event)>,
    pub count: u64,
    pub steps: u64,
    pub acknowledged: Vec<Acknowledged>,
}

/// Are joiners filled from snapshots too? Asked for by `FILL=1`: what a filled device has on its disk is
/// not yet the same to the sector each time, so a seed that tears it may go on differently.
pub fn fills() -> bool {
    std::env::var_os("FILL").is_some()
}

/// How joiners begin: not filled, cut from power while they are, filled.
const FILLINGS: [&str; 3] = ["not filled", "cut while filled", "filled from a snapshot"];

/// Directories are machines' names to SQLite: none is used twice in a process.
static WORLDS: AtomicU64 = AtomicU64::new(0);

/// Runs a seed to its end.
///
/// # Panics
/// If a promise is broken; `trace` then has what happened before.
pub fn run(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.live()));
    if let Err(panic) = result {
        eprintln!("SEED={seed}: what happened last:\n{}", world.trace.end());
        // What is left of it may be in no state to be closed.
        std::mem::forget(world);
        std::panic::resume_unwind(panic);
    }
    Outcome { digest: world.trace.digest(), stats: world.stats }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let dir = |n: usize| PathBuf::from(format!("/simulated/{number}/{n}"));
        let count = [2, 2, 3, 3, 4][random.random_range(0..5)];
        let mut world = Self {
            now_ms: 0,
            faults: Faults::draw(&mut random),
            random,
            places: Vec::new(),
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            trace: Trace::new(),
            stats: Stats::default(),
            is_healed: false,
            events: BTreeMap::new(),
            count: 0,
            steps: 0,
            acknowledged: Vec::new(),
        };
        world.add(Device::found(dir(0), seed));
        world.alone();
        // Of its own, so that the rest of a seed does not depend on it.
        let mut drawn = SmallRng::seed_from_u64(seed ^ 0x66_69_6c_6c);
        for n in 1..count {
            let founder = &world.places[0];
            let fs = &founder.life.as_ref().expect("it runs").fs;
            let mut joiner = Device::join(dir(n), seed ^ (n as u64) << 32, &founder.device, fs);
            // Some hear the journals, some are filled from a snapshot, at once or after being cut.
            let ways = [[0, 0], [9, 0], [1, 0], [1, 9]];
            let way = if fills() { ways[drawn.random_range(0..4)] } else { ways[0] };
            for parts_max in way {
                joiner.fill(fs, parts_max, &mut drawn);
                world.stats.add(FILLINGS[parts_max.min(2)], 1);
            }
            world.add(joiner);
        }
        for n in 0..world.places.len() {
            world.refresh(n);
            world.work_later(n);
        }
        world.plan();
        world
    }

    fn add(&mut self, device: Device) {
        let fs = device.open();
        let id = fs.replica().device();
        let told = Frontier::new();
        let place =
            Place { device, id, life: None, lives: 0, told, expected: None, is_full: false };
        self.places.push(place);
        self.begin(self.places.len() - 1, fs);
    }

    fn live(&mut self) {
        while let Some(((at_ms, _), (n, life, event))) = self.events.pop_first() {
            self.now_ms = at_ms.max(self.now_ms);
            let place = &self.places[n];
            if event.is_of_a_life() && (place.life.is_none() || place.lives != life) {
                continue;
            }
            place.device.set_time(self.now_ms);
            self.event(n, event);
            if self.is_healed && self.count.is_multiple_of(16) && self.is_done() {
                break;
            }
            let is_patient = self.now_ms < WORK_MS + PATIENCE_MS;
            assert!(is_patient, "not in step long after healing: {}", self.progress());
        }
        assert!(
            self.is_done(),
            "nothing more happens, and they are not in step: {}",
            self.progress()
        );
        self.end();
    }

    pub fn at(&mut self, at_ms: u64, n: usize, event: Event) {
        self.count += 1;
        let life = self.places[n].lives;
        self.events.insert((at_ms, self.count), (n, life, event));
    }

    /// In a moment.
    pub fn soon(&mut self, n: usize, event: Event) {
        let at_ms = self.now_ms + self.random.random_range(0..8);
        self.at(at_ms, n, event);
    }

    pub fn life(&mut self, n: usize) -> &mut Life {
        self.places[n].life.as_mut().expect("it runs")
    }

    pub fn is_alive(&self, n: usize) -> bool {
        self.places[n].life.is_some()
    }

    pub fn is_full(&self, n: usize) -> bool {
        self.places[n].is_full
    }

    /// May this go wrong now?
    pub fn may(&self, fault: Fault) -> bool {
        !self.is_healed && self.faults.may.contains(&fault)
    }

    pub fn tell(&mut self, n: usize, what: impl FnOnce() -> String) {
        let line = format!("{:>7} {n} {}", self.now_ms, what());
        self.trace.tell(line);
    }

    fn event(&mut self, n: usize, event: Event) {
        match event {
            Event::Work => self.work(n),
            Event::Turn => self.turn(n),
            Event::Doom => self.doom(n),
            Event::Die(death) => self.die(n, death),
            Event::Start => self.start(n),
            Event::Part(b) => self.part(n, b),
            Event::Rejoin(b) => {
                self.blocked.remove(&(n.min(b), n.max(b)));
                self.tell(n, || format!("reaches {b} again"));
            }
            Event::Fill => self.fill(n),
            Event::Room => self.make_room(n),
            Event::Skew => self.skew(n),
            Event::Heal => self.heal(),
            other => self.network(n, other),
        }
    }

    /// The workspace is open: the device lives.
    fn begin(&mut self, n: usize, fs: Filesystem) {
        let tuning = Tuning {
            device: self.places[n].id,
            seed: self.random.random(),
            ops_max: 3,
            request_chunks_max: 4,
            dial_unknown: true,
        };
        self.places[n].life = Some(Life {
            fs,
            machine: Machine::new(&tuning),
            wake_ms: u64::MAX,
            pending: BTreeMap::new(),
            open: Vec::new(),
            turn_is_due: false,
            named: 0,
            watched: None,
        });
        self.turn_later(n);
        self.recall_later(n);
    }

    fn start(&mut self, n: usize) {
        if self.is_alive(n) {
            return;
        }
        let place = &mut self.places[n];
        place.device.power_on();
        let fs = place.device.open();
        let frontier = fs.replica().frontier();
        for (journal, seq) in &place.told {
            let here = frontier.get(journal).copied().unwrap_or(0);
            assert!(here >= *seq, "of {journal}, {seq} ops were durable, {here} are there");
        }
        if let Some(expected) = place.expected.take() {
            let found = Calls(&fs).listing();
            let is_known = expected.iter().any(|listing| agree(listing, &found));
            let last = expected.last().expect("at least one");
            assert!(is_known, "after a crash, {}", differences(n, &found, last));
            self.stats.add("trees after a crash", 1);
        }
        self.skew(n);
        self.tell(n, || "starts".into());
        self.begin(n, fs);
        self.refresh(n);
        self.work_later(n);
    }

    /// The commit thread would be at work within this time.
    pub fn turn_later(&mut self, n: usize) {
        let at_ms = self.now_ms + [4, 4, 100, 1000][self.random.random_range(0..4)];
        if !std::mem::replace(&mut self.life(n).turn_is_due, true) {
            self.at(at_ms, n, Event::Turn);
        }
    }

    pub fn turn(&mut self, n: usize) {
        self.note(n);
        self.life(n).turn_is_due = false;
        self.life(n).fs.turn();
        if self.has_died(n, false) {
            return;
        }
        self.note(n);
        self.tell(n, || "commits".into());
        self.refresh(n);
        if self.places[n].is_full {
            self.life(n).turn_is_due = true;
            self.at(self.now_ms + FULL_RETRY_MS, n, Event::Turn);
        }
    }

    /// Tells the machine how far the journals are, and who is a member.
    pub fn refresh(&mut self, n: usize) {
        let replica = self.life(n).fs.replica().clone();
        let named = replica.named();
        let frontier = replica.frontier();
        for (journal, seq) in &frontier {
            let told = self.places[n].told.entry(*journal).or_default();
            *told = (*told).max(*seq);
        }
        let mut members = replica.members();
        // A visitor can be dialled by nobody.
        members.retain(|member| self.places.iter().any(|place| place.id == *member));
        members.sort_unstable();
        self.input(n, Input::Members(members));
        self.input(n, Input::LocalFrontier(frontier));
        if std::mem::replace(&mut self.life(n).named, named) != named {
            self.input(n, Input::Named);
        }
    }

    /// Notes the tree, if a crash is near.
    pub fn note(&mut self, n: usize) {
        let life = self.life(n);
        if let Some(watched) = &mut life.watched {
            let listing = Calls(&life.fs).listing();
            if watched.last() != Some(&listing) {
                watched.push(listing);
            }
        }
    }

    /// What was noted last is durable.
    pub fn note_durable(&mut self, n: usize) {
        if let Some(watched) = &mut self.life(n).watched {
            watched.drain(..watched.len() - 1);
        }
        self.note(n);
    }

    /// Does every device have all that any has, and is none about to go down?
    fn is_done(&self) -> bool {
        let lives = self.places.iter().map(|place| place.life.as_ref());
        let Some(lives) = lives.collect::<Option<Vec<&Life>>>() else { return false };
        let first = lives[0].fs.replica().frontier();
        lives.iter().all(|life| {
            let replica = life.fs.replica();
            !life.turn_is_due
                && life.watched.is_none()
                && replica.frontier() == first
                && replica.gaps().is_empty()
                && replica.missing_chunks(1, &HashSet::new()).is_empty()
                && replica.missing_later_ms().is_none()
        })
    }

    /// How far each device is.
    fn progress(&self) -> String {
        let mut text = String::new();
        for (n, place) in self.places.iter().enumerate() {
            let Some(life) = &place.life else {
                let _ = write!(text, "\n{n} is down");
                continue;
            };
            let replica = life.fs.replica();
            let frontier = replica.frontier();
            let last = |place: &Place| frontier.get(&place.id).copied().unwrap_or(0);
            let seqs: Vec<u64> = self.places.iter().map(last).collect();
            let missing = replica.missing_chunks(9, &HashSet::new()).len();
            let due = life.turn_is_due;
            let _ = write!(text, "\n{n} has {seqs:?}, lacks {missing} chunks, turn due: {due}");
        }
        text
    }

    /// All must be the same now, whole, and nothing gone.
    fn end(&mut self) {
        let now_ms = self.now_ms;
        let lives: Vec<Life> =
            self.places.iter_mut().map(|place| place.life.take().expect("it runs")).collect();
        let listings: Vec<Listing> = lives.iter().map(|life| Calls(&life.fs).listing()).collect();
        for (n, listing) in listings.iter().enumerate() {
            for (path, found) in listing {
                let is_file = found.what.starts_with("Regular");
                assert!(!is_file || found.bytes.is_some(), "{path} is not whole on {n}");
            }
            assert!(*listing == listings[0], "{}", differences(n, listing, &listings[0]));
        }
        for (path, found) in &listings[0] {
            self.trace.tell(format!("{path}: {found:?}"));
        }
        for (journal, seq) in lives[0].fs.replica().frontier() {
            self.trace.tell(format!("{journal}: {seq}"));
        }
        for (n, life) in lives.into_iter().enumerate() {
            life.fs.close().expect("closes");
            drop(life);
            super::oracle::check(&self.places[n].device, n, &self.acknowledged);
        }
        self.stats.add("virtual seconds", now_ms / 1000);
        self.stats.add("files at the end", listings[0].len() as u64);
    }
}

/// What a device shows otherwise than it should.
fn differences(n: usize, found: &Listing, expected: &Listing) -> String {
    let paths: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let mut text = format!("device {n} shows another tree:\n");
    for path in paths {
        let (found, expected) = (found.get(path), expected.get(path));
        if found != expected {
            let _ = write!(text, "{path}\n  found {found:?}\n  expected {expected:?}\n");
        }
    }
    text
}
