//! Workers that hang, in a call that does not return, or that a signal has stopped.
//!
//! The loop of a worker moves a counter on each second (`shared/beats.rs`). The master looks at the
//! counters as often. It counts the time in which it ran itself: after a pause of the whole
//! machine, or of all processes, no worker seems to hang.
//!
//! ```text
//! moving ─ still for 2 s ─▶ another worker serves its sockets ─ still for timeouts.worker-stuck ─▶ killed
//!    ▲                           │
//!    └────── moves again ────────┘
//! ```
//!
//! A connection that the worker has not accepted waits in the queue of its listening socket. All
//! workers have that socket open, and the one that takes it over accepts the connection. It accepts
//! new ones too, of which the kernel gives each socket its share. The clients of connections that
//! the worker has accepted wait until it goes on, or is killed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::base::units::format_duration;
use crate::master::generation::{Generation, Phase};
use crate::master::{Master, Mode};
use crate::shared::beats::Beats;
use crate::worker::inherited::Role;

impl Master {
    /// Looks at the counters of all workers, if that is due.
    pub(super) fn watch_workers(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.workers_looked_at);
        if since < LOOK_EVERY {
            return;
        }
        self.workers_looked_at = now;
        for generation in &mut self.generations {
            generation.watch_workers(&self.tables.beats, since.min(RAN_MAX));
        }
    }

    /// When the counters are looked at again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        (self.mode == Mode::Serving).then_some(self.workers_looked_at + LOOK_EVERY)
    }
}

impl Generation {
    fn watch_workers(&mut self, beats: &Beats, ran: Duration) {
        if matches!(self.phase, Phase::Starting { .. }) {
            return;
        }
        let stuck = self.config.timeouts.worker_stuck;
        for child in &mut self.children {
            let Role::Worker(number) = child.role else { continue };
            let Some(process) = child.process.as_mut().filter(|it| it.is_serving) else { continue };
            process.pulse.look(beats.count(process.slot), ran);
            if process.pulse.is_due(stuck) {
                let still = format_duration(stuck);
                log::error!(
                    "worker {number} (pid {}) has hung for {still}; killing it",
                    process.pid
                );
                child.signal(Signal::SIGKILL);
            }
        }
    }
}

/// How often the counters are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most that counts as time in which the master ran between two looks.
const RAN_MAX: Duration = Duration::from_millis(1_500);
