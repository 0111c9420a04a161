//! The table of metrics, and the places of their values in a page of shared memory.
//!
//! A page is a row of cells of 64 bits: those of the first metric, then those of the next. A metric with
//! labels has them for each value of the first label, and within it for each of the second. A histogram
//! has a cell for the sum of its values and one for each bucket.

use crate::metrics::label::{self, Label};
use crate::metrics::scale::Scale;

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is as it is now.
    Gauge,
    /// Values by size.
    Histogram(Scale),
}

/// The unit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    None,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Microseconds in shared memory, seconds for readers.
    Micros,
}

/// Where the values of a metric are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Each process counts in cells of its page.
    Cells,
    /// The number of values in another one, a histogram of the same labels.
    CountOf(Metric),
    /// Other tables have them.
    Read,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The name in `/metrics`.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The unit.
    pub unit: Unit,
    /// Where the values are.
    pub source: Source,
    /// The labels, at most two with cells.
    pub labels: &'static [Label],
    /// A sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($metric:ident: $name:literal, $kind:expr, $unit:ident, $source:expr, $labels:expr, $help:literal;)*) => {
        /// A metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Metric {
            $(#[doc = $help] $metric,)*
        }

        impl Metric {
            /// Every metric.
            pub const ALL: &[Self] = &[$(Self::$metric,)*];
        }

        static TABLE: [Row; Metric::ALL.len()] = {
            use Kind::{Counter, Gauge, Histogram};
            use Source::{Cells, CountOf, Read};
            [$(Row {
            name: $name,
            kind: $kind,
            unit: Unit::$unit,
            source: $source,
            labels: $labels,
            help: $help,
        },)*]
        };
    };
}

metrics! {
    Requests: "ktrix_requests_total", Counter, None, CountOf(Metric::RequestDuration),
        &[label::VERDICT],
        "Requests that have ended, by how the cache took part: each has a line in the access log, if there is one.";
    RequestDuration: "ktrix_request_duration_seconds", Histogram(Scale::Time), Micros, Cells,
        &[label::VERDICT],
        "Time from the first byte of a request to the end of its answer.";
    AnswerSize: "ktrix_answer_size_bytes", Histogram(Scale::Size), Bytes, Cells,
        &[label::VERDICT],
        "Bytes of an answer with its head.";
    SiteRequests: "ktrix_site_requests_total", Counter, None, Cells,
        &[label::SITE, label::STATUS],
        "Requests by site and class of the status.";
    SiteSent: "ktrix_site_sent_bytes_total", Counter, Bytes, Cells, &[label::SITE],
        "Bytes of answers, with their heads, by site.";
    Passes: "ktrix_passes_total", Counter, None, Cells, &[label::PASS],
        "Requests that went round the cache.";
    RequestFailures: "ktrix_request_failures_total", Counter, None, Cells, &[label::FETCH],
        "Requests that failed because no server gave a usable answer.";
    Refusals: "ktrix_forward_refusals_total", Counter, None, Cells, &[label::REFUSAL],
        "Requests that the forward proxy refused.";
    Flaws: "ktrix_bad_requests_total", Counter, None, Cells, &[label::FLAW],
        "Requests that broke the protocol.";
    Accepted: "ktrix_connections_accepted_total", Counter, None, Cells, &[],
        "Connections of clients that were accepted.";
    Connections: "ktrix_connections", Gauge, None, Cells, &[],
        "Connections of clients that are open, behind their PROXY header and TLS handshake.";
    Closed: "ktrix_connections_closed_total", Counter, None, Cells, &[label::CLOSE],
        "Connections of clients that have ended.";
    Handshakes: "ktrix_tls_handshakes_total", Counter, None, Cells, &[label::HANDSHAKE],
        "TLS handshakes of clients that have ended.";
    TunnelsBegun: "ktrix_tunnels_total", Counter, None, Cells, &[],
        "Tunnels that were opened.";
    Tunnels: "ktrix_tunnels", Gauge, None, Read, &[],
        "Tunnels that are open.";
    FirstByte: "ktrix_upstream_first_byte_seconds", Histogram(Scale::Time), Micros, Cells,
        &[label::UPSTREAM],
        "Time from the first byte of a question to a server to the end of the head of its answer.";
    Pending: "ktrix_upstream_pending_requests", Gauge, None, Read, &[label::UPSTREAM],
        "Requests that wait for a connection to a server.";
    ServerAnswers: "ktrix_server_answers_total", Counter, None, Cells, &[label::SERVER],
        "Answers of a server.";
    ServerFailures: "ktrix_server_failures_total", Counter, None, Cells, &[label::SERVER],
        "Questions to a server that it did not answer, or not by the protocol.";
    ServerDowns: "ktrix_server_downs_total", Counter, None, Read, &[label::SERVER],
        "How often a server was skipped after failures.";
    ServerState: "ktrix_server_state", Gauge, None, Read, &[label::SERVER, label::SERVER_STATE],
        "1 for the state that a server is in, else 0.";
    ServerConnections: "ktrix_server_connections", Gauge, None, Read,
        &[label::SERVER, label::CONNECTION_STATE],
        "Connections to a server: with a request (active), or without (idle).";
    Fills: "ktrix_cache_fills_total", Counter, None, Cells, &[],
        "Fetches that were begun to store their response, validations included.";
    Stores: "ktrix_cache_stores_total", Counter, None, Cells, &[],
        "Objects that were stored.";
    Validations: "ktrix_cache_validations_total", Counter, None, Cells, &[label::VALIDATION],
        "Stored responses that the origin was asked about.";
    Purges: "ktrix_cache_purges_total", Counter, None, Cells, &[],
        "Purges by request or by command.";
    Evictions: "ktrix_cache_evictions_total", Counter, None, Cells, &[label::EVICTION],
        "Objects that were evicted to make room.";
    EvictedBytes: "ktrix_cache_evicted_bytes_total", Counter, Bytes, Cells, &[],
        "Bytes on the disk of objects that were evicted.";
    EvictedAge: "ktrix_cache_evicted_age_seconds", Histogram(Scale::Age), Seconds, Cells, &[],
        "Time from the storing of an object to its eviction.";
    CacheObjects: "ktrix_cache_objects", Gauge, None, Read, &[],
        "Entries of the index that are in use: stored objects and notes of the cache.";
    CacheObjectsMax: "ktrix_cache_objects_max", Gauge, None, Read, &[],
        "Entries that cache.objects allows.";
    CacheSlots: "ktrix_cache_slots", Gauge, None, Read, &[],
        "Entries that the index has room for.";
    CacheBytes: "ktrix_cache_size_bytes", Gauge, Bytes, Read, &[],
        "Bytes on the disk of all stored objects.";
    CacheBytesMax: "ktrix_cache_size_max_bytes", Gauge, Bytes, Read, &[],
        "Bytes that cache.size allows.";
    LogDropped: "ktrix_log_lines_dropped_total", Counter, None, Cells, &[],
        "Requests that have no line in the access log because it was full.";
    Unlogged: "ktrix_log_lines_off_total", Counter, None, Cells, &[],
        "Requests that have no line because there was no access log.";
    Workers: "ktrix_workers", Gauge, None, Read, &[label::WORKER_STATE],
        "Workers of the configuration in use.";
    Restarts: "ktrix_restarts_total", Counter, None, Cells, &[label::PROCESS],
        "Processes that died and were replaced.";
    Reloads: "ktrix_reloads_total", Counter, None, Cells, &[label::RELOAD],
        "Reloads of the configuration.";
    Generation: "ktrix_generation", Gauge, None, Read, &[],
        "Number of the configuration in use, which counts the reloads since the start.";
    Memory: "ktrix_resident_memory_bytes", Gauge, Bytes, Cells, &[label::PROCESS],
        "Resident memory of all processes; memory that they share counts in each.";
    Certificates: "ktrix_certificate_expiry_timestamp_seconds", Gauge, Seconds, Read,
        &[label::CERTIFICATE],
        "When a certificate expires, in seconds since 1970.";
    Started: "ktrix_start_timestamp_seconds", Gauge, Seconds, Read, &[],
        "When the counters began, in seconds since 1970.";
    Info: "ktrix_info", Gauge, None, Read, &[label::VERSION],
        "Always 1; the label has the version.";
}

/// The place of a value in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell(pub(crate) usize);

impl Metric {
    /// Its row.
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its first cell.
    pub const fn first(self) -> usize {
        FIRSTS[self as usize]
    }

    /// The only cell of a metric without labels.
    pub const fn cell(self) -> Cell {
        Cell(self.first())
    }

    /// The cell for this value of the only label, or the first cell if it is a histogram.
    #[inline]
    pub const fn at(self, value: usize) -> Cell {
        Cell(self.first() + value * self.row().width())
    }

    /// The cell for these values of two labels.
    #[inline]
    pub const fn at_both(self, first: usize, second: usize) -> Cell {
        Cell(self.first() + first * self.row().labels[1].set.size() + second)
    }
}

impl Row {
    /// The cells of one combination of labels.
    pub const fn width(&self) -> usize {
        match self.kind {
            Kind::Counter | Kind::Gauge => 1,
            Kind::Histogram(scale) => 1 + scale.n_buckets(),
        }
    }

    /// The cells of all combinations.
    pub const fn n_cells(&self) -> usize {
        if !matches!(self.source, Source::Cells) {
            return 0;
        }
        let mut n = self.width();
        let mut at = 0;
        while at < self.labels.len() {
            n *= self.labels[at].set.size();
            at += 1;
        }
        n
    }
}

/// The first cell of each metric.
const FIRSTS: [usize; Metric::ALL.len()] = {
    let mut firsts = [0; Metric::ALL.len()];
    let mut n = 1;
    while n < firsts.len() {
        firsts[n] = firsts[n - 1] + TABLE[n - 1].n_cells();
        n += 1;
    }
    firsts
};

/// The cells of a page.
pub const N_CELLS: usize = {
    let last = Metric::ALL.len() - 1;
    FIRSTS[last] + TABLE[last].n_cells()
};

/// A number of the layout: another version of ktrix with the same number has the same one.
pub const LAYOUT: u64 = {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut n = 0;
    while n < TABLE.len() {
        hash = hashed(hash, TABLE[n].name);
        let mut at = 0;
        while at < TABLE[n].labels.len() {
            if let label::Set::Words(words) = TABLE[n].labels[at].set {
                let mut word = 0;
                while word < words.len() {
                    hash = hashed(hash, words[word]);
                    word += 1;
                }
            }
            at += 1;
        }
        hash = (hash ^ TABLE[n].n_cells() as u64).wrapping_mul(FNV);
        n += 1;
    }
    hash
};

const FNV: u64 = 0x100_0000_01b3;

const fn hashed(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut n = 0;
    while n < bytes.len() {
        hash = (hash ^ bytes[n] as u64).wrapping_mul(FNV);
        n += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut names = HashSet::new();
        for metric in Metric::ALL {
            let Row { name, kind, unit, help, .. } = *metric.row();
            assert!(names.insert(name), "{name} is there twice");
            let is_lower = |b: u8| b.is_ascii_lowercase() || b == b'_';
            assert!(name.starts_with("ktrix_") && name.bytes().all(is_lower), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            let base = name.trim_end_matches("_total");
            match unit {
                Unit::Bytes => assert!(base.ends_with("_bytes"), "{name}"),
                Unit::Seconds | Unit::Micros => assert!(base.ends_with("_seconds"), "{name}"),
                Unit::None => assert!(!base.ends_with("_bytes") && !base.ends_with("_seconds")),
            }
            assert!(help.ends_with('.') && !help.contains(['\\', '\n', '"']), "{help}");
        }
    }

    #[test]
    fn every_value_has_a_cell_of_its_own() {
        let mut cells = HashSet::new();
        for metric in Metric::ALL.iter().filter(|it| it.row().source == Source::Cells) {
            let row = metric.row();
            let lens: Vec<_> = row.labels.iter().map(|label| label.set.size()).collect();
            let firsts: Vec<_> = match lens[..] {
                [] => vec![metric.cell()],
                [n] => (0..n).map(|n| metric.at(n)).collect(),
                [n, m] => (0..n * m).map(|it| metric.at_both(it / m, it % m)).collect(),
                _ => panic!("{metric:?} has too many labels"),
            };
            assert!(lens.len() < 2 || row.width() == 1, "{metric:?}");
            for Cell(first) in firsts {
                (first..first + row.width()).for_each(|it| assert!(cells.insert(it), "{metric:?}"));
            }
        }
        assert_eq!(cells.len(), N_CELLS);
        assert_eq!(cells.into_iter().max(), Some(N_CELLS - 1));
    }

    #[test]
    fn a_counter_of_a_histogram_has_its_labels() {
        for row in Metric::ALL.iter().map(|it| it.row()) {
            if let Source::CountOf(metric) = row.source {
                let names = |row: &Row| row.labels.iter().map(|it| it.names).collect::<Vec<_>>();
                assert_eq!(names(row), names(metric.row()));
                assert!(matches!(metric.row().kind, Kind::Histogram(_)));
            }
        }
    }
}
