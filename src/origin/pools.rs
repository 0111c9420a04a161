//! The connections of one worker to all servers of all upstreams.
//!
//! The rules are `upstream`'s (which server, which connection, who waits); here they meet
//! sockets. What all workers should know of a server, its addresses and until when it is to be
//! skipped, is in the shared table of servers.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use crate::config::{ServerAddress, UpstreamConfig};
use crate::origin::outage::Outages;
use crate::policy::reason::fetch::FetchError;
use crate::reactor;
use crate::reactor::address::Address;
use crate::reactor::connect::connect;
use crate::reactor::event::Event;
use crate::reactor::stream::Stream;
use crate::reactor::timer;
use crate::shared::servers::ServerTable;
use crate::upstream::balance::{self, Balance, Choice};
use crate::upstream::ids::{Server, ServerId, UpstreamId};
use crate::upstream::pending::{Pending, Ticket};
use crate::upstream::pool::{Checkout, Pool, PoolLimits};

/// How often a name is looked for that the keeper has not resolved yet.
const RESOLVE_LOOK: Duration = Duration::from_millis(20);

/// All pools of a worker.
#[derive(Debug)]
pub struct Pools {
    upstreams: Vec<Rc<Upstream>>,
    outages: Outages,
    table: Rc<ServerTable>,
    connect_ms: u64,
}

#[derive(Debug)]
struct Upstream {
    servers: Vec<ServerPool>,
    balance: RefCell<Balance>,
    pending: RefCell<Pending<Rc<Event>>>,
    pending_ms: u64,
    retries: usize,
    skip_ms: u64,
}

#[derive(Debug)]
struct ServerPool {
    server: Server,
    address: ServerAddress,
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
    pub fn add(&mut self, server: ServerId) {
        self.servers.insert(server);
    }

    /// An idle connection turned out to be closed: the next one must be new.
    pub fn only_new_connections(&mut self) {
        self.wants_new = true;
    }
}

/// Why there is no connection, and which server is to blame.
type Refusal = (FetchError, Option<ServerId>);

/// A server, and an idle connection to it; or room for a new one.
type Taken = (ServerId, Option<Rc<Stream>>);

impl Pools {
    /// Pools for these upstreams, which `table` is of.
    pub fn new(
        upstreams: &[UpstreamConfig],
        table: Rc<ServerTable>,
        connect: Duration,
        idle: Duration,
    ) -> Self {
        let outages = Outages::new(upstreams, Rc::clone(&table));
        let upstreams = (0..).map(UpstreamId).zip(upstreams).map(|(id, upstream)| {
            let limits = PoolLimits {
                connections: upstream.connections,
                idle_ms: idle.as_millis() as u64,
                skip_ms: upstream.skip.as_millis() as u64,
            };
            let servers = table.servers(id).zip(&upstream.servers);
            let servers = servers.map(|(server, config)| ServerPool {
                server,
                address: config.address.clone(),
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
        let upstreams = upstreams.collect();
        Self { upstreams, outages, table, connect_ms: connect.as_millis() as u64 }
    }

    /// Which upstreams are down.
    pub fn outages(&self) -> &Outages {
        &self.outages
    }

    /// How often a fetch may be tried again.
    pub fn retries(&self, upstream: UpstreamId) -> usize {
        self.upstreams[upstream.0].retries
    }

    /// Whether there is a server that was not tried, and that is worth a try after `error`: if a
    /// name was not resolved in time, only one with an address.
    pub fn has_other(&self, upstream: UpstreamId, tried: &Tried, error: FetchError) -> bool {
        let mut others = self.upstreams[upstream.0].not_in(&tried.servers);
        match error {
            FetchError::Unresolved => others.any(|server| self.has_address(server)),
            _ => others.next().is_some(),
        }
    }

    /// The server is skipped for a while, by all workers.
    pub fn skip(&self, server: Server) {
        let now_ms = reactor::now().mono_ms();
        self.of(server).pool.borrow_mut().failed(now_ms);
        self.table.set_down(server, now_ms + self.upstreams[server.upstream.0].skip_ms);
    }

    /// The server answered.
    pub fn answered(&self, server: Server) {
        self.of(server).pool.borrow_mut().answered();
        self.outages.end(server.upstream);
    }

    /// The server did not answer in time; it is skipped if that happens again and again.
    pub fn silent(&self, server: Server) {
        let is_doubtful = self.of(server).pool.borrow_mut().silent();
        if is_doubtful {
            self.skip(server);
        }
    }

    fn of(&self, server: Server) -> &ServerPool {
        &self.upstreams[server.upstream.0].servers[server.id.0]
    }

    /// Gives a connection to a server of an upstream, waiting for one within the bounds of the
    /// pending queue.
    pub async fn checkout(&self, upstream: UpstreamId, tried: &Tried) -> Result<Checked, Refusal> {
        let upstream = Rc::clone(&self.upstreams[upstream.0]);
        let is_first = upstream.pending.borrow().is_empty();
        let taken = if is_first { self.take(&upstream, tried)? } else { None };
        let (server, found) = match taken {
            Some(taken) => taken,
            None => self.take_in_line(&upstream, tried).await?,
        };
        let active = Active { upstream, server, is_kept: false };
        match found {
            Some(stream) => Ok(Checked { active, stream, is_reused: true }),
            None => {
                let stream = self.connect(&active, tried).await?;
                Ok(Checked { active, stream, is_reused: false })
            }
        }
    }

    /// Closes what has been idle for too long. Each leaves room, for which one in line is called.
    pub fn expire(&self) {
        let now_ms = reactor::now().mono_ms();
        for upstream in &self.upstreams {
            for server in &upstream.servers {
                let old = server.pool.borrow_mut().expire(now_ms);
                old.iter().for_each(|_| call_next(upstream));
            }
        }
    }

    /// Waits in line until called, and takes what there is then; again and again if others were
    /// faster, or if it is not for this fetch.
    async fn take_in_line(&self, upstream: &Upstream, tried: &Tried) -> Result<Taken, Refusal> {
        let mut place = Place::last(upstream)?;
        loop {
            place.called().await?;
            if let Some(taken) = self.take(upstream, tried)? {
                place.state = Waiting::Served;
                return Ok(taken);
            }
            place.decline();
        }
    }

    /// Chooses a server and takes a connection, or room for one; `None` if all are busy.
    fn take(&self, upstream: &Upstream, tried: &Tried) -> Result<Option<Taken>, Refusal> {
        let now_ms = reactor::now().mono_ms();
        let mut passed_over = tried.servers.clone();
        let mut is_any_busy = false;
        loop {
            let down_until_ms = |id: ServerId| self.table.down_until(upstream.servers[id.0].server);
            let choice = upstream.balance.borrow_mut().choose(now_ms, &passed_over, down_until_ms);
            let server = match choice {
                Choice::Up(server) | Choice::Down(server) => server,
                Choice::Exhausted if is_any_busy => return Ok(None),
                Choice::Exhausted => return Err((FetchError::Connect, None)),
            };
            match take_of(&upstream.servers[server.0], tried.wants_new, now_ms) {
                Some(found) => return Ok(Some((server, found))),
                None => is_any_busy = true,
            }
            passed_over.insert(server);
        }
    }

    async fn connect(&self, active: &Active, tried: &Tried) -> Result<Rc<Stream>, Refusal> {
        let made = self.try_connect(active, tried).await;
        if made.as_ref().is_err_and(|why| why.is_unreachable()) {
            self.skip(active.of().server);
        }
        made.map_err(|why| (why, Some(active.server)))
    }

    async fn try_connect(&self, active: &Active, tried: &Tried) -> Result<Rc<Stream>, FetchError> {
        let deadline_ms = reactor::now().mono_ms() + self.connect_ms;
        let address = self.address(active, tried, deadline_ms).await;
        let address = address.ok_or(FetchError::Unresolved)?;
        let stream = connect(&address, deadline_ms).await;
        let stream = stream.map_err(|error| error_of_connect(&error))?;
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
    fn known_address(&self, server: &ServerPool) -> Option<Address> {
        match &server.address {
            ServerAddress::Ip(address) => Some(Address::Ip(*address)),
            ServerAddress::Unix(path) => Some(Address::Unix(path.clone())),
            ServerAddress::Name { .. } => {
                let mut addresses = Vec::new();
                self.table.addresses(server.server, &mut addresses);
                let turn = server.turn.get();
                let address = addresses.get(turn.checked_rem(addresses.len())?)?;
                server.turn.set(turn.wrapping_add(1));
                Some(Address::Ip(*address))
            }
        }
    }

    fn has_address(&self, server: &ServerPool) -> bool {
        let ServerAddress::Name { .. } = server.address else { return true };
        let mut addresses = Vec::new();
        self.table.addresses(server.server, &mut addresses);
        !addresses.is_empty()
    }
}

impl Upstream {
    /// Whether there is a connection for some fetch, if not for every one.
    fn has_room(&self) -> bool {
        self.servers.iter().any(|server| server.pool.borrow().has_room())
    }

    /// The servers that were not tried.
    fn not_in(&self, tried: &balance::Tried) -> impl Iterator<Item = &ServerPool> {
        self.servers.iter().filter(|it| !tried.contains(it.server.id))
    }
}

/// What it means that a connection could not be made.
fn error_of_connect(error: &io::Error) -> FetchError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EADDRNOTAVAIL,
        ) => FetchError::Resources,
        _ if error.kind() == io::ErrorKind::TimedOut => FetchError::ConnectTimeout,
        _ => FetchError::Connect,
    }
}

/// A connection, or room for one, of this server; `None` if it is busy.
fn take_of(server: &ServerPool, wants_new: bool, now_ms: u64) -> Option<Option<Rc<Stream>>> {
    let mut pool = server.pool.borrow_mut();
    loop {
        match pool.checkout_anyway(now_ms) {
            // Closed while it lay idle, or wanted by nobody who was disappointed by one.
            Checkout::Reuse(stream) if wants_new || !stream.is_open() => pool.closed(),
            Checkout::Reuse(stream) => return Some(Some(stream)),
            Checkout::Connect => return Some(None),
            Checkout::Busy if !pool.expire(now_ms).is_empty() => {}
            Checkout::Busy | Checkout::Down => return None,
        }
    }
}

/// A place in the line; given up when the wait is.
///
/// Whoever is called takes what is free, or keeps its place and lets those behind it look. So
/// something is free while somebody stands in line only if nobody there has a use for it.
struct Place<'u> {
    upstream: &'u Upstream,
    ticket: Ticket,
    event: Rc<Event>,
    until_ms: u64,
    state: Waiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// In line, since this version of the notice.
    InLine(u64),
    /// It has left the line and goes on to a connection.
    Served,
}

impl<'u> Place<'u> {
    /// The place at the end of the line. Those before it may have no use for what is free, and
    /// nobody called the one who has: so they are asked again.
    fn last(upstream: &'u Upstream) -> Result<Self, Refusal> {
        let until_ms = reactor::now().mono_ms() + upstream.pending_ms;
        let event = Rc::new(Event::default());
        let mut pending = upstream.pending.borrow_mut();
        let is_alone = pending.is_empty();
        let pushed = pending.push(Rc::clone(&event), until_ms);
        drop(pending);
        let ticket = pushed.map_err(|_| (FetchError::PendingFull, None))?;
        if !is_alone && upstream.has_room() {
            call_next(upstream);
        }
        Ok(Self { upstream, ticket, event, until_ms, state: Waiting::InLine(0) })
    }

    async fn called(&self) -> Result<(), Refusal> {
        let Waiting::InLine(since) = self.state else { return Ok(()) };
        let turn = timer::timeout_at(self.until_ms, self.event.after(since)).await;
        turn.map_err(|_| (FetchError::PendingTimeout, None))
    }

    /// Goes on waiting. If something is free all the same, the next in line is called for it.
    fn decline(&mut self) {
        self.state = Waiting::InLine(self.event.version());
        let event = Rc::clone(&self.event);
        let mut pending = self.upstream.pending.borrow_mut();
        pending.restore(self.ticket, event, self.until_ms);
        let has_room = self.upstream.has_room();
        let next = if has_room { pending.pop_behind(self.ticket) } else { None };
        drop(pending);
        if let Some(next) = next {
            next.notify();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let is_waiting = self.upstream.pending.borrow_mut().cancel(self.ticket).is_some();
        // It was called, and its owner is gone: the next one is called instead.
        if !is_waiting && self.state != Waiting::Served {
            call_next(self.upstream);
        }
    }
}

fn call_next(upstream: &Upstream) {
    let next = upstream.pending.borrow_mut().pop();
    if let Some(next) = next {
        next.notify();
    }
}

/// The count of an active connection.
#[derive(Debug)]
struct Active {
    upstream: Rc<Upstream>,
    server: ServerId,
    /// It went back to its pool, which counts it.
    is_kept: bool,
}

impl Active {
    fn of(&self) -> &ServerPool {
        &self.upstream.servers[self.server.0]
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

    /// Which server it is.
    pub fn server(&self) -> Server {
        self.active.of().server
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
pub(in crate::origin) mod tests {
    use std::future::Future;
    use std::net::{SocketAddr, TcpListener};

    use super::*;
    use crate::config::{self, ServerConfig};

    /// Pools for one upstream of these servers, otherwise as `change` wants it.
    pub(in crate::origin) fn pools_to(
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
        let table = Rc::new(ServerTable::create([upstream.servers.len()]).unwrap());
        Pools::new(&[upstream], table, Duration::from_millis(300), Duration::from_millis(100))
    }

    /// A server of the only upstream.
    fn server(n: usize) -> Server {
        Server { upstream: UpstreamId(0), id: ServerId(n) }
    }

    impl Pools {
        /// Whether a server of the only upstream is skipped now.
        pub(in crate::origin) fn is_skipped(&self, n: usize) -> bool {
            self.table.down_until(server(n)) > 0
        }

        /// Publishes the address of a server of the only upstream.
        pub(in crate::origin) fn resolve(&self, n: usize, address: SocketAddr) {
            self.table.publish_addresses(server(n), &[address]);
        }
    }

    /// Two servers with room for one connection each; they accept as long as they are held.
    fn two_servers() -> (Rc<Pools>, [TcpListener; 2]) {
        let servers = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = servers.each_ref().map(|server| server.local_addr().unwrap());
        let pools = pools_to(&addresses, |upstream| upstream.connections = 1);
        (Rc::new(pools), servers)
    }

    fn only(n: usize) -> Tried {
        let mut tried = Tried::default();
        tried.add(ServerId(1 - n));
        tried
    }

    /// Has somebody check out; whoever it is is waiting, or done, when this returns.
    async fn begin(pools: &Rc<Pools>, tried: Tried) -> impl Future<Output = Checked> {
        let pools = Rc::clone(pools);
        let task =
            reactor::spawn_task(
                async move { pools.checkout(UpstreamId(0), &tried).await.unwrap() },
            );
        timer::sleep(Duration::from_millis(10)).await;
        task
    }

    async fn soon<T>(work: impl Future<Output = T>) -> T {
        timer::timeout(Duration::from_secs(1), work).await.expect("somebody was not called")
    }

    #[test]
    fn what_we_lack_ourselves_is_not_the_servers_fault() {
        let of = |errno: Errno| error_of_connect(&io::Error::from(errno));
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EADDRNOTAVAIL] {
            assert_eq!(of(errno), FetchError::Resources, "{errno}");
        }
        assert_eq!(of(Errno::ECONNREFUSED), FetchError::Connect);
        assert_eq!(of(Errno::ETIMEDOUT), FetchError::ConnectTimeout);
        let late = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(error_of_connect(&late), FetchError::ConnectTimeout);
    }

    #[test]
    fn connections_too_old_for_use_take_nobodys_room() {
        let (pools, _servers) = two_servers();
        let ran = reactor::run(async {
            let old = pools.checkout(UpstreamId(0), &only(0)).await.unwrap();
            old.give_back();
            timer::sleep(Duration::from_millis(120)).await;
            let new = soon(pools.checkout(UpstreamId(0), &only(0))).await.unwrap();
            assert!(!new.is_reused());
        });
        ran.unwrap();
    }

    #[test]
    fn one_is_called_for_each_connection_that_expires() {
        let (pools, _servers) = two_servers();
        let ran = reactor::run(async {
            for held in [
                pools.checkout(UpstreamId(0), &only(0)).await,
                pools.checkout(UpstreamId(0), &only(1)).await,
            ] {
                held.unwrap().give_back();
            }
            let events = [(); 3].map(|()| Rc::new(Event::default()));
            for event in &events {
                pools.upstreams[0].pending.borrow_mut().push(Rc::clone(event), 0).unwrap();
            }
            timer::sleep(Duration::from_millis(120)).await;
            pools.expire();
            assert_eq!(events.map(|event| event.version()), [1, 1, 0]);
        });
        ran.unwrap();
    }

    #[test]
    fn who_has_no_use_for_a_connection_calls_the_next() {
        let (pools, _servers) = two_servers();
        let ran = reactor::run(async {
            let first = pools.checkout(UpstreamId(0), &only(0)).await.unwrap();
            let second = pools.checkout(UpstreamId(0), &only(1)).await.unwrap();
            let choosy = begin(&pools, only(1)).await;
            let any = begin(&pools, Tried::default()).await;
            first.give_back();
            let any = soon(any).await;
            assert_eq!(any.server(), server(0));
            let last = begin(&pools, Tried::default()).await;
            second.give_back();
            assert_eq!(soon(choosy).await.server(), server(1), "it has kept its place");
            drop(any);
            soon(last).await;
        });
        ran.unwrap();
    }

    #[test]
    fn nobody_waits_behind_one_who_has_no_use_for_what_is_free() {
        let (pools, _servers) = two_servers();
        let ran = reactor::run(async {
            let second = pools.checkout(UpstreamId(0), &only(1)).await.unwrap();
            let choosy = begin(&pools, only(1)).await;
            let any = soon(pools.checkout(UpstreamId(0), &Tried::default())).await.unwrap();
            assert_eq!(any.server(), server(0));
            drop(second);
            assert_eq!(soon(choosy).await.server(), server(1));
        });
        ran.unwrap();
    }

    #[test]
    fn who_leaves_after_being_called_calls_the_next() {
        let (pools, _servers) = two_servers();
        let ran = reactor::run(async {
            let first = pools.checkout(UpstreamId(0), &only(0)).await.unwrap();
            let _second = pools.checkout(UpstreamId(0), &only(1)).await.unwrap();
            let leaving = begin(&pools, Tried::default()).await;
            let staying = begin(&pools, Tried::default()).await;
            first.give_back();
            drop(leaving);
            soon(staying).await;
        });
        ran.unwrap();
    }
}
