//! The end: fast or graceful, and in both cases clean.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::master::generation::Phase;
use crate::master::listeners::Listeners;
use crate::master::{Master, Mode};

impl Master {
    /// Ends everybody now. A child that is told twice dies no sooner.
    pub(super) fn stop(&mut self, now: Instant) {
        if matches!(self.mode, Mode::Stopping { .. }) {
            return;
        }
        log::info!("shutting down");
        self.mode = Mode::Stopping { until: now + TERM_MAX };
        self.signal_all(Signal::SIGTERM);
    }

    /// Has everybody finish what was begun, within timeouts.stop.
    pub(super) fn quit(&mut self, now: Instant) {
        if self.mode != Mode::Serving {
            return;
        }
        let current = self.generations.iter().find(|g| g.phase == Phase::Current);
        let bound = current.map_or(TERM_MAX, |current| current.config.timeouts.stop);
        log::info!("graceful shutdown, at most {} s", bound.as_secs());
        self.mode = Mode::Quitting { until: now + bound };
        for generation in &mut self.generations {
            generation.drain();
        }
        // The workers serve who waits in the sockets' queues, and are then the last to close them.
        self.listeners.remove_files();
        self.listeners = Listeners::default();
    }

    /// Kills whoever has not ended by itself.
    pub(super) fn kill_all(&mut self, now: Instant) {
        self.mode = Mode::Stopping { until: now + TERM_MAX };
        self.signal_all(Signal::SIGKILL);
    }

    fn signal_all(&mut self, signal: Signal) {
        for generation in &mut self.generations {
            for child in &mut generation.children {
                child.restart_at = None;
                child.signal(signal);
            }
        }
    }

    /// Whether all children have ended after they were told to.
    pub(super) fn is_over(&self) -> bool {
        self.mode != Mode::Serving && self.generations.iter().all(|g| g.is_empty())
    }

    /// Writes what the rings still hold, marks the caches clean, and leaves.
    pub(super) fn finish(mut self) -> i32 {
        let deadline = Instant::now() + LOG_MAX;
        loop {
            let now = Instant::now();
            self.dead_rings.settle(&self.tables.rings, now);
            if self.dead_rings.is_empty() {
                break;
            }
            if now >= deadline {
                while self.dead_rings.discard_oldest().is_some() {}
                break;
            }
            std::thread::sleep(LOG_STEP);
        }
        for generation in &self.generations {
            if let Some(cache) = &generation.cache {
                if let Err(error) = cache.shared.index.mark_clean() {
                    log::warn!("cannot mark the cache index as clean: {error}");
                }
                cache.shared.index.detach();
            }
        }
        self.listeners.remove_files();
        log::info!("shutdown complete");
        if let Some(pid_file) = self.pid_file.take() {
            pid_file.remove();
        }
        self.exit_code
    }
}

/// So long a child may take to end after SIGTERM.
const TERM_MAX: Duration = Duration::from_secs(5);
/// So long the last lines of the access log wait for their file.
const LOG_MAX: Duration = Duration::from_secs(10);
const LOG_STEP: Duration = Duration::from_millis(20);
