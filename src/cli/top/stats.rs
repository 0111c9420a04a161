//! The sums of the last seconds: those of the counters of ktrix, which are exact, and those of the requests
//! that were read, which are a sample if there are too many.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::cli::top::latency::Latency;
use crate::cli::top::sketch::{Decay, Sketch};
use crate::cli::top::snapshot::Counted;
use crate::log::format::Record;
use crate::metrics::label::{self, HITS, LOOKUPS, VERDICTS};

/// Requests by verdict, and what they have in common.
#[derive(Debug, Default)]
pub(super) struct Sums {
    decay: Decay,
    verdicts: [f64; VERDICTS.len()],
    failures: f64,
    bytes: f64,
}

/// How many requests were read, and how many were missed; both decay as times and tables do.
#[derive(Debug, Default)]
pub(super) struct Sample {
    read: f64,
    missed: f64,
}

/// The sums of the last seconds.
#[derive(Debug)]
pub(super) struct Stats {
    /// Of the requests that were read and pass the filter.
    pub(super) read: Sums,
    pub(super) sample: Sample,
    /// Of all requests.
    pub(super) exact: Sums,
    /// The counters of the last seconds, and when they were read.
    history: VecDeque<(Instant, Counted)>,
    pub(super) latency: Latency,
    pub(super) hosts: Sketch,
    pub(super) paths: Sketch,
    pub(super) servers: Sketch,
}

impl Stats {
    /// From these counts on, which were read at this time.
    pub(super) fn new(counted: Counted, at: Instant) -> Self {
        Self {
            read: Sums::default(),
            sample: Sample::default(),
            exact: Sums::default(),
            history: VecDeque::from([(at, counted)]),
            latency: Latency::new(),
            hosts: Sketch::new(N_NAMES),
            paths: Sketch::new(N_NAMES),
            servers: Sketch::new(N_NAMES),
        }
    }

    /// Forgets everything before the counters that were read last.
    pub(super) fn restart(&mut self) {
        if let Some((at, counted)) = self.history.pop_back() {
            *self = Self::new(counted, at);
        }
    }

    /// Adds a request that stands for `weight` requests.
    pub(super) fn add(&mut self, record: &Record<'_>, weight: f64) {
        let word = record.verdict;
        let verdict = VERDICTS.iter().position(|it| *it == word).unwrap_or(0);
        let total_us = record.times.total_us.unwrap_or(0);
        // A tunnel takes as long as its peers want.
        if word != "tunnel" && record.method != b"TCP" {
            self.latency.add(total_us, weight);
        }
        let weight_if = |holds: bool| if holds { weight } else { 0.0 };
        let failure = weight_if(label::is_server_error(record.status));
        let (lookup, hit) = (weight_if(LOOKUPS.contains(&word)), weight_if(HITS.contains(&word)));
        let bytes = record.sent_bytes as f64 * weight;
        self.read.verdicts[verdict] += weight;
        self.read.failures += failure;
        self.read.bytes += bytes;
        let add = |sketch: &mut Sketch, name: &[u8], time_us: u64| {
            let counts = sketch.add(name, weight);
            counts.lookups += lookup;
            counts.hits += hit;
            counts.failures += failure;
            counts.bytes += bytes;
            counts.time_us += time_us as f64 * weight;
        };
        let host = record.host.to_ascii_lowercase();
        add(&mut self.hosts, &host, total_us);
        let path = record.target.split(|byte| *byte == b'?').next().unwrap_or_default();
        add(&mut self.paths, &[&host, path].concat(), total_us);
        if !record.server.is_empty() {
            let server = format!("{}/{}", record.upstream, record.server);
            let times = &record.times;
            // A request that the server failed has no time of the server.
            let time_us = times.first_byte_us.unwrap_or(total_us);
            add(&mut self.servers, server.as_bytes(), time_us);
        }
    }

    /// Time passes for the requests that were read.
    pub(super) fn pass(&mut self, seconds: f64) {
        let factor = self.read.pass(seconds);
        self.sample.decay(factor);
        self.latency.pass(seconds, factor);
        for sketch in [&mut self.hosts, &mut self.paths, &mut self.servers] {
            sketch.decay(factor);
        }
    }

    /// The counters at this time.
    pub(super) fn count(&mut self, counted: &Counted, at: Instant) {
        // Those of a ktrix that was started again begin at 0.
        if self.history.back().is_some_and(|(_, before)| before.since_s != counted.since_s) {
            self.history.clear();
        }
        self.history.push_back((at, counted.clone()));
        while self.history.len() > 2 && at.duration_since(self.history[0].0) > WINDOW {
            self.history.pop_front();
        }
        let (first_at, first) = &self.history[0];
        self.exact = Sums::between(first, counted, at.duration_since(*first_at).as_secs_f64());
    }

    /// The counters cannot be read: the rates that they gave are of the past.
    pub(super) fn lose_count(&mut self) {
        self.exact = Sums::default();
    }

    /// The counters after a pause, of which nothing is shown.
    pub(super) fn skip_to(&mut self, counted: &Counted, at: Instant) {
        self.history = VecDeque::from([(at, counted.clone())]);
    }
}

impl Sums {
    /// The counts of these seconds.
    fn between(first: &Counted, last: &Counted, span_s: f64) -> Self {
        let more = |first: u64, last: u64| last.saturating_sub(first) as f64;
        Self {
            decay: Decay::of_span(span_s),
            verdicts: std::array::from_fn(|n| more(first.verdicts[n], last.verdicts[n])),
            failures: more(first.failures, last.failures),
            bytes: more(first.bytes, last.bytes),
        }
    }

    fn pass(&mut self, seconds: f64) -> f64 {
        let factor = self.decay.pass(seconds);
        for weight in self.verdicts.iter_mut().chain([&mut self.failures]) {
            *weight *= factor;
            // Times that are long past are not shown as a small share.
            if *weight < Decay::NOTHING {
                *weight = 0.0;
            }
        }
        self.bytes *= factor;
        factor
    }

    /// The rate that a weight of a sketch shows.
    pub(super) fn rate_of(&self, weight: f64) -> f64 {
        self.decay.rate(weight)
    }

    /// Requests of each verdict in a second.
    pub(super) fn rates(&self) -> [f64; VERDICTS.len()] {
        self.verdicts.map(|weight| self.decay.rate(weight))
    }

    /// All requests in a second.
    pub(super) fn rate(&self) -> f64 {
        self.rates().iter().sum()
    }

    pub(super) fn hit_ratio(&self) -> Option<f64> {
        label::hit_ratio(&self.verdicts)
    }

    /// The share of server errors.
    pub(super) fn failure_share(&self) -> f64 {
        share(self.failures, self.verdicts.iter().sum())
    }

    /// Bytes to clients in a second.
    pub(super) fn byte_rate(&self) -> f64 {
        self.decay.rate(self.bytes)
    }
}

impl Sample {
    pub(super) fn add(&mut self, n_read: usize, n_missed: u64) {
        self.read += n_read as f64;
        self.missed += n_missed as f64;
    }

    fn decay(&mut self, factor: f64) {
        self.read *= factor;
        self.missed *= factor;
        if self.missed < Decay::NOTHING {
            self.missed = 0.0;
        }
    }

    /// The share of requests that were read; all of nothing.
    pub(super) fn share(&self) -> f64 {
        1.0 - share(self.missed, self.read + self.missed)
    }
}

/// A part of a whole; 0 of nothing.
pub(super) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The counters are those of these seconds, and at most one look more.
const WINDOW: Duration = Duration::from_secs(10);
/// How many names a sketch has.
const N_NAMES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::Times;

    #[test]
    fn requests_add_up_by_verdict_host_path_and_server() {
        let mut stats = Stats::new(Counted::default(), Instant::now());
        let times = |total_us, first_byte_us| Times {
            total_us: Some(total_us),
            first_byte_us,
            ..Times::default()
        };
        let hit = Record {
            host: b"A",
            target: b"/x?1",
            verdict: "hit",
            sent_bytes: 100,
            status: 200,
            times: times(10, None),
            ..Record::default()
        };
        let miss = Record {
            target: b"/y",
            verdict: "miss",
            upstream: "app",
            server: "s:1",
            status: 502,
            times: times(9_000, Some(8_000)),
            ..hit
        };
        (0..3).for_each(|_| stats.add(&hit, 2.0));
        stats.add(&miss, 2.0);
        stats.add(&Record { verdict: "pass", status: 500, ..Record::default() }, 1.0);
        // No server error, in the metrics either.
        stats.add(&Record { verdict: "pass", status: 600, ..Record::default() }, 1.0);
        stats.pass(1.0);
        let read = &stats.read;
        assert!(read.hit_ratio().is_some_and(|it| (it - 0.75).abs() < 1e-9));
        assert!((read.failure_share() - 0.3).abs() < 1e-9);
        assert!((read.rate() - 10.0).abs() < 1e-9 && (read.byte_rate() - 800.0).abs() < 1e-9);
        let (name, host) = &stats.hosts.rows()[0];
        assert!(&name[..] == b"a" && host.hit_ratio().is_some_and(|it| (it - 0.75).abs() < 1e-9));
        assert!((read.rate_of(host.requests) - 8.0).abs() < 1e-9);
        let paths: Vec<_> = stats.paths.rows().iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(paths, [&b"a/x"[..], b"a/y", b""]);
        let (name, server) = &stats.servers.rows()[0];
        assert!(&name[..] == b"app/s:1" && (server.mean_us() - 8_000.0).abs() < 1e-6);
        assert!(stats.latency.quantile(0.5).unwrap() < 20);
    }

    #[test]
    fn the_counters_give_rates_from_one_look_to_the_next() {
        let counted = |n: u64, since_s| Counted {
            since_s,
            verdicts: [n, 3 * n, n, 0, 0, 6 * n, 0],
            failures: n,
            bytes: 1_000 * n,
        };
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut stats = Stats::new(counted(1_000, 7), start);
        for second in 1..30 {
            stats.count(&counted(1_000 + 10 * second, 7), at(second));
            let exact = &stats.exact;
            assert!((exact.rate() - 110.0).abs() < 1e-6 && (exact.rates()[1] - 30.0).abs() < 1e-6);
            assert!(exact.hit_ratio().is_some_and(|it| (it - 0.75).abs() < 1e-9));
            assert!((exact.byte_rate() - 10_000.0).abs() < 1e-6);
        }
        // Nothing of what is older than the window is left.
        (30..41).for_each(|second| stats.count(&counted(1_290, 7), at(second)));
        assert_eq!((stats.exact.rate(), stats.exact.hit_ratio()), (0.0, None));
        // It was started again, and then paused.
        stats.count(&counted(900_000, 8), at(41));
        assert!(stats.exact.rate() < f64::EPSILON);
        stats.count(&counted(900_010, 8), at(42));
        assert!((stats.exact.rate() - 110.0).abs() < 1e-6);
        stats.skip_to(&counted(1_000_000, 8), at(43));
        stats.count(&counted(1_000_000, 8), at(44));
        assert!(stats.exact.rate() < f64::EPSILON);
    }

    #[test]
    fn a_sample_is_one_as_long_as_its_requests_are_shown() {
        let mut stats = Stats::new(Counted::default(), Instant::now());
        let share_is = |stats: &Stats, wanted: f64| (stats.sample.share() - wanted).abs() < 1e-9;
        assert!(share_is(&stats, 1.0));
        stats.sample.add(100, 300);
        stats.pass(2.0);
        assert!(share_is(&stats, 0.25), "a second without a miss changes nothing by itself");
        stats.sample.add(1_000, 0);
        assert!(stats.sample.share() > 0.5 && stats.sample.share() < 0.9);
        (0..60).for_each(|_| stats.pass(1.0));
        assert!(share_is(&stats, 1.0));
    }

    #[test]
    fn rates_after_looks_that_failed_are_those_of_all_the_time_between() {
        let counted = |n| Counted { verdicts: [n, 0, 0, 0, 0, 0, 0], ..Counted::default() };
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut stats = Stats::new(counted(0), start);
        stats.count(&counted(10), at(1));
        stats.lose_count();
        assert!(stats.exact.rate() < f64::EPSILON, "old rates do not stay");
        stats.count(&counted(50), at(5));
        assert!((stats.exact.rate() - 10.0).abs() < 1e-6);
        stats.restart();
        stats.count(&counted(90), at(7));
        assert!((stats.exact.rate() - 20.0).abs() < 1e-6);
    }
}
