//! The balancer with servers that are as a test says.

use proptest::prelude::*;

use crate::upstream::balance::{Ask, Balance, Choice};
use crate::upstream::class::{Class, SHARE_ONE, Seen, ServerView, has_open};
use crate::upstream::ids::ServerId;
use crate::upstream::method::{Method, mix};
use crate::upstream::state::Setting;
use crate::upstream::tried::Tried;

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
    for method in [Method::RoundRobin, Method::LeastConnections, Method::Rtt, Method::MostIdle] {
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
            let (old, new) = (choose(&mut before, &all, hash), choose(&mut after, &fewer, hash));
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
