//! A connection to a server: its making, its use by a fetch, and its return to the pool.

use std::borrow::Cow;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;

use crate::config::ServerAddress;
use crate::origin::upstream::{ServerPool, Upstream};
use crate::policy::reason::fetch::FetchError;
use crate::policy::reason::server::ServerReason;
use crate::reactor;
use crate::reactor::address::Address;
use crate::reactor::connect::connect_first;
use crate::reactor::timer;
use crate::shared::health::Admission;
use crate::shared::server_row::ServerRow;
use crate::shared::servers::N_ADDRESSES_MAX;
use crate::tls::connect::connect as secure;
use crate::tls::handshake::Secured;
use crate::transport::Transport;
use crate::upstream::ids::{Server, ServerId};
use crate::upstream::pool::Checkout;
use crate::upstream::state::Setting;
use crate::upstream::tried::Tried;

/// The pause between two looks for the address of a name that the keeper has not resolved yet.
const RESOLVE_LOOK: Duration = Duration::from_millis(20);

impl Upstream {
    /// Connects to a server; `tried` are those that were tried before. The PROXY header is that of the
    /// client; without one the connection is ktrix's own.
    pub(super) async fn connect(
        &self,
        id: ServerId,
        tried: &Tried,
        header: Option<&[u8]>,
    ) -> Result<Rc<Transport>, FetchError> {
        let made = self.make(id, tried, header).await;
        let n_failed = self.table.n_failed(self.worker, self.server(id).server);
        match made {
            Ok(_) => n_failed.store(0, Ordering::Relaxed),
            Err(_) => drop(n_failed.fetch_add(1, Ordering::Relaxed)),
        }
        made
    }

    async fn make(
        &self,
        id: ServerId,
        tried: &Tried,
        header: Option<&[u8]>,
    ) -> Result<Rc<Transport>, FetchError> {
        let deadline_ms = reactor::now().mono_ms() + self.limits.connect_ms;
        // The turns of other fetches must not lead this one to the same address again.
        let turn = &self.server(id).turn;
        let turn = turn.replace(turn.get().wrapping_add(1));
        let addresses = self.addresses(id, tried, deadline_ms, turn).await;
        let addresses = addresses.ok_or(FetchError::Unresolved)?;
        let connected = connect_first(&addresses, deadline_ms).await;
        let stream = connected.map_err(|error| error_of(&error))?;
        // Without TCP_NODELAY small requests may wait for acknowledgements, so an error does no
        // other harm.
        let _ = stream.set_nodelay();
        if let Some(version) = self.proxy {
            let header = header.map_or_else(|| version.local().into(), Cow::Borrowed);
            let written = stream.write_all(&header, deadline_ms).await;
            written.map_err(|error| error_of(&error))?;
        }
        let Some(tls) = &self.tls else { return Ok(Rc::new(Transport::plain(stream))) };
        let address = &self.server(id).address;
        let shaken = Box::pin(secure(stream, tls, address, &self.turns, deadline_ms)).await;
        let Secured { stream, session, .. } = shaken.map_err(|(error, why)| {
            log::warn!("server {}/{address}: {}: {why}", self.name, error.word());
            error
        })?;
        Ok(Rc::new(Transport::secured(stream, session)))
    }

    /// Makes the connections to a server that are to be kept ready, one after the other. After one
    /// that fails there is a pause, until the next call.
    pub(super) fn open_ahead(self: &Rc<Self>, server: &ServerPool) {
        let row = self.row(server.server.id);
        let is_used = row.skipped_until_ms() == 0 && row.setting() == Setting::Enabled;
        if !is_used || server.is_opening.get() || !server.pool.borrow_mut().wants_more() {
            return;
        }
        server.is_opening.set(true);
        let (upstream, id) = (Rc::clone(self), server.server.id);
        reactor::spawn(async move {
            loop {
                let active = Active::new(&upstream, id, Admission::Up);
                match upstream.connect(id, &Tried::default(), None).await {
                    Ok(transport) => Connection::new(active, transport, None).keep(0),
                    Err(error) => {
                        if error.is_unreachable() {
                            active.failed(error);
                        }
                        break;
                    }
                }
                if !upstream.server(id).pool.borrow_mut().wants_more() {
                    break;
                }
            }
            upstream.server(id).is_opening.set(false);
        });
    }

    /// Tries the servers again of which the pause is over, by a connection to each without a request:
    /// the request at hand could be lost by a server that still fails. A server that accepted
    /// connections when it failed is left to other requests, unless none comes for another pause.
    pub(super) fn try_by_connection(self: &Rc<Self>) {
        let now = reactor::now();
        for server in &self.servers {
            let (id, row) = (server.server.id, self.row(server.server.id));
            let left_ms = match row.last_change().reason.is_of_connecting() {
                true => 0,
                false => self.pause.first_ms,
            };
            let until_ms = row.skipped_until_ms();
            let is_due = until_ms > 0 && now.mono_ms() >= until_ms.saturating_add(left_ms);
            if !is_due || row.setting() != Setting::Enabled {
                continue;
            }
            let Some(admission) = row.admit(now, self.limits.connect_ms) else { continue };
            if let Checkout::Busy = server.pool.borrow_mut().checkout(now.mono_ms()) {
                row.abandoned(admission, now);
                continue;
            }
            let active = Active::new(self, id, admission);
            let upstream = Rc::clone(self);
            reactor::spawn(async move {
                match upstream.connect(id, &Tried::default(), None).await {
                    Ok(transport) => {
                        active.accepted();
                        // A connection without a client's PROXY header serves none.
                        if upstream.proxy.is_none() {
                            Connection::new(active, transport, None).keep(0);
                        }
                    }
                    Err(error) if error.is_unreachable() => active.failed(error),
                    Err(_) => {}
                }
            });
        }
    }

    /// The addresses of a server. Waits for a name that the keeper has not resolved yet, unless
    /// another server has an address.
    async fn addresses(
        &self,
        id: ServerId,
        tried: &Tried,
        deadline_ms: u64,
        turn: usize,
    ) -> Option<Vec<Address>> {
        let mut tried = tried.clone();
        tried.insert(id);
        loop {
            let known = self.known_addresses(self.server(id), turn);
            if !known.is_empty() {
                return Some(known);
            }
            let is_late = reactor::now().mono_ms() >= deadline_ms;
            if is_late || self.not_in(&tried).any(|server| self.has_address(server)) {
                return None;
            }
            timer::sleep(RESOLVE_LOOK).await;
        }
    }

    /// The known addresses of a server. Those of a name take turns in being the first.
    fn known_addresses(&self, server: &ServerPool, turn: usize) -> Vec<Address> {
        match &server.address {
            ServerAddress::Ip(address) => vec![Address::Ip(*address)],
            ServerAddress::Unix(path) => vec![Address::Unix(path.clone())],
            ServerAddress::Name { .. } => {
                let mut addresses = Vec::new();
                self.table.addresses(server.server, &mut addresses);
                let first = turn.checked_rem(addresses.len()).unwrap_or(0);
                addresses.rotate_left(first);
                addresses.into_iter().map(Address::Ip).collect()
            }
        }
    }

    pub(super) fn has_address(&self, server: &ServerPool) -> bool {
        self.n_addresses(server) > 0
    }

    /// Takes the idle connections to addresses that the name of a server no longer has.
    pub(super) fn take_lost(&self, server: &ServerPool) -> Vec<Rc<Transport>> {
        let ServerAddress::Name { .. } = server.address else { return Vec::new() };
        let mut known = Vec::new();
        self.table.addresses(server.server, &mut known);
        // Of a longer list other addresses may be known each time.
        if known.is_empty() || known.len() >= N_ADDRESSES_MAX {
            return Vec::new();
        }
        let is_lost = |transport: &Rc<Transport>| {
            let peer = transport.peer_addr().ok().flatten();
            peer.is_some_and(|peer| !known.iter().any(|it| it.ip() == peer.ip()))
        };
        server.pool.borrow_mut().take_idle_if(is_lost)
    }

    fn n_addresses(&self, server: &ServerPool) -> usize {
        let ServerAddress::Name { .. } = server.address else { return 1 };
        let mut addresses = Vec::new();
        self.table.addresses(server.server, &mut addresses);
        addresses.len()
    }
}

/// The failure behind an error of connect(2).
fn error_of(error: &io::Error) -> FetchError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EADDRNOTAVAIL,
        ) => FetchError::Resources,
        _ if error.kind() == io::ErrorKind::TimedOut => FetchError::ConnectTimeout,
        _ => FetchError::Connect,
    }
}

/// The place of one active connection in the pool of its server. Dropping it gives the place back,
/// and calls the fetch that has waited longest for one.
#[derive(Debug)]
pub(super) struct Active {
    upstream: Rc<Upstream>,
    id: ServerId,
    /// Why the server may be used, until its answer or failure is known.
    admission: Cell<Admission>,
    /// The connection went back to its pool, which counts it.
    is_kept: bool,
}

impl Active {
    /// For a place that the pool of this server counts already.
    pub(super) fn new(upstream: &Rc<Upstream>, id: ServerId, admission: Admission) -> Self {
        let admission = Cell::new(admission);
        let server = upstream.server(id).server;
        if upstream.needs_active {
            upstream.row(id).add_active();
        }
        upstream.table.n_active(upstream.worker, server).fetch_add(1, Ordering::Relaxed);
        Self { upstream: Rc::clone(upstream), id, admission, is_kept: false }
    }

    pub(super) fn server(&self) -> Server {
        self.of().server
    }

    /// The server answered.
    pub(super) fn answered(&self) {
        let admission = self.admission.replace(Admission::Up);
        let was_common = admission == Admission::LastResort && self.upstream.is_down();
        if self.row().answered(admission, reactor::now()) {
            self.upstream.log_up(self.id, ServerReason::Answered);
        }
        if was_common {
            self.upstream.pardon();
        }
        self.upstream.end_outage();
    }

    /// The server accepted a connection that was made to find out whether it works.
    fn accepted(&self) {
        let admission = self.admission.replace(Admission::Up);
        if self.row().accepted(admission, reactor::now()) {
            self.upstream.log_up(self.id, ServerReason::Accepted);
        }
        self.upstream.end_outage();
    }

    /// The server failed: all workers skip it for a while.
    pub(super) fn failed(&self, error: FetchError) {
        self.admission.set(Admission::Up);
        let reason = ServerReason::from(error);
        if self.row().failed(reactor::now(), self.upstream.pause, reason) {
            self.upstream.log_down(self.id, reason);
        }
    }

    /// The server failed, or the request was too much for it. It counts as failed after several such
    /// requests in a row, or if this was the attempt.
    pub(super) fn doubtful(&self, error: FetchError) {
        let is_failing = self.row().is_failing(reactor::now(), self.upstream.window_ms());
        if is_failing || matches!(self.admission.get(), Admission::Attempt(_)) {
            self.failed(error);
        }
    }

    fn of(&self) -> &ServerPool {
        self.upstream.server(self.id)
    }

    fn row(&self) -> &ServerRow {
        self.upstream.row(self.id)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if !self.is_kept {
            self.of().pool.borrow_mut().closed();
        }
        self.row().abandoned(self.admission.get(), reactor::now());
        self.upstream
            .table
            .n_active(self.upstream.worker, self.server())
            .fetch_sub(1, Ordering::Relaxed);
        if self.upstream.needs_active {
            self.row().remove_active(1);
        }
        self.upstream.count_idle(self.of());
        self.upstream.call_next();
    }
}

/// An active connection; dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    active: Active,
    transport: Rc<Transport>,
    /// Requests that it carried before, if it was idle; `None` if it is new.
    idle: Option<u64>,
}

impl Connection {
    /// A connection that was idle has carried `idle` requests.
    pub(super) fn new(active: Active, transport: Rc<Transport>, idle: Option<u64>) -> Self {
        Self { active, transport, idle }
    }

    /// The place in the pool, to which answers and failures of the server are reported.
    pub(super) fn active(&self) -> &Active {
        &self.active
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The transport, for waits that outlive a borrow.
    pub(super) fn transport_handle(&self) -> Rc<Transport> {
        Rc::clone(&self.transport)
    }

    /// Whether it was idle, so that the server may have closed it meanwhile.
    pub(super) fn is_reused(&self) -> bool {
        self.idle.is_some()
    }

    /// Gives it back to be used again, if it may carry another request.
    pub(super) fn give_back(self) {
        let n_requests = self.idle.unwrap_or(0) + 1;
        if self.active.of().pool.borrow().may_keep(n_requests) {
            self.keep(n_requests);
        }
    }

    fn keep(mut self, n_requests: u64) {
        self.active.is_kept = true;
        let now_ms = reactor::now().mono_ms();
        let transport = Rc::clone(&self.transport);
        self.active.of().pool.borrow_mut().checkin(transport, n_requests, now_ms);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use super::*;
    use crate::origin::tests::sample::{LIMITS, name, pools_to};
    use crate::origin::tests::scripted::{Place, ScriptedOrigin};
    use crate::reactor::clock::run_by_test_clock;

    /// The address that is found for the first of these servers, if the keeper resolves its name
    /// after `after`, and how many milliseconds that takes.
    fn found<const N: usize>(
        servers: [ServerAddress; N],
        resolved_after: Duration,
    ) -> (Option<Address>, u64) {
        let pools = Rc::new(pools_to(servers, |_| {}));
        run_by_test_clock(async {
            let begun_ms = reactor::now().mono_ms();
            let keeper = Rc::clone(&pools);
            reactor::spawn(async move {
                timer::sleep(resolved_after).await;
                keeper.resolve(0, RESOLVED);
            });
            let deadline_ms = begun_ms + LIMITS.connect_ms;
            let upstream = pools.known();
            let found = upstream.addresses(ServerId(0), &Tried::default(), deadline_ms, 0).await;
            (found.map(|mut all| all.remove(0)), reactor::now().mono_ms() - begun_ms)
        })
    }

    const RESOLVED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);

    #[test]
    fn a_name_is_waited_for_until_it_is_resolved_or_too_late() {
        let ms = Duration::from_millis;
        assert_eq!(found([name(0), name(1)], ms(90)), (Some(Address::Ip(RESOLVED)), 100));
        assert_eq!(found([name(0), name(1)], ms(301)), (None, 300));
    }

    #[test]
    fn a_name_is_not_waited_for_if_another_server_has_an_address() {
        let other = ServerAddress::Ip(RESOLVED);
        assert_eq!(found([name(0), other], Duration::from_millis(90)), (None, 0));
    }

    #[test]
    fn connections_are_kept_ready_but_not_to_a_server_that_refuses() {
        run_by_test_clock(async {
            let good = ScriptedOrigin::serving(async |mut peer| {
                peer.request().await;
            });
            let refusing = Place::new();
            let pools = pools_to([good.address(), refusing.address()], |upstream| {
                upstream.keep_open = 3;
            });
            let upstream = pools.known();
            let n_failed = || {
                let server = upstream.server(ServerId(1)).server;
                upstream.table.n_failed(0, server).load(Ordering::Relaxed)
            };
            // Each second, as long as the pause lasts.
            for _ in 0..3 {
                pools.open_ahead();
                timer::sleep(Duration::from_secs(1)).await;
                let n_ready = upstream.server(ServerId(0)).pool.borrow().n_idle();
                assert_eq!((n_ready, n_failed()), (3, 1), "it is tried once");
            }
            assert!(pools.is_skipped(1));
        });
    }

    #[test]
    fn a_local_lack_of_resources_is_no_failure_of_the_server() {
        let of = |errno: Errno| error_of(&io::Error::from(errno));
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EADDRNOTAVAIL] {
            assert_eq!(of(errno), FetchError::Resources, "{errno}");
        }
        assert_eq!(of(Errno::ECONNREFUSED), FetchError::Connect);
        assert_eq!(of(Errno::ETIMEDOUT), FetchError::ConnectTimeout);
        let late = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(error_of(&late), FetchError::ConnectTimeout);
    }
}
