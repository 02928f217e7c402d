//! Draws the next step, with an eye on what exists, so that most steps do something.

use rand::RngExt;
use rand::rngs::SmallRng;

use super::step::{At, Data, Reference, Step};
use super::words::{Fallocate, Kind, Open, Path, Rename, XattrMode};

/// What the subject can be asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Give files away, use all mode bits.
    pub root: bool,
    /// `FALLOC_FL_ZERO_RANGE`.
    pub zero_range: bool,
    /// A file's length in bytes, about.
    pub file_bytes_max: u64,
    /// Names at a time, about.
    pub paths_max: usize,
}

/// Open files at a time.
const SLOTS_MAX: usize = 5;
const NAMES: [&[u8]; 12] =
    [b"a", b"b", b"c", b"d", b"e", b"f", b".g", b"...", b"\xff\xfe", b"x y", b"n\n", b"doc.txt~"];

/// Draws steps.
#[derive(Debug)]
pub struct Generator {
    /// The dice.
    pub rng: SmallRng,
    abilities: Abilities,
    paths: Vec<(Path, Kind)>,
    free: Option<usize>,
    open: Vec<usize>,
}

impl Generator {
    /// One that draws from `rng`.
    pub fn new(rng: SmallRng, abilities: Abilities) -> Self {
        Self { rng, abilities, paths: Vec::new(), free: None, open: Vec::new() }
    }

    /// The next step for a filesystem that is like the reference.
    pub fn next(&mut self, reference: &mut Reference) -> Step {
        self.paths = reference.model.paths();
        self.free = (0..SLOTS_MAX).find(|slot| !reference.slots.contains_key(slot));
        self.open = reference.slots.keys().copied().collect();
        if !self.paths.iter().any(|at| at.1 == Kind::File) && self.chance(70) {
            let (path, mode) = (self.somewhere(), self.mode());
            return self.open_how(path, Some(mode));
        }
        let sparse = self.paths.len() * 2 < self.abilities.paths_max;
        if sparse && self.chance(30) {
            return self.making();
        }
        let crowded = self.paths.len() > self.abilities.paths_max;
        match self.rng.random_range(0..100) {
            0..20 if crowded => self.removal(),
            0..22 => self.making(),
            22..29 => self.opening(),
            29..33 if self.open.is_empty() => Step::SyncAll,
            29..33 => Step::Close(self.slot()),
            33..40 => self.removal(),
            40..52 => self.rename(),
            52..70 => self.write(),
            70..76 => Step::Truncate(self.file(), self.offset()),
            76..82 => self.fallocate(),
            82..86 => self.copy(),
            86..94 => self.attribute(),
            94..96 => Step::Fsync(self.file()),
            96 => Step::SyncAll,
            _ => Step::Read(self.file(), self.offset(), self.rng.random_range(1..100_000)),
        }
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())].clone()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    /// Something that exists, of this kind if there is one; never the root.
    fn existing(&mut self, kind: Option<Kind>) -> Path {
        let fits = |at: &&(Path, Kind)| kind.is_none_or(|kind| kind == at.1) && !at.0.0.is_empty();
        let found: Vec<Path> = self.paths.iter().filter(fits).map(|at| at.0.clone()).collect();
        if found.is_empty() { Path::default().join(b"a") } else { self.pick(&found) }
    }

    /// A name in a directory; rarely in what is none.
    fn somewhere(&mut self) -> Path {
        let dirs: Vec<Path> =
            self.paths.iter().filter(|at| at.1 == Kind::Dir).map(|at| at.0.clone()).collect();
        let parent = match self.rng.random_range(0..40) {
            0 => self.existing(Some(Kind::File)),
            1 => self.existing(Some(Kind::Dir)).join(b"missing"),
            2..10 => Path::default(),
            _ => self.pick(&dirs),
        };
        let parent = if parent.0.len() > 4 { Path::default() } else { parent };
        match self.rng.random_range(0..60) {
            0 => self.below(&parent, &[b'L'; 255]),
            1 => self.below(&parent, &[b'L'; 256]),
            _ => {
                let name = self.pick(&NAMES);
                self.below(&parent, name)
            }
        }
    }

    /// A name there, or at the root if that is a symbolic link, which the model does not follow.
    fn below(&self, parent: &Path, name: &[u8]) -> Path {
        let is_above = |at: &Path| parent.0.starts_with(&at.0);
        let is_link = self.paths.iter().any(|at| at.1 == Kind::Symlink && is_above(&at.0));
        if is_link { Path::default().join(name) } else { parent.join(name) }
    }

    fn any(&mut self, kind: Option<Kind>) -> Path {
        if self.chance(10) { self.somewhere() } else { self.existing(kind) }
    }

    fn slot(&mut self) -> usize {
        let open = self.open.clone();
        self.pick(&open)
    }

    /// Where content may be looked for: in open files and by name, now and then in what has none.
    fn file(&mut self) -> At {
        if !self.open.is_empty() && self.chance(50) {
            return At::Slot(self.slot());
        }
        let odd = match self.rng.random_range(0..30) {
            0 => Some(Kind::Dir),
            1 => Some(Kind::Symlink),
            _ => None,
        };
        At::Path(self.named_file(odd))
    }

    /// Opening a FIFO would wait for a peer.
    fn named_file(&mut self, odd: Option<Kind>) -> Path {
        let path = self.any(Some(odd.unwrap_or(Kind::File)));
        let is_fifo = self.paths.iter().any(|at| at.0 == path && at.1 == Kind::Fifo);
        if is_fifo { Path::default().join(b"missing") } else { path }
    }

    fn mode(&mut self) -> u32 {
        let bits = self.rng.random_range(0..0o10_000);
        match (self.abilities.root, self.chance(20)) {
            (true, true) => bits,
            (true, false) => bits & 0o777,
            (false, _) => bits & 0o077 | 0o700,
        }
    }

    fn offset(&mut self) -> u64 {
        let max = self.abilities.file_bytes_max;
        match self.rng.random_range(0..20) {
            0..3 => 0,
            3..10 => self.rng.random_range(0..5_000),
            10..14 => self.rng.random_range(0..24) * 4096,
            14..19 => self.rng.random_range(0..max.min(300_000)),
            _ => self.rng.random_range(0..max),
        }
    }

    fn data(&mut self) -> Data {
        let max = usize::try_from(self.abilities.file_bytes_max).expect("small");
        let len = match self.rng.random_range(0..50) {
            0..20 => self.rng.random_range(1..600),
            20..30 => 4096,
            30..40 => self.rng.random_range(1..20_000),
            40..48 => self.rng.random_range(1..200_000.min(max)),
            _ => self.rng.random_range(1..max / 2),
        };
        Data { len, seed: self.rng.random() }
    }

    fn making(&mut self) -> Step {
        let (path, mode) = (self.somewhere(), self.mode());
        match self.rng.random_range(0..20) {
            0..5 => Step::Mkdir(path, mode),
            5..7 => {
                let target = self.somewhere().bytes();
                Step::Symlink(path, target)
            }
            7 => Step::Fifo(path, mode),
            8..11 => {
                let from = self.any(None);
                Step::Link(from, path)
            }
            _ => self.open_how(path, Some(mode)),
        }
    }

    fn opening(&mut self) -> Step {
        let path = self.named_file(None);
        self.open_how(path, None)
    }

    fn open_how(&mut self, path: Path, create: Option<u32>) -> Step {
        let path = match self.paths.iter().find(|at| at.0 == path) {
            Some((_, Kind::Fifo)) => self.named_file(None),
            _ => path,
        };
        let how = Open {
            create,
            exclusive: create.is_some() && self.chance(50),
            truncate: self.chance(20),
            append: self.chance(20),
        };
        match self.free {
            Some(slot) => Step::Open(slot, path, how),
            None => Step::Close(self.slot()),
        }
    }

    fn removal(&mut self) -> Step {
        match self.rng.random_range(0..10) {
            0 => Step::Unlink(self.any(None)),
            1 => Step::Rmdir(self.any(None)),
            2..4 => Step::Rmdir(self.any(Some(Kind::Dir))),
            4 => Step::Unlink(self.any(Some(Kind::Symlink))),
            _ => Step::Unlink(self.any(Some(Kind::File))),
        }
    }

    fn rename(&mut self) -> Step {
        let how = match self.rng.random_range(0..10) {
            0 => Rename::NoReplace,
            1..3 => Rename::Exchange,
            _ => Rename::Replace,
        };
        let kind = self.pick(&[None, Some(Kind::File), Some(Kind::File), Some(Kind::Dir)]);
        let from = self.any(kind);
        // Over something of its kind, an editor's save among them; below itself; elsewhere.
        let to = match self.rng.random_range(0..20) {
            0..9 => self.any(kind),
            9 => self.below(&from, b"a"),
            _ => self.somewhere(),
        };
        Step::Rename(from, to, how)
    }

    fn write(&mut self) -> Step {
        let at = self.file();
        let offset = if self.chance(25) { None } else { Some(self.offset()) };
        Step::Write(at, offset, self.data())
    }

    fn fallocate(&mut self) -> Step {
        let keep_size = self.chance(50);
        let how = match self.rng.random_range(0..3) {
            0 => Fallocate::Reserve { keep_size },
            1 if self.abilities.zero_range => Fallocate::Zero { keep_size },
            _ => Fallocate::Punch,
        };
        let len = if self.chance(3) { 0 } else { self.offset() + 1 };
        Step::Fallocate(self.file(), how, self.offset(), len)
    }

    fn copy(&mut self) -> Step {
        let (from, to) = (self.file(), self.file());
        Step::Copy(from, self.offset(), to, self.offset(), self.offset() + 1)
    }

    fn attribute(&mut self) -> Step {
        let path = self.any(None);
        let name = self.pick(&[&b"user.a"[..], b"user.b", b"user.\xff"]).to_vec();
        let is_symlink = self.paths.iter().any(|at| at.0 == path && at.1 == Kind::Symlink);
        match self.rng.random_range(0..10) {
            0..4 => {
                let how = self.pick(&[
                    XattrMode::Set,
                    XattrMode::Set,
                    XattrMode::Create,
                    XattrMode::Replace,
                ]);
                let len = self.rng.random_range(0..200);
                let value = Data { len, seed: self.rng.random() };
                Step::SetXattr(path, name, value, how)
            }
            4 => Step::RemoveXattr(path, name),
            5..7 if !is_symlink => Step::Chmod(path, self.mode()),
            7 if self.abilities.root => {
                Step::Chown(path, self.rng.random_range(0..4), self.rng.random_range(0..4))
            }
            _ => {
                let secs = self.rng.random_range(0..2_000_000_000);
                Step::SetMtime(path, secs, self.rng.random_range(0..1_000_000_000))
            }
        }
    }
}
