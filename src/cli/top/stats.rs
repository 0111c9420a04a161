//! Sums of the requests of the last seconds: rates by verdict, times, and the busiest names.

use crate::cli::line::Line;
use crate::cli::top::latency::Latency;
use crate::cli::top::sketch::{Decay, Sketch};
use crate::log::format::Record;

/// The verdicts that have a rate of their own; the last stands for all others.
pub(super) const VERDICTS: [&str; 8] =
    ["hit", "stale", "revalidated", "collapsed", "miss", "pass", "tunnel", "other"];

/// The sums of the last seconds.
#[derive(Debug)]
pub(super) struct Stats {
    pub(super) decay: Decay,
    verdicts: [f64; VERDICTS.len()],
    failures: f64,
    bytes: f64,
    pub(super) latency: Latency,
    pub(super) hosts: Sketch,
    pub(super) paths: Sketch,
    pub(super) servers: Sketch,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self {
            decay: Decay::default(),
            verdicts: [0.0; VERDICTS.len()],
            failures: 0.0,
            bytes: 0.0,
            latency: Latency::new(),
            hosts: Sketch::new(N_NAMES),
            paths: Sketch::new(N_NAMES),
            servers: Sketch::new(N_NAMES),
        }
    }

    /// Adds a request that stands for `weight` requests.
    pub(super) fn add(&mut self, record: &Record<'_>, weight: f64) {
        let word = Line(record).verdict();
        let place = VERDICTS.iter().position(|verdict| *verdict == word);
        self.verdicts[place.unwrap_or(VERDICTS.len() - 1)] += weight;
        let is_hit = matches!(word, "hit" | "stale");
        let total_us = record.times.total_us.unwrap_or(0);
        // A tunnel takes as long as its peers want.
        if word != "tunnel" && record.method != b"TCP" {
            self.latency.add(total_us, weight);
        }
        let (failure, hit) = (if record.status >= 500 { weight } else { 0.0 }, f64::from(is_hit));
        self.failures += failure;
        self.bytes += record.sent_bytes as f64 * weight;
        let add = |sketch: &mut Sketch, name: &[u8], time_us: u64| {
            let counts = sketch.add(name, weight);
            counts.hits += hit * weight;
            counts.failures += failure;
            counts.bytes += record.sent_bytes as f64 * weight;
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

    /// Time passes.
    pub(super) fn pass(&mut self, seconds: f64) {
        let factor = self.decay.pass(seconds);
        self.verdicts.iter_mut().for_each(|weight| *weight *= factor);
        self.failures *= factor;
        self.bytes *= factor;
        self.latency.decay(factor);
        for sketch in [&mut self.hosts, &mut self.paths, &mut self.servers] {
            sketch.decay(factor);
        }
    }

    /// Requests of each verdict in a second.
    pub(super) fn rates(&self) -> [f64; VERDICTS.len()] {
        self.verdicts.map(|weight| self.decay.rate(weight))
    }

    /// All requests in a second.
    pub(super) fn rate(&self) -> f64 {
        self.rates().iter().sum()
    }

    /// The share of requests that were answered from the cache.
    pub(super) fn hit_share(&self) -> f64 {
        let [hit, stale, ..] = self.verdicts;
        share(hit + stale, self.verdicts.iter().sum())
    }

    /// The share of requests with a status from 500 on.
    pub(super) fn failure_share(&self) -> f64 {
        share(self.failures, self.verdicts.iter().sum())
    }

    /// Bytes to clients in a second.
    pub(super) fn byte_rate(&self) -> f64 {
        self.decay.rate(self.bytes)
    }
}

/// A part of a whole; 0 of nothing.
pub(super) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// How many names a sketch has.
const N_NAMES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::Times;

    #[test]
    fn requests_add_up_by_verdict_host_path_and_server() {
        let mut stats = Stats::new();
        stats.pass(5.0);
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
        assert!(
            (stats.hit_share() - 0.75).abs() < 1e-9 && (stats.failure_share() - 0.25).abs() < 1e-9
        );
        let (name, host) = &stats.hosts.rows()[0];
        assert_eq!((&name[..], host.requests, host.hits, host.bytes), (&b"a"[..], 8.0, 6.0, 800.0));
        let paths: Vec<_> = stats.paths.rows().iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(paths, [&b"a/x"[..], b"a/y"]);
        let (name, server) = &stats.servers.rows()[0];
        assert_eq!((&name[..], server.mean_us()), (&b"app/s:1"[..], 8_000.0));
        assert!(stats.latency.quantile(0.5).unwrap() < 20);
        assert!(stats.rate() > 1.0 && stats.byte_rate() > 100.0);
    }
}
