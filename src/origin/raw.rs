//! A connection to a server for bytes that ktrix does not look into: it is new, belongs to one client,
//! and is closed at its end.

use std::rc::Rc;

use crate::origin::affinity;
use crate::origin::checkout::Tried;
use crate::origin::connection::Connection;
use crate::origin::fetch::{Tie, left_after};
use crate::origin::pools::Pools;
use crate::origin::upstream::Upstream;
use crate::policy::reason::fetch::FetchError;
use crate::reactor;
use crate::sys::pinned::Race;
use crate::transport::Transport;
use crate::upstream::destination::{Answerer, Destination};
use crate::upstream::method::HashOf;

/// A connection to a server. Dropping it closes it and gives its place back.
#[derive(Debug)]
pub(crate) struct RawConnection {
    connection: Connection,
    destination: Destination,
}

impl RawConnection {
    pub(crate) fn transport(&self) -> &Transport {
        self.connection.transport()
    }

    pub(crate) fn server(&self) -> Answerer {
        let id = self.connection.active().server().id;
        Answerer { destination: self.destination.clone(), id }
    }
}

/// Connects to a server of a destination, with the same choice, queue and retries as a fetch. `None` if
/// `gone` comes first. A server that accepts the connection counts as one that answers.
pub(crate) async fn connect(
    pools: &Pools,
    destination: &Destination,
    tie: Tie,
    gone: impl Future,
) -> Option<Result<RawConnection, FetchError>> {
    let connected = async {
        let upstream = pools.resolved(destination).await?;
        let connection = connect_to_one(&upstream, tie).await?;
        Ok(RawConnection { connection, destination: destination.clone() })
    };
    Race::new(connected, gone).await
}

async fn connect_to_one(upstream: &Rc<Upstream>, tie: Tie) -> Result<Connection, FetchError> {
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
                    return Ok(connection);
                }
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        n_left = left_after(upstream, &mut tried, refusal, n_left, until_ms).ok_or(refusal.0)?;
    }
}
