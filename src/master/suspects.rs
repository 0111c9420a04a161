//! The requests that were in flight in a crash of a worker; those of two crashes are refused for a while.
//!
//! ```text
//! in flight in a crash ─▶ suspected ─┬─ answered, unless the worker was at work with it ─▶ cleared
//!                                    └─ in flight in another crash within a minute ─▶ refused
//! ```

use std::time::{Duration, Instant};

use crate::shared::in_flight::{InFlightTable, N_SUSPECTS, Suspicion};

/// The requests that were in flight in a crash.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    list: Vec<Suspect>,
}

#[derive(Debug)]
struct Suspect {
    place: usize,
    fingerprint: u64,
    until: Instant,
}

/// Two crashes further apart than this are no repetition.
const APART_MAX: Duration = Duration::from_secs(60);

impl Suspects {
    /// A request was in flight in a crash, or the worker was at work with it; whether it is refused from now on, and was not before.
    pub(super) fn add(
        &mut self,
        table: &InFlightTable,
        (fingerprint, suspicion): (u64, Suspicion),
        refused_for: Duration,
        now: Instant,
    ) -> bool {
        self.expire(table, now);
        let known = self.list.iter_mut().find(|it| it.fingerprint == fingerprint);
        let before = known.as_ref().map(|it| table.suspicion(it.place));
        match (known, before) {
            (Some(it), Some(Suspicion::Suspected | Suspicion::AtWork)) => {
                it.until = now + refused_for;
                table.set_suspect(it.place, fingerprint, Suspicion::Refused);
                true
            }
            // Workers that had it before it was refused.
            (Some(_), Some(Suspicion::Refused)) => false,
            (Some(it), _) => {
                it.until = now + APART_MAX;
                table.set_suspect(it.place, fingerprint, suspicion);
                false
            }
            (None, _) => {
                let is_free = |place: &usize| self.list.iter().all(|it| it.place != *place);
                if let Some(place) = (0..N_SUSPECTS).find(is_free) {
                    self.list.push(Suspect { place, fingerprint, until: now + APART_MAX });
                    table.set_suspect(place, fingerprint, suspicion);
                }
                false
            }
        }
    }

    /// Forgets those of which the time is over.
    pub(super) fn expire(&mut self, table: &InFlightTable, now: Instant) {
        self.list.retain(|it| {
            let is_over = it.until <= now;
            if is_over {
                table.set_suspect(it.place, 0, Suspicion::None);
            }
            !is_over
        });
    }

    /// When the next one is forgotten.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.list.iter().map(|it| it.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_crashes_within_a_minute_refuse_a_request_for_a_while() {
        let table = InFlightTable::create(1).unwrap();
        let mut suspects = Suspects::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let refused_for = Duration::from_secs(100);
        let mut crash = |fingerprint, s| {
            suspects.add(&table, (fingerprint, Suspicion::Suspected), refused_for, at(s))
        };
        assert!(!crash(1, 0) && !crash(1, 60), "they are too far apart");
        assert!(crash(1, 119) && !crash(1, 120), "it is said once");
        assert!(table.refuses(1) && !table.refuses(2));
        assert!(!crash(2, 130));
        table.answered(2);
        assert!(!crash(2, 131), "it was answered");
        assert!(crash(2, 132));
        suspects.expire(&table, at(219));
        assert!(!table.refuses(1) && table.refuses(2));
        suspects.expire(&table, at(300));
        assert!(!table.is_guarding() && suspects.next_end().is_none());
        // Answers to other clients say nothing of a request that the worker was at work with.
        let culprit = (3, Suspicion::AtWork);
        assert!(!suspects.add(&table, culprit, refused_for, at(301)));
        table.answered(3);
        assert!(suspects.add(&table, culprit, refused_for, at(302)) && table.refuses(3));
    }
}
