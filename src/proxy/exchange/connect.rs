//! CONNECT: a tunnel to the host that the client of a forward proxy names (RFC 9110 section 9.3.6).

use std::rc::Rc;

use crate::http::fields::Fields;
use crate::http::status::Status;
use crate::origin::fetch::Tie;
use crate::origin::raw;
use crate::policy::cache_status::{CacheStatus, CacheVerdict};
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::{Client, Switch};
use crate::proxy::context::Context;
use crate::proxy::exchange::synthetic;
use crate::proxy::facts::Facts;
use crate::proxy::respond::Added;
use crate::proxy::tunnels;
use crate::reactor;
use crate::sys::pinned::Race;
use crate::tunnel::Side;
use crate::tunnel::moved::Moved;
use crate::upstream::destination::{Destination, HostPort};

/// Connects to the host, and joins the client with it until the tunnel ends.
pub(super) async fn answer<C: Client>(
    context: &Rc<Context>,
    client: &mut C,
    host: &Rc<HostPort>,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let destination = Destination::Address(Rc::clone(host));
    let tie = Tie { client: client.front().client, ..Tie::default() };
    let origin = match raw::connect(&context.pools, &destination, tie, client.gone()).await {
        None => return Err(CloseReason::ClientGone),
        Some(Ok(origin)) => origin,
        Some(Err(error)) => {
            facts.reason = error.word();
            let added = Added::new(CacheStatus::own(), None, None);
            let (status, why) = (error.status(), error.sentence());
            let extra = synthetic::retry_after(status);
            return synthetic::answer(client, status, why, extra, &added, facts).await;
        }
    };
    facts.connected_us = reactor::now().mono_us;
    facts.server = Some(origin.server());
    (facts.status, facts.verdict) = (Status(200).0, Some(CacheVerdict::Tunnel));
    let (moved, idle) = (Moved::default(), context.config.timeouts.route.tunnel);
    let setting = context.config.place_of_listener(&client.front().listen);
    let open = context.tunnels.open(setting);
    let switch = Switch { protocol: None, fields: &Fields::new() };
    let side = Side { transport: origin.transport(), ahead: Vec::new() };
    let tunnel = client.tunnel(&switch, side, idle, &moved);
    let end = Race::new(Box::pin(tunnel), open.ended()).await;
    facts.received_bytes = moved.n_to_origin();
    facts.tunnel_bytes = moved.n_to_client();
    Err(tunnels::close_reason(end))
}
