//! How often the disk has refused to store or to read something: logged once, and counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::shm::shared_struct;

shared_struct! {
    /// How often the disk has refused something. Times are in Unix seconds.
    #[derive(Debug, Default)]
    pub struct Refusals: 24 bytes, aligned 8 {
        /// When that was last logged.
        logged_s: AtomicU64,
        /// How often it has happened since, and when it last did.
        n_since: AtomicU64,
        last_s: AtomicU64,
    }
}

impl Refusals {
    /// Counts a refusal. Whether this process is to log it: one of all processes does so, once in
    /// [`EVERY_S`].
    pub fn note(&self, now_s: u64) -> bool {
        let logged_s = self.logged_s.load(Ordering::Relaxed);
        let is_due = logged_s == 0 || now_s.saturating_sub(logged_s) >= EVERY_S;
        let exchange =
            |to| self.logged_s.compare_exchange(logged_s, to, Ordering::Relaxed, Ordering::Relaxed);
        if is_due && exchange(now_s).is_ok() {
            return true;
        }
        self.last_s.store(now_s, Ordering::Relaxed);
        self.n_since.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// The number of refusals since one was logged, when they are over, or have gone on for
    /// [`EVERY_S`]; 0 before.
    pub fn take(&self, now_s: u64) -> u64 {
        let since = |at: &AtomicU64| now_s.saturating_sub(at.load(Ordering::Relaxed));
        match since(&self.last_s) >= OVER_S || since(&self.logged_s) >= EVERY_S {
            true => self.n_since.swap(0, Ordering::Relaxed),
            false => 0,
        }
    }
}

/// Refusals are logged this often, in seconds.
const EVERY_S: u64 = 600;

/// They are over when there was none for so long, in seconds.
const OVER_S: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_logged_once_and_counted() {
        let refusals = Refusals::default();
        assert!(refusals.note(1_000));
        assert_eq!(refusals.take(1_000 + OVER_S), 0);
        (0..3).for_each(|n| assert!(!refusals.note(1_000 + n)));
        assert_eq!(refusals.take(1_001 + OVER_S), 0, "they are not over");
        assert_eq!(refusals.take(1_002 + OVER_S), 3);
        assert_eq!(refusals.take(1_003 + OVER_S), 0);
        let later_s = 1_000 + EVERY_S;
        assert!(!refusals.note(later_s - 1));
        assert_eq!(refusals.take(later_s), 1, "they go on for long");
        assert!(refusals.note(later_s) && !refusals.note(later_s));
    }
}
