//! Pools to test with.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::config::{self, ServerAddress, ServerConfig, UpstreamConfig};
use crate::http::h1::head::HeadLimits;
use crate::origin::pools::{OriginLimits, Pools};
use crate::shared::servers::ServerTable;
use crate::upstream::ids::{Server, ServerId, UpstreamId};

pub(super) const LIMITS: OriginLimits = OriginLimits {
    head: HeadLimits { head_bytes: 4 << 10, fields: 20, target_bytes: 1 << 10 },
    connect_ms: 300,
    first_byte_ms: 5_000,
    idle_ms: 1_000,
};

/// The only upstream.
pub(super) const ID: UpstreamId = UpstreamId(0);

/// A server of the only upstream.
pub(super) fn server(n: usize) -> Server {
    Server { upstream: ID, id: ServerId(n) }
}

/// Pools for one upstream of these servers, otherwise as `change` wants it.
pub(super) fn pools_to<const N: usize>(
    servers: [ServerAddress; N],
    change: impl FnOnce(&mut UpstreamConfig),
) -> Pools {
    let server = |address| ServerConfig { address, weight: 1 };
    let mut upstream = UpstreamConfig {
        name: "u".into(),
        balance: config::Balance::RoundRobin,
        servers: servers.map(server).into(),
        connections: 10,
        pending: 10,
        pending_timeout: Duration::from_secs(5),
        skip: Duration::from_secs(10),
        retries: 2,
    };
    change(&mut upstream);
    let table = Rc::new(ServerTable::create([upstream.servers.len()]).unwrap());
    Pools::new(&[upstream], &table, LIMITS)
}

/// A server whose name the keeper has yet to resolve.
pub(super) fn name(n: usize) -> ServerAddress {
    ServerAddress::Name { host: format!("nowhere{n}"), port: 80 }
}

impl Pools {
    /// Whether a server of the only upstream is skipped now.
    pub(super) fn is_skipped(&self, n: usize) -> bool {
        self.upstream(ID).table.down_until(server(n)) > 0
    }

    /// Publishes the address of a server of the only upstream.
    pub(super) fn resolve(&self, n: usize, address: SocketAddr) {
        self.upstream(ID).table.publish_addresses(server(n), &[address]);
    }
}
