//! The labels of metrics, each with the bounded set of its values.

use crate::http::flaw::Flaw;
use crate::policy::cache_status::CacheVerdict;
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::eviction::EvictionReason;
use crate::policy::reason::fetch::FetchError;
use crate::policy::reason::handshake::HandshakeEnd;
use crate::policy::reason::pass::PassReason;
use crate::policy::reason::refusal::ForwardRefusal;
use crate::policy::reason::validation::ValidationEnd;

/// Names and values of the labels of a metric. One that has several names has rows, with a value for
/// each name.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// The names, as in `/metrics`.
    pub names: &'static [&'static str],
    /// The values.
    pub set: Set,
}

/// The values that a label can have.
#[derive(Clone, Copy, Debug)]
pub enum Set {
    /// The words of an enum.
    Words(&'static [&'static str]),
    /// Names of the configuration, which have a row in shared memory.
    Rows(Rows),
    /// Other names of the configuration; the text says which. They have no cell.
    Named(&'static str),
}

/// The kinds of names with rows in shared memory. The first row is for all that have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// Sites, by their first host.
    Sites,
    /// Upstreams.
    Upstreams,
    /// Servers, by their upstream and their address.
    Servers,
}

/// The row of all that have no row of their own.
pub const OTHER: &str = "other";

impl Rows {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Sites, Self::Upstreams, Self::Servers];

    /// How many rows there are, with the first one.
    pub const fn size(self) -> usize {
        match self {
            Self::Sites | Self::Servers => 256,
            Self::Upstreams => 64,
        }
    }
}

impl Set {
    /// How many values have a cell.
    pub const fn size(self) -> usize {
        match self {
            Self::Words(words) => words.len(),
            Self::Rows(rows) => rows.size(),
            Self::Named(_) => 0,
        }
    }
}

/// The words of all values of an enum of reasons.
macro_rules! words {
    ($name:ident: $reason:ident) => {
        const $name: [&str; $reason::ALL.len()] = {
            let mut words = [""; $reason::ALL.len()];
            let mut n = 0;
            while n < words.len() {
                words[n] = $reason::ALL[n].word();
                n += 1;
            }
            words
        };
    };
}

words!(PASSES: PassReason);
words!(FETCH_ERRORS: FetchError);
words!(REFUSALS: ForwardRefusal);
words!(CLOSES: CloseReason);
words!(FLAWS: Flaw);
words!(HANDSHAKES: HandshakeEnd);
words!(EVICTIONS: EvictionReason);
words!(VALIDATIONS: ValidationEnd);

const fn words(names: &'static [&'static str], words: &'static [&'static str]) -> Label {
    Label { names, set: Set::Words(words) }
}

const fn rows(names: &'static [&'static str], rows: Rows) -> Label {
    Label { names, set: Set::Rows(rows) }
}

const REASON: &[&str] = &["reason"];

/// The words of verdicts, in the order of [`verdict`].
pub const VERDICTS: [&str; 7] = ["none", "hit", "miss", "stale", "revalidated", "pass", "tunnel"];

/// The verdicts of requests that the cache has answered without the origin.
pub const HITS: [&str; 2] = ["hit", "stale"];

/// The verdicts of requests for which the cache was looked up.
pub const LOOKUPS: [&str; 4] = ["hit", "stale", "miss", "revalidated"];

pub(super) const VERDICT: Label = words(&["verdict"], &VERDICTS);
pub(super) const STATUS: Label = words(&["status"], &["none", "1xx", "2xx", "3xx", "4xx", "5xx"]);
pub(super) const PASS: Label = words(REASON, &PASSES);
pub(super) const FETCH: Label = words(REASON, &FETCH_ERRORS);
pub(super) const REFUSAL: Label = words(REASON, &REFUSALS);
pub(super) const CLOSE: Label = words(REASON, &CLOSES);
pub(super) const FLAW: Label = words(REASON, &FLAWS);
pub(super) const HANDSHAKE: Label = words(&["result"], &HANDSHAKES);
pub(super) const EVICTION: Label = words(REASON, &EVICTIONS);
pub(super) const VALIDATION: Label = words(&["result"], &VALIDATIONS);
pub(super) const RELOAD: Label = words(&["result"], &["done", "failed"]);
pub(super) const PROCESS: Label = words(&["process"], &["master", "worker", "keeper"]);
pub(super) const SITE: Label = rows(&["site"], Rows::Sites);
pub(super) const UPSTREAM: Label = rows(&["upstream"], Rows::Upstreams);
pub(super) const SERVER: Label = rows(&["upstream", "server"], Rows::Servers);
pub(super) const CERTIFICATE: Label =
    Label { names: &["file"], set: Set::Named("the file of a certificate in use") };
pub(super) const VERSION: Label = Label { names: &["version"], set: Set::Named("the version") };
pub(super) const WORKER_STATE: Label = words(&["state"], &["up", "down"]);
pub(super) const SERVER_STATE: Label =
    words(&["state"], &["up", "trying", "down", "draining", "disabled"]);
pub(super) const CONNECTION_STATE: Label = words(&["state"], &["active", "idle"]);

/// The place of a verdict in the label of that name. An exchange without a verdict was not looked up.
pub fn verdict(verdict: Option<CacheVerdict>) -> usize {
    match verdict {
        None | Some(CacheVerdict::NotLookedUp) => 0,
        Some(CacheVerdict::Hit) => 1,
        Some(CacheVerdict::Miss) => 2,
        Some(CacheVerdict::Stale) => 3,
        Some(CacheVerdict::Revalidated) => 4,
        Some(CacheVerdict::Pass(_)) => 5,
        Some(CacheVerdict::Tunnel) => 6,
    }
}

/// The hit ratio of counts by verdict, in the order of [`VERDICTS`]: the share that the cache has
/// answered without the origin, of those for which it was looked up; `None` without any.
pub fn hit_ratio(counts: &[f64; VERDICTS.len()]) -> Option<f64> {
    let lookups = sum(counts, &LOOKUPS);
    (lookups > 0.0).then(|| sum(counts, &HITS) / lookups)
}

fn sum(counts: &[f64; VERDICTS.len()], words: &[&str]) -> f64 {
    let named = VERDICTS.iter().zip(counts).filter(|(verdict, _)| words.contains(verdict));
    named.map(|(_, n)| n).sum()
}

/// The place of the class of a status in the label of that name.
pub const fn status(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => class as usize,
        _ => 0,
    }
}

/// Whether a status is that of a server error, which every count of them goes by.
pub const fn is_server_error(of: u16) -> bool {
    status(of) == status(500)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hit_ratio_is_that_of_requests_that_looked_the_cache_up() {
        assert_eq!(hit_ratio(&[50.0, 0.0, 0.0, 0.0, 0.0, 70.0, 3.0]), None);
        assert_eq!(hit_ratio(&[50.0, 6.0, 1.0, 1.0, 2.0, 70.0, 3.0]), Some(0.7));
    }

    /// The manual has the same verdicts in a query for Prometheus.
    #[test]
    fn the_manual_says_what_the_hit_ratio_is() {
        let manual = include_str!("../../man/ktrix-metrics.7");
        for verdicts in [&HITS[..], &LOOKUPS] {
            let part = format!("verdict=~\"{}\"", verdicts.join("|"));
            assert!(manual.contains(&part), "{part}");
        }
    }

    #[test]
    fn the_places_are_those_of_the_words() {
        let Set::Words(words) = VERDICT.set else { panic!() };
        let all = [
            CacheVerdict::Hit,
            CacheVerdict::Miss,
            CacheVerdict::Stale,
            CacheVerdict::Revalidated,
            CacheVerdict::Pass(PassReason::Off),
            CacheVerdict::Tunnel,
        ];
        for it in all {
            assert_eq!(words[verdict(Some(it))], it.word());
        }
        assert_eq!(verdict(Some(CacheVerdict::NotLookedUp)), verdict(None));
        let Set::Words(words) = STATUS.set else { panic!() };
        assert_eq!(
            [0, 200, 499, 599, 999].map(|it| words[status(it)]),
            ["none", "2xx", "4xx", "5xx", "none"]
        );
        let errors = [0, 499, 500, 599, 600, 999].map(is_server_error);
        assert_eq!(errors, [false, false, true, true, false, false]);
    }
}
