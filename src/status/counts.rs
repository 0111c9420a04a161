//! The important counts of a running ktrix, as `ktrix status` shows them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::metrics::label::{self, VERDICTS};
use crate::metrics::scale::Scale;
use crate::metrics::table::Metric;
use crate::metrics::text::Values;

/// The requests since the counters began.
#[derive(Debug, Serialize)]
pub(crate) struct Counts {
    pub(super) requests: u64,
    pub(super) verdicts: BTreeMap<&'static str, u64>,
    /// As [`label::is_server_error`].
    pub(super) server_errors: u64,
    /// The hit ratio of requests and that of bytes ([`label::hit_ratio`]); left out while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hit_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) byte_hit_ratio: Option<f64>,
    pub(super) sent_bytes: u64,
    /// Times of all requests, in seconds, by their share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duration_s: Option<Quantiles>,
    /// How many requests had which time: the buckets, and their upper bounds in seconds.
    pub(super) duration_buckets: Vec<u64>,
    pub(super) duration_bounds_s: Vec<f64>,
    pub(super) connections: u64,
    pub(super) connections_accepted: u64,
    pub(super) log_lines_dropped: u64,
    pub(super) restarts: u64,
    pub(super) resident_bytes: u64,
    pub(super) fills: u64,
    pub(super) evictions: u64,
}

/// Times that half, 90 % and 99 % of all are below, in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: Quantile,
    pub(crate) p90: Quantile,
    pub(crate) p99: Quantile,
}

/// A time in seconds, infinite above the last bound of the histogram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantile(f64);

impl Quantiles {
    /// Those of a histogram of times.
    pub(crate) fn of(buckets: &[u64]) -> Option<Self> {
        let at = |share| Some(Quantile(Scale::Time.quantile(buckets, share)? / 1e6));
        Some(Self { p50: at(0.5)?, p90: at(0.9)?, p99: at(0.99)? })
    }
}

impl Quantile {
    /// The nearest time that the histogram tells apart. Of times in the lowest bucket, and of those
    /// above the last bound, no more is known than the bound.
    pub(super) fn bounded_s(self) -> f64 {
        self.0.clamp(LEAST_S, MOST_S)
    }

    pub(super) fn is_least(self) -> bool {
        self.0 <= LEAST_S
    }

    pub(super) fn is_beyond(self) -> bool {
        self.0 > MOST_S
    }
}

impl Serialize for Quantile {
    /// JSON has no number for what is infinite.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.bounded_s())
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time_s = self.bounded_s();
        if self.is_least() {
            write!(out, "at most {:.1} ms", time_s * 1e3)
        } else if self.is_beyond() {
            write!(out, "more than {time_s:.0} s")
        } else {
            write!(out, "{:.3} ms", time_s * 1e3)
        }
    }
}

/// The bounds of the lowest bucket, and of the highest that has one.
const LEAST_S: f64 = Scale::Time.bounds()[0] as f64 / 1e6;
const MOST_S: f64 = Scale::Time.bounds()[Scale::Time.bounds().len() - 1] as f64 / 1e6;

impl Counts {
    pub(crate) fn of(values: &Values) -> Self {
        let of_verdict = of_verdicts(values);
        let bytes = std::array::from_fn(|n| values.total_of(Metric::AnswerSize, n));
        let mut buckets = vec![0; Scale::Time.n_buckets()];
        // A tunnel may last for hours.
        for verdict in (0..VERDICTS.len()).filter(|n| VERDICTS[*n] != "tunnel") {
            let more = values.buckets(Metric::RequestDuration, verdict);
            buckets.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
        }
        Self {
            requests: values.sum(Metric::Requests),
            verdicts: VERDICTS.into_iter().zip(of_verdict).collect(),
            server_errors: server_errors(values),
            hit_ratio: label::hit_ratio(&of_verdict.map(|n| n as f64)),
            byte_hit_ratio: label::hit_ratio(&bytes.map(|n| n as f64)),
            sent_bytes: sent_bytes(values),
            duration_s: Quantiles::of(&buckets),
            duration_buckets: buckets,
            duration_bounds_s: Scale::Time.bounds().iter().map(|it| *it as f64 / 1e6).collect(),
            connections: values.sum(Metric::Connections),
            connections_accepted: values.sum(Metric::Accepted),
            log_lines_dropped: values.sum(Metric::LogDropped),
            restarts: values.sum(Metric::Restarts),
            resident_bytes: values.sum(Metric::Memory),
            fills: values.sum(Metric::Fills),
            evictions: values.sum(Metric::Evictions),
        }
    }

    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { requests, sent_bytes, connections, .. } = self;
        let verdicts = self.verdicts.iter().filter(|(_, n)| **n > 0);
        let verdicts: Vec<_> = verdicts.map(|(word, n)| format!("{n} {word}")).collect();
        let verdicts = match verdicts.is_empty() {
            true => String::new(),
            false => format!(": {}", verdicts.join(", ")),
        };
        writeln!(out, "requests {requests}{verdicts}")?;
        let (hit, bytes) = (percent(self.hit_ratio), percent(self.byte_hit_ratio));
        let (sent, errors) = (size(*sent_bytes), self.server_errors);
        let share = percent((*requests > 0).then(|| errors as f64 / *requests as f64));
        writeln!(out, "status 5xx: {errors}, {share}")?;
        writeln!(out, "hit ratio {hit}, of bytes {bytes}; sent {sent}")?;
        if let Some(Quantiles { p50, p90, p99 }) = &self.duration_s {
            writeln!(out, "duration 50 % {p50}, 90 % {p90}, 99 % {p99}")?;
        }
        writeln!(
            out,
            "connections {connections}; {} restarts, {} log lines dropped, {} of memory",
            self.restarts,
            self.log_lines_dropped,
            size(self.resident_bytes)
        )
    }
}

/// Bytes for people, rounded.
pub(super) fn size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

/// A share for people. What is not quite nothing must not look like nothing.
pub(super) fn percent(share: Option<f64>) -> String {
    match share {
        None => "-".to_owned(),
        Some(share) if share > 0.0 && share < 0.001 => "< 0.1 %".to_owned(),
        Some(share) => format!("{:.1} %", share * 100.0),
    }
}

/// The requests of each verdict so far.
pub(crate) fn of_verdicts(values: &Values) -> [u64; VERDICTS.len()] {
    std::array::from_fn(|n| values.sum_of(Metric::Requests, n))
}

/// The server errors so far.
pub(crate) fn server_errors(values: &Values) -> u64 {
    values.sum_of_second(Metric::SiteRequests, label::status(500))
}

/// The bytes of all answers so far.
pub(crate) fn sent_bytes(values: &Values) -> u64 {
    (0..VERDICTS.len()).map(|n| values.total_of(Metric::AnswerSize, n)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::table::N_CELLS;

    #[test]
    fn sizes_are_rounded_for_people() {
        let sizes = [0, 1023, 1024, 10_765_591, 5 << 40].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "10.3 MiB", "5.0 TiB"]);
    }

    #[test]
    fn a_time_above_the_last_bound_is_more_than_it_and_in_json_the_bound() {
        let mut buckets = vec![0; Scale::Time.n_buckets()];
        (buckets[0], buckets[4], buckets[18]) = (60, 35, 5);
        let quantiles = Quantiles::of(&buckets).unwrap();
        let Quantiles { p50, p90, p99 } = &quantiles;
        let shown = [p50, p90, p99].map(ToString::to_string);
        assert_eq!(shown, ["at most 0.1 ms", "1.857 ms", "more than 50 s"]);
        let json = serde_json::to_value(&quantiles).unwrap();
        assert_eq!((&json["p50"], &json["p99"]), (&0.0001.into(), &50.0.into()));
    }

    #[test]
    fn a_share_of_little_is_not_nothing() {
        let shares = [None, Some(0.0), Some(0.0001), Some(0.001), Some(1.0)].map(percent);
        assert_eq!(shares, ["-", "0.0 %", "< 0.1 %", "0.1 %", "100.0 %"]);
    }

    #[test]
    fn the_hit_ratio_is_that_of_requests_that_looked_the_cache_up() {
        let mut values = Values { cells: vec![0; N_CELLS], ..Values::default() };
        assert_eq!(Counts::of(&values).hit_ratio, None);
        for (verdict, n) in [(0, 50), (1, 6), (2, 1), (3, 1), (4, 2), (5, 70)] {
            values.cells[Metric::RequestDuration.at(verdict).0 + 1] = n;
        }
        for (site, status, n) in [(0, 502, 5), (3, 503, 8), (3, 404, 9)] {
            values.cells[Metric::SiteRequests.at_both(site, label::status(status)).0] = n;
        }
        let counts = Counts::of(&values);
        assert_eq!((counts.requests, counts.hit_ratio), (130, Some(0.7)));
        assert_eq!((counts.verdicts["hit"], counts.verdicts["pass"]), (6, 70));
        assert!(counts.duration_s.as_ref().is_some_and(|it| it.p99.is_least()));
        let mut out = Vec::new();
        counts.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("requests 130: 6 hit, 1 miss") && text.contains("70.0 %"), "{text}");
        assert!(text.contains("status 5xx: 13, 10.0 %\n"), "{text}");
        assert!(text.contains("duration 50 % at most 0.1 ms, "), "{text}");
    }
}
