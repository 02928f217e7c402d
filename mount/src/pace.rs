//! Whether the disk answers at once, so that asking it on the thread that reads requests costs less
//! than waking another thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidefs::fs::Wait;

/// An answer that took longer held up others: it is waited for elsewhere, for a while.
const QUICK: Duration = Duration::from_millis(2);
/// So long.
const WHILE: Duration = Duration::from_millis(200);

/// Remembers the last slow answer.
pub struct Pace {
    began: Instant,
    /// Since `began`, in microseconds: until then, nothing is read on this thread.
    slow_until_us: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { began: Instant::now(), slow_until_us: AtomicU64::new(0) }
    }
}

impl Pace {
    /// Does `call` as far as it goes here, and notes how long that took.
    pub fn keep<R>(&self, call: impl FnOnce(Wait) -> R) -> R {
        let start = Instant::now();
        let wait = if self.micros(start) < self.slow_until_us.load(Ordering::Relaxed) {
            Wait::Never
        } else {
            Wait::Briefly
        };
        let result = call(wait);
        let end = Instant::now();
        if wait == Wait::Briefly && end.duration_since(start) > QUICK {
            self.slow_until_us.store(self.micros(end + WHILE), Ordering::Relaxed);
        }
        result
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_slow_answer_nothing_is_waited_for_here_for_a_while() {
        let pace = Pace::default();
        assert_eq!(pace.keep(|wait| wait), Wait::Briefly);
        pace.keep(|_| std::thread::sleep(QUICK * 2));
        assert_eq!(pace.keep(|wait| wait), Wait::Never);
        std::thread::sleep(WHILE);
        assert_eq!(pace.keep(|wait| wait), Wait::Briefly);
    }
}
