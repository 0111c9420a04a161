//! Taking clients in, within `limits.connections`.
//!
//! When there is no room, connections that lie idle are ended first. If all are busy, new ones
//! wait in the kernel's queue until one ends: they are served late rather than turned away.

use std::rc::Rc;
use std::time::Duration;

use crate::proxy::client::connections::Connections;
use crate::proxy::context::Context;
use crate::proxy::h1::serve;
use crate::reactor::listener::Listener;
use crate::reactor::{self, timer};
use crate::transport::Transport;

/// How many idle connections are ended at once to make room.
const SHED: usize = 32;

/// A connection is not taken for idle before this, in milliseconds: its request may be on its way.
const SHED_AFTER_MS: u64 = 1_000;

/// The pause after the kernel had no descriptor for a new connection.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts from a socket until dropped.
pub(super) async fn accept(
    context: Rc<Context>,
    connections: Rc<Connections>,
    listener: Rc<Listener>,
) {
    loop {
        make_room(&context, &connections).await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                let counted =
                    connections.add(Transport::plain(stream), peer, reactor::now().mono_ms());
                reactor::spawn(serve::serve(Rc::clone(&context), counted));
            }
            Err(error) => {
                ::log::error!("cannot accept a connection: {error}; raise the limit of files");
                connections.shed_idle(reactor::now().mono_ms().saturating_sub(SHED_AFTER_MS), SHED);
                timer::sleep(PAUSE).await;
            }
        }
    }
}

/// Accepts everything that is in the socket's queue already, however many that are.
pub(super) fn accept_waiting(
    context: &Rc<Context>,
    connections: &Rc<Connections>,
    listener: &Listener,
) {
    while let Ok((stream, peer)) = listener.try_accept() {
        let counted = connections.add(Transport::plain(stream), peer, reactor::now().mono_ms());
        reactor::spawn(serve::serve(Rc::clone(context), counted));
    }
}

async fn make_room(context: &Context, connections: &Connections) {
    let n_max = context.config.limits.connections;
    while connections.len() >= n_max {
        let since = connections.left.version();
        let before_ms = reactor::now().mono_ms().saturating_sub(SHED_AFTER_MS);
        connections.shed_idle(before_ms, SHED);
        // Idle connections grow old without a notice, so look again.
        let _ = timer::timeout(PAUSE, connections.left.after(since)).await;
    }
}
