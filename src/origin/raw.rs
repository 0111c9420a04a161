//! A connection to a server for bytes that ktrix does not look into: it is new, belongs to one client,
//! and is closed at its end.

use std::rc::Rc;

use crate::origin::affinity;
use crate::origin::checkout::Tried;
use crate::origin::connection::Connection;
use crate::origin::fetch::{Tie, left_after};
use crate::origin::pools::{Pools, Upstream};
use crate::policy::reason::fetch::FetchError;
use crate::reactor;
use crate::sys::pinned::Race;
use crate::transport::Transport;
use crate::upstream::ids::{Server, UpstreamId};
use crate::upstream::method::HashOf;

/// A connection to a server. Dropping it closes it and gives its place back.
#[derive(Debug)]
pub(crate) struct RawConnection(Connection);

impl RawConnection {
    pub(crate) fn transport(&self) -> &Transport {
        self.0.transport()
    }

    pub(crate) fn server(&self) -> Server {
        self.0.active().server()
    }
}

/// Connects to a server of an upstream, with the same choice, queue and retries as a fetch. `None` if
/// `gone` comes first. A server that accepts the connection counts as one that answers.
pub(crate) async fn connect(
    pools: &Pools,
    upstream: UpstreamId,
    tie: Tie,
    gone: impl Future,
) -> Option<Result<RawConnection, FetchError>> {
    let upstream = pools.upstream(upstream);
    Race::new(connect_to_one(upstream, tie), gone).await
}

async fn connect_to_one(upstream: &Rc<Upstream>, tie: Tie) -> Result<RawConnection, FetchError> {
    // Of a stream there is nothing but the client to hash.
    let hash = upstream
        .hash_of
        .as_ref()
        .map_or(0, |_| affinity::hash_of(&HashOf::Client, b"", tie.client));
    let mut tried = Tried::tied(hash, None, tie.header);
    tried.only_new_connections();
    let mut n_left = upstream.retries;
    let until_ms = reactor::now().mono_ms() + upstream.limits.attempt_ms();
    upstream.budget.borrow_mut().request(reactor::now().mono_ms() / 1_000);
    loop {
        tried.may_try = n_left > 0;
        let taken = match upstream.take_at_once(&tried) {
            Ok(Some(taken)) => Ok(taken),
            Ok(None) => upstream.take_in_line(&tried).await,
            Err(refusal) => Err(refusal),
        };
        let refusal = match taken {
            Ok(taken) => match upstream.connection(taken, &tried).await {
                Ok(connection) => {
                    connection.active().answered();
                    return Ok(RawConnection(connection));
                }
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        n_left = left_after(upstream, &mut tried, refusal, n_left, until_ms).ok_or(refusal.0)?;
    }
}
