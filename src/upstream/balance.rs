//! Choosing the next server of an upstream.
//!
//! A choice is made in the first class that is not empty ([`Class`]), even if all in it are busy: the
//! request then waits.
//!
//! Most methods give each server a cost. Among those of the lowest cost, the choice is by smooth
//! weighted round robin: at each choice every one of them gains its weight, the one with the most is
//! chosen and loses what all have gained. A server of weight 3 beside one of weight 1 is chosen
//! three times in four, and never in a burst.

use crate::upstream::class::{Class, SHARE_ONE, ServerView};
use crate::upstream::ids::ServerId;
use crate::upstream::method::{Method, mix};
use crate::upstream::state::Setting;
use crate::upstream::tried::Tried;

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
