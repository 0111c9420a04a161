//! The death of a child: clear what it held, and decide who follows.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::base::units::format_duration;
use crate::master::child::Process;
use crate::master::generation::{Generation, Phase};
use crate::master::spawn::EXIT_START_FAILED;
use crate::master::{Master, Mode};
use crate::sys::process::{self, ExitStatus};
use crate::worker::inherited::Role;

/// One death, as far as those who decide need to know it.
struct ChildExit {
    role: Role,
    process: Process,
    status: ExitStatus,
    was_serving: bool,
}

impl Master {
    /// Takes leave of all children that have ended.
    pub(super) fn reap(&mut self, now: Instant) {
        while let Some((pid, status)) = process::reap() {
            // Its last words may be `ready`, and count.
            self.receive_messages(now);
            let found = self.generations.iter().enumerate().find_map(|(index, generation)| {
                let is_it = |process: &Process| process.pid == pid;
                let child =
                    generation.children.iter().position(|it| it.process().is_some_and(is_it))?;
                Some((index, child))
            });
            let Some((index, which)) = found else { continue };
            let child = &mut self.generations[index].children[which];
            let (role, was_serving) = (child.role, child.is_serving());
            if let Some(process) = child.end(None, now) {
                let exit = ChildExit { role, process, status, was_serving };
                self.release_shared(index, &exit, now);
                self.handle_exit(index, which, &exit, now);
            }
        }
    }

    /// Frees what the dead child held in the shared tables, and takes over its log lines.
    fn release_shared(&mut self, index: usize, exit: &ChildExit, now: Instant) {
        let mut swept: Vec<&Rc<_>> = Vec::new();
        for cache in self.generations.iter().filter_map(|generation| generation.cache.as_ref()) {
            if !swept.iter().any(|other| Rc::ptr_eq(other, &cache.shared)) {
                cache.shared.index.sweep_dead();
                swept.push(&cache.shared);
            }
        }
        self.file_watch.check_soon(now);
        let seat = exit.process.seat;
        self.tables.wakes.wake_all(self.tables.fills.abandon_seat(seat));
        match (&self.generations[index].config.log.access, exit.role) {
            // The keeper keeps its seat for its successor, and has no answers to log.
            (_, Role::Keeper) => {}
            (None, Role::Worker(_)) => self.seats.free(seat),
            (Some(access), Role::Worker(_)) => {
                let who = format!("{} (pid {})", exit.role, exit.process.pid);
                self.dead_rings.add(seat, who, access.file.clone(), now);
            }
        }
    }

    /// Decides what becomes of the child.
    fn handle_exit(&mut self, index: usize, child: usize, exit: &ChildExit, now: Instant) {
        let phase = self.generations[index].phase;
        let is_clean = exit.status == ExitStatus::Exit(0);
        match (self.mode, phase) {
            (Mode::Serving, Phase::Current) => {
                if !self.was_ready && exit.status == ExitStatus::Exit(EXIT_START_FAILED) {
                    self.abort_start(exit, now);
                } else {
                    self.restart(index, child, exit, now);
                }
            }
            (Mode::Serving, Phase::Starting { .. }) => {
                log::error!(
                    "{exit} during startup; reload failed, keeping the current configuration"
                );
                self.abort_generation(index, now);
            }
            (_, _) if is_clean => log::debug!("{exit}"),
            (Mode::Stopping { .. }, _) => log::debug!("{exit}"),
            (_, _) => log::warn!("{exit} while draining"),
        }
    }

    /// Nobody serves yet and a child cannot begin: neither could the next.
    fn abort_start(&mut self, exit: &ChildExit, now: Instant) {
        let why = format!("cannot start: {exit}; see the error log");
        log::error!("{why}");
        if let Some(ready_pipe) = self.ready_pipe.take() {
            ready_pipe.failed(&why);
        }
        self.exit_code = 1;
        self.stop(now);
    }

    fn restart(&mut self, index: usize, child: usize, exit: &ChildExit, now: Instant) {
        let lived = now.saturating_duration_since(exit.process.born);
        let generation = &mut self.generations[index];
        let pause = generation.children[child].backoff.died(lived);
        generation.children[child].end(Some(now + pause), now);
        if pause.is_zero() {
            log::warn!("{exit}; restarting now");
        } else if pause < PAUSE_GRAVE {
            log::warn!("{exit}; restarting in {}", format_duration(pause));
        } else {
            log::error!("{exit}; restarting in {}", format_duration(pause));
        }
        if generation.config.workers > 1 && exit.role != Role::Keeper {
            generation.n_failed_starts = match exit.was_serving {
                true => 0,
                false => generation.n_failed_starts.saturating_add(1),
            };
            hasten_last_worker(generation, now + last_pause(generation.n_failed_starts));
        }
    }
}

/// When no worker of several is left, clients wait: then the pause of the one whose turn is next
/// is cut short. A lone worker that crashes has to bear its pauses.
fn hasten_last_worker(generation: &mut Generation, latest: Instant) {
    let workers = || generation.children.iter().filter(|child| child.role != Role::Keeper);
    if workers().any(|child| child.process().is_some()) {
        return;
    }
    let next =
        workers().filter_map(|child| Some((child.restart_at()?, child.role))).min_by_key(|n| n.0);
    if let Some((at, role)) = next
        && at > latest
        && let Some(child) = generation.children.iter_mut().find(|child| child.role == role)
    {
        log::warn!("no worker is running; starting {role} early");
        let now = child.down_since;
        child.end(Some(latest), now);
    }
}

impl fmt::Display for ChildExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}) {}", self.role, self.process.pid, self.status)
    }
}

/// From this pause on somebody should look into it.
const PAUSE_GRAVE: Duration = Duration::from_secs(1);
/// The longest pause of the last worker, when so many in a row have died before they served: each
/// may have been killed by somebody else, or crash as the next one will.
fn last_pause(n_failed_starts: u32) -> Duration {
    LAST_PAUSE.saturating_mul(1 << n_failed_starts.min(LAST_DOUBLINGS_MAX)).min(LAST_PAUSE_MAX)
}

/// The longest pause of the last worker, if the one that died had served.
const LAST_PAUSE: Duration = Duration::from_millis(20);
/// The same if many died before they served.
const LAST_PAUSE_MAX: Duration = Duration::from_secs(1);
/// After so many doublings it is longer than that.
const LAST_DOUBLINGS_MAX: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_worker_is_missed_for_a_moment_and_ever_longer_if_it_cannot_start() {
        let pauses_ms: Vec<_> = (0..9).map(|n| last_pause(n).as_millis()).collect();
        assert_eq!(pauses_ms, [20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000]);
        assert_eq!(last_pause(u32::MAX), LAST_PAUSE_MAX);
    }
}
