//! Accepting connections, within `limits.connections`.
//!
//! When the limit is reached, idle connections are closed first, and then those with slow request
//! bodies. If all are busy, new ones wait in
//! the kernel's accept queue until one ends, and are not refused.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::config::{Listen, ListenAddress};
use crate::proxy::client::connections::Connections;
use crate::proxy::client::front::Front;
use crate::proxy::context::Context;
use crate::proxy::h1::serve;
use crate::reactor::address::PeerAddress;
use crate::reactor::listener::Listener;
use crate::reactor::stream::Stream;
use crate::reactor::{self, timer};
use crate::transport::Transport;
use crate::worker::inherited::ListenSocket;

/// How many idle connections are closed at once to make room.
const SHED: usize = 32;

/// A connection counts as idle after this, in milliseconds. Before, its request may be on its way.
const SHED_AFTER_MS: u64 = 1_000;

/// The pause after accept(2) failed for want of a descriptor.
const PAUSE: Duration = Duration::from_millis(50);

/// A listening socket, and what serves its connections.
pub(super) struct Acceptor {
    context: Rc<Context>,
    connections: Rc<Connections>,
    listener: Listener,
    listen: Rc<Listen>,
}

impl Acceptor {
    /// # Errors
    /// When it is not a socket that listens.
    pub(super) fn new(
        context: &Rc<Context>,
        connections: &Rc<Connections>,
        socket: ListenSocket,
    ) -> io::Result<Self> {
        let (context, connections) = (Rc::clone(context), Rc::clone(connections));
        let listener = Listener::from_fd(socket.fd)?;
        Ok(Self { context, connections, listener, listen: socket.listen })
    }

    /// Accepts until dropped.
    pub(super) async fn accept(self: Rc<Self>) {
        loop {
            self.make_room().await;
            match self.listener.accept().await {
                Ok((stream, peer)) => self.serve(Transport::plain(stream), peer),
                Err(error) => {
                    ::log::error!(
                        "cannot accept a connection: {error}; raise the limit of open files (RLIMIT_NOFILE)"
                    );
                    self.shed();
                    timer::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Accepts all connections that are in the socket's queue already.
    pub(super) fn accept_waiting(&self) {
        while let Ok((stream, peer)) = self.listener.try_accept() {
            self.serve(Transport::plain(stream), peer);
        }
    }

    /// The address that it listens on, as configured.
    pub(super) fn address(&self) -> &ListenAddress {
        &self.listen.address
    }

    /// Serves a connection that an older worker has accepted, unless there are too many.
    pub(super) fn adopt(&self, connection: OwnedFd) {
        let stream = Stream::from_fd(connection);
        if self.connections.len() < self.context.config.limits.connections
            && let Ok(Some(peer)) = stream.peer_addr()
        {
            self.serve(Transport::plain(stream), PeerAddress::Ip(peer));
        }
    }

    fn serve(&self, transport: Transport, peer: PeerAddress) {
        let local = transport.local_addr().ok().flatten();
        let front = Front::plain(&self.listen, peer, local, &self.context.config.trusted_proxies);
        let counted = self.connections.add(transport, front, reactor::now().mono_ms());
        reactor::spawn(serve::serve(Rc::clone(&self.context), counted));
    }

    async fn make_room(&self) {
        let n_max = self.context.config.limits.connections;
        while self.connections.len() >= n_max {
            let since = self.connections.left.version();
            self.shed();
            // No event tells that a connection has been idle for long enough.
            let _ = timer::timeout(PAUSE, self.connections.left.after(since)).await;
        }
    }

    fn shed(&self) {
        let before_ms = reactor::now().mono_ms().saturating_sub(SHED_AFTER_MS);
        if self.connections.shed_idle(before_ms, SHED) == 0 {
            self.connections.shed_slow(before_ms, SHED);
        }
    }
}
