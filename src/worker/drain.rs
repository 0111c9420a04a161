//! The end of a worker: it accepts no more connections and finishes what was begun.
//!
//! After a reload the workers of the new generation take over the connections that wait for a request,
//! so that their clients notice nothing. Tunnels cannot be handed over: they go on in the old workers.

use std::cell::Cell;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::config::ListenAddress;
use crate::disk;
use crate::http::scheme::Scheme;
use crate::proxy::tunnels::Ending;
use crate::reactor::address::PeerAddress;
use crate::reactor::{self, timer};
use crate::sys::pinned::Race;
use crate::worker::{Accepting, Worker, message};

/// How often the worker checks whether it is idle.
const LOOK: Duration = Duration::from_millis(20);

/// How often the worker looks whether its tunnels have ended, or are to end.
const LOOK_AT_TUNNELS: Duration = Duration::from_millis(500);

/// How long the end of the last tunnels may take, in milliseconds.
const END_MS: u64 = 1_000;

/// A connection that has been silent for this long is ended, in milliseconds. Before that its next
/// request may be on its way.
const SILENT_MS: u64 = 2_000;

/// The most connections that are handed over at once: the master and the other workers read them
/// between two looks.
const HANDED_OVER_MAX: usize = 64;

/// How long the last lines may wait for the access log.
const LOG_PATIENCE: Duration = Duration::from_secs(10);

/// How long the last jobs for the disk may take, in milliseconds.
const DISK_MS: u64 = 2_000;

/// Drains: returns when nothing is left to do, or when `timeouts.stop` is over.
pub(super) async fn drain(worker: &Worker, channel: BorrowedFd<'_>) {
    let context = &worker.context;
    context.is_draining.set(true);
    context.is_replaced.set(worker.is_replaced.get());
    context.drain.notify();
    // The kernel has accepted the clients in this worker's queues, so they get an answer. If other
    // workers serve the sockets too, as after a reload, this takes a few clients from them, which
    // does no harm.
    // The admin listener says that ktrix stops, until it has. The sockets of other workers are served
    // too: their workers may have ended, and the kernel still puts connections into their queues.
    let keeps = |it: &Accepting| it.acceptor.is_admin() && !worker.is_replaced.get();
    let (mut kept, others): (Vec<_>, Vec<_>) = worker.listeners.take().into_iter().partition(keeps);
    for accepting in &mut kept {
        let accept = || reactor::spawn_task(Rc::clone(&accepting.acceptor).accept());
        accepting.task.get_or_insert_with(accept);
    }
    for accepting in others {
        if let Some(task) = accepting.task {
            accepting.acceptor.accept_waiting();
            drop(task);
        }
    }
    let stop_ms = context.config.timeouts.stop.as_millis() as u64;
    let began_ms = reactor::now().mono_ms();
    let until_ms = began_ms + stop_ms;
    while !is_idle(worker) && reactor::now().mono_ms() < until_ms {
        let silent_before_ms = reactor::now().mono_ms().saturating_sub(SILENT_MS);
        if !worker.is_replaced.get() || !hand_over(worker, channel) {
            worker.connections.shed_idle(silent_before_ms, usize::MAX);
        }
        worker.half_open.shed(usize::MAX, silent_before_ms);
        timer::sleep(LOOK).await;
    }
    if worker.is_replaced.get() && context.tunnels.n_open() > 0 {
        log_late(worker.connections.end_all_but_tunnels());
        drain_tunnels(worker, began_ms).await;
    }
    end_tunnels(worker).await;
    log_late(worker.connections.end_all_but_tunnels());
    // Files of removed objects are unlinked before the worker ends, unless the disk hangs.
    let until_ms = reactor::now().mono_ms() + DISK_MS;
    while !disk::is_idle() && reactor::now().mono_ms() < until_ms {
        timer::sleep(LOOK).await;
    }
    for log_flush in worker.log_flushes.iter().flatten() {
        log_flush.rest(LOG_PATIENCE).await;
    }
}

fn log_late(n_connections: usize) {
    if n_connections > 0 {
        ::log::warn!("closing {n_connections} connections that are still open after timeouts.stop");
    }
}

/// Lets tunnels go on after a reload until they end, or the master says that there are too many old
/// workers. Those of routes that were changed have `timeouts.tunnel-drain`.
async fn drain_tunnels(worker: &Worker, began_ms: u64) {
    let tunnels = &worker.context.tunnels;
    let drain_ms = worker.context.config.timeouts.tunnel_drain.as_millis() as u64;
    while tunnels.n_open() > 0 && worker.is_replaced.get() {
        if reactor::now().mono_ms() >= began_ms + drain_ms {
            tunnels.end(Ending::OfChanged);
        }
        let (ending, left) = (&worker.ending, &worker.connections.left);
        let changed = Race::new(left.after(left.version()), ending.after(ending.version()));
        // A tunnel over HTTP/2 ends before its connection.
        let _ = timer::timeout(LOOK_AT_TUNNELS, changed).await;
    }
}

/// Ends all tunnels, and waits until their lines are in the access log.
async fn end_tunnels(worker: &Worker) {
    let tunnels = &worker.context.tunnels;
    let until_ms = reactor::now().mono_ms() + END_MS;
    tunnels.end(Ending::All);
    while tunnels.n_open() > 0 && reactor::now().mono_ms() < until_ms {
        timer::sleep(LOOK).await;
    }
}

/// Hands connections that wait for a request over to other workers; `false` if there are none that can
/// be handed over.
fn hand_over(worker: &Worker, channel: BorrowedFd<'_>) -> bool {
    let is_full = Cell::new(false);
    let n_given = worker.connections.give_away(HANDED_OVER_MAX, |connection| {
        let front = &connection.front;
        let ListenAddress::Ip(listener) = front.listen.address else { return false };
        // Of a connection that is more than its bytes, the other worker would know too little.
        let peer = connection.transport.peer_addr().ok().flatten().map(PeerAddress::Ip);
        let is_bytes = front.scheme == Scheme::Http && front.listen.proxies.is_empty();
        if is_full.get() || !is_bytes || peer != Some(front.peer) {
            return false;
        }
        let sent = message::hand_over(channel, listener, connection.transport.fd());
        is_full.set(sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        sent.is_ok()
    });
    n_given > 0 || is_full.get()
}

fn is_idle(worker: &Worker) -> bool {
    worker.half_open.is_empty() && worker.connections.is_empty() && worker.context.fills.is_empty()
}
