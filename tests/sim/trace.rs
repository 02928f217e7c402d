//! What happened, as a digest, and the end of it as text.

use std::collections::VecDeque;

/// So much is told when something is wrong.
const TOLD_MAX: usize = 60;

pub struct Trace {
    hasher: blake3::Hasher,
    told: VecDeque<String>,
    /// `TRACE` is set: everything is printed as it happens.
    is_loud: bool,
}

impl Trace {
    pub fn new() -> Self {
        let is_loud = std::env::var_os("TRACE").is_some();
        Self { hasher: blake3::Hasher::new(), told: VecDeque::new(), is_loud }
    }

    /// One more thing has happened.
    pub fn tell(&mut self, line: String) {
        self.hasher.update(line.as_bytes()).update(b"\n");
        if self.is_loud {
            eprintln!("{line}");
        }
        if self.told.len() == TOLD_MAX {
            self.told.pop_front();
        }
        self.told.push_back(line);
    }

    /// Bytes that are part of it, and not worth printing.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    pub fn digest(&self) -> blake3::Hash {
        self.hasher.finalize()
    }

    pub fn end(&self) -> String {
        let mut text = String::new();
        for line in &self.told {
            text += line;
            text += "\n";
        }
        text
    }
}
