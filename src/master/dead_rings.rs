//! The log rings of dead children, until they are written and their process slots are free again.
//!
//! The lines that a dead child had accepted for the access log and the slow log are still in its ring. The master
//! writes them by the rules of a worker: under the lock of the file, which another process may hold
//! for a while, and so with retries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::log::recover::{Drained, drain_dead};
use crate::log::ring::Rings;
use crate::master::files::AccessFile;

/// The ring of one dead child.
#[derive(Debug)]
struct DeadRing {
    slot: usize,
    rings: Arc<Rings>,
    /// The child, for the error log: `worker 3 (pid 811)`.
    who: String,
    log: AccessFile,
    next_try: Instant,
    has_complained: bool,
}

/// The rings that are not written yet, oldest first.
#[derive(Debug, Default)]
pub(crate) struct DeadRings {
    rings: Vec<DeadRing>,
}

impl DeadRings {
    /// Takes over a ring of a dead child, to be tried at once.
    pub(crate) fn add(
        &mut self,
        slot: usize,
        who: &str,
        (rings, log): (Arc<Rings>, AccessFile),
        now: Instant,
    ) {
        let who = who.to_owned();
        self.rings.push(DeadRing { slot, rings, who, log, next_try: now, has_complained: false });
    }

    /// After a rotation: what was to go to a file of this name goes to the new one.
    pub(crate) fn reopened(&mut self, log: &AccessFile) {
        for ring in self.rings.iter_mut().filter(|ring| ring.log.path == log.path) {
            ring.log = log.clone();
        }
    }

    /// Tries the rings that are due, and gives the process slots that are free now.
    pub(crate) fn settle(&mut self, now: Instant) -> Vec<usize> {
        let due = self.rings.extract_if(.., |ring| ring.next_try <= now && ring.settle(now));
        let mut free: Vec<usize> = due.map(|ring| ring.slot).collect();
        free.sort_unstable();
        free.dedup();
        // The other log of the same child may not be settled yet.
        free.retain(|slot| self.rings.iter().all(|ring| ring.slot != *slot));
        free
    }

    /// Gives up the rings of the child that died first to get its process slot. Their lines are lost,
    /// which is logged.
    pub(crate) fn discard_oldest(&mut self) -> Option<usize> {
        let slot = self.rings.first()?.slot;
        for ring in self.rings.extract_if(.., |ring| ring.slot == slot) {
            log::error!(
                "lost log lines of {}: cannot write to \"{}\", and its process slot is needed",
                ring.who,
                ring.log.path.display()
            );
        }
        Some(slot)
    }

    /// The time of the next try.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        self.rings.iter().map(|ring| ring.next_try).min()
    }

    /// Whether all rings are written.
    pub(crate) fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }
}

impl DeadRing {
    fn settle(&mut self, now: Instant) -> bool {
        match drain_dead(
            &self.rings,
            self.slot,
            &self.log.file,
            &self.log.path,
            self.log.spill.as_deref(),
        ) {
            Ok(Drained::Busy) => self.next_try = now + PAUSE_BUSY,
            Ok(_) => return true,
            Err(error) => {
                if !self.has_complained {
                    self.has_complained = true;
                    log::error!(
                        "cannot write the last lines of {} to log \"{}\": {error}; retrying \
                         every {} s",
                        self.who,
                        self.log.path.display(),
                        PAUSE_BROKEN.as_secs()
                    );
                }
                self.next_try = now + PAUSE_BROKEN;
            }
        }
        false
    }
}

const PAUSE_BUSY: Duration = Duration::from_millis(50);
const PAUSE_BROKEN: Duration = Duration::from_secs(1);
