//! The end of a worker: it accepts no more connections and finishes what was begun.

use crate::disk;
use crate::reactor::{self, timer};
use crate::worker::Worker;

use std::time::Duration;

/// How often the worker checks whether it is idle.
const LOOK: Duration = Duration::from_millis(20);

/// A connection that has been silent for this long is ended, in milliseconds. Before that its next
/// request may be on its way.
const SILENT_MS: u64 = 2_000;

/// How long the last lines may wait for the access log.
const LOG_PATIENCE: Duration = Duration::from_secs(10);

/// How long the last jobs for the disk may take, in milliseconds.
const DISK_MS: u64 = 2_000;

/// Drains: returns when nothing is left to do, or when `timeouts.stop` is over.
pub(super) async fn drain(worker: &Worker) {
    let context = &worker.context;
    context.is_draining.set(true);
    context.drain.notify();
    // The kernel has accepted the clients in this worker's queues, so they get an answer. If other
    // workers serve the sockets too, as after a reload, this takes a few clients from them, which
    // does no harm.
    for accepting in worker.listeners.take() {
        if let Some(task) = accepting.task {
            accepting.acceptor.accept_waiting();
            drop(task);
        }
    }
    let stop_ms = context.config.timeouts.stop.as_millis() as u64;
    let until_ms = reactor::now().mono_ms() + stop_ms;
    while !is_idle(worker) && reactor::now().mono_ms() < until_ms {
        let silent_before_ms = reactor::now().mono_ms().saturating_sub(SILENT_MS);
        worker.connections.shed_idle(silent_before_ms, usize::MAX);
        timer::sleep(LOOK).await;
    }
    if !worker.connections.is_empty() {
        let n = worker.connections.len();
        ::log::warn!("closing {n} connections that are still open after timeouts.stop");
    }
    // Files of removed objects are unlinked before the worker ends, unless the disk hangs.
    let until_ms = reactor::now().mono_ms() + DISK_MS;
    while !disk::is_idle() && reactor::now().mono_ms() < until_ms {
        timer::sleep(LOOK).await;
    }
    if let Some(log_flush) = &worker.log_flush {
        log_flush.rest(LOG_PATIENCE).await;
    }
}

fn is_idle(worker: &Worker) -> bool {
    worker.connections.is_empty() && worker.context.fills.is_empty()
}
