//! The exit of a child's process: the master frees what the process held in shared memory, and
//! decides when the child is forked again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::units::format_duration;
use crate::config::request_log::RequestLog;
use crate::master::child::Process;
use crate::master::generation::{Generation, Phase};
use crate::master::spawn::EXIT_START_FAILED;
use crate::master::{Master, Mode};
use crate::metrics::table::Metric;
use crate::proxy::finish;
use crate::shared::meter;
use crate::sys::process::{self, ExitStatus};
use crate::worker::inherited::Role;

struct ChildExit {
    role: Role,
    process: Process,
    status: ExitStatus,
}

impl Master {
    /// Handles all children that have exited.
    pub(super) fn reap(&mut self, now: Instant) {
        while let Some((pid, status)) = process::reap() {
            // A `ready` that the process sent before its exit still counts.
            self.receive_messages(now);
            if self.successor.as_ref().is_some_and(|new| new.pid == pid) {
                self.reap_successor(status, now);
            }
            for index in 0..self.generations.len() {
                let children = &mut self.generations[index].children;
                let is_it = |process: &Process| process.pid == pid;
                let which = children.iter().position(|it| it.process.as_ref().is_some_and(is_it));
                if let Some(which) = which
                    && let Some(process) = children[which].take_exited(now)
                {
                    let exit = ChildExit { role: children[which].role, process, status };
                    self.record_crash(index, (exit.role, &exit.process, exit.status), now);
                    self.release_shared(index, &exit, now);
                    self.handle_exit(index, which, &exit, now);
                    break;
                }
            }
        }
    }

    /// Frees what the process held in the shared tables, and takes over the lines in its log ring.
    fn release_shared(&mut self, index: usize, exit: &ChildExit, now: Instant) {
        for cache in self.generations.iter().filter_map(|generation| generation.cache.as_ref()) {
            cache.shared.index.sweep_dead();
        }
        self.file_watch.check_soon(now);
        let (slot, page) = (exit.process.slot, &exit.process.page);
        if let Some(note) =
            self.tables.rings[RequestLog::Access].ring(slot).and_then(|ring| ring.take_note())
        {
            finish::settle(page, note);
        }
        page.release();
        self.tables.bodies.clear(slot);
        if let Role::Worker(number) = exit.role {
            self.generations[index].release_worker(number);
        }
        self.tables.wakes.wake_all(self.tables.fills.abandon_all_of(slot));
        // The next keeper has the same process slot, and a keeper has no log of requests.
        if exit.role == Role::Keeper {
            return;
        }
        let who = format!("{} (pid {})", exit.role, exit.process.pid);
        let mut is_free = true;
        for which in RequestLog::ALL {
            if let Some(file) = &self.generations[index].logs.requests[which] {
                let rings = Arc::clone(&self.tables.rings[which]);
                self.dead_rings.add(slot, &who, (rings, file.clone()), now);
                is_free = false;
            }
        }
        if is_free {
            self.process_slots.free(slot);
        }
    }

    fn handle_exit(&mut self, index: usize, which: usize, exit: &ChildExit, now: Instant) {
        match (self.mode, self.generations[index].phase) {
            (Mode::Serving, Phase::Current) => {
                if !self.was_ready && exit.status == ExitStatus::Exit(EXIT_START_FAILED) {
                    self.abort_start(&format!("{exit}; see the error log"), now);
                } else {
                    self.restart(index, which, exit, now);
                }
            }
            (Mode::Serving, Phase::Starting { .. }) => {
                log::error!(
                    "{exit} during startup; reload failed, keeping the current configuration"
                );
                self.abort_generation(index);
            }
            (Mode::Stopping { .. }, _) => log::debug!("{exit}"),
            _ if exit.status == ExitStatus::Exit(0) => log::debug!("{exit}"),
            _ => log::warn!("{exit} while draining"),
        }
    }

    /// Ends a ktrix that has never been ready: a child cannot start, and neither could the next
    /// one.
    pub(super) fn abort_start(&mut self, why: &str, now: Instant) {
        let why = format!("cannot start: {why}");
        log::error!("{why}");
        if let Some(ready_pipe) = self.ready_pipe.take() {
            ready_pipe.failed(&why);
        }
        self.exit_code = 1;
        self.stop(now);
    }

    fn restart(&mut self, index: usize, which: usize, exit: &ChildExit, now: Instant) {
        let generation = &mut self.generations[index];
        let child = &mut generation.children[which];
        meter::count(Metric::Restarts.at(match exit.role {
            Role::Worker(_) => 1,
            Role::Keeper => 2,
        }));
        let pause = child.backoff.exited(now.saturating_duration_since(exit.process.forked_at));
        child.restart_at = Some(now + pause);
        let level = if pause < PAUSE_GRAVE { log::Level::Warn } else { log::Level::Error };
        match pause {
            Duration::ZERO => log::log!(level, "{exit}; restarting now"),
            pause => log::log!(level, "{exit}; restarting in {}", format_duration(pause)),
        }
        if generation.config.workers > 1 && exit.role != Role::Keeper {
            generation.n_failed_starts = match exit.process.is_serving {
                true => 0,
                false => generation.n_failed_starts.saturating_add(1),
            };
            hasten_last_worker(generation, now + last_pause(generation.n_failed_starts));
        }
    }
}

/// If none of several workers runs, clients wait; the worker with the shortest pause is then
/// started at `latest`. A single worker keeps its pauses, because nothing protects the machine
/// otherwise.
fn hasten_last_worker(generation: &mut Generation, latest: Instant) {
    let mut workers: Vec<_> =
        generation.children.iter_mut().filter(|child| child.role != Role::Keeper).collect();
    if workers.iter().any(|child| child.process.is_some()) {
        return;
    }
    workers.retain(|child| child.restart_at.is_some());
    if let Some(child) = workers.into_iter().min_by_key(|child| child.restart_at)
        && child.restart_at > Some(latest)
    {
        log::warn!("no worker is running; starting {} early", child.role);
        child.restart_at = Some(latest);
    }
}

impl fmt::Display for ChildExit {
    /// `worker 3 (pid 811) exited on signal 9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}) {}", self.role, self.process.pid, self.status)
    }
}

/// A pause from this length on is logged as an error.
const PAUSE_GRAVE: Duration = Duration::from_secs(1);
/// The longest pause while no worker runs. It grows with the number of workers in a row that exited
/// before they served: the next one is then likely to fail too.
fn last_pause(n_failed_starts: u32) -> Duration {
    LAST_PAUSE.saturating_mul(1 << n_failed_starts.min(LAST_DOUBLINGS_MAX)).min(LAST_PAUSE_MAX)
}

const LAST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE_MAX: Duration = Duration::from_secs(1);
const LAST_DOUBLINGS_MAX: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_worker_restarts_soon_and_ever_later_if_it_cannot_start() {
        let pauses_ms: Vec<_> = (0..9).map(|n| last_pause(n).as_millis()).collect();
        assert_eq!(pauses_ms, [20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000]);
        assert_eq!(last_pause(u32::MAX), LAST_PAUSE_MAX);
    }
}
