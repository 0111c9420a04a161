//! Stopping, fast or gracefully.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::master::generation::Phase;
use crate::master::listeners::Listeners;
use crate::master::succession::ToOld;
use crate::master::{Master, Mode};
use crate::worker::message::ControlMessage;

impl Master {
    /// Terminates all children now.
    pub(super) fn stop(&mut self, now: Instant) {
        if matches!(self.mode, Mode::Stopping { .. }) {
            return;
        }
        log::info!("shutting down");
        self.begin_end(&ToOld::Stop);
        self.mode = Mode::Stopping { until: now + TERM_MAX };
        self.signal_all(Signal::SIGTERM);
        self.close_listeners();
    }

    /// Tells all children to drain, within timeouts.stop.
    pub(super) fn quit(&mut self, now: Instant) {
        if !matches!(self.mode, Mode::Serving | Mode::Replaced { .. }) {
            return;
        }
        let current = self.generations.iter().find(|g| g.phase == Phase::Current);
        let current = current.or(self.generations.last());
        let bound = current.map_or(TERM_MAX, |current| current.config.timeouts.stop);
        log::info!("graceful shutdown, at most {} s", bound.as_secs());
        self.begin_end(&ToOld::Quit);
        self.mode = Mode::Quitting { until: now + bound };
        for generation in &mut self.generations {
            match generation.phase {
                Phase::Draining => generation.end_tunnels(),
                Phase::Starting { .. } | Phase::Current => generation.drain(ControlMessage::Drain),
            }
        }
        // The workers still serve the clients in the accept queues.
        self.close_listeners();
    }

    /// Leaves the sockets to the workers: with the last of them a client is refused, and waits no more.
    fn close_listeners(&mut self) {
        // A master that this one was to replace goes on with those that it has passed.
        if !self.is_taking_over() {
            self.listeners.remove_files(&self.service_manager);
        }
        self.listeners = Listeners::default();
    }

    /// The steps that both ways to end have.
    fn begin_end(&mut self, message: &ToOld) {
        self.service_manager.stopping();
        self.tell_predecessor(message);
        self.give_up_upgrade();
    }

    /// Kills the children that have not ended by themselves.
    pub(super) fn kill_all(&mut self, now: Instant) {
        self.mode = Mode::Stopping { until: now + TERM_MAX };
        self.predecessor = None;
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
        self.mode != Mode::Serving
            && self.predecessor.is_none()
            && self.generations.iter().all(|g| g.is_empty())
    }

    /// Writes the lines that are left in the rings, marks the caches clean, and gives the exit
    /// code.
    pub(super) fn finish(mut self) -> i32 {
        let deadline = Instant::now() + LOG_MAX;
        loop {
            let now = Instant::now();
            self.dead_rings.settle(now);
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
        self.listeners.remove_files(&self.service_manager);
        match &self.successor {
            Some(new) => log::info!("the ktrix before pid {} has finished", new.pid),
            None => log::info!("shutdown complete"),
        }
        if let Some(pid_file) = self.pid_file.take() {
            pid_file.remove();
        }
        self.exit_code
    }
}

/// The longest time for a child to end after SIGTERM.
const TERM_MAX: Duration = Duration::from_secs(5);
/// The longest time that the last lines of the access log wait for their file.
const LOG_MAX: Duration = Duration::from_secs(10);
const LOG_STEP: Duration = Duration::from_millis(20);
