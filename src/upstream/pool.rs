//! The connections of one worker to one server.
//!
//! Connections are idle or active, and never more than a maximum together. The newest idle one
//! is used first, so that those that are not needed grow old and expire. After a burst of requests
//! most of them are closed within seconds.

/// The connections to one server; `C` is the caller's connection.
///
/// ```text
/// none ── Connect ──▶ active ── checkin ──▶ idle ── Reuse ──▶ active
///                        └── closed ──▶ none   └── expire ──▶ none
/// ```
#[derive(Debug)]
pub(crate) struct Pool<C> {
    limits: PoolLimits,
    /// Oldest first.
    idle: Vec<Idle<C>>,
    n_active: usize,
    /// The most active ones at once, for each of the last seconds.
    peaks: [usize; N_PEAKS],
}

/// Connections that were needed in this many seconds stay idle for now.
const N_PEAKS: usize = 4;

/// A pool does not shrink below this many connections, which only expire.
const KEPT_MIN: usize = 2;

/// The bounds of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolLimits {
    /// Idle and active connections together; at least 1.
    pub(crate) connections: usize,
    /// How long a connection stays idle, in milliseconds.
    pub(crate) idle_ms: u64,
    /// Idle connections that are kept ready.
    pub(crate) keep_open: usize,
    /// Requests on one connection; 0 for any number.
    pub(crate) requests: u64,
}

/// The result of a checkout.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checkout<C> {
    /// Use this idle one, which is active now and has carried this many requests.
    Reuse(C, u64),
    /// Make a new one; it counts as active already.
    Connect,
    /// All are active, or idle and too old: `expire` those, or else wait for one.
    Busy,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since_ms: u64,
    n_requests: u64,
}

impl<C> Pool<C> {
    /// An empty pool.
    pub(crate) const fn new(limits: PoolLimits) -> Self {
        Self { limits, idle: Vec::new(), n_active: 0, peaks: [0; N_PEAKS] }
    }

    /// Takes an idle connection, or room for a new one.
    pub(crate) fn checkout(&mut self, now_ms: u64) -> Checkout<C> {
        let oldest_ms = now_ms.saturating_sub(self.limits.idle_ms);
        // The newest is the last; if it is too old, all are, and `expire` removes them.
        if let Some(idle) = self.idle.pop_if(|idle| idle.since_ms >= oldest_ms) {
            self.add_active();
            return Checkout::Reuse(idle.connection, idle.n_requests);
        }
        if self.len() >= self.limits.connections.max(1) {
            return Checkout::Busy;
        }
        self.add_active();
        Checkout::Connect
    }

    /// Room for a connection that is made ahead of need; it counts as active until it is idle.
    pub(crate) fn wants_more(&mut self) -> bool {
        let is_wanted =
            self.idle.len() < self.limits.keep_open && self.len() < self.limits.connections.max(1);
        self.n_active += usize::from(is_wanted);
        is_wanted
    }

    /// Whether a connection that has carried this many requests may carry another one.
    pub(crate) const fn may_keep(&self, n_requests: u64) -> bool {
        self.limits.requests == 0 || n_requests < self.limits.requests
    }

    /// An active connection has done its work and can be used again.
    pub(crate) fn checkin(&mut self, connection: C, n_requests: u64, now_ms: u64) {
        self.closed();
        let since_ms = self.idle.last().map_or(now_ms, |last| last.since_ms.max(now_ms));
        self.idle.push(Idle { connection, since_ms, n_requests });
    }

    /// An active connection has ended, or could not be made.
    pub(crate) const fn closed(&mut self) {
        debug_assert!(self.n_active > 0, "only an active connection can end");
        self.n_active = self.n_active.saturating_sub(1);
    }

    pub(crate) fn n_max(&self) -> usize {
        self.limits.connections.max(1)
    }

    /// Gives the connections that have been idle for too long, to be closed.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<C> {
        let oldest_ms = now_ms.saturating_sub(self.limits.idle_ms);
        let n_old = self.idle.partition_point(|idle| idle.since_ms < oldest_ms);
        self.idle.drain(..n_old).map(|idle| idle.connection).collect()
    }

    /// Gives the idle connections of which this holds, to be closed.
    pub(crate) fn take_idle_if(&mut self, is_lost: impl Fn(&C) -> bool) -> Vec<C> {
        let lost = self.idle.extract_if(.., |idle| is_lost(&idle.connection));
        lost.map(|idle| idle.connection).collect()
    }

    /// Gives the idle connections that the last seconds did not need, the oldest ones, to be closed.
    /// To be called each second.
    pub(crate) fn shrink(&mut self) -> Vec<C> {
        let peak = self.peaks.iter().copied().max().unwrap_or(0);
        self.peaks.rotate_right(1);
        self.peaks[0] = self.n_active;
        let n_wanted = peak.max(KEPT_MIN).saturating_sub(self.n_active).max(self.limits.keep_open);
        let n_closed = self.idle.len().saturating_sub(n_wanted);
        self.idle.drain(..n_closed).map(|idle| idle.connection).collect()
    }

    pub(crate) const fn n_idle(&self) -> usize {
        self.idle.len()
    }

    const fn add_active(&mut self) {
        self.n_active += 1;
        if self.n_active > self.peaks[0] {
            self.peaks[0] = self.n_active;
        }
    }

    /// Whether a checkout would find an idle connection or room for one.
    pub(crate) fn has_room(&self) -> bool {
        !self.idle.is_empty() || self.n_active < self.limits.connections.max(1)
    }

    fn len(&self) -> usize {
        self.n_active + self.idle.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: PoolLimits =
        PoolLimits { connections: 2, idle_ms: 100, keep_open: 0, requests: 0 };

    #[test]
    fn the_newest_idle_connection_is_used_first() {
        let mut pool = Pool::new(LIMITS);
        assert_eq!(pool.checkout(0), Checkout::Connect);
        assert_eq!(pool.checkout(0), Checkout::Connect);
        assert_eq!(pool.checkout(0), Checkout::<u8>::Busy);
        pool.checkin(1, 0, 10);
        pool.checkin(2, 0, 20);
        assert_eq!(pool.checkout(30), Checkout::Reuse(2, 0));
        assert_eq!(pool.checkout(30), Checkout::Reuse(1, 0));
        assert_eq!(pool.checkout(30), Checkout::Busy);
        pool.closed();
        assert_eq!(pool.checkout(30), Checkout::Connect);
    }

    #[test]
    fn old_connections_expire_and_are_not_used() {
        let mut pool = Pool::new(PoolLimits { connections: 3, ..LIMITS });
        for _ in 0..2 {
            assert_eq!(pool.checkout(0), Checkout::Connect);
        }
        pool.checkin('a', 0, 10);
        pool.checkin('b', 0, 50);
        assert_eq!(pool.expire(110), []);
        assert_eq!(pool.expire(111), ['a']);
        assert_eq!(pool.checkout(151), Checkout::Connect, "b is too old");
        assert_eq!(pool.expire(151), ['b']);
        assert_eq!((pool.n_active, pool.idle.len()), (1, 0));
    }

    #[test]
    fn a_pool_shrinks_within_seconds_after_a_burst() {
        let mut pool = Pool::new(PoolLimits { connections: 100, ..LIMITS });
        for _ in 0..50 {
            assert_eq!(pool.checkout(0), Checkout::Connect);
        }
        (0..50).for_each(|n| pool.checkin(n, 0, 1));
        let mut n_closed = Vec::new();
        for _ in 0..6 {
            // Three requests at once, each second.
            for _ in 0..3 {
                assert!(matches!(pool.checkout(2), Checkout::Reuse(..)));
            }
            (0..3).for_each(|n| pool.checkin(n, 0, 3));
            n_closed.push(pool.shrink().len());
        }
        assert_eq!(n_closed, [0, 0, 0, 0, 47, 0]);
        (0..5).for_each(|_| drop(pool.shrink()));
        assert_eq!(pool.n_idle(), KEPT_MIN);
    }

    #[test]
    fn connections_are_kept_ready_up_to_the_limit() {
        let limits = PoolLimits { connections: 3, keep_open: 5, ..LIMITS };
        let mut pool = Pool::new(limits);
        assert_eq!(pool.checkout(0), Checkout::Connect);
        assert_eq!([pool.wants_more(), pool.wants_more(), pool.wants_more()], [true, true, false]);
        pool.checkin('a', 0, 0);
        pool.checkin('b', 0, 0);
        assert!(!pool.wants_more());
        (0..9).for_each(|_| assert!(pool.shrink().is_empty()));
    }

    #[test]
    fn a_connection_carries_so_many_requests() {
        let mut pool = Pool::new(PoolLimits { requests: 3, ..LIMITS });
        assert_eq!([2, 3].map(|n| pool.may_keep(n)), [true, false]);
        assert_eq!(pool.checkout(0), Checkout::Connect);
        pool.checkin('a', 2, 0);
        assert_eq!(pool.checkout(0), Checkout::Reuse('a', 2));
        assert!(Pool::<u8>::new(LIMITS).may_keep(u64::MAX));
    }

    #[test]
    fn a_pool_of_none_still_has_one() {
        let mut pool: Pool<u8> = Pool::new(PoolLimits { connections: 0, ..LIMITS });
        assert_eq!(pool.checkout(0), Checkout::Connect);
        assert!(!pool.has_room());
        assert_eq!(pool.checkout(0), Checkout::Busy);
    }

    proptest! {
        #[test]
        fn every_connection_is_somewhere_and_only_once(
            connections in 1..6_usize,
            steps in prop::collection::vec((0..5_u8, 0..90_u64), 1..300),
        ) {
            let limits = PoolLimits { connections, ..LIMITS };
            let mut pool = Pool::new(limits);
            let (mut now_ms, mut n_made) = (0, 0_u32);
            let mut active: Vec<u32> = Vec::new();
            let mut idle: Vec<(u32, u64)> = Vec::new();
            for (step, ms) in steps {
                now_ms += ms;
                match step {
                    0 | 1 => match pool.checkout(now_ms) {
                        Checkout::Reuse(id, _) => {
                            let (newest, since_ms) = idle.pop().unwrap();
                            prop_assert_eq!(id, newest);
                            prop_assert!(now_ms - since_ms <= limits.idle_ms);
                            active.push(id);
                        }
                        Checkout::Connect => {
                            n_made += 1;
                            active.push(n_made);
                        }
                        Checkout::Busy => prop_assert_eq!(active.len() + idle.len(), connections),
                    },
                    2 => if let Some(id) = active.pop() {
                        pool.checkin(id, 0, now_ms);
                        idle.push((id, now_ms));
                    },
                    3 => if active.pop().is_some() {
                        pool.closed();
                    },
                    _ => {
                        let due: Vec<u32> = idle
                            .extract_if(.., |(_, since_ms)| now_ms - *since_ms > limits.idle_ms)
                            .map(|(id, _)| id)
                            .collect();
                        prop_assert_eq!(pool.expire(now_ms), due);
                    }
                }
                prop_assert_eq!((pool.n_active, pool.idle.len()), (active.len(), idle.len()));
                prop_assert!(pool.len() <= connections);
            }
        }
    }
}
