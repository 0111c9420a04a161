//! Choosing the next server of an upstream.
//!
//! Smooth weighted round robin: at each choice every server that may be chosen gains its weight,
//! the one with the most is chosen and loses what all have gained. A server of weight 3 beside one
//! of weight 1 is chosen three times in four, and never in a burst.

use crate::upstream::ids::ServerId;

/// The balancer of one upstream in one worker. The id of a server is its place in the
/// configuration.
#[derive(Clone, Debug)]
pub(crate) struct Balance {
    servers: Vec<Share>,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    weight: i64,
    credit: i64,
}

/// The servers that a fetch has tried already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tried {
    first: u128,
    /// Servers beyond the first 128.
    rest: Vec<ServerId>,
}

/// The server that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// This server, which is not skipped.
    Up(ServerId),
    /// All are skipped. The pause of this server ends first, so it is the last resort.
    Down(ServerId),
    /// Every server was tried.
    Exhausted,
}

impl Balance {
    /// A balancer over servers of these weights; a weight of 0 counts as 1.
    pub(crate) fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let share = |weight: u32| Share { weight: i64::from(weight.max(1)), credit: 0 };
        Self { servers: weights.into_iter().map(share).collect() }
    }

    /// Chooses among the servers not tried yet. `skipped_until_ms` gives the end of the pause of a
    /// server, which may be past.
    pub(crate) fn choose(
        &mut self,
        now_ms: u64,
        tried: &Tried,
        skipped_until_ms: impl Fn(ServerId) -> u64,
    ) -> Choice {
        let mut richest: Option<(ServerId, i64)> = None;
        let mut soonest: Option<(ServerId, u64)> = None;
        let mut n_gained = 0;
        for (server, share) in (0..).map(ServerId).zip(&mut self.servers) {
            if tried.contains(server) {
                continue;
            }
            let until_ms = skipped_until_ms(server);
            if now_ms < until_ms {
                if soonest.is_none_or(|(_, soonest_ms)| until_ms < soonest_ms) {
                    soonest = Some((server, until_ms));
                }
                continue;
            }
            share.credit += share.weight;
            n_gained += share.weight;
            if richest.is_none_or(|(_, credit)| share.credit > credit) {
                richest = Some((server, share.credit));
            }
        }
        if let Some((server, credit)) = richest {
            self.servers[server.0].credit = credit - n_gained;
            return Choice::Up(server);
        }
        soonest.map_or(Choice::Exhausted, |(server, _)| Choice::Down(server))
    }
}

impl Tried {
    pub(crate) fn insert(&mut self, server: ServerId) {
        if server.0 < 128 {
            self.first |= 1 << server.0;
        } else if !self.rest.contains(&server) {
            self.rest.push(server);
        }
    }

    pub(crate) fn contains(&self, server: ServerId) -> bool {
        if server.0 < 128 { self.first >> server.0 & 1 == 1 } else { self.rest.contains(&server) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn up(_: ServerId) -> u64 {
        0
    }

    #[test]
    fn weights_are_kept_without_bursts() {
        let mut balance = Balance::new([5, 1, 1]);
        let chosen: Vec<_> = (0..7).map(|_| balance.choose(0, &Tried::default(), up)).collect();
        assert_eq!(chosen, [0, 0, 1, 0, 2, 0, 0].map(|server| Choice::Up(ServerId(server))));
    }

    #[test]
    fn servers_that_are_down_or_tried_are_skipped() {
        let mut balance = Balance::new([1, 1, 1]);
        let down = |server| if server == ServerId(0) { 100 } else { 0 };
        let mut tried = Tried::default();
        tried.insert(ServerId(1));
        assert_eq!(balance.choose(99, &tried, down), Choice::Up(ServerId(2)));
        tried.insert(ServerId(2));
        assert_eq!(balance.choose(99, &tried, down), Choice::Down(ServerId(0)));
        tried.insert(ServerId(0));
        assert_eq!(balance.choose(99, &tried, down), Choice::Exhausted);
    }

    #[test]
    fn when_all_are_down_the_first_to_return_is_chosen() {
        let mut balance = Balance::new([1, 1, 1]);
        let until = [300, 100, 200];
        assert_eq!(
            balance.choose(50, &Tried::default(), |server| until[server.0]),
            Choice::Down(ServerId(1))
        );
        assert_eq!(
            balance.choose(150, &Tried::default(), |server| until[server.0]),
            Choice::Up(ServerId(1))
        );
        assert_eq!(Balance::new([]).choose(0, &Tried::default(), up), Choice::Exhausted);
    }

    #[test]
    fn many_servers_can_be_tried() {
        let mut tried = Tried::default();
        for server in [0, 127, 128, 4_000, 128].map(ServerId) {
            tried.insert(server);
        }
        assert!([0, 127, 4_000].iter().all(|n| tried.contains(ServerId(*n))));
        assert!([1, 129].iter().all(|n| !tried.contains(ServerId(*n))));
        assert_eq!(tried.rest, [128, 4_000].map(ServerId), "each once");
    }

    proptest! {
        #[test]
        fn a_round_gives_each_server_its_weight(weights in prop::collection::vec(1..20_u32, 1..10)) {
            let mut balance = Balance::new(weights.iter().copied());
            let mut n_chosen = vec![0; weights.len()];
            for _ in 0..weights.iter().sum() {
                match balance.choose(0, &Tried::default(), up) {
                    Choice::Up(server) => n_chosen[server.0] += 1,
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(n_chosen, weights);
        }

        #[test]
        fn only_eligible_servers_are_chosen(
            weights in prop::collection::vec(0..5_u32, 0..140),
            until in prop::collection::vec(0..20_u64, 140),
            tries in prop::collection::vec(0..140_usize, 0..140),
            now_ms in 0..20_u64,
        ) {
            let mut balance = Balance::new(weights.iter().copied());
            let mut tried = Tried::default();
            for server in tries {
                tried.insert(ServerId(server));
            }
            let left = || (0..weights.len()).map(ServerId).filter(|server| !tried.contains(*server));
            for _ in 0..20 {
                match balance.choose(now_ms, &tried, |server| until[server.0]) {
                    Choice::Up(server) => {
                        prop_assert!(!tried.contains(server) && until[server.0] <= now_ms);
                    }
                    Choice::Down(server) => {
                        prop_assert!(left().all(|other| until[other.0] > now_ms));
                        prop_assert_eq!(left().map(|other| until[other.0]).min(), Some(until[server.0]));
                    }
                    Choice::Exhausted => prop_assert_eq!(left().count(), 0),
                }
            }
        }
    }
}
