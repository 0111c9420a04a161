//! The log rings of dead children, until they are written and their process slots are free again.
//!
//! The lines that a dead child had accepted for the access log are still in its ring. The master
//! writes them by the rules of a worker: under the lock of the file, which another process may hold
//! for a while, and so with retries.

use std::time::{Duration, Instant};

use crate::log::recover::{Drained, drain_dead};
use crate::log::ring::Rings;
use crate::master::files::AccessFile;

/// The ring of one dead child.
#[derive(Debug)]
struct DeadRing {
    slot: usize,
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
    /// Takes over the ring of a dead child, to be tried at once.
    pub(crate) fn add(&mut self, slot: usize, who: String, log: AccessFile, now: Instant) {
        self.rings.push(DeadRing { slot, who, log, next_try: now, has_complained: false });
    }

    /// After a rotation: what was to go to a file of this name goes to the new one.
    pub(crate) fn reopened(&mut self, log: &AccessFile) {
        for ring in self.rings.iter_mut().filter(|ring| ring.log.path == log.path) {
            ring.log = log.clone();
        }
    }

    /// Tries the rings that are due, and gives the process slots that are free now.
    pub(crate) fn settle(&mut self, rings: &Rings, now: Instant) -> Vec<usize> {
        let mut free = Vec::new();
        self.rings.retain_mut(|ring| {
            let is_settled = ring.next_try <= now && ring.settle(rings, now);
            if is_settled {
                free.push(ring.slot);
            }
            !is_settled
        });
        free
    }

    /// Gives up the oldest ring to get its process slot. Its lines are lost, which is logged.
    pub(crate) fn discard_oldest(&mut self) -> Option<usize> {
        if self.rings.is_empty() {
            return None;
        }
        let ring = self.rings.remove(0);
        log::error!(
            "lost access log lines of {}: cannot write to \"{}\", and its process slot is needed",
            ring.who,
            ring.log.path.display()
        );
        Some(ring.slot)
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
    fn settle(&mut self, rings: &Rings, now: Instant) -> bool {
        match drain_dead(
            rings,
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
                        "cannot write the last lines of {} to access log \"{}\": {error}; retrying \
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
