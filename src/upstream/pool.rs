//! The connections of one worker to one server.
//!
//! Connections are idle or active, and never more than a maximum together. The newest idle one
//! is used first, so that those that are not needed grow old and expire.

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
}

/// The bounds of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolLimits {
    /// Idle and active connections together; at least 1.
    pub(crate) connections: usize,
    /// How long a connection stays idle, in milliseconds.
    pub(crate) idle_ms: u64,
}

/// The result of a checkout.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checkout<C> {
    /// Use this idle one, which is active now.
    Reuse(C),
    /// Make a new one; it counts as active already.
    Connect,
    /// All are active, or idle and too old: `expire` those, or else wait for one.
    Busy,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since_ms: u64,
}

impl<C> Pool<C> {
    /// An empty pool.
    pub(crate) const fn new(limits: PoolLimits) -> Self {
        Self { limits, idle: Vec::new(), n_active: 0 }
    }

    /// Takes an idle connection, or room for a new one.
    pub(crate) fn checkout(&mut self, now_ms: u64) -> Checkout<C> {
        let oldest_ms = now_ms.saturating_sub(self.limits.idle_ms);
        // The newest is the last; if it is too old, all are, and `expire` removes them.
        if let Some(idle) = self.idle.pop_if(|idle| idle.since_ms >= oldest_ms) {
            self.n_active += 1;
            return Checkout::Reuse(idle.connection);
        }
        if self.len() >= self.limits.connections.max(1) {
            return Checkout::Busy;
        }
        self.n_active += 1;
        Checkout::Connect
    }

    /// An active connection has done its work and can be used again.
    pub(crate) fn checkin(&mut self, connection: C, now_ms: u64) {
        self.closed();
        let since_ms = self.idle.last().map_or(now_ms, |last| last.since_ms.max(now_ms));
        self.idle.push(Idle { connection, since_ms });
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

    const LIMITS: PoolLimits = PoolLimits { connections: 2, idle_ms: 100 };

    #[test]
    fn the_newest_idle_connection_is_used_first() {
        let mut pool = Pool::new(LIMITS);
        assert_eq!(pool.checkout(0), Checkout::Connect);
        assert_eq!(pool.checkout(0), Checkout::Connect);
        assert_eq!(pool.checkout(0), Checkout::<u8>::Busy);
        pool.checkin(1, 10);
        pool.checkin(2, 20);
        assert_eq!(pool.checkout(30), Checkout::Reuse(2));
        assert_eq!(pool.checkout(30), Checkout::Reuse(1));
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
        pool.checkin('a', 10);
        pool.checkin('b', 50);
        assert_eq!(pool.expire(110), []);
        assert_eq!(pool.expire(111), ['a']);
        assert_eq!(pool.checkout(151), Checkout::Connect, "b is too old");
        assert_eq!(pool.expire(151), ['b']);
        assert_eq!((pool.n_active, pool.idle.len()), (1, 0));
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
                        Checkout::Reuse(id) => {
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
                        pool.checkin(id, now_ms);
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
