//! Choosing the next server of an upstream.
//!
//! The servers that may be chosen are first divided into classes: those that are used, then the
//! backups among them, then those that are skipped, as the last resort. A choice is made in the first
//! class that is not empty, even if all in it are busy: the request then waits.
//!
//! Most methods give each server a cost. Among those of the lowest cost, the choice is by smooth
//! weighted round robin: at each choice every one of them gains its weight, the one with the most is
//! chosen and loses what all have gained. A server of weight 3 beside one of weight 1 is chosen
//! three times in four, and never in a burst.

use crate::upstream::ids::ServerId;
use crate::upstream::method::{Method, mix};
use crate::upstream::state::{HELD_MS, Setting};

/// The balancer of one upstream in one worker. The id of a server is its place in the
/// configuration.
#[derive(Clone, Debug)]
pub(crate) struct Balance {
    method: Method,
    servers: Vec<Share>,
    /// The state of the generator of random numbers.
    random: u64,
}

/// What the balancer keeps of a server, and works out at each choice.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    credit: i64,
    weight: u32,
    /// It may be chosen now.
    is_open: bool,
    cost: u64,
}

/// A question for a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'t> {
    /// Milliseconds of the monotonic clock.
    pub(crate) now_ms: u64,
    /// The hash of the request.
    pub(crate) hash: u64,
    /// The server that the client's cookie names.
    pub(crate) sticky: Option<ServerId>,
    /// The servers that the request was sent to.
    pub(crate) tried: &'t Tried,
    /// The servers without a free connection.
    pub(crate) busy: &'t Tried,
    /// Whether the request may find out if a server works again whose pause is over.
    pub(crate) may_try: bool,
}

/// The servers of an upstream, as a balancer sees them.
pub(crate) trait ServerView {
    fn n_servers(&self) -> usize;
    fn seen(&self, id: ServerId, now_ms: u64) -> Seen;
    /// Active connections, in all workers.
    fn n_active(&self, id: ServerId) -> u32;
    /// Idle connections, in this worker.
    fn n_idle(&self, id: ServerId) -> usize;
    /// The expected time to an answer, in µs; 0 if it is not known.
    fn rtt_us(&self, id: ServerId, now_ms: u64) -> u64;
    /// A number of the server, the same in all workers and for ever.
    fn seed(&self, id: ServerId) -> u64;
}

/// A server, as a balancer sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) setting: Setting,
    /// Its share, see [`share`]; with 0 it takes no new clients.
    pub(crate) weight: u32,
    /// The end of its pause, which may be past; 0 if it has none.
    pub(crate) skipped_until_ms: u64,
    pub(crate) is_backup: bool,
}

impl Seen {
    /// Whether it has a pause. Only a request that may try the server sees the end of one.
    const fn is_skipped(&self, now_ms: u64, may_try: bool) -> bool {
        match may_try {
            true => self.skipped_until_ms > now_ms,
            false => self.skipped_until_ms > 0,
        }
    }
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
    /// All are skipped, and this one is the last resort.
    LastResort(ServerId),
    /// Those that may be chosen have no free connection.
    Busy,
    /// Every server was tried, or may not be used.
    Exhausted,
}

/// The weight of a server that has just come back grows from a part of its own to all of it, within
/// `slow_ms`. The unit is a 256th of a weight, so that the part may be small.
pub(crate) fn share(weight: u32, up_since_ms: u64, now_ms: u64, slow_ms: u64) -> u32 {
    let whole = weight.saturating_mul(SHARE_ONE);
    let up_ms = now_ms.saturating_sub(up_since_ms);
    if up_since_ms == 0 || up_ms >= slow_ms {
        return whole;
    }
    let part = u64::from(whole) * up_ms / slow_ms;
    u32::try_from(part).unwrap_or(whole).max(weight.min(1))
}

const SHARE_ONE: u32 = 256;

/// A server whose time to an answer is not known counts as this slow while a first request to it is
/// under way, so that not all requests go there.
const UNKNOWN_RTT_US: u64 = 10_000_000;

impl Balance {
    /// A balancer for this many servers. The seed should differ between workers.
    pub(crate) fn new(method: Method, n_servers: usize, seed: u64) -> Self {
        Self { method, servers: vec![Share::default(); n_servers], random: mix(seed) | 1 }
    }

    pub(crate) fn choose(&mut self, ask: &Ask<'_>, view: &impl ServerView) -> Choice {
        if let Some(id) = ask.sticky.filter(|id| id.0 < view.n_servers()) {
            let seen = view.seen(id, ask.now_ms);
            let is_usable = seen.setting != Setting::Disabled;
            let is_skipped = seen.is_skipped(ask.now_ms, ask.may_try);
            if is_usable && !is_skipped && !ask.tried.contains(id) {
                return if ask.busy.contains(id) { Choice::Busy } else { Choice::Up(id) };
            }
        }
        let Some(class) = self.open(ask, view) else { return Choice::Exhausted };
        let chosen = match self.method {
            Method::First => self.opened().next().map(|(id, _)| id),
            Method::Random => self.draw(view),
            Method::Hash | Method::Source => self.by_hash(ask.hash, view),
            _ => self.cheapest(ask.now_ms, view),
        };
        match chosen {
            None => Choice::Busy,
            Some(id) if class < Class::Skipped => Choice::Up(id),
            Some(id) => Choice::LastResort(id),
        }
    }

    /// Opens the servers of the first class that has some, except those that are busy.
    fn open(&mut self, ask: &Ask<'_>, view: &impl ServerView) -> Option<Class> {
        let mut first = None;
        for at in 0..self.servers.len() {
            let id = ServerId(at);
            self.servers[at].is_open = false;
            if ask.tried.contains(id) {
                continue;
            }
            let seen = view.seen(id, ask.now_ms);
            let Some(class) = Class::of(&seen, ask.now_ms, ask.may_try) else { continue };
            if first.is_some_and(|first| first < class) {
                continue;
            }
            if first.is_some_and(|first| class < first) {
                self.servers[..at].iter_mut().for_each(|share| share.is_open = false);
            }
            first = Some(class);
            self.servers[at].is_open = !ask.busy.contains(id);
            self.servers[at].weight = seen.weight;
        }
        first
    }

    fn opened(&self) -> impl Iterator<Item = (ServerId, &Share)> {
        (0..).map(ServerId).zip(&self.servers).filter(|(_, share)| share.is_open)
    }

    /// The server of the lowest cost; several of them take turns.
    fn cheapest(&mut self, now_ms: u64, view: &impl ServerView) -> Option<ServerId> {
        let mut lowest = u64::MAX;
        for (id, share) in (0..).map(ServerId).zip(&mut self.servers) {
            if share.is_open {
                share.cost = cost(self.method, share.weight, id, now_ms, view);
                lowest = lowest.min(share.cost);
            }
        }
        let mut richest: Option<(ServerId, i64)> = None;
        let mut n_gained = 0;
        for (id, share) in (0..).map(ServerId).zip(&mut self.servers) {
            if !share.is_open || share.cost > lowest {
                continue;
            }
            share.credit += i64::from(share.weight);
            n_gained += i64::from(share.weight);
            if richest.is_none_or(|(_, credit)| share.credit > credit) {
                richest = Some((id, share.credit));
            }
        }
        let (id, credit) = richest?;
        self.servers[id.0].credit = credit - n_gained;
        Some(id)
    }

    /// Draws two servers by weight, and takes the one with fewer active connections for its weight.
    fn draw(&mut self, view: &impl ServerView) -> Option<ServerId> {
        let (first, first_weight) = self.draw_one(None)?;
        let Some((second, second_weight)) = self.draw_one(Some(first)) else { return Some(first) };
        let load = |id, weight| load(view.n_active(id), weight);
        let is_second = load(second, second_weight) < load(first, first_weight);
        Some(if is_second { second } else { first })
    }

    fn draw_one(&mut self, except: Option<ServerId>) -> Option<(ServerId, u32)> {
        // xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let random = mix(self.random);
        let open = || self.opened().filter(|(id, _)| Some(*id) != except);
        let total: u64 = open().map(|(_, share)| u64::from(share.weight)).sum();
        let mut left = random.checked_rem(total)?;
        for (id, share) in open() {
            match left.checked_sub(u64::from(share.weight)) {
                Some(rest) => left = rest,
                None => return Some((id, share.weight)),
            }
        }
        None
    }

    /// Rendezvous hashing, with weights: every server has a score for the hash, and the best one is
    /// chosen. When a server leaves, the others keep their requests and share those of that server.
    /// By [`Method::Hash`] a server with more than its share of the load is left out.
    fn by_hash(&mut self, hash: u64, view: &impl ServerView) -> Option<ServerId> {
        let is_bounded = self.method == Method::Hash;
        let (mut n_active, mut weights) = (0, 0);
        if is_bounded {
            for (id, share) in (0..).map(ServerId).zip(&mut self.servers) {
                if share.is_open {
                    // Other workers change it meanwhile, so that it is read once.
                    share.cost = u64::from(view.n_active(id));
                    n_active += share.cost;
                    weights += u64::from(share.weight);
                }
            }
        }
        let has_room = |share: &Share| {
            let bound = (n_active + 1) * u64::from(share.weight) * BOUND.0 / (weights * BOUND.1);
            share.cost <= bound
        };
        let open = self.opened().filter(|(_, share)| !is_bounded || has_room(share));
        let scored = open.map(|(id, share)| (id, score(mix(hash ^ view.seed(id)), share.weight)));
        scored.min_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(id, _)| id)
    }
}

/// Whether a server that would be chosen has room for a request.
pub(crate) fn has_open(
    view: &impl ServerView,
    now_ms: u64,
    has_room: impl Fn(ServerId) -> bool,
) -> bool {
    let class = |id| Class::of(&view.seen(id, now_ms), now_ms, true);
    let ids = || (0..view.n_servers()).map(ServerId);
    let Some(best) = ids().filter_map(class).min() else { return false };
    ids().any(|id| class(id) == Some(best) && has_room(id))
}

/// A server may have 5/4 of its share of all active connections.
const BOUND: (u64, u64) = (5, 4);

/// The lower, the better: an exponentially distributed number with the weight as its rate.
fn score(hash: u64, weight: u32) -> f64 {
    // 53 bits, and never 0.
    let uniform = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    -uniform.ln() / f64::from(weight)
}

fn load(n_active: u32, weight: u32) -> u64 {
    (u64::from(n_active) << 32) / u64::from(weight.max(1))
}

fn cost(method: Method, weight: u32, id: ServerId, now_ms: u64, view: &impl ServerView) -> u64 {
    match method {
        Method::LeastConnections => load(view.n_active(id), weight),
        Method::MostIdle => u64::MAX - view.n_idle(id) as u64,
        Method::Rtt => {
            let n_active = u64::from(view.n_active(id));
            let rtt_us = match view.rtt_us(id, now_ms) {
                0 if n_active > 0 => UNKNOWN_RTT_US,
                rtt_us => rtt_us,
            };
            rtt_us.saturating_mul(n_active + 1).saturating_mul(u64::from(SHARE_ONE))
                / u64::from(weight.max(1))
        }
        _ => 0,
    }
}

/// The classes of the servers that may be chosen, the best one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Used,
    Backup,
    Skipped,
    SkippedBackup,
}

impl Class {
    /// `None` for a server that takes no new clients, or is held down.
    fn of(seen: &Seen, now_ms: u64, may_try: bool) -> Option<Self> {
        let takes_clients = seen.setting == Setting::Enabled && seen.weight > 0;
        if !takes_clients || seen.skipped_until_ms >= HELD_MS {
            return None;
        }
        Some(match (seen.is_skipped(now_ms, may_try), seen.is_backup) {
            (false, false) => Self::Used,
            (false, true) => Self::Backup,
            (true, false) => Self::Skipped,
            (true, true) => Self::SkippedBackup,
        })
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

    #[derive(Clone, Debug)]
    struct Model {
        seen: Seen,
        n_active: u32,
        n_idle: usize,
        rtt_us: u64,
        seed: u64,
    }

    /// Servers that are as a test says.
    #[derive(Clone, Debug)]
    struct Models(Vec<Model>);

    impl ServerView for Models {
        fn n_servers(&self) -> usize {
            self.0.len()
        }

        fn seen(&self, id: ServerId, _: u64) -> Seen {
            self.0[id.0].seen
        }

        fn n_active(&self, id: ServerId) -> u32 {
            self.0[id.0].n_active
        }

        fn n_idle(&self, id: ServerId) -> usize {
            self.0[id.0].n_idle
        }

        fn rtt_us(&self, id: ServerId, _: u64) -> u64 {
            self.0[id.0].rtt_us
        }

        fn seed(&self, id: ServerId) -> u64 {
            self.0[id.0].seed
        }
    }

    fn models(weights: &[u32]) -> Models {
        let model = |(seed, weight): (u64, &u32)| Model {
            seen: Seen {
                setting: Setting::Enabled,
                weight: weight * SHARE_ONE,
                skipped_until_ms: 0,
                is_backup: false,
            },
            n_active: 0,
            n_idle: 0,
            rtt_us: 0,
            seed: mix(seed + 1),
        };
        Models((0..).zip(weights).map(model).collect())
    }

    fn balance(method: Method, models: &Models) -> Balance {
        Balance::new(method, models.0.len(), 7)
    }

    /// How often each server is chosen, by requests that hash to different numbers.
    fn counts(method: Method, models: &Models, n: u64) -> Vec<u64> {
        let mut balance = balance(method, models);
        let mut counts = vec![0; models.0.len()];
        for hash in 0..n {
            match choose(&mut balance, models, mix(hash)) {
                Choice::Up(id) => counts[id.0] += 1,
                other => panic!("{other:?}"),
            }
        }
        counts
    }

    fn choose(balance: &mut Balance, models: &Models, hash: u64) -> Choice {
        let none = Tried::default();
        let ask = Ask { now_ms: 99, hash, sticky: None, tried: &none, busy: &none, may_try: true };
        balance.choose(&ask, models)
    }

    fn tried(servers: &[usize]) -> Tried {
        let mut tried = Tried::default();
        servers.iter().for_each(|server| tried.insert(ServerId(*server)));
        tried
    }

    const ALL: [Method; 8] = [
        Method::RoundRobin,
        Method::LeastConnections,
        Method::Random,
        Method::Rtt,
        Method::MostIdle,
        Method::Hash,
        Method::Source,
        Method::First,
    ];

    #[test]
    fn weights_are_kept_without_bursts() {
        let models = models(&[5, 1, 1]);
        let mut balance = balance(Method::RoundRobin, &models);
        let chosen: Vec<_> = (0..7).map(|_| choose(&mut balance, &models, 0)).collect();
        assert_eq!(chosen, [0, 0, 1, 0, 2, 0, 0].map(|server| Choice::Up(ServerId(server))));
    }

    #[test]
    fn ten_thousand_choices_follow_the_weights() {
        let (models, even) = (models(&[1, 2, 5]), models(&[1, 1, 1, 1]));
        for method in [Method::RoundRobin, Method::LeastConnections, Method::Rtt, Method::MostIdle]
        {
            assert_eq!(counts(method, &models, 8_000), [1_000, 2_000, 5_000], "{method:?}");
        }
        for method in [Method::Hash, Method::Source] {
            let counts = counts(method, &models, 10_000);
            for (count, expected) in counts.iter().zip([1_250, 2_500, 6_250]) {
                assert!(count.abs_diff(expected) < 200, "{method:?}: {counts:?}");
            }
        }
        assert_eq!(counts(Method::First, &models, 10), [10, 0, 0]);
        let drawn = counts(Method::Random, &even, 10_000);
        assert!(drawn.iter().all(|count| count.abs_diff(2_500) < 200), "{drawn:?}");
    }

    #[test]
    fn the_load_decides() {
        let mut models = models(&[1, 1, 2]);
        for (model, n_active) in models.0.iter_mut().zip([3, 2, 3]) {
            model.n_active = n_active;
        }
        assert_eq!(counts(Method::LeastConnections, &models, 10), [0, 0, 10]);
        models.0[2].n_active = 4;
        assert_eq!(counts(Method::LeastConnections, &models, 9), [0, 3, 6], "2/1 and 4/2");
        models.0[0].n_active = 1_000;
        let drawn = counts(Method::Random, &models, 1_000);
        assert_eq!(drawn[0], 0, "the other one of the two is better");
        models.0[1].n_idle = 2;
        assert_eq!(counts(Method::MostIdle, &models, 5), [0, 5, 0]);
    }

    #[test]
    fn the_fastest_is_chosen_until_it_has_more_to_do() {
        let mut models = models(&[1, 1]);
        models.0[0].rtt_us = 1_000;
        models.0[1].rtt_us = 5_000;
        let mut balance = balance(Method::Rtt, &models);
        let mut chosen = Vec::new();
        for _ in 0..6 {
            let Choice::Up(id) = choose(&mut balance, &models, 0) else { panic!("no server") };
            models.0[id.0].n_active += 1;
            chosen.push(id.0);
        }
        assert_eq!(chosen[..4], [0, 0, 0, 0]);
        assert!(chosen[4..].contains(&1), "{chosen:?}");
        models.0[1].rtt_us = 0;
        models.0[1].n_active = 1;
        models.0[0].n_active = 100;
        assert_eq!(counts(Method::Rtt, &models, 3), [3, 0], "it has no answer yet");
    }

    #[test]
    fn a_server_that_leaves_moves_its_own_keys_alone() {
        let all = models(&[1; 10]);
        for method in [Method::Hash, Method::Source] {
            let mut fewer = all.clone();
            fewer.0[3].seen.skipped_until_ms = 100;
            let (mut before, mut after) = (balance(method, &all), balance(method, &fewer));
            let mut n_moved = 0;
            for hash in (0..10_000).map(mix) {
                let (old, new) =
                    (choose(&mut before, &all, hash), choose(&mut after, &fewer, hash));
                assert!(old == new || old == Choice::Up(ServerId(3)), "{old:?} {new:?}");
                n_moved += u32::from(old != new);
            }
            assert!(n_moved.abs_diff(1_000) < 150, "{n_moved}");
        }
    }

    #[test]
    fn a_hot_key_is_spread_when_its_server_has_more_than_its_share() {
        let mut models = models(&[1; 4]);
        let mut balance = balance(Method::Hash, &models);
        let mut counts = [0; 4];
        for _ in 0..400 {
            let Choice::Up(id) = choose(&mut balance, &models, 42) else { panic!("no server") };
            models.0[id.0].n_active += 1;
            counts[id.0] += 1;
        }
        counts.sort_unstable();
        assert!(counts[3] <= 127 && counts[2] <= 127, "{counts:?}");
        let mut source = Balance::new(Method::Source, 4, 7);
        let first = choose(&mut source, &models, 42);
        assert!((0..50).all(|_| choose(&mut source, &models, 42) == first));
    }

    #[test]
    fn all_busy_is_no_reason_to_use_a_skipped_server() {
        for method in ALL {
            let mut models = models(&[1, 1, 1, 1]);
            models.0[2].seen.skipped_until_ms = 100;
            models.0[3].seen.is_backup = true;
            let mut balance = balance(method, &models);
            let none = Tried::default();
            let choose = |balance: &mut Balance, tried: &Tried, busy: &Tried| {
                balance.choose(
                    &Ask { now_ms: 99, hash: 1, sticky: None, tried, busy, may_try: true },
                    &models,
                )
            };
            assert_eq!(choose(&mut balance, &none, &tried(&[0, 1])), Choice::Busy);
            assert_eq!(choose(&mut balance, &tried(&[0]), &tried(&[1])), Choice::Busy);
            let up = |id| Choice::Up(ServerId(id));
            assert_eq!(choose(&mut balance, &none, &tried(&[0])), up(1), "{method:?}");
            assert_eq!(choose(&mut balance, &tried(&[0, 1]), &none), up(3), "{method:?}");
            let last = Choice::LastResort(ServerId(2));
            assert_eq!(choose(&mut balance, &tried(&[0, 1, 3]), &none), last, "{method:?}");
            assert_eq!(choose(&mut balance, &tried(&[0, 1, 2, 3]), &none), Choice::Exhausted);
        }
    }

    #[test]
    fn a_client_waits_for_its_own_server() {
        let models = models(&[1, 1]);
        let (none, busy) = (Tried::default(), tried(&[1]));
        let sticky = Some(ServerId(1));
        let ask = Ask { now_ms: 99, hash: 0, sticky, tried: &none, busy: &busy, may_try: true };
        assert_eq!(balance(Method::RoundRobin, &models).choose(&ask, &models), Choice::Busy);
    }

    #[test]
    fn only_room_at_a_server_that_would_be_chosen_counts() {
        let mut models = models(&[1, 1, 0]);
        models.0[1].seen.skipped_until_ms = 100;
        let has = |models: &Models, at: usize| has_open(models, 99, |id| id.0 == at);
        assert_eq!([0, 1, 2].map(|at| has(&models, at)), [true, false, false]);
        models.0[0].seen.is_backup = true;
        models.0[1].seen.skipped_until_ms = 99;
        assert_eq!([0, 1, 2].map(|at| has(&models, at)), [false, true, false]);
        assert!(!has_open(&Models(Vec::new()), 99, |_| true));
    }

    #[test]
    fn all_that_are_skipped_share_the_last_resort() {
        let mut models = models(&[1, 1]);
        models.0.iter_mut().for_each(|model| model.seen.skipped_until_ms = 100);
        let mut balance = balance(Method::RoundRobin, &models);
        let chosen = [(); 4].map(|()| choose(&mut balance, &models, 0));
        assert_eq!(chosen, [0, 1, 0, 1].map(|id| Choice::LastResort(ServerId(id))));
        let mut none = Balance::new(Method::RoundRobin, 0, 0);
        assert_eq!(choose(&mut none, &Models(Vec::new()), 0), Choice::Exhausted);
    }

    #[test]
    fn a_drained_server_serves_the_clients_that_have_its_cookie() {
        let stuck = |models: &Models| {
            let none = Tried::default();
            let sticky = Some(ServerId(1));
            let ask = Ask { now_ms: 99, hash: 0, sticky, tried: &none, busy: &none, may_try: true };
            balance(Method::RoundRobin, models).choose(&ask, models)
        };
        let (own, other) = (Choice::Up(ServerId(1)), Choice::Up(ServerId(0)));
        let mut all = models(&[1, 1]);
        assert_eq!(stuck(&all), own);
        all.0[1].seen.weight = 0;
        assert_eq!((stuck(&all), counts(Method::RoundRobin, &all, 3)), (own, vec![3, 0]));
        all.0[1].seen.setting = Setting::Draining;
        assert_eq!((stuck(&all), counts(Method::RoundRobin, &all, 3)), (own, vec![3, 0]));
        all.0[1].seen.skipped_until_ms = 100;
        assert_eq!(stuck(&all), other);
        all.0[1].seen.skipped_until_ms = 0;
        all.0[1].seen.setting = Setting::Disabled;
        assert_eq!(stuck(&all), other);
    }

    #[test]
    fn a_server_that_comes_back_gets_its_share_slowly() {
        let share = |now_ms| share(4, 1_000, now_ms, 10_000);
        assert_eq!([1_000, 3_500, 6_000, 11_000].map(share), [1, 256, 512, 1_024]);
        assert_eq!(super::share(4, 0, 5, 10_000), 1_024, "it was never away");
        assert_eq!(super::share(0, 1_000, 1_001, 10_000), 0);
        assert_eq!(super::share(3, 1_000, 1_000, 0), 768);
    }

    #[test]
    fn many_servers_can_be_tried() {
        let tried = tried(&[0, 127, 128, 4_000, 128]);
        assert!([0, 127, 4_000].iter().all(|n| tried.contains(ServerId(*n))));
        assert!([1, 129].iter().all(|n| !tried.contains(ServerId(*n))));
        assert_eq!(tried.rest, [128, 4_000].map(ServerId), "each once");
    }

    proptest! {
        #[test]
        fn a_round_gives_each_server_its_weight(weights in prop::collection::vec(1..20_u32, 1..10)) {
            let n: u32 = weights.iter().sum();
            let counts = counts(Method::RoundRobin, &models(&weights), n.into());
            let counts: Vec<_> = counts.into_iter().map(|count| count as u32).collect();
            prop_assert_eq!(counts, weights);
        }

        #[test]
        fn only_servers_of_the_best_class_are_chosen(
            facts in prop::collection::vec(
                (0..3_u32, 0..20_u64, any::<bool>(), 0..3_u32, 0..5_u32, 0..5_usize), 0..140),
            tries in prop::collection::vec(0..140_usize, 0..100),
            busy in prop::collection::vec(0..140_usize, 0..20),
            which in 0..ALL.len(),
            may_try: bool,
        ) {
            let mut models = models(&facts.iter().map(|fact| fact.0).collect::<Vec<_>>());
            for (model, fact) in models.0.iter_mut().zip(&facts) {
                model.seen.skipped_until_ms = fact.1;
                model.seen.is_backup = fact.2;
                model.seen.setting = Setting::of_code(fact.3);
                model.n_active = fact.4;
                model.n_idle = fact.5;
            }
            let (tried, busy) = (tried(&tries), tried(&busy));
            let mut balance = balance(ALL[which], &models);
            for (now_ms, hash) in (5..25).zip(0..) {
                let class = |id: usize| {
                    let id_tried = tried.contains(ServerId(id));
                    Class::of(&models.0[id].seen, now_ms, may_try).filter(|_| !id_tried)
                };
                let best = (0..facts.len()).filter_map(class).min();
                let ask = Ask { now_ms, hash, sticky: None, tried: &tried, busy: &busy, may_try };
                let is_right = |id: ServerId| class(id.0) == best && !busy.contains(id);
                match balance.choose(&ask, &models) {
                    Choice::Up(id) => {
                        prop_assert!(is_right(id) && best < Some(Class::Skipped));
                    }
                    Choice::LastResort(id) => {
                        prop_assert!(is_right(id) && best >= Some(Class::Skipped));
                    }
                    Choice::Busy => prop_assert!(
                        (0..facts.len()).all(|id| class(id) != best || busy.contains(ServerId(id)))
                    ),
                    Choice::Exhausted => prop_assert_eq!(best, None),
                }
            }
        }
    }
}
