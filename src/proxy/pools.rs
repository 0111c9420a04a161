//! The connections of one worker to all servers of all upstreams.
//!
//! The rules are `upstream`'s (which server, which connection, who waits); here they meet
//! sockets. What all workers should know of a server, its addresses and until when it is to be
//! skipped, is in the shared table of servers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::config::{ServerAddress, UpstreamConfig};
use crate::proxy::failure::FetchError;
use crate::proxy::notice::Notice;
use crate::reactor;
use crate::reactor::address::Address;
use crate::reactor::connect::connect;
use crate::reactor::stream::Stream;
use crate::reactor::timer;
use crate::sys::servers::ServerTable;
use crate::upstream::balance::{self, Balance, Choice};
use crate::upstream::pending::{Pending, Ticket};
use crate::upstream::pool::{Checkout, Pool, PoolLimits};

/// How often a name is looked for that the keeper has not resolved yet.
const RESOLVE_LOOK: Duration = Duration::from_millis(20);

/// All pools of a worker.
#[derive(Debug)]
pub struct Pools {
    upstreams: Vec<Rc<Upstream>>,
    table: Rc<ServerTable>,
    connect_ms: u64,
}

#[derive(Debug)]
struct Upstream {
    servers: Vec<Server>,
    balance: RefCell<Balance>,
    pending: RefCell<Pending<Rc<Notice>>>,
    pending_ms: u64,
    retries: usize,
    skip_ms: u64,
}

#[derive(Debug)]
struct Server {
    address: ServerAddress,
    row: usize,
    pool: RefCell<Pool<Rc<Stream>>>,
    /// Which of a name's addresses is next.
    turn: Cell<usize>,
}

/// Which servers a fetch has tried, and whether it trusts connections that lay idle.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    servers: balance::Tried,
    wants_new: bool,
}

impl Tried {
    /// This server was tried.
    pub fn add(&mut self, server: usize) {
        self.servers.insert(server);
    }

    /// An idle connection turned out to be closed: the next one must be new.
    pub fn only_new_connections(&mut self) {
        self.wants_new = true;
    }
}

/// Why there is no connection, and which server is to blame.
type Refusal = (FetchError, Option<usize>);

/// A server, and an idle connection to it; or room for a new one.
type Taken = (usize, Option<Rc<Stream>>);

impl Pools {
    /// Pools for these upstreams, whose servers have consecutive rows in `table`.
    pub fn new(
        upstreams: &[UpstreamConfig],
        table: Rc<ServerTable>,
        connect: Duration,
        idle: Duration,
    ) -> Self {
        let mut rows = 0..;
        let upstreams = upstreams.iter().map(|upstream| {
            let limits = PoolLimits {
                connections: upstream.connections,
                idle_ms: idle.as_millis() as u64,
                skip_ms: upstream.skip.as_millis() as u64,
            };
            let servers = upstream.servers.iter().zip(&mut rows).map(|(server, row)| Server {
                address: server.address.clone(),
                row,
                pool: RefCell::new(Pool::new(limits)),
                turn: Cell::new(0),
            });
            Rc::new(Upstream {
                servers: servers.collect(),
                balance: RefCell::new(Balance::new(upstream.servers.iter().map(|s| s.weight))),
                pending: RefCell::new(Pending::new(upstream.pending)),
                pending_ms: upstream.pending_timeout.as_millis() as u64,
                retries: upstream.retries,
                skip_ms: limits.skip_ms,
            })
        });
        Self { upstreams: upstreams.collect(), table, connect_ms: connect.as_millis() as u64 }
    }

    /// How often a fetch may be tried again.
    pub fn retries(&self, upstream: usize) -> usize {
        self.upstreams[upstream].retries
    }

    /// Whether there is a server that was not tried, and that is worth a try after `error`: if a
    /// name was not resolved in time, only one with an address.
    pub fn has_other(&self, upstream: usize, tried: &Tried, error: FetchError) -> bool {
        let mut others = self.upstreams[upstream].not_in(&tried.servers);
        match error {
            FetchError::Unresolved => others.any(|server| self.has_address(server)),
            _ => others.next().is_some(),
        }
    }

    /// The server is skipped for a while, by all workers.
    pub fn skip(&self, upstream: usize, server: usize) {
        let upstream = &self.upstreams[upstream];
        let now_ms = reactor::now().mono_ms();
        let server = &upstream.servers[server];
        server.pool.borrow_mut().failed(now_ms);
        self.table.set_down(server.row, now_ms + upstream.skip_ms);
    }

    /// The server answered.
    pub fn answered(&self, upstream: usize, server: usize) {
        self.upstreams[upstream].servers[server].pool.borrow_mut().answered();
    }

    /// The server did not answer in time; it is skipped if that happens again and again.
    pub fn silent(&self, upstream: usize, server: usize) {
        let is_doubtful = self.upstreams[upstream].servers[server].pool.borrow_mut().silent();
        if is_doubtful {
            self.skip(upstream, server);
        }
    }

    /// Gives a connection to a server of an upstream, waiting for one within the bounds of the
    /// pending queue.
    pub async fn checkout(&self, upstream: usize, tried: &Tried) -> Result<Checked, Refusal> {
        let number = upstream;
        let upstream = Rc::clone(&self.upstreams[upstream]);
        let until_ms = reactor::now().mono_ms() + upstream.pending_ms;
        let mut is_served = false;
        loop {
            let may_pass = is_served || upstream.pending.borrow().is_empty();
            let taken = match may_pass {
                true => self.take(&upstream, tried)?,
                false => None,
            };
            let Some((server, found)) = taken else {
                wait_in_line(&upstream, until_ms).await?;
                is_served = true;
                continue;
            };
            let active = Active { upstream, number, server, is_kept: false };
            return match found {
                Some(stream) => Ok(Checked { active, stream, is_reused: true }),
                None => {
                    let stream = self.connect(&active, tried).await?;
                    Ok(Checked { active, stream, is_reused: false })
                }
            };
        }
    }

    /// Closes what has been idle for too long.
    pub fn expire(&self) {
        let now_ms = reactor::now().mono_ms();
        for server in self.upstreams.iter().flat_map(|upstream| &upstream.servers) {
            drop(server.pool.borrow_mut().expire(now_ms));
        }
    }

    /// Chooses a server and takes a connection, or room for one; `None` if all are busy.
    fn take(&self, upstream: &Upstream, tried: &Tried) -> Result<Option<Taken>, Refusal> {
        let now_ms = reactor::now().mono_ms();
        let mut passed_over = tried.servers.clone();
        let mut is_any_busy = false;
        loop {
            let down_until_ms = |server: usize| self.down_until_ms(&upstream.servers[server]);
            let choice = upstream.balance.borrow_mut().choose(now_ms, &passed_over, down_until_ms);
            let server = match choice {
                Choice::Up(server) | Choice::Down(server) => server,
                Choice::Exhausted if is_any_busy => return Ok(None),
                Choice::Exhausted => return Err((FetchError::Connect, None)),
            };
            match take_of(&upstream.servers[server], tried.wants_new, now_ms) {
                Some(found) => return Ok(Some((server, found))),
                None => is_any_busy = true,
            }
            passed_over.insert(server);
        }
    }

    fn down_until_ms(&self, server: &Server) -> u64 {
        self.table.down_until(server.row)
    }

    async fn connect(&self, active: &Active, tried: &Tried) -> Result<Rc<Stream>, Refusal> {
        let made = self.try_connect(active, tried).await;
        if made.as_ref().is_err_and(|why| why.blames_server()) {
            self.skip(active.number, active.server);
        }
        made.map_err(|why| (why, Some(active.server)))
    }

    async fn try_connect(&self, active: &Active, tried: &Tried) -> Result<Rc<Stream>, FetchError> {
        let deadline_ms = reactor::now().mono_ms() + self.connect_ms;
        let address = self.address(active, tried, deadline_ms).await;
        let address = address.ok_or(FetchError::Unresolved)?;
        let stream = connect(&address, deadline_ms).await;
        let stream = stream.map_err(|error| FetchError::of_connect(&error))?;
        // Without it small requests may wait for acknowledgements; nothing else is lost.
        let _ = stream.set_nodelay();
        active.of().pool.borrow_mut().succeeded();
        Ok(Rc::new(stream))
    }

    /// Where a server is now. A name that the keeper has yet to resolve is waited for, unless
    /// there is another server whose address is known.
    async fn address(&self, active: &Active, tried: &Tried, deadline_ms: u64) -> Option<Address> {
        let mut tried = tried.servers.clone();
        tried.insert(active.server);
        loop {
            if let Some(address) = self.known_address(active.of()) {
                return Some(address);
            }
            let is_late = reactor::now().mono_ms() >= deadline_ms;
            if is_late || active.upstream.not_in(&tried).any(|server| self.has_address(server)) {
                return None;
            }
            timer::sleep(RESOLVE_LOOK).await;
        }
    }

    /// Where a server is; a name's addresses take turns.
    fn known_address(&self, server: &Server) -> Option<Address> {
        match &server.address {
            ServerAddress::Ip(address) => Some(Address::Ip(*address)),
            ServerAddress::Unix(path) => Some(Address::Unix(path.clone())),
            ServerAddress::Name { .. } => {
                let mut addresses = Vec::new();
                self.table.addresses(server.row, &mut addresses);
                let turn = server.turn.get();
                let address = addresses.get(turn.checked_rem(addresses.len())?)?;
                server.turn.set(turn.wrapping_add(1));
                Some(Address::Ip(*address))
            }
        }
    }

    fn has_address(&self, server: &Server) -> bool {
        let ServerAddress::Name { .. } = server.address else { return true };
        let mut addresses = Vec::new();
        self.table.addresses(server.row, &mut addresses);
        !addresses.is_empty()
    }
}

impl Upstream {
    /// The servers that were not tried.
    fn not_in(&self, tried: &balance::Tried) -> impl Iterator<Item = &Server> {
        let servers = self.servers.iter().enumerate();
        servers.filter(|(number, _)| !tried.contains(*number)).map(|(_, server)| server)
    }
}

/// A connection, or room for one, of this server; `None` if it is busy.
fn take_of(server: &Server, wants_new: bool, now_ms: u64) -> Option<Option<Rc<Stream>>> {
    let mut pool = server.pool.borrow_mut();
    loop {
        match pool.checkout_anyway(now_ms) {
            // Closed while it lay idle, or wanted by nobody who was disappointed by one.
            Checkout::Reuse(stream) if wants_new || !stream.is_open() => pool.closed(),
            Checkout::Reuse(stream) => return Some(Some(stream)),
            Checkout::Connect => return Some(None),
            Checkout::Busy | Checkout::Down => return None,
        }
    }
}

async fn wait_in_line(upstream: &Upstream, until_ms: u64) -> Result<(), Refusal> {
    let notice = Rc::new(Notice::default());
    let since = notice.version();
    let pushed = upstream.pending.borrow_mut().push(Rc::clone(&notice), until_ms);
    let ticket = pushed.map_err(|_| (FetchError::PendingFull, None))?;
    let mut place = Place { upstream, ticket, is_used: false };
    let turn = timer::timeout_at(until_ms, notice.later_than(since)).await;
    place.is_used = turn.is_ok();
    turn.map_err(|_| (FetchError::PendingTimeout, None))
}

/// A place in the line; given up when the wait is.
struct Place<'u> {
    upstream: &'u Upstream,
    ticket: Ticket,
    /// It was called, and its owner goes on to a connection.
    is_used: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let is_waiting = self.upstream.pending.borrow_mut().cancel(self.ticket).is_some();
        // It was called, and its owner is gone: the next one is called instead.
        if !is_waiting && !self.is_used {
            call_next(self.upstream);
        }
    }
}

fn call_next(upstream: &Upstream) {
    let next = upstream.pending.borrow_mut().pop();
    if let Some(next) = next {
        next.post();
    }
}

/// The count of an active connection.
#[derive(Debug)]
struct Active {
    upstream: Rc<Upstream>,
    number: usize,
    server: usize,
    /// It went back to its pool, which counts it.
    is_kept: bool,
}

impl Active {
    fn of(&self) -> &Server {
        &self.upstream.servers[self.server]
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if !self.is_kept {
            self.of().pool.borrow_mut().closed();
        }
        call_next(&self.upstream);
    }
}

/// An active connection; dropping it closes it.
#[derive(Debug)]
pub struct Checked {
    active: Active,
    stream: Rc<Stream>,
    is_reused: bool,
}

impl Checked {
    /// The connection.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The connection, for waits that outlive a borrow.
    pub fn stream_handle(&self) -> Rc<Stream> {
        Rc::clone(&self.stream)
    }

    /// Which server it is: upstream and server, as the configuration counts them.
    pub fn server(&self) -> (usize, usize) {
        (self.active.number, self.active.server)
    }

    /// Whether it carried a request before.
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Gives it back to be used again; the first in line is called.
    pub fn give_back(mut self) {
        self.active.is_kept = true;
        let now_ms = reactor::now().mono_ms();
        let stream = Rc::clone(&self.stream);
        self.active.of().pool.borrow_mut().checkin(stream, now_ms);
    }
}

#[cfg(test)]
pub(in crate::proxy) mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::{self, ServerConfig};

    /// Pools for one upstream of these servers, otherwise as `change` wants it.
    pub(in crate::proxy) fn pools_to(
        servers: &[SocketAddr],
        change: impl FnOnce(&mut UpstreamConfig),
    ) -> Pools {
        let mut upstream = UpstreamConfig {
            name: "u".into(),
            balance: config::Balance::RoundRobin,
            servers: Vec::new(),
            connections: 10,
            pending: 10,
            pending_timeout: Duration::from_secs(5),
            skip: Duration::from_secs(10),
            retries: 2,
        };
        let server = |address: &SocketAddr| ServerAddress::Ip(*address);
        upstream.servers.extend(
            servers.iter().map(|address| ServerConfig { address: server(address), weight: 1 }),
        );
        change(&mut upstream);
        let table = Rc::new(ServerTable::create(upstream.servers.len()).unwrap());
        Pools::new(&[upstream], table, Duration::from_millis(300), Duration::from_millis(100))
    }

    impl Pools {
        /// Whether a server of the only upstream is skipped now.
        pub(in crate::proxy) fn is_skipped(&self, server: usize) -> bool {
            self.table.down_until(server) > 0
        }

        /// Publishes the address of a server of the only upstream.
        pub(in crate::proxy) fn resolve(&self, server: usize, address: SocketAddr) {
            self.table.publish_addresses(server, &[address]);
        }
    }
}
