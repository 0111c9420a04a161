//! Accepting connections, within `limits.connections`.
//!
//! When the limit is reached, idle connections are closed first, and then those with slow request
//! bodies. If all are busy, new ones wait in
//! the kernel's accept queue until one ends, and are not refused.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::config::{ListenAddress, ListenMode};
use crate::metrics::table::Metric;
use crate::proxy::client::connections::Connections;
use crate::proxy::client::front::Front;
use crate::proxy::context::Context;
use crate::proxy::h1::serve;
use crate::proxy::h2::connection;
use crate::proxy::tcp;
use crate::reactor::address::PeerAddress;
use crate::reactor::listener::Listener;
use crate::reactor::stream::Stream;
use crate::reactor::{self, timer};
use crate::shared::meter;
use crate::tls::half_open::HalfOpen;
use crate::tls::server::Server;
use crate::transport::Transport;
use crate::worker::inherited::ListenSocket;
use crate::worker::opening::{Opened, Opening, Speaks};
use crate::worker::refusals::Refusals;

/// How many idle connections are closed at once to make room.
const SHED: usize = 32;

/// A connection counts as idle after this, in milliseconds. Before, its request may be on its way.
const SHED_AFTER_MS: u64 = 1_000;

/// Connections beyond the limit that the admin listener may have, so that it answers when the limit is
/// reached.
const RESERVED: usize = 16;

/// The pause after accept(2) failed for want of a descriptor.
const PAUSE: Duration = Duration::from_millis(50);

/// The state that all listeners of a worker share.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) context: Rc<Context>,
    pub(super) connections: Rc<Connections>,
    pub(super) half_open: Rc<HalfOpen>,
    pub(super) refusals: Rc<Refusals>,
}

/// A listening socket, and what serves its connections.
pub(super) struct Acceptor {
    accepted: Accepted,
    listener: Listener,
    opening: Rc<Opening>,
}

impl Acceptor {
    /// # Errors
    /// When it is not a socket that listens.
    pub(super) fn new(
        accepted: &Accepted,
        socket: ListenSocket,
        tls: Option<Rc<Server>>,
    ) -> io::Result<Self> {
        let listener = Listener::from_fd(socket.fd)?;
        let accepted = accepted.clone();
        let opening = Opening {
            context: Rc::clone(&accepted.context),
            listen: socket.listen,
            tls,
            turns: accepted.half_open.turns(),
            refusals: Rc::clone(&accepted.refusals),
        };
        Ok(Self { accepted, listener, opening: Rc::new(opening) })
    }

    /// Accepts until dropped.
    pub(super) async fn accept(self: Rc<Self>) {
        loop {
            self.make_room().await;
            match self.listener.accept().await {
                Ok((stream, peer)) => self.serve(stream, peer),
                Err(error) => {
                    ::log::error!(
                        "cannot accept a connection: {error}; raise the limit of open files (RLIMIT_NOFILE)"
                    );
                    self.accepted.shed();
                    timer::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Accepts all connections that are in the socket's queue already.
    pub(super) fn accept_waiting(&self) {
        while let Ok((stream, peer)) = self.listener.try_accept() {
            self.serve(stream, peer);
        }
    }

    /// The address that it listens on, as configured.
    pub(super) fn address(&self) -> &ListenAddress {
        &self.opening.listen.address
    }

    /// Whether it shows the status of ktrix.
    pub(super) fn is_admin(&self) -> bool {
        self.opening.listen.mode == ListenMode::Admin
    }

    /// Serves a connection without TLS that an older worker has accepted, unless there are too many.
    pub(super) fn adopt(&self, connection: OwnedFd) {
        let stream = Stream::from_fd(connection);
        let Accepted { context, connections, .. } = &self.accepted;
        let reserved = if self.is_admin() { RESERVED } else { 0 };
        let has_room = connections.len() < context.config.limits.connections + reserved;
        if has_room
            && self.opening.is_at_once()
            && self.opening.listen.mode.speaks_http()
            && let Ok(Some(peer)) = stream.peer_addr()
        {
            let front = self.opening.front(&stream, PeerAddress::Ip(peer));
            self.accepted.serve(Transport::plain(stream), front, true);
        }
    }

    fn serve(&self, stream: Stream, peer: PeerAddress) {
        if !self.is_admin() {
            meter::count(Metric::Accepted.cell());
        }
        if self.opening.is_at_once() {
            return self.accepted.begin(self.opening.at_once(stream, peer));
        }
        if !self.opening.admits(peer) {
            return;
        }
        let opening = Rc::clone(&self.opening).open(stream, peer);
        let accepted = self.accepted.clone();
        self.accepted.half_open.spawn(opening, move |opened| {
            if let Some(opened) = opened {
                accepted.begin(opened);
            }
        });
    }

    async fn make_room(&self) {
        let Accepted { context, connections, half_open, .. } = &self.accepted;
        let reserved = if self.is_admin() { RESERVED } else { 0 };
        let n_max = context.config.limits.connections + reserved;
        while connections.len() + half_open.len() >= n_max {
            let since = connections.left.version();
            self.accepted.shed();
            // No event tells that a connection has been idle for long enough.
            let _ = timer::timeout(PAUSE, connections.left.after(since)).await;
        }
    }
}

impl Accepted {
    fn serve(&self, transport: Transport, front: Front, was_idle: bool) {
        let counted = self.connections.add(transport, front, reactor::now().mono_ms());
        reactor::spawn(serve::serve(Rc::clone(&self.context), counted, was_idle));
    }

    fn begin(&self, Opened { transport, front, speaks }: Opened) {
        if let Speaks::Http1 = speaks {
            return self.serve(transport, front, false);
        }
        let counted = self.connections.add(transport, front, reactor::now().mono_ms());
        let context = Rc::clone(&self.context);
        match speaks {
            Speaks::Bytes(target, shown) => {
                reactor::spawn(tcp::serve(context, counted, target, shown));
            }
            Speaks::Clear(first) => reactor::spawn(serve::refuse_plain(context, counted, first)),
            _ => reactor::spawn(connection::serve(context, counted, Vec::new())),
        }
    }

    fn shed(&self) {
        let before_ms = reactor::now().mono_ms().saturating_sub(SHED_AFTER_MS);
        if self.half_open.shed(SHED, before_ms) == 0
            && self.connections.shed_idle(before_ms, SHED) == 0
        {
            self.connections.shed_slow(before_ms, SHED);
        }
    }
}
