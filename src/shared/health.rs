//! Whether a server is used or skipped: words of its shared row.
//!
//! ```text
//! bits 0..2    0 = Up (the whole word is 0), 1 = Down, 2 = Trying, 3 = Held
//! bits 2..64   until when, in milliseconds of the monotonic clock
//! ```
//!
//! ```text
//!  Up ── failed ──▶ Down ── its time is over, admit ──▶ Trying
//!  ▲                ▲  ▲                                │ │ │ ▲
//!  │                │  └─────────── failed ─────────────┘ │ └─┘ its time is over, admit
//!  │                └── abandoned: the next may try ──────┤
//!  └────────────────────── answered ──────────────────────┘
//! ```
//!
//! A server that is Down or Trying is skipped. When its time as Down is over, one fetch of one
//! worker is admitted, and makes it Trying; all others go on skipping it until that fetch is
//! answered. It is a fetch that another server can answer if this one fails, or a connection without a
//! request. A worker that dies in its attempt leaves the server Trying, so an attempt has a time
//! too, after which another fetch is admitted.
//!
//! If all servers of an upstream are skipped, a fetch uses one of them as the last resort, without
//! a change of state. Any answer to an attempt or a last resort makes the server Up.
//!
//! The keeper holds a server whose checks fail or whose name has no address, and releases it. In
//! between the server gets no request at all, and what workers see of it changes nothing.

use std::sync::atomic::Ordering;

use crate::base::time::Now;
use crate::policy::reason::server::ServerReason;
use crate::shared::server_row::ServerRow;
use crate::upstream::check::{Check, CheckFailure, CheckResult, PASSED};
use crate::upstream::state::{HELD_MS, Hold, Setting, State};

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

/// This many failures in a row make a server count as failed. A single one may be the fault of an
/// expensive or broken request.
const FAILURES_MAX: u64 = 3;

/// How long a server that failed is skipped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    /// The first pause; 0 is none.
    pub(crate) first_ms: u64,
    /// How often it is doubled if the server fails again soon after it came back.
    pub(crate) doubled_max: u32,
}

impl ServerRow {
    /// Until when the server is skipped, in milliseconds of the monotonic clock. From then on a
    /// fetch may be admitted. 0 if the server is Up.
    pub(crate) fn skipped_until_ms(&self) -> u64 {
        self.word.load(Ordering::Relaxed) >> KIND_BITS
    }

    /// The state of the server, for people.
    pub(crate) fn state(&self) -> State {
        match (self.setting(), self.word.load(Ordering::Relaxed) & KIND_MASK) {
            (Setting::Disabled, _) => State::Disabled,
            (Setting::Draining, _) => State::Draining,
            (Setting::Enabled, UP) => State::Up,
            (Setting::Enabled, TRYING) => State::Trying,
            (Setting::Enabled, _) => State::Down,
        }
    }

    /// Admits a fetch if the server is Up.
    pub(crate) fn admit_up(&self) -> Option<Admission> {
        (self.word.load(Ordering::Relaxed) == UP).then_some(Admission::Up)
    }

    /// Admits a fetch if the server is Up, or as the one attempt, which takes `attempt_ms` at
    /// most. `None` if the server is skipped, or another worker was faster.
    pub(crate) fn admit(&self, now: Now, attempt_ms: u64) -> Option<Admission> {
        let word = self.word.load(Ordering::Relaxed);
        if word == UP {
            return Some(Admission::Up);
        }
        if now.mono_ms() < word >> KIND_BITS {
            return None;
        }
        let attempt = word_of(TRYING, now.mono_ms().saturating_add(attempt_ms));
        if !self.swap(word, attempt) {
            return None;
        }
        self.changed(ServerReason::PauseOver, now.unix_s());
        Some(Admission::Attempt(attempt))
    }

    /// The server failed for sure, and is skipped. `true` for the one caller that makes an Up
    /// server Down.
    pub(crate) fn failed(&self, now: Now, pause: Pause, reason: ServerReason) -> bool {
        let Pause { first_ms, doubled_max } = pause;
        let (word, now_ms) = (self.word.load(Ordering::Relaxed), now.mono_ms());
        let is_down = word & KIND_MASK != TRYING && now_ms < word >> KIND_BITS;
        if is_down || first_ms == 0 {
            return false;
        }
        let n_doubled = self.n_doubled.load(Ordering::Relaxed).min(doubled_max);
        let last_ms = first_ms.saturating_mul(1 << n_doubled);
        let good_until_ms = self.up_since_ms().saturating_add(last_ms);
        let n_doubled = match word {
            UP if self.up_since_ms() == 0 || now_ms >= good_until_ms => 0,
            _ => (n_doubled + 1).min(doubled_max),
        };
        let pause_ms = first_ms.saturating_mul(1 << n_doubled);
        if !self.swap(word, word_of(DOWN, now_ms.saturating_add(pause_ms))) {
            return false;
        }
        self.n_doubled.store(n_doubled, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        self.changed(reason, now.unix_s());
        if word == UP {
            self.went_down();
        }
        word == UP
    }

    /// A request to the server failed, which may be the fault of the request. The server counts as
    /// failed after several failures in a row within `window_ms`: then this is `true`.
    pub(crate) fn is_failing(&self, now: Now, window_ms: u64) -> bool {
        let now_ms = now.mono_ms();
        let before = self.failures.load(Ordering::Relaxed);
        let (since_ms, n_before) = (before >> COUNT_BITS, before & COUNT_MASK);
        let is_in_window = n_before > 0 && now_ms < since_ms.saturating_add(window_ms);
        let (since_ms, n) = if is_in_window { (since_ms, n_before + 1) } else { (now_ms, 1) };
        self.failures.store(since_ms << COUNT_BITS | n.min(COUNT_MASK), Ordering::Relaxed);
        n >= FAILURES_MAX
    }

    /// The server answered a fetch: the failures before are not in a row with those that follow.
    /// The answer to a fetch that was sent while the server was Up changes nothing else: a later
    /// fetch may have failed since. `true` for the one caller that makes the server Up.
    pub(crate) fn answered(&self, admission: Admission, now: Now) -> bool {
        self.came_up(admission, ServerReason::Answered, now)
    }

    /// As [`Self::answered`], of a server that has accepted a connection. It may still fail: the next
    /// failure in a row makes it count as failed.
    pub(crate) fn accepted(&self, admission: Admission, now: Now) -> bool {
        let is_up = self.came_up(admission, ServerReason::Accepted, now);
        let failures = now.mono_ms() << COUNT_BITS | (FAILURES_MAX - 1);
        self.failures.store(failures, Ordering::Relaxed);
        is_up
    }

    fn came_up(&self, admission: Admission, reason: ServerReason, now: Now) -> bool {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        let up = |word| (word != UP && word & KIND_MASK != HELD).then_some(UP);
        if admission == Admission::Up
            || self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, up).is_err()
        {
            return false;
        }
        self.up_since_ms.store(now.mono_ms().max(1), Ordering::Relaxed);
        self.changed(reason, now.unix_s());
        true
    }

    /// All servers of the upstream had failed, and another one answers: the cause was a common one,
    /// so this server is used too. `true` for the one caller that makes it Up.
    pub(crate) fn pardon(&self, now: Now) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        let is_pardoned = word & KIND_MASK == DOWN && self.swap(word, UP);
        if is_pardoned {
            self.changed(ServerReason::OtherAnswered, now.unix_s());
        }
        is_pardoned
    }

    /// The fetch ended without showing whether the server works. If it was the attempt, the next
    /// fetch is admitted at once.
    pub(crate) fn abandoned(&self, admission: Admission, now: Now) {
        if let Admission::Attempt(attempt) = admission
            // It fails if another worker knows more by now.
            && self.swap(attempt, word_of(DOWN, now.mono_ms()))
        {
            self.changed(ServerReason::Abandoned, now.unix_s());
        }
    }

    /// Notes the result of a check; `true` if it makes the server down or up.
    pub(crate) fn checked(&self, check: &Check, result: CheckResult, now: Now) -> bool {
        let code = result.map_or_else(CheckFailure::code, |()| PASSED);
        let before = self.check.swap(code, Ordering::Relaxed);
        let is_same = before != 0 && (before == PASSED) == result.is_ok();
        let n_before = if is_same { self.n_checks.load(Ordering::Relaxed) } else { 0 };
        let n = n_before.saturating_add(1);
        self.n_checks.store(n, Ordering::Relaxed);
        self.checked_s.store(now.unix_s(), Ordering::Relaxed);
        check.changes(self.held().is_some(), result.is_ok(), n)
            && match result {
                Ok(()) => self.release(Hold::Checks, ServerReason::CheckPassed, now),
                Err(_) => self.hold(Hold::Checks, ServerReason::CheckFailed, now),
            }
    }

    /// Why the server gets no request until it is released; `None` if it is not held.
    pub(crate) fn held(&self) -> Option<Hold> {
        match self.word.load(Ordering::Relaxed) {
            HELD_BY_CHECKS => Some(Hold::Checks),
            HELD_BY_NAME => Some(Hold::Name),
            _ => None,
        }
    }

    /// Holds the server down, whatever workers know of it. `false` if it is held. To be called by
    /// the keeper alone.
    pub(crate) fn hold(&self, hold: Hold, reason: ServerReason, now: Now) -> bool {
        if self.held().is_some() {
            return false;
        }
        if self.word.swap(word_of_hold(hold), Ordering::Relaxed) == UP {
            self.went_down();
        }
        self.changed(reason, now.unix_s());
        true
    }

    /// Makes a server Up that is held for this; `false` if it is not.
    pub(crate) fn release(&self, hold: Hold, reason: ServerReason, now: Now) -> bool {
        let is_released = self.swap(word_of_hold(hold), UP);
        if is_released {
            self.failures.store(0, Ordering::Relaxed);
            self.up_since_ms.store(now.mono_ms().max(1), Ordering::Relaxed);
            self.changed(reason, now.unix_s());
        }
        is_released
    }

    /// The server is not checked any more: what checks have found is forgotten.
    pub(crate) fn forget_checks(&self) {
        self.check.store(0, Ordering::Relaxed);
        self.n_checks.store(0, Ordering::Relaxed);
        self.checked_s.store(0, Ordering::Relaxed);
        if self.swap(HELD_BY_CHECKS, UP) {
            self.changed(ServerReason::Start, 0);
        }
    }

    fn swap(&self, word: u64, next: u64) -> bool {
        self.word.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn word_of(kind: u64, until_ms: u64) -> u64 {
    until_ms.min(u64::MAX >> KIND_BITS) << KIND_BITS | kind
}

const fn word_of_hold(hold: Hold) -> u64 {
    match hold {
        Hold::Checks => HELD_BY_CHECKS,
        Hold::Name => HELD_BY_NAME,
    }
}

const KIND_BITS: u32 = 2;
const KIND_MASK: u64 = 3;
const UP: u64 = 0;
const DOWN: u64 = 1;
const TRYING: u64 = 2;
const HELD: u64 = 3;
/// The words of servers that are held: their time does not come.
const HELD_BY_CHECKS: u64 = HELD_MS << KIND_BITS | HELD;
const HELD_BY_NAME: u64 = (HELD_MS + 1) << KIND_BITS | HELD;
const COUNT_BITS: u32 = 8;
const COUNT_MASK: u64 = 255;

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    const SKIP_MS: u64 = 1_000;
    const ATTEMPT_MS: u64 = 300;
    const DOUBLED_MAX: u32 = 4;

    fn row() -> ServerRow {
        ServerRow::default()
    }

    fn at(mono_ms: u64) -> Now {
        Now { unix_us: 0, mono_us: mono_ms * 1_000 }
    }

    fn fail(health: &ServerRow, now_ms: u64, skip_ms: u64) -> bool {
        let pause = Pause { first_ms: skip_ms, doubled_max: DOUBLED_MAX };
        health.failed(at(now_ms), pause, ServerReason::Connect)
    }

    /// The attempt that begins now.
    fn attempt(health: &ServerRow, now_ms: u64) -> Admission {
        let admission = health.admit(at(now_ms), ATTEMPT_MS).expect("an admission");
        assert_ne!(admission, Admission::Up);
        admission
    }

    #[test]
    fn a_server_that_failed_is_skipped_and_then_tried_by_one() {
        let health = &row();
        assert_eq!(health.admit(at(5), ATTEMPT_MS), Some(Admission::Up));
        fail(health, 5, SKIP_MS);
        assert_eq!(health.skipped_until_ms(), 1_005);
        assert_eq!(health.admit(at(1_004), ATTEMPT_MS), None);
        let first = attempt(health, 1_005);
        assert_eq!(health.skipped_until_ms(), 1_305);
        assert_eq!(health.admit(at(1_005), ATTEMPT_MS), None);
        assert_eq!(health.admit(at(1_304), ATTEMPT_MS), None);
        health.answered(first, at(1_100));
        assert_eq!(health.skipped_until_ms(), 0);
        assert_eq!([health.admit(at(1_304), ATTEMPT_MS); 2], [Some(Admission::Up); 2]);
    }

    #[test]
    fn the_pause_of_a_server_that_fails_again_doubles_up_to_16_times() {
        let health = &row();
        let mut now_ms = 0;
        for n_times in [1, 2, 4, 8, 16, 16] {
            fail(health, now_ms, SKIP_MS);
            assert_eq!(health.skipped_until_ms(), now_ms + n_times * SKIP_MS);
            now_ms = health.skipped_until_ms();
            attempt(health, now_ms);
        }
        // It counts as good after it has served for as long as its last pause was.
        for (good_ms, n_times) in [(16 * SKIP_MS - 1, 16), (16 * SKIP_MS, 1)] {
            let admission = Admission::LastResort;
            assert!(health.answered(admission, at(now_ms)));
            now_ms += good_ms;
            assert!(fail(health, now_ms, SKIP_MS));
            assert_eq!(health.skipped_until_ms(), now_ms + n_times * SKIP_MS);
        }
    }

    #[test]
    fn a_failure_is_reported_once_and_does_not_prolong_the_pause() {
        let health = &row();
        assert!(fail(health, 5, SKIP_MS));
        assert!(!fail(health, 700, SKIP_MS));
        assert_eq!((health.skipped_until_ms(), health.state()), (1_005, State::Down));
        let change = health.last_change();
        assert_eq!((change.reason, change.n_downs), (ServerReason::Connect, 1));
        let attempt = attempt(health, 1_005);
        assert_eq!(health.state(), State::Trying);
        assert!(health.answered(attempt, at(1_006)) && !health.answered(attempt, at(1_007)));
        assert_eq!((health.state(), health.up_since_ms()), (State::Up, 1_006));
        health.set(Setting::Draining, 1);
        assert_eq!(health.state(), State::Draining);
    }

    #[test]
    fn several_failures_in_a_row_within_the_window_make_a_server_fail() {
        let health = &row();
        let failing = |now_ms| health.is_failing(at(now_ms), 100);
        assert_eq!([0, 1, 2, 3].map(failing), [false, false, true, true]);
        assert_eq!([100, 199, 200].map(failing), [false, false, false], "another window");
        health.answered(Admission::Up, at(201));
        assert_eq!([202, 203, 204].map(failing), [false, false, true]);
        fail(health, 205, SKIP_MS);
        assert!(health.accepted(attempt(health, 1_205), at(1_206)));
        assert_eq!(health.last_change().reason, ServerReason::Accepted);
        assert!(failing(1_207), "one more failure is enough");
    }

    #[test]
    fn a_common_failure_is_pardoned() {
        let health = &row();
        assert!(!health.pardon(at(0)));
        fail(health, 0, SKIP_MS);
        assert!(health.pardon(at(1)) && !health.pardon(at(1)));
        assert_eq!(health.admit(at(1), ATTEMPT_MS), Some(Admission::Up));
        fail(health, 5_000, SKIP_MS);
        attempt(health, 6_000);
        assert!(!health.pardon(at(6_001)), "its attempt will show");
    }

    #[test]
    fn an_attempt_that_fails_begins_another_pause() {
        let health = &row();
        fail(health, 0, SKIP_MS);
        attempt(health, 1_000);
        fail(health, 1_100, SKIP_MS);
        assert_eq!(health.admit(at(3_099), ATTEMPT_MS), None);
        attempt(health, 3_100);
    }

    #[test]
    fn an_attempt_that_shows_nothing_leaves_it_to_the_next() {
        let health = &row();
        fail(health, 0, SKIP_MS);
        let first = attempt(health, 1_000);
        health.abandoned(first, at(1_100));
        assert_eq!(health.skipped_until_ms(), 1_100);
        let second = attempt(health, 1_100);
        assert_eq!(health.admit(at(1_100), ATTEMPT_MS), None);
        health.abandoned(first, at(1_200));
        assert_eq!(health.admit(at(1_200), ATTEMPT_MS), None, "the first has ended before");
        health.answered(second, at(1_100));
        health.abandoned(Admission::Up, at(1_300));
        health.abandoned(Admission::LastResort, at(1_300));
        assert_eq!(health.skipped_until_ms(), 0);
    }

    #[test]
    fn an_attempt_of_a_worker_that_died_blocks_no_longer_than_its_time() {
        let health = &row();
        fail(health, 0, SKIP_MS);
        attempt(health, 1_000);
        assert_eq!(health.admit(at(1_299), ATTEMPT_MS), None);
        attempt(health, 1_300);
        assert_eq!(health.admit(at(1_300), ATTEMPT_MS), None);
    }

    #[test]
    fn an_answer_counts_if_it_was_asked_for_after_the_failure() {
        let health = &row();
        fail(health, 0, SKIP_MS);
        health.answered(Admission::Up, at(1_100));
        assert_eq!(health.skipped_until_ms(), SKIP_MS);
        health.answered(Admission::LastResort, at(1_100));
        assert_eq!(health.skipped_until_ms(), 0);
    }

    #[test]
    fn a_pause_of_0_skips_nothing_and_one_without_end_does_not_overflow() {
        let health = &row();
        fail(health, 7, 0);
        assert_eq!(health.admit(at(7), ATTEMPT_MS), Some(Admission::Up));
        fail(health, 7, u64::MAX);
        assert_eq!(health.admit(at(u64::MAX >> 12), ATTEMPT_MS), None);
    }

    #[test]
    fn checks_hold_a_server_down_whatever_workers_see() {
        let health = &row();
        let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(2));
        let check = Check { http: None, interval, timeout, fails: 3, passes: 2 };
        let note = |result, now_ms| health.checked(&check, result, at(now_ms));
        let refused = Err(CheckFailure::Connect);
        assert!(!note(refused, 1) && !note(refused, 2) && !note(Ok(()), 3), "not in a row");
        assert!(!note(refused, 4) && !note(refused, 5) && note(refused, 6) && !note(refused, 7));
        assert_eq!((health.state(), health.skipped_until_ms()), (State::Down, HELD_MS));
        assert_eq!(health.last_change().reason, ServerReason::CheckFailed);
        assert_eq!(health.admit(at(u64::MAX >> 12), ATTEMPT_MS), None, "no attempt");
        assert!(!fail(health, 8, SKIP_MS) && !health.pardon(at(8)));
        assert!(
            !health.answered(Admission::LastResort, at(9)) && health.held() == Some(Hold::Checks)
        );
        assert!(!note(Ok(()), 10) && !note(refused, 11) && !note(Ok(()), 12) && note(Ok(()), 13));
        assert_eq!((health.state(), health.up_since_ms()), (State::Up, 13));
        assert_eq!(
            (health.last_change().reason, health.last_change().n_downs),
            (ServerReason::CheckPassed, 1)
        );
    }

    #[test]
    fn of_many_workers_one_gets_the_attempt() {
        const N_WORKERS: usize = 8;
        let row = row();
        let (start, end) = (Barrier::new(N_WORKERS), Barrier::new(N_WORKERS));
        let n_attempts = AtomicUsize::new(0);
        let work = |worker: usize| {
            let health = &row;
            let mut now_ms = 1;
            for round in 0..1_000 {
                if worker == 0 && round % 3 != 2 {
                    fail(health, now_ms, SKIP_MS);
                }
                now_ms += SKIP_MS << DOUBLED_MAX;
                start.wait();
                let admission = health.admit(at(now_ms), ATTEMPT_MS);
                let is_attempt = matches!(admission, Some(Admission::Attempt(_)));
                n_attempts.fetch_add(usize::from(is_attempt), Ordering::Relaxed);
                assert!(is_attempt || admission.is_none());
                end.wait();
                assert_eq!(n_attempts.load(Ordering::Relaxed), round + 1);
                // The next attempt follows a success, or else a death.
                if let Some(attempt) = admission.filter(|_| round % 3 == 0) {
                    health.answered(attempt, at(1_100));
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
