//! The task of a connection of a listener with `mode: tcp`: its bytes go to a server, and those of the
//! server come back.

use std::rc::Rc;

use crate::origin::fetch::Tie;
use crate::origin::raw;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::connections::Counted;
use crate::proxy::context::Context;
use crate::proxy::facts::Facts;
use crate::proxy::finish::{self, Asked, Sent};
use crate::reactor;
use crate::sys::pinned::Race;
use crate::tunnel::moved::Moved;
use crate::tunnel::{self, End, Side};
use crate::upstream::destination::Destination;
use crate::upstream::ids::UpstreamId;

/// The facts that a client has shown of itself before its bytes go on.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// The bytes that were read of it.
    pub(crate) ahead: Vec<u8>,
    /// The name that it asked for by TLS; empty if it asked for none.
    pub(crate) name: Box<str>,
}

/// Passes the bytes of a connection on to an upstream, or closes it for the reason in its place.
pub(crate) async fn serve(
    context: Rc<Context>,
    counted: Counted,
    target: Result<UpstreamId, CloseReason>,
    shown: Shown,
) {
    let connection = &counted.connection;
    connection.set_busy();
    let request_id = context.next_request_id();
    let mut facts = Facts { began: reactor::now(), request_id, ..Facts::default() };
    let (moved, Shown { ahead, name }) = (Moved::default(), shown);
    let close = match target {
        Ok(upstream) => {
            let stream = Joining { context: &context, counted: &counted, name: &name };
            Box::pin(stream.join(upstream, ahead, &moved, &mut facts)).await
        }
        Err(reason) => {
            facts.status = status_of(reason);
            reason
        }
    };
    facts.close = Some(close);
    connection.count_end(close);
    facts.received_bytes = moved.n_to_origin();
    context.log_room(&connection.front).await;
    let bytes = moved.n_to_client();
    let sent = Sent { body_bytes: bytes, bytes };
    finish::finish(&context, &connection.front, Asked::Stream(&name), &facts, sent);
    finish::commit(&context);
    connection.transport.finish();
}

/// A connection that is to be joined with one to a server.
struct Joining<'s> {
    context: &'s Rc<Context>,
    counted: &'s Counted,
    name: &'s str,
}

impl Joining<'_> {
    /// Joins it with a connection to a server of an upstream; returns why that ended.
    async fn join(
        &self,
        upstream: UpstreamId,
        ahead: Vec<u8>,
        moved: &Moved,
        facts: &mut Facts,
    ) -> CloseReason {
        let connection = &self.counted.connection;
        let (client, front) = (&connection.transport, &connection.front);
        let pools = &self.context.pools;
        let destination = Destination::Upstream(upstream);
        let header = pools.proxy(&destination).map(|version| {
            front.proxy_header(version, facts.request_id, b"", self.name.as_bytes())
        });
        let tie = Tie { client: front.client, server: None, header };
        let origin = match raw::connect(pools, &destination, tie, client.broken()).await {
            None => return CloseReason::ClientGone,
            Some(Ok(origin)) => origin,
            Some(Err(error)) => {
                facts.status = error.status().0;
                facts.reason = error.word();
                client.reset();
                return CloseReason::Incomplete;
            }
        };
        facts.server = Some(origin.server());
        facts.connected_us = reactor::now().mono_us;
        facts.status = 200;
        let side = |transport, ahead| Side { transport, ahead };
        let idle = self.context.config.timeouts.route.tunnel;
        let (to_client, to_origin) = (side(client, ahead), side(origin.transport(), Vec::new()));
        connection.set_tunnel();
        let setting = self.context.config.place_of_listener(&front.listen);
        let open = self.context.tunnels.open(setting);
        let joined = tunnel::join(to_client, to_origin, idle, moved);
        match Race::new(joined, open.ended()).await {
            Some(End::Finished) => CloseReason::Finished,
            // The other peer must not take what it got for the whole.
            Some(End::ClientGone) => {
                origin.transport().reset();
                CloseReason::ClientGone
            }
            Some(End::OriginGone) => {
                client.reset();
                CloseReason::Incomplete
            }
            Some(End::Idle) => CloseReason::IdleTimeout,
            None => CloseReason::Drain,
        }
    }
}

/// The status in the log of a connection that reached no upstream; 0 if its client left. It is never
/// sent.
const fn status_of(reason: CloseReason) -> u16 {
    match reason {
        CloseReason::UnknownName => 404,
        CloseReason::HelloTimeout => 408,
        CloseReason::ClientHello => 400,
        _ => 0,
    }
}
