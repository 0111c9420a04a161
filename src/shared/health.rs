//! Whether a server is used or skipped: one word of its shared row.
//!
//! ```text
//! bits 0..2    0 = Up (the whole word is 0), 1 = Down, 2 = Trying
//! bits 2..64   until when, in milliseconds of the monotonic clock
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

/// Whether a server is used or skipped, as all workers of a generation see it.
///
/// ```text
///  Up ── failed ──▶ Down ── its time is over, admit ──▶ Trying
///  ▲                ▲  ▲                                │ │ │ ▲
///  │                │  └─────────── failed ─────────────┘ │ └─┘ its time is over, admit
///  │                └── abandoned: the next may try ──────┤
///  └────────────────────── answered ──────────────────────┘
/// ```
///
/// A server that is Down or Trying is skipped. When its time as Down is over, one fetch of one worker
/// is admitted, and makes it Trying; all others go on skipping it until that fetch is answered.
/// A worker that dies in its attempt leaves the server Trying, so an attempt has a time too, after
/// which another fetch is admitted.
///
/// If all servers of an upstream are skipped, a fetch uses one of them as the last resort, without
/// a change of state. Any answer to an attempt or a last resort makes the server Up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health<'t>(&'t AtomicU64);

/// Why a fetch may use a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The server is Up.
    Up,
    /// This fetch makes the one attempt, which is known by its word.
    Attempt(u64),
    /// The server is skipped, and so are all others.
    LastResort,
}

impl<'t> Health<'t> {
    pub(super) fn of(word: &'t AtomicU64) -> Self {
        Self(word)
    }

    /// Until when the server is skipped, in milliseconds of the monotonic clock. From then on a
    /// fetch may be admitted. 0 if the server is Up.
    pub(crate) fn skipped_until_ms(self) -> u64 {
        self.0.load(Ordering::Relaxed) >> KIND_BITS
    }

    /// Admits a fetch if the server is Up, or as the one attempt, which takes `attempt_ms` at
    /// most. `None` if the server is skipped, or another worker was faster.
    pub(crate) fn admit(self, now_ms: u64, attempt_ms: u64) -> Option<Admission> {
        let word = self.0.load(Ordering::Relaxed);
        if word == UP {
            return Some(Admission::Up);
        }
        if now_ms < word >> KIND_BITS {
            return None;
        }
        let attempt = word_of(TRYING, now_ms.saturating_add(attempt_ms));
        let swapped = self.0.compare_exchange(word, attempt, Ordering::Relaxed, Ordering::Relaxed);
        swapped.is_ok().then_some(Admission::Attempt(attempt))
    }

    /// The server failed: it is skipped for `skip_ms`; 0 is never.
    pub(crate) fn failed(self, now_ms: u64, skip_ms: u64) {
        let word = if skip_ms == 0 { UP } else { word_of(DOWN, now_ms.saturating_add(skip_ms)) };
        self.0.store(word, Ordering::Relaxed);
    }

    /// The server answered a fetch. The answer to a fetch that was sent while the server was Up
    /// changes nothing: a later fetch may have failed since.
    pub(crate) fn answered(self, admission: Admission) {
        if admission != Admission::Up {
            self.0.store(UP, Ordering::Relaxed);
        }
    }

    /// The fetch ended without showing whether the server works. If it was the attempt, the next
    /// fetch is admitted at once.
    pub(crate) fn abandoned(self, admission: Admission, now_ms: u64) {
        if let Admission::Attempt(attempt) = admission {
            let next = word_of(DOWN, now_ms);
            // It fails if another worker knows more by now.
            let _ = self.0.compare_exchange(attempt, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn word_of(kind: u64, until_ms: u64) -> u64 {
    until_ms.min(u64::MAX >> KIND_BITS) << KIND_BITS | kind
}

const KIND_BITS: u32 = 2;
const UP: u64 = 0;
const DOWN: u64 = 1;
const TRYING: u64 = 2;

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const SKIP_MS: u64 = 1_000;
    const ATTEMPT_MS: u64 = 300;

    /// The attempt that begins now.
    fn attempt(health: Health<'_>, now_ms: u64) -> Admission {
        let admission = health.admit(now_ms, ATTEMPT_MS).expect("an admission");
        assert_ne!(admission, Admission::Up);
        admission
    }

    #[test]
    fn a_server_that_failed_is_skipped_and_then_tried_by_one() {
        let word = AtomicU64::new(UP);
        let health = Health(&word);
        assert_eq!(health.admit(5, ATTEMPT_MS), Some(Admission::Up));
        health.failed(5, SKIP_MS);
        assert_eq!(health.skipped_until_ms(), 1_005);
        assert_eq!(health.admit(1_004, ATTEMPT_MS), None);
        let first = attempt(health, 1_005);
        assert_eq!(health.skipped_until_ms(), 1_305);
        assert_eq!(health.admit(1_005, ATTEMPT_MS), None);
        assert_eq!(health.admit(1_304, ATTEMPT_MS), None);
        health.answered(first);
        assert_eq!(health.skipped_until_ms(), 0);
        assert_eq!([health.admit(1_304, ATTEMPT_MS); 2], [Some(Admission::Up); 2]);
    }

    #[test]
    fn an_attempt_that_fails_begins_another_pause() {
        let word = AtomicU64::new(UP);
        let health = Health(&word);
        health.failed(0, SKIP_MS);
        attempt(health, 1_000);
        health.failed(1_100, SKIP_MS);
        assert_eq!(health.admit(2_099, ATTEMPT_MS), None);
        attempt(health, 2_100);
    }

    #[test]
    fn an_attempt_that_shows_nothing_leaves_it_to_the_next() {
        let word = AtomicU64::new(UP);
        let health = Health(&word);
        health.failed(0, SKIP_MS);
        let first = attempt(health, 1_000);
        health.abandoned(first, 1_100);
        assert_eq!(health.skipped_until_ms(), 1_100);
        let second = attempt(health, 1_100);
        assert_eq!(health.admit(1_100, ATTEMPT_MS), None);
        health.abandoned(first, 1_200);
        assert_eq!(health.admit(1_200, ATTEMPT_MS), None, "the first has ended before");
        health.answered(second);
        health.abandoned(Admission::Up, 1_300);
        health.abandoned(Admission::LastResort, 1_300);
        assert_eq!(health.skipped_until_ms(), 0);
    }

    #[test]
    fn an_attempt_of_a_worker_that_died_blocks_no_longer_than_its_time() {
        let word = AtomicU64::new(UP);
        let health = Health(&word);
        health.failed(0, SKIP_MS);
        attempt(health, 1_000);
        assert_eq!(health.admit(1_299, ATTEMPT_MS), None);
        attempt(health, 1_300);
        assert_eq!(health.admit(1_300, ATTEMPT_MS), None);
    }

    #[test]
    fn an_answer_counts_if_it_was_asked_for_after_the_failure() {
        let word = AtomicU64::new(UP);
        let health = Health(&word);
        health.failed(0, SKIP_MS);
        health.answered(Admission::Up);
        assert_eq!(health.skipped_until_ms(), SKIP_MS);
        health.answered(Admission::LastResort);
        assert_eq!(health.skipped_until_ms(), 0);
    }

    #[test]
    fn a_pause_of_0_skips_nothing_and_one_without_end_does_not_overflow() {
        let word = AtomicU64::new(UP);
        let health = Health(&word);
        health.failed(7, 0);
        assert_eq!(health.admit(7, ATTEMPT_MS), Some(Admission::Up));
        health.failed(7, u64::MAX);
        assert_eq!(health.admit(u64::MAX >> 3, ATTEMPT_MS), None);
    }

    #[test]
    fn of_many_workers_one_gets_the_attempt() {
        const N_WORKERS: usize = 8;
        let word = AtomicU64::new(UP);
        let (start, end) = (Barrier::new(N_WORKERS), Barrier::new(N_WORKERS));
        let n_attempts = AtomicUsize::new(0);
        let work = |worker: usize| {
            let health = Health(&word);
            let mut now_ms = 1;
            for round in 0..1_000 {
                if worker == 0 && round % 3 != 2 {
                    health.failed(now_ms, SKIP_MS);
                }
                now_ms += SKIP_MS;
                start.wait();
                let admission = health.admit(now_ms, ATTEMPT_MS);
                let is_attempt = matches!(admission, Some(Admission::Attempt(_)));
                n_attempts.fetch_add(usize::from(is_attempt), Ordering::Relaxed);
                assert!(is_attempt || admission.is_none());
                end.wait();
                assert_eq!(n_attempts.load(Ordering::Relaxed), round + 1);
                // The next attempt follows a success, or else a death.
                if let Some(attempt) = admission.filter(|_| round % 3 == 0) {
                    health.answered(attempt);
                }
                end.wait();
            }
        };
        std::thread::scope(|scope| {
            for worker in 0..N_WORKERS {
                scope.spawn(move || work(worker));
            }
        });
    }
}
