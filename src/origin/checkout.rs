//! Choosing a server and a connection for a fetch.

use std::rc::Rc;

use crate::origin::connection::{Active, Connection};
use crate::origin::line::Place;
use crate::origin::upstream::{ServerPool, Upstream};
use crate::policy::reason::fetch::FetchError;
use crate::reactor;
use crate::shared::health::Admission;
use crate::shared::server_row::ServerRow;
use crate::transport::Transport;
use crate::upstream::balance::{Ask, Choice};
use crate::upstream::ids::ServerId;
use crate::upstream::pool::Checkout;
use crate::upstream::state::{Hold, Setting};
use crate::upstream::tried;

/// The servers that a fetch has tried, whether it may use idle connections, and what ties it to a
/// server.
#[derive(Clone, Debug, Default)]
pub(super) struct Tried {
    servers: tried::Tried,
    wants_new: bool,
    /// Another server can answer if the one that is chosen fails.
    pub(super) may_try: bool,
    pub(super) hash: u64,
    pub(super) sticky: Option<ServerId>,
    /// The PROXY header of the client.
    header: Option<Rc<[u8]>>,
}

impl Tried {
    /// None was tried; the question has this hash, and its client's cookie names this server.
    pub(super) fn tied(hash: u64, sticky: Option<ServerId>, header: Option<Rc<[u8]>>) -> Self {
        Self { hash, sticky, header, ..Self::default() }
    }

    /// This server was tried.
    pub(super) fn add(&mut self, server: ServerId) {
        self.servers.insert(server);
    }

    fn has_tried(&self) -> bool {
        self.servers != tried::Tried::default()
    }

    /// Notes that an idle connection was closed: the next one must be new.
    pub(super) fn only_new_connections(&mut self) {
        self.wants_new = true;
    }
}

/// Why there is no connection, and the server that failed, if one did.
pub(super) type Refusal = (FetchError, Option<ServerId>);

/// Room for a connection to a server, and an idle connection if there is one.
pub(super) type Taken = (Active, Option<(Rc<Transport>, u64)>);

impl Upstream {
    /// Gives a connection to a server, waiting for one within the bounds of the pending queue.
    #[cfg(test)]
    pub(super) async fn checkout(self: &Rc<Self>, tried: &Tried) -> Result<Connection, Refusal> {
        let taken = match self.take_at_once(tried)? {
            Some(taken) => taken,
            None => self.take_in_line(tried).await?,
        };
        self.connection(taken, tried).await
    }

    /// Takes a connection, or room for one, unless others wait for one.
    pub(super) fn take_at_once(self: &Rc<Self>, tried: &Tried) -> Result<Option<Taken>, Refusal> {
        let is_first = self.pending.borrow().is_empty() && self.n_called.get() == 0;
        if is_first { self.take(tried) } else { Ok(None) }
    }

    /// The connection that was taken, or a new one in its room.
    pub(super) async fn connection(
        self: &Rc<Self>,
        (active, idle): Taken,
        tried: &Tried,
    ) -> Result<Connection, Refusal> {
        if let Some((transport, n_requests)) = idle {
            return Ok(Connection::new(active, transport, Some(n_requests)));
        }
        let id = active.server().id;
        match self.connect(id, &tried.servers, tried.header.as_deref()).await {
            Ok(transport) => Ok(Connection::new(active, transport, None)),
            Err(error) => {
                if error.is_unreachable() {
                    active.failed(error);
                }
                Err((error, Some(id)))
            }
        }
    }

    /// Whether another server may be tried after `error`: one that was not tried and, if a name was
    /// not resolved in time, one that has an address.
    pub(super) fn has_other(&self, tried: &Tried, error: FetchError) -> bool {
        let mut others = self.not_in(&tried.servers).filter(|server| self.takes_clients(server));
        match error {
            FetchError::Unresolved => others.any(|server| self.has_address(server)),
            _ => others.next().is_some(),
        }
    }

    /// Whether another server is likely to give a better answer.
    pub(super) fn has_other_up(&self, tried: &Tried) -> bool {
        let mut others = self.not_in(&tried.servers).filter(|server| self.takes_clients(server));
        others.any(|server| self.row(server.server.id).skipped_until_ms() == 0)
    }

    fn takes_clients(&self, server: &ServerPool) -> bool {
        let row = self.row(server.server.id);
        row.setting() == Setting::Enabled && row.weight() > 0 && row.held().is_none()
    }

    /// Why no server may be used, or those that may were tried.
    fn exhausted(&self) -> FetchError {
        let mut rows = self.servers.iter().map(|server| self.row(server.server.id));
        match rows.find_map(ServerRow::held) {
            None => FetchError::Connect,
            Some(Hold::Name) => FetchError::Unresolved,
            Some(Hold::Checks) => FetchError::ChecksFailed,
        }
    }

    /// Waits in line until called, then takes a connection. Waits again if another fetch was
    /// faster, or if this one cannot use what is free.
    pub(super) async fn take_in_line(self: &Rc<Self>, tried: &Tried) -> Result<Taken, Refusal> {
        let mut place = Place::last(self, tried.has_tried()).map_err(|error| (error, None))?;
        loop {
            place.called().await.map_err(|error| (error, None))?;
            if let Some(taken) = self.take(tried)? {
                place.leave();
                // A server that has come back has room for more than one.
                if self.has_room() {
                    self.call_next();
                }
                return Ok(taken);
            }
            place.decline();
        }
    }

    /// Chooses a server and takes a connection, or room for one; `None` if all are busy.
    fn take(self: &Rc<Self>, tried: &Tried) -> Result<Option<Taken>, Refusal> {
        let taken = self.take_chosen(tried);
        if !tried.may_try {
            // Only now: the place of the request at hand comes first.
            self.try_by_connection();
        }
        taken
    }

    fn take_chosen(self: &Rc<Self>, tried: &Tried) -> Result<Option<Taken>, Refusal> {
        let now = reactor::now();
        let now_ms = now.mono_ms();
        let mut busy = tried::Tried::default();
        let &Tried { hash, sticky, may_try, servers: ref tried_servers, .. } = tried;
        loop {
            let ask = Ask { now_ms, hash, sticky, tried: tried_servers, busy: &busy, may_try };
            let choice = self.balance.borrow_mut().choose(&ask, &**self);
            let (id, admission) = match choice {
                Choice::Up(id) if may_try => {
                    (id, self.row(id).admit(now, self.limits.attempt_ms()))
                }
                Choice::Up(id) => (id, self.row(id).admit_up()),
                Choice::LastResort(id) => (id, Some(Admission::LastResort)),
                Choice::Busy => return Ok(None),
                Choice::Exhausted => return Err((self.exhausted(), None)),
            };
            // Without one another worker has begun the attempt, and the server is skipped again.
            let Some(admission) = admission else { continue };
            if let Some(idle) = take_of(self.server(id), tried.wants_new, now_ms) {
                return Ok(Some((Active::new(self, id, admission), idle)));
            }
            self.row(id).abandoned(admission, now);
            busy.insert(id);
        }
    }
}

/// An idle connection, or room for a new one, of this server; `None` if it is busy.
fn take_of(
    server: &ServerPool,
    wants_new: bool,
    now_ms: u64,
) -> Option<Option<(Rc<Transport>, u64)>> {
    let mut pool = server.pool.borrow_mut();
    loop {
        match pool.checkout(now_ms) {
            // It was closed while it was idle, or this fetch needs a new connection.
            Checkout::Reuse(transport, _) if wants_new || !transport.is_reusable() => pool.closed(),
            Checkout::Reuse(transport, n_requests) => return Some(Some((transport, n_requests))),
            Checkout::Connect => return Some(None),
            Checkout::Busy if !pool.expire(now_ms).is_empty() => {}
            Checkout::Busy => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::time::Duration;

    use super::*;
    use crate::config::UpstreamConfig;
    use crate::origin::pools::Pools;
    use crate::origin::tests::sample::{LIMITS, pools_to, server};
    use crate::origin::tests::scripted::{Peer, ScriptedOrigin};
    use crate::reactor::clock::run_by_test_clock;
    use crate::reactor::event::Event;
    use crate::reactor::timer;

    /// Two servers with room for one connection each, for as long as the values live.
    fn two_servers() -> (Rc<Pools>, [ScriptedOrigin; 2]) {
        two_servers_with(|_| {})
    }

    fn two_servers_with(
        change: impl FnOnce(&mut UpstreamConfig),
    ) -> (Rc<Pools>, [ScriptedOrigin; 2]) {
        let serve = async |mut peer: Peer| while peer.request().await.is_some() {};
        let servers = [(); 2].map(|()| ScriptedOrigin::serving(serve));
        let addresses = servers.each_ref().map(ScriptedOrigin::address);
        (
            Rc::new(pools_to(addresses, |upstream| {
                upstream.servers.iter_mut().for_each(|server| server.connections = 1);
                change(upstream);
            })),
            servers,
        )
    }

    fn only(n: usize) -> Tried {
        let mut tried = Tried::default();
        tried.add(ServerId(1 - n));
        tried
    }

    /// Begins a checkout, which waits, or is done, when this returns.
    async fn begin(pools: &Rc<Pools>, tried: Tried) -> impl Future<Output = Connection> {
        let pools = Rc::clone(pools);
        let task =
            reactor::spawn_task(async move { pools.known().checkout(&tried).await.unwrap() });
        timer::sleep(Duration::from_millis(1)).await;
        task
    }

    async fn soon<T>(work: impl Future<Output = T>) -> T {
        timer::timeout(Duration::from_millis(1), work).await.expect("a fetch was not called")
    }

    #[test]
    fn connections_too_old_for_use_leave_room() {
        run_by_test_clock(async {
            let (pools, _servers) = two_servers();
            let old = pools.known().checkout(&only(0)).await.unwrap();
            old.give_back();
            timer::sleep(Duration::from_millis(LIMITS.idle_ms + 1)).await;
            let new = soon(pools.known().checkout(&only(0))).await.unwrap();
            assert!(!new.is_reused());
        });
    }

    #[test]
    fn a_newcomer_does_not_overtake_a_fetch_that_was_called() {
        run_by_test_clock(async {
            let (pools, _servers) = two_servers();
            let upstream = pools.known();
            let _first = upstream.checkout(&only(0)).await.unwrap();
            let second = upstream.checkout(&only(1)).await.unwrap();
            let waiter = begin(&pools, Tried::default()).await;
            second.give_back();
            // The waiter is called, and has not run yet.
            assert!(upstream.take_at_once(&Tried::default()).unwrap().is_none());
            let newcomer = begin(&pools, Tried::default()).await;
            let served = soon(waiter).await;
            served.give_back();
            soon(newcomer).await;
            assert_eq!(upstream.n_called.get(), 0);
        });
    }

    #[test]
    fn a_fetch_that_is_never_called_fails_in_time() {
        run_by_test_clock(async {
            let (pools, _servers) = two_servers();
            let upstream = pools.known();
            let _first = upstream.checkout(&only(0)).await.unwrap();
            let _second = upstream.checkout(&only(1)).await.unwrap();
            let begun_ms = reactor::now().mono_ms();
            let refusal = upstream.checkout(&Tried::default()).await.unwrap_err();
            assert_eq!(refusal, (FetchError::PendingTimeout, None));
            assert_eq!(reactor::now().mono_ms() - begun_ms, upstream.pending_ms);
            assert!(upstream.pending.borrow().is_empty());
        });
    }

    #[test]
    fn one_fetch_is_called_for_each_connection_that_expires() {
        run_by_test_clock(async {
            let (pools, _servers) = two_servers();
            for held in
                [pools.known().checkout(&only(0)).await, pools.known().checkout(&only(1)).await]
            {
                held.unwrap().give_back();
            }
            let events = [(); 4].map(|()| Rc::new(Event::default()));
            for event in &events {
                pools.known().pending.borrow_mut().push(Rc::clone(event)).unwrap();
            }
            timer::sleep(Duration::from_millis(LIMITS.idle_ms + 1)).await;
            pools.expire();
            // One more is called because there is room.
            assert_eq!(events.map(|event| event.version()), [1, 1, 1, 0]);
        });
    }

    #[test]
    fn a_fetch_that_cannot_use_a_connection_calls_the_next() {
        run_by_test_clock(async {
            let (pools, _servers) = two_servers();
            let first = pools.known().checkout(&only(0)).await.unwrap();
            let second = pools.known().checkout(&only(1)).await.unwrap();
            let choosy = begin(&pools, only(1)).await;
            let any = begin(&pools, Tried::default()).await;
            first.give_back();
            let any = soon(any).await;
            assert_eq!(any.active().server(), server(0));
            let last = begin(&pools, Tried::default()).await;
            second.give_back();
            assert_eq!(soon(choosy).await.active().server(), server(1), "it has kept its place");
            drop(any);
            soon(last).await;
        });
    }

    #[test]
    fn a_backup_that_is_free_is_used_by_the_fetch_that_has_tried_the_others() {
        run_by_test_clock(async {
            let (pools, _servers) = two_servers_with(|upstream| {
                upstream.servers[1].is_backup = true;
            });
            let _first = pools.known().checkout(&Tried::default()).await.unwrap();
            let second = pools.known().checkout(&only(1)).await.unwrap();
            let any = begin(&pools, Tried::default()).await;
            let choosy = begin(&pools, only(1)).await;
            second.give_back();
            assert_eq!(soon(choosy).await.active().server(), server(1));
            assert_eq!(pools.known().n_choosy.get(), 0);
            drop(any);
        });
    }

    #[test]
    fn no_fetch_waits_behind_one_that_cannot_use_what_is_free() {
        run_by_test_clock(async {
            let (pools, _servers) = two_servers();
            let second = pools.known().checkout(&only(1)).await.unwrap();
            let choosy = begin(&pools, only(1)).await;
            let any = soon(pools.known().checkout(&Tried::default())).await.unwrap();
            assert_eq!(any.active().server(), server(0));
            drop(second);
            assert_eq!(soon(choosy).await.active().server(), server(1));
        });
    }

    #[test]
    fn a_fetch_that_ends_after_being_called_calls_the_next() {
        run_by_test_clock(async {
            let (pools, _servers) = two_servers();
            let first = pools.known().checkout(&only(0)).await.unwrap();
            let _second = pools.known().checkout(&only(1)).await.unwrap();
            let leaving = begin(&pools, Tried::default()).await;
            let staying = begin(&pools, Tried::default()).await;
            first.give_back();
            drop(leaving);
            soon(staying).await;
        });
    }
}
