//! Pools to test with, and the simplest of fetches.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::config::bounds::OriginTimeouts;
use crate::config::{ServerAddress, ServerConfig, UpstreamConfig};
use crate::http::h1::head::HeadLimits;
use crate::http::head::ResponseHead;
use crate::http::method::Method;
use crate::http::status::Status;
use crate::origin::fetch::{Question, Tie, fetch};
use crate::origin::pools::Pools;
use crate::origin::request::FetchFailure;
use crate::origin::upload::Upload;
use crate::origin::upstream::OriginLimits;
use crate::origin::upstream::Upstream;
use crate::shared::servers::ServerTable;
use crate::tls::client::Clients;
use crate::upstream::destination::Destination;
use crate::upstream::ids::{Server, ServerId, UpstreamId};
use crate::upstream::method::{self, HashOf};
use crate::upstream::retry::RetryOn;

pub(in crate::origin) const LIMITS: OriginLimits = OriginLimits {
    head: HeadLimits { head_bytes: 4 << 10, fields: 20, target_bytes: 1 << 10 },
    connect_ms: 300,
    first_byte_ms: 5_000,
    idle_ms: 1_000,
    alone_ms: 1_000,
};

/// The only upstream.
pub(in crate::origin) const ID: Destination = Destination::Upstream(UpstreamId(0));

/// A server of the only upstream.
pub(in crate::origin) fn server(n: usize) -> Server {
    Server { upstream: UpstreamId(0), id: ServerId(n) }
}

/// Pools for one upstream of these servers, changed by `change`.
pub(in crate::origin) fn pools_to<const N: usize>(
    servers: [ServerAddress; N],
    change: impl FnOnce(&mut UpstreamConfig),
) -> Pools {
    let [pools] = workers_to(servers, change);
    pools
}

/// As [`pools_to`], for several workers that share the table of servers.
pub(in crate::origin) fn workers_to<const N: usize, const N_WORKERS: usize>(
    servers: [ServerAddress; N],
    change: impl FnOnce(&mut UpstreamConfig),
) -> [Pools; N_WORKERS] {
    let server = |address| ServerConfig::at(address, 10);
    let mut upstream = UpstreamConfig {
        name: "u".into(),
        balance: method::Method::RoundRobin,
        hash: HashOf::Key,
        sticky: None,
        servers: servers.map(server).into(),
        keep_open: 0,
        requests: 0,
        pending: 10,
        pending_timeout: Duration::from_secs(5),
        skip: Duration::from_secs(10),
        slow_start: Duration::ZERO,
        retries: 2,
        retry_on: RetryOn {
            connect: true,
            timeout: true,
            broken: true,
            statuses: vec![502, 503, 504],
        },
        retry_budget: 20,
        timeouts: OriginTimeouts::default(),
        head_bytes: None,
        headers: None,
        resolve: Duration::from_secs(30),
        tls: None,
        proxy: None,
        check: None,
    };
    change(&mut upstream);
    let n_servers = upstream.servers.len();
    let table = Rc::new(ServerTable::create([n_servers], N_WORKERS, "").unwrap());
    std::array::from_fn(|worker| {
        Pools::new(std::slice::from_ref(&upstream), (&table, worker), &Clients::default(), LIMITS)
    })
}

/// Sends a GET, reads the answer to its end, and gives the server that answered.
pub(in crate::origin) async fn get(pools: &Pools) -> Result<ServerId, FetchFailure<Infallible>> {
    ask(pools, Method::Get).await
}

/// As [`get`], by this method.
pub(in crate::origin) async fn ask(
    pools: &Pools,
    method: Method,
) -> Result<ServerId, FetchFailure<Infallible>> {
    let name = method.as_str().expect("a known method");
    let head = format!("{name} / HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    let question = Question {
        protocols: Vec::new(),
        destination: ID,
        tie: Tie::default(),
        timeouts: OriginTimeouts::default(),
        method,
        head,
    };
    let mut response = fetch(pools, &question, &mut Nothing).await?;
    assert_eq!(response.head.status, Status(200));
    while response.body.next(&mut Vec::new()).await.map_err(FetchFailure::Fetch)? {}
    Ok(response.server.id)
}

/// An upload without a body, of a client that stays.
struct Nothing;

impl Upload for Nothing {
    type Error = Infallible;

    fn in_memory(&self) -> Option<&[u8]> {
        Some(b"")
    }

    async fn next(&mut self, _: &mut Vec<u8>) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn rewind(&mut self) -> bool {
        true
    }

    async fn interim(&mut self, _: &ResponseHead) -> Result<(), Infallible> {
        Ok(())
    }

    async fn gone(&mut self) {
        std::future::pending().await
    }

    async fn left(&mut self) {
        std::future::pending().await
    }
}

/// A server with a name that the keeper has not resolved yet.
pub(in crate::origin) fn name(n: usize) -> ServerAddress {
    ServerAddress::Name { host: format!("nowhere{n}"), port: 80 }
}

impl Pools {
    /// The only upstream.
    pub(in crate::origin) fn known(&self) -> Rc<Upstream> {
        self.upstream(&ID).unwrap()
    }

    /// Whether a server of the only upstream is skipped now.
    pub(in crate::origin) fn is_skipped(&self, n: usize) -> bool {
        self.known().row(ServerId(n)).skipped_until_ms() > 0
    }

    /// Publishes the address of a server of the only upstream.
    pub(in crate::origin) fn resolve(&self, n: usize, address: SocketAddr) {
        self.known().table.publish_addresses(server(n), &[address]);
    }
}
