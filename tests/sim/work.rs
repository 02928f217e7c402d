//! What a user does: draws one change of the tree that is there.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt};
use tidefs::fs::RenameMode;

use super::device::How;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// One change.
#[derive(Clone, Debug)]
pub enum Step {
    /// A file is written, and made if need be; synced before it is closed, or left open.
    Write {
        path: String,
        how: How,
        data: Data,
        sync: bool,
        stay: bool,
    },
    /// As editors save: written beside, synced, renamed over.
    Save {
        path: String,
        data: Data,
    },
    /// Through a file that was left open, by its place among them.
    WriteOpen {
        index: usize,
        how: How,
        data: Data,
        sync: bool,
    },
    /// Closes one that was left open.
    Close(usize),
    Mkdir(String),
    Rmdir(String),
    Unlink(String),
    Rename(String, String, RenameMode),
    Link(String, String),
    Symlink(String, String),
    Truncate(String, u64),
    Chmod(String, u32),
    Xattr(String, u8),
    /// `sync(2)`.
    Sync,
}

/// Bytes that nobody else writes.
#[derive(Clone)]
pub struct Data(pub Vec<u8>);

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = &self.0[..self.0.len().min(12)];
        write!(f, "{}..{}", String::from_utf8_lossy(head).escape_debug(), self.0.len())
    }
}

/// Bytes that start with `tag`, which is new each time, and cannot be compressed behind it.
fn data(random: &mut SmallRng, tag: &str) -> Data {
    let len = match random.random_range(0..40) {
        0..24 => random.random_range(0..60),
        24..32 => random.random_range(500..2500),
        32..38 => random.random_range(3000..9000),
        38 => random.random_range(20_000..60_000),
        _ => random.random_range(150_000..250_000),
    };
    let mut bytes = tag.as_bytes().to_vec();
    let head = bytes.len();
    bytes.resize(head + len, 0);
    random.fill_bytes(&mut bytes[head..]);
    Data(bytes)
}

fn pick<'a>(random: &mut SmallRng, from: &[&'a String]) -> Option<&'a String> {
    (!from.is_empty()).then(|| from[random.random_range(0..from.len())])
}

/// Draws a step; `paths` are what is there, `open` is how many files were left open.
pub fn draw(random: &mut SmallRng, paths: &[(String, bool)], open: usize, tag: &str) -> Step {
    let files: Vec<&String> = paths.iter().filter(|(_, is_dir)| !is_dir).map(|(p, _)| p).collect();
    let dirs: Vec<&String> = paths.iter().filter(|(_, is_dir)| *is_dir).map(|(p, _)| p).collect();
    let name = NAMES[random.random_range(0..NAMES.len())];
    let dir = if random.random_bool(0.4) { pick(random, &dirs) } else { None };
    let new = dir.map_or(name.to_owned(), |dir| format!("{dir}/{name}"));
    let file = pick(random, &files);
    let some_dir = pick(random, &dirs);
    let how = match random.random_range(0..4) {
        0 => How::Append,
        1 => How::At(random.random_range(0..4000)),
        _ => How::Replace,
    };
    let data = data(random, tag);
    let sync = random.random_bool(0.3);
    match (random.random_range(0..100), file, some_dir) {
        (0..22, _, _) => Step::Write { path: new, how, data, sync, stay: random.random_bool(0.15) },
        (22..36, Some(file), _) => {
            let stay = random.random_bool(0.15);
            Step::Write { path: file.clone(), how, data, sync, stay }
        }
        (36..42, Some(file), _) => Step::Save { path: file.clone(), data },
        (42..48, _, _) if open > 0 => {
            Step::WriteOpen { index: random.random_range(0..open), how, data, sync }
        }
        (48..52, _, _) if open > 0 => Step::Close(random.random_range(0..open)),
        (52..58, _, _) => Step::Mkdir(new),
        (58..62, _, Some(dir)) => Step::Rmdir(dir.clone()),
        (62..68, Some(file), _) => Step::Unlink(file.clone()),
        (68..76, Some(file), _) => Step::Rename(file.clone(), new, RenameMode::Replace),
        (76..82, _, Some(dir)) => Step::Rename(dir.clone(), new, RenameMode::Replace),
        (82..84, Some(file), _) => match pick(random, &files) {
            Some(other) if other != file => {
                Step::Rename(file.clone(), other.clone(), RenameMode::Exchange)
            }
            _ => Step::Sync,
        },
        (84..87, Some(file), _) => Step::Link(file.clone(), new),
        (87..89, _, _) => Step::Symlink(new, format!("to {tag}")),
        (89..92, Some(file), _) => Step::Truncate(file.clone(), random.random_range(0..5000)),
        (92..95, Some(file), _) => Step::Chmod(file.clone(), 0o600 + random.random_range(0..0o100)),
        (95..98, Some(file), _) => Step::Xattr(file.clone(), random.random_range(0..9)),
        _ => Step::Sync,
    }
}
