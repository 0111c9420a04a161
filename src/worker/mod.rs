//! One process that serves: its listeners, its loop and its end.
//!
//! ```text
//! Serving ── drain, or the master is dead ──▶ Draining ── all done, or timeouts.stop ──▶ end
//! ```

pub mod inherited;
pub(crate) mod message;
mod refusals;
mod proxy_header;
mod hello;
mod opening;
mod accept;
mod setup;
mod chores;
mod log_flush;
mod drain;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use crate::config::ListenAddress;
use crate::config::request_log::PerLog;
use crate::disk;
use crate::proxy::client::connections::Connections;
use crate::proxy::context::Context;
use crate::reactor::event::Event;
use crate::reactor::readable::Readable;
use crate::reactor::{self, Task};
use crate::sys::memory;
use crate::tls::half_open::HalfOpen;
use crate::tls::secrets::Secrets;
use crate::tls::server::Servers;
use crate::worker::accept::{Accepted, Acceptor};
use crate::worker::inherited::{Inherited, ListenSocket, Role};
use crate::worker::log_flush::LogFlush;
use crate::worker::message::{Received, ask_again_for_tls, notify_ready, receive};

/// The exit code of a worker that could not serve; its reason is in the error log.
const EXIT_CANNOT_SERVE: i32 = 71;

/// The most threads that wait for the disk. They start when they are needed.
const DISK_HELPERS: usize = 8;

/// Runs a worker to its end; gives its exit code.
pub(crate) fn run(inherited: Inherited) -> i32 {
    memory::keep_heap();
    if let Err(error) = crate::log::error::write_by_thread() {
        ::log::warn!("no thread for the error log: {error}");
    }
    let code = match reactor::run(serve(inherited)) {
        Ok(code) => code,
        Err(error) => {
            ::log::error!("cannot create the event loop: {error}");
            EXIT_CANNOT_SERVE
        }
    };
    crate::log::error::settle();
    code
}

/// A worker.
struct Worker {
    number: usize,
    context: Rc<Context>,
    connections: Rc<Connections>,
    half_open: Rc<HalfOpen>,
    tls: Rc<Servers>,
    secrets: Arc<Secrets>,
    log_flushes: PerLog<Option<Rc<LogFlush>>>,
    listeners: RefCell<Vec<Accepting>>,
    /// Workers whose sockets this worker serves besides its own.
    taken_over: RefCell<HashSet<usize>>,
    /// Posted when the worker is to drain.
    ending: Event,
    /// Other workers have taken its place, and take over its idle connections.
    is_replaced: Cell<bool>,
}

/// A listening socket, and the task that accepts from it while this worker serves it.
struct Accepting {
    worker: usize,
    acceptor: Rc<Acceptor>,
    task: Option<Task<()>>,
}

async fn serve(mut inherited: Inherited) -> i32 {
    let number = match inherited.role {
        Role::Worker(number) => number,
        Role::Keeper => 0,
    };
    let context = match setup::context(&mut inherited, number) {
        Ok(context) => Rc::new(context),
        Err(error) => {
            ::log::error!("cannot set up the worker: {error}");
            return EXIT_CANNOT_SERVE;
        }
    };
    let limits = disk::Limits { n_helpers: DISK_HELPERS, timeout: context.config.timeouts.disk };
    let _disk = match disk::start(limits) {
        Ok(running) => running,
        Err(error) => {
            ::log::error!("cannot set up the worker: {error}");
            return EXIT_CANNOT_SERVE;
        }
    };
    let log_flushes = match PerLog::try_of(|which| LogFlush::start(&context, which)) {
        Ok(log_flushes) => log_flushes,
        Err(error) => {
            ::log::error!("cannot set up the worker: {error}");
            return EXIT_CANNOT_SERVE;
        }
    };
    let half_open = Rc::new(HalfOpen::new(context.config.limits.handshakes));
    let accepted =
        Accepted { context, connections: Rc::default(), half_open, refusals: Rc::default() };
    let listeners = listeners(&accepted, inherited.sockets, &inherited.tls);
    let Accepted { context, connections, half_open, .. } = accepted;
    let worker = Rc::new(Worker {
        number,
        context,
        connections,
        half_open,
        tls: inherited.tls,
        secrets: inherited.secrets,
        log_flushes,
        listeners: RefCell::new(listeners),
        taken_over: RefCell::default(),
        ending: Event::default(),
        is_replaced: Cell::new(false),
    });
    chores::start(&worker.context, &inherited.wakes, inherited.beats, inherited.process_slot);
    worker.listen();
    let channel = Rc::new(Readable::new(inherited.channel));
    if notify_ready(channel.fd().as_fd()).is_ok() {
        reactor::spawn(handle_messages(Rc::clone(&worker), Rc::clone(&channel)));
        worker.ending.after(0).await;
    }
    drain::drain(&worker, channel.fd().as_fd()).await;
    0
}

fn listeners(accepted: &Accepted, sockets: Vec<ListenSocket>, tls: &Servers) -> Vec<Accepting> {
    let mut listeners = Vec::with_capacity(sockets.len());
    for socket in sockets {
        let (worker, listen) = (socket.worker, Rc::clone(&socket.listen));
        match Acceptor::new(accepted, socket, tls.of(&listen)) {
            Ok(acceptor) => {
                listeners.push(Accepting { worker, acceptor: Rc::new(acceptor), task: None });
            }
            Err(error) => ::log::error!("cannot listen on {}: {error}", listen.address),
        }
    }
    listeners
}

impl Worker {
    /// Accepts from the sockets that this worker serves, and from no others.
    fn listen(&self) {
        let taken_over = self.taken_over.borrow();
        for accepting in self.listeners.borrow_mut().iter_mut() {
            let is_served =
                accepting.worker == self.number || taken_over.contains(&accepting.worker);
            match (is_served, &accepting.task) {
                (true, None) => {
                    let accept = Rc::clone(&accepting.acceptor).accept();
                    accepting.task = Some(reactor::spawn_task(accept));
                }
                (false, Some(_)) => accepting.task = None,
                _ => {}
            }
        }
    }
}

impl Worker {
    /// Serves a connection that an older worker has accepted. It is closed if its listener is gone.
    fn adopt(&self, listener: SocketAddr, connection: OwnedFd) {
        let address = ListenAddress::Ip(listener);
        let listeners = self.listeners.borrow();
        if let Some(accepting) = listeners.iter().find(|it| it.acceptor.address() == &address) {
            accepting.acceptor.adopt(connection);
        }
    }
}

/// Handles the messages of the master, until the end of the channel.
async fn handle_messages(worker: Rc<Worker>, channel: Rc<Readable<OwnedFd>>) {
    loop {
        if channel.readable().await.is_err() {
            break;
        }
        loop {
            match receive(channel.fd().as_fd()) {
                Received::Nothing => break,
                Received::Closed => {
                    ::log::error!("control channel closed: the master has exited; draining");
                    worker.is_replaced.set(false);
                    return worker.ending.notify();
                }
                Received::Drain => {
                    worker.is_replaced.set(false);
                    worker.ending.notify();
                }
                Received::Retire(unchanged) => {
                    worker.context.tunnels.keep(unchanged.as_ref());
                    worker.is_replaced.set(true);
                    worker.ending.notify();
                }
                Received::Adopt(listener, connection) => worker.adopt(listener, connection),
                Received::RequestLog(which, file) => {
                    if let Some(log) = &worker.context.logs[which] {
                        log.lines.borrow_mut().write_to(file);
                    }
                }
                Received::ErrorLog(file) => crate::log::error::reopen(file),
                Received::Tls(file) => {
                    let config = &worker.context.config;
                    let taken = worker.tls.renew_by(config, &worker.secrets, file);
                    ask_again_for_tls(channel.fd().as_fd(), taken);
                }
                Received::TakeOver(other) => {
                    worker.taken_over.borrow_mut().insert(other);
                    worker.listen();
                }
                Received::Release(other) => {
                    worker.taken_over.borrow_mut().remove(&other);
                    worker.listen();
                }
            }
        }
    }
    worker.ending.notify();
}
