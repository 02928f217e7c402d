//! How long to wait before trying again.

/// The first wait after a failure.
const BASE_MS: u64 = 1_000;
/// The longest.
const MAX_MS: u64 = 60_000;

/// A small random sequence from a seed (`SplitMix64`): for jitter and order, never for secrets.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// From 0 to one less than `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Fisher and Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or(last);
            items.swap(last, other);
        }
    }
}

/// Doubles with each failure, up to a minute; half of each wait is random, so that devices that
/// lost each other at one moment do not come back at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked: the next failure waits the shortest again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Trying again soon makes no sense: the next wait is the longest.
    pub fn give_up(&mut self) {
        self.failures = u32::BITS;
    }

    /// It failed: how long to wait.
    pub fn next_delay_ms(&mut self, jitter: &mut Jitter) -> u64 {
        let delay_ms = BASE_MS.saturating_mul(1 << self.failures.min(16)).min(MAX_MS);
        self.failures = self.failures.saturating_add(1);
        delay_ms / 2 + jitter.below(delay_ms / 2 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_minute_and_start_over() {
        let (mut backoff, mut jitter) = (Backoff::default(), Jitter::new(1));
        for expected_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            let delay_ms = backoff.next_delay_ms(&mut jitter);
            assert!((expected_ms / 2..=expected_ms).contains(&delay_ms), "{delay_ms}");
        }
        backoff.reset();
        assert!(backoff.next_delay_ms(&mut jitter) <= 1_000);
        backoff.give_up();
        assert!(backoff.next_delay_ms(&mut jitter) >= 30_000);
    }
}
