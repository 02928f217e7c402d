//! The names given out in one directory, and those for what stands beside another (V4, V6, V7).

use std::collections::HashSet;

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;

use crate::types::limits::NAME_BYTES_MAX;
use crate::types::merged::Key;
use crate::types::{Name, OpId};

/// What is longer, after the last dot, is no extension.
const EXTENSION_BYTES_MAX: usize = 16;

/// Which op decided that something stands beside a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deciding {
    pub key: Key,
    pub op: OpId,
}

/// Names already taken.
#[derive(Debug)]
pub(super) struct Names {
    is_caseless: bool,
    taken: HashSet<Vec<u8>>,
}

impl Names {
    pub fn new(is_caseless: bool) -> Self {
        Self { is_caseless, taken: HashSet::new() }
    }

    /// Takes a name, if it is free.
    pub fn claim(&mut self, name: &Name) -> bool {
        let bytes = name.as_bytes();
        match std::str::from_utf8(bytes) {
            Ok(text) if self.is_caseless => self.taken.insert(fold_name(text).into_bytes()),
            _ => self.taken.insert(bytes.to_owned()),
        }
    }

    /// Takes the first free name beside `name`. Ends, for the taken names are finite.
    pub fn beside(&mut self, name: &Name, keeps_extension: bool, by: Deciding, who: &str) -> Name {
        let (stem, extension) = split(name.as_bytes(), keeps_extension);
        let label = format!("conflict, {who}, {}", utc_minute(by.key));
        let seq = by.op.seq();
        let mut tried = 0_u64;
        loop {
            tried += 1;
            let label = match tried {
                1 => label.clone(),
                2 => format!("{label}, {seq}"),
                more => format!("{label}, {seq}-{}", more - 1),
            };
            let name = with_label(stem, &label, extension);
            if self.claim(&name) {
                return name;
            }
        }
    }
}

/// Unicode's canonical caseless form: equal for names that some platform takes for one.
fn fold_name(name: &str) -> String {
    name.nfd().default_case_fold().nfd().collect()
}

/// Stem and extension with its dot. What is long or holds a space is no extension.
fn split(name: &[u8], keeps_extension: bool) -> (&[u8], &[u8]) {
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|dot| keeps_extension && *dot > 0);
    let Some(dot) = dot else { return (name, b"") };
    let (stem, extension) = name.split_at(dot);
    let is_short = (2..=EXTENSION_BYTES_MAX + 1).contains(&extension.len());
    if is_short && !extension.contains(&b' ') { (stem, extension) } else { (name, b"") }
}

/// `stem (label).ext`, the stem cut so that it is no longer than a name may be.
fn with_label(stem: &[u8], label: &str, extension: &[u8]) -> Name {
    let tail = [b" (", label.as_bytes(), b")", extension].concat();
    let room = NAME_BYTES_MAX.saturating_sub(tail.len()).min(stem.len());
    let stem = &stem[..char_boundary(stem, room)];
    Name::new(&[stem, &tail].concat()).expect("a label is shorter than a name may be")
}

/// The last place up to `end` that does not cut a character of UTF-8 in two.
fn char_boundary(bytes: &[u8], end: usize) -> usize {
    let is_inside = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (end.saturating_sub(3)..=end).rev().find(|at| !is_inside(*at)).unwrap_or(end)
}

fn utc_minute(key: Key) -> String {
    let micros = i64::try_from(key.hlc.0).ok();
    let moment = micros.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    moment.unwrap_or(jiff::Timestamp::MAX).strftime("%Y-%m-%d %H.%M").to_string()
}
