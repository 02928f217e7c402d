//! Does the same to the reference and to a subject, and compares.

use std::collections::{HashMap, VecDeque};
use std::fmt::{Debug, Write as _};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::generate::{Abilities, Generator};
use super::step::{At, Gave, Reference, Step, Subject};
use super::words::{Answer, Kind, Path, Stat};

/// The whole tree is compared after this many steps.
const STEPS_PER_LOOK: u32 = 50;
/// So many steps are told when something differs.
const TOLD_STEPS_MAX: usize = 25;

/// One random run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Draws everything.
    pub seed: u64,
    /// How many operations.
    pub steps: u32,
    /// What may be drawn.
    pub abilities: Abilities,
    /// The root's mode, and who makes everything.
    pub root: (u32, (u32, u32)),
    /// A number is never given to another node, even after the first is gone.
    pub inos_are_unique: bool,
}

/// An unsigned number from the environment.
pub fn env_number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is a number")),
        Err(_) => default,
    }
}

/// The seeds to try: `SEED` alone, or `SEEDS` of them from 1.
pub fn seeds(default_count: u64) -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(_) => vec![env_number("SEED", 0)],
        Err(_) => (1..=env_number("SEEDS", default_count)).collect(),
    }
}

/// Runs, and panics with the seed and the last steps where the subject differs. Returns what both
/// ended as: the reference, and what the subject says of each path.
pub fn run(run: &Run, subject: &mut dyn Subject) -> (Reference, Vec<(Path, Stat)>) {
    let rng = SmallRng::seed_from_u64(run.seed);
    let mut compared = Compared {
        reference: Reference::new(run.root.0, run.root.1),
        subject,
        run: run.clone(),
        told: VecDeque::new(),
        count: 0,
        inos: HashMap::new(),
        nodes: HashMap::new(),
    };
    let mut generator = Generator::new(rng, run.abilities);
    println!("SEED={} OPS={} {:?}", run.seed, run.steps, run.abilities);
    for count in 1..=run.steps {
        let step = generator.next(&mut compared.reference);
        compared.count = count;
        compared.step(&step);
        if generator.rng.random_ratio(1, 150) {
            compared.restart();
        } else if count % STEPS_PER_LOOK == 0 {
            compared.look();
        }
    }
    compared.restart();
    let stats = compared.stats().into_iter().map(|(path, gave)| match gave {
        Ok(Gave::Stat(stat)) => (path, stat),
        other => unreachable!("{path:?} was compared just now, and is {other:?}"),
    });
    let stats = stats.collect();
    (compared.reference, stats)
}

struct Compared<'a> {
    reference: Reference,
    subject: &'a mut dyn Subject,
    run: Run,
    told: VecDeque<String>,
    count: u32,
    /// The subject's number of each of the reference's nodes, and back.
    inos: HashMap<u64, u64>,
    nodes: HashMap<u64, u64>,
}

impl Compared<'_> {
    /// Does a step to both, then looks at what it touched.
    fn step(&mut self, step: &Step) {
        self.tell(format!("{step:?}"));
        let gave = self.both(step);
        if let Err(errno) = gave {
            let told = self.told.back_mut().expect("told above");
            let _ = write!(told, " -> {errno:?}");
        }
        let open =
            |at: &At| !matches!(at, At::Slot(slot) if !self.reference.slots.contains_key(slot));
        for at in touched(step).into_iter().filter(open).collect::<Vec<_>>() {
            self.look_at(&at);
        }
    }

    fn tell(&mut self, text: String) {
        if std::env::var_os("TRACE").is_some() {
            eprintln!("{:6} {text}", self.count);
        }
        self.told.push_back(text);
        if self.told.len() > TOLD_STEPS_MAX {
            self.told.pop_front();
        }
    }

    /// Does a step to both and expects the same of both.
    fn both(&mut self, step: &Step) -> Answer<Gave> {
        let expected = self.reference.apply(step);
        let found = self.subject.apply(step);
        let same = match (&expected, &found) {
            (Ok(Gave::Stat(expected)), Ok(Gave::Stat(found))) => self.is_same(expected, found),
            _ => expected == found,
        };
        if !same {
            if let (Ok(Gave::Bytes(expected)), Ok(Gave::Bytes(found))) = (&expected, &found) {
                let mut pairs = expected.iter().zip(found);
                let at = pairs.position(|(expected, found)| expected != found);
                self.tell(format!("the first bytes that differ are at {at:?}"));
            }
            self.fail(step, &expected, &found);
        }
        found
    }

    fn fail(&self, step: &Step, expected: &dyn Debug, found: &dyn Debug) -> ! {
        let mut text = format!("SEED={} differs at step {}\n", self.run.seed, self.count);
        for told in &self.told {
            let _ = writeln!(text, "    {told}");
        }
        let _ = writeln!(text, "asked:    {step:?}\nexpected: {expected:?}\nfound:    {found:?}");
        panic!("{text}");
    }

    fn is_same(&mut self, expected: &Stat, found: &Stat) -> bool {
        let ino = *self.inos.entry(expected.ino).or_insert(found.ino);
        let node = *self.nodes.entry(found.ino).or_insert(expected.ino);
        // Elsewhere a number may serve again once its node is gone.
        let reused = node != expected.ino
            && !self.run.inos_are_unique
            && self.reference.model.stat(node).nlink == 0;
        if reused {
            self.nodes.insert(found.ino, expected.ino);
        }
        let mtime = expected.mtime.or(found.mtime);
        let likened = Stat { ino, mtime, ..expected.clone() };
        (node == expected.ino || reused) && likened == *found
    }

    /// Compares one file in full.
    fn look_at(&mut self, at: &At) {
        let Ok(Gave::Stat(stat)) = self.both(&Step::Stat(at.clone())) else { return };
        if stat.kind == Kind::File {
            let len = usize::try_from(stat.size).expect("contents are small") + 1;
            drop(self.both(&Step::Read(at.clone(), 0, len)));
            self.look_at_holes(at);
        }
        let At::Path(path) = at else { return };
        drop(self.both(&Step::Xattrs(path.clone())));
        match stat.kind {
            Kind::Dir => drop(self.both(&Step::List(path.clone()))),
            Kind::Symlink => drop(self.both(&Step::Readlink(path.clone()))),
            Kind::File | Kind::Fifo => {}
        }
    }

    /// What is said to be a hole reads as zeros; what is said to be data lies in the file.
    fn look_at_holes(&mut self, at: &At) {
        let step = Step::Read(at.clone(), 0, usize::MAX / 2);
        let Ok(Gave::Bytes(bytes)) = self.reference.apply(&step) else { return };
        let ranges = self.subject.data_ranges(at).expect("it could be read");
        let mut hole_start = 0;
        for (start, end) in ranges.iter().copied().chain([(bytes.len() as u64, bytes.len() as u64)])
        {
            let ordered = hole_start <= start && start <= end && end <= bytes.len() as u64;
            let index = |at: u64| usize::try_from(at).expect("contents are small");
            let is_hole = |hole: &[u8]| hole.iter().all(|byte| *byte == 0);
            if !ordered || !is_hole(&bytes[index(hole_start)..index(start)]) {
                let found = format!("data at {ranges:?} of {} bytes", bytes.len());
                self.fail(&Step::Stat(at.clone()), &"zeros in all holes", &found);
            }
            hole_start = end;
        }
    }

    /// Compares everything.
    fn look(&mut self) {
        for (path, _) in self.reference.model.paths() {
            self.look_at(&At::Path(path));
        }
        for slot in self.reference.slots.keys().copied().collect::<Vec<_>>() {
            self.look_at(&At::Slot(slot));
        }
    }

    /// Closes and opens the filesystem, which must change nothing, not even a time.
    fn restart(&mut self) {
        for slot in self.reference.slots.keys().copied().collect::<Vec<_>>() {
            drop(self.both(&Step::Close(slot)));
        }
        self.look();
        let before = self.stats();
        self.tell("restart".into());
        self.subject.restart();
        self.look();
        for ((path, before), (_, after)) in before.into_iter().zip(self.stats()) {
            if before != after {
                self.fail(&Step::Stat(At::Path(path)), &before, &after);
            }
        }
    }

    fn stats(&mut self) -> Vec<(Path, Answer<Gave>)> {
        let paths = self.reference.model.paths().into_iter();
        paths
            .map(|(path, _)| (path.clone(), self.subject.apply(&Step::Stat(At::Path(path)))))
            .collect()
    }
}

/// What a step may have changed.
fn touched(step: &Step) -> Vec<At> {
    let path = |path: &Path| At::Path(path.clone());
    let with_parent = |of: &Path| vec![path(of), path(&of.split().0)];
    match step {
        Step::Mkdir(of, _)
        | Step::Symlink(of, _)
        | Step::Fifo(of, _)
        | Step::Unlink(of)
        | Step::Rmdir(of) => with_parent(of),
        Step::Open(slot, of, _) => [with_parent(of), vec![At::Slot(*slot)]].concat(),
        Step::Link(from, to) | Step::Rename(from, to, _) => {
            [with_parent(from), with_parent(to)].concat()
        }
        Step::Write(at, ..)
        | Step::Truncate(at, _)
        | Step::Fallocate(at, ..)
        | Step::Fsync(at)
        | Step::Copy(_, _, at, ..) => vec![at.clone()],
        Step::SetXattr(of, ..)
        | Step::RemoveXattr(of, _)
        | Step::Chmod(of, _)
        | Step::Chown(of, ..)
        | Step::SetMtime(of, ..) => vec![path(of)],
        _ => Vec::new(),
    }
}
