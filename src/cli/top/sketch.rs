//! The names with the most requests, in bounded memory (Space-Saving; Metwally, Agrawal, El Abbadi 2005).
//!
//! A name that is new takes the row of the name with the least weight, and its weight as an error. Every
//! name with more than one request in [`Sketch::n_max`] is therefore there. All weights decay, so that they
//! tell of the last seconds ([`Decay`]).

use std::collections::HashMap;

/// How weights decay: by e in [`Decay::SPAN_S`] seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Decay {
    /// The time that the weights are of, which decays as they do.
    span_s: f64,
}

impl Decay {
    const SPAN_S: f64 = 5.0;

    /// The weight that a single request has after ten seconds; less counts as none.
    pub(super) const NOTHING: f64 = 0.135;

    /// Weights that are all of these seconds, and do not decay.
    pub(super) fn of_span(span_s: f64) -> Self {
        Self { span_s }
    }

    /// Time has passed, in which weights were added; gives what all weights are to be multiplied by.
    pub(super) fn pass(&mut self, seconds: f64) -> f64 {
        let factor = (-seconds / Self::SPAN_S).exp();
        self.span_s = (self.span_s + seconds) * factor;
        factor
    }

    /// The rate that a weight shows, in a second.
    pub(super) fn rate(self, weight: f64) -> f64 {
        if self.span_s > 0.0 { weight / self.span_s } else { 0.0 }
    }
}

/// The counts of a name; all numbers decay.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) requests: f64,
    /// Requests that may belong to the names that had the row before.
    pub(super) error: f64,
    /// Requests for which the cache was looked up, and those that it answered without the origin.
    pub(super) lookups: f64,
    pub(super) hits: f64,
    /// Answers with the status of a server error.
    pub(super) failures: f64,
    pub(super) bytes: f64,
    pub(super) time_us: f64,
}

impl Counts {
    fn all_mut(&mut self) -> [&mut f64; 7] {
        let Self { requests, error, lookups, hits, failures, bytes, time_us } = self;
        [requests, error, lookups, hits, failures, bytes, time_us]
    }

    /// Requests that are known to be its own.
    pub(super) fn own(&self) -> f64 {
        (self.requests - self.error).max(f64::MIN_POSITIVE)
    }

    /// The mean time of a request, in microseconds.
    pub(super) fn mean_us(&self) -> f64 {
        self.time_us / self.own()
    }

    /// As [`crate::metrics::label::hit_ratio`].
    pub(super) fn hit_ratio(&self) -> Option<f64> {
        (self.lookups > 0.0).then(|| self.hits / self.lookups)
    }
}

/// The names with the most requests.
#[derive(Debug)]
pub(super) struct Sketch {
    n_max: usize,
    rows: Vec<(Vec<u8>, Counts)>,
    places: HashMap<Vec<u8>, usize>,
}

impl Sketch {
    /// Of at most this many names, at least one.
    pub(super) fn new(n_max: usize) -> Self {
        Self { n_max: n_max.max(1), rows: Vec::new(), places: HashMap::new() }
    }

    /// Adds a request of this weight; its counts are the caller's to add.
    pub(super) fn add(&mut self, name: &[u8], weight: f64) -> &mut Counts {
        let place = match self.places.get(name) {
            Some(place) => *place,
            None => self.take_place(name),
        };
        let counts = &mut self.rows[place].1;
        counts.requests += weight;
        counts
    }

    fn take_place(&mut self, name: &[u8]) -> usize {
        let place = if self.rows.len() < self.n_max {
            self.rows.push((name.to_vec(), Counts::default()));
            self.rows.len() - 1
        } else {
            let weights = self.rows.iter().map(|(_, counts)| counts.requests).enumerate();
            let least = weights.min_by(|(_, a), (_, b)| a.total_cmp(b));
            let (place, weight) = least.unwrap_or((0, 0.0));
            let (old, counts) = &mut self.rows[place];
            self.places.remove(old);
            *old = name.to_vec();
            *counts = Counts { requests: weight, error: weight, ..Counts::default() };
            place
        };
        self.places.insert(name.to_vec(), place);
        place
    }

    /// All weights become less, and names without any go.
    pub(super) fn decay(&mut self, factor: f64) {
        for (_, counts) in &mut self.rows {
            counts.all_mut().into_iter().for_each(|number| *number *= factor);
        }
        if self.rows.iter().any(|(_, counts)| counts.requests < Decay::NOTHING) {
            self.rows.retain(|(_, counts)| counts.requests >= Decay::NOTHING);
            let names = self.rows.iter().map(|(name, _)| name.clone());
            self.places = names.zip(0..).collect();
        }
    }

    pub(super) fn rows(&self) -> &[(Vec<u8>, Counts)] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_is_asked_for_often_is_there_beside_many_others() {
        let mut sketch = Sketch::new(20);
        for n in 0..10_000 {
            sketch.add(format!("/{n}").as_bytes(), 1.0);
            if n % 10 == 0 {
                sketch.add(b"/often", 1.0).hits += 1.0;
            }
        }
        assert_eq!(sketch.rows().len(), 20);
        let (_, often) = sketch.rows().iter().find(|(name, _)| name == b"/often").unwrap();
        assert!(often.requests >= 1_000.0 && often.own() <= 1_000.0, "{often:?}");
    }

    #[test]
    fn a_steady_rate_is_shown_from_the_first_second_on_and_a_name_goes() {
        let (mut sketch, mut decay) = (Sketch::new(4), Decay::default());
        for second in 0..30 {
            for _ in 0..100 {
                sketch.add(b"a", 1.0);
            }
            sketch.decay(decay.pass(1.0));
            let rate = decay.rate(sketch.rows()[0].1.requests);
            assert!((rate - 100.0).abs() < 1e-6, "{rate} after {second} s");
        }
        for _ in 0..60 {
            sketch.decay(decay.pass(1.0));
        }
        assert!(sketch.rows().is_empty() && sketch.places.is_empty());
        sketch.add(b"b", 1.0);
        assert_eq!(sketch.rows().len(), 1);
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_all_requests_and_every_error_is_a_bound(
            names in proptest::collection::vec(0_u8..30, 0..400), n_max in 1_usize..12,
        ) {
            let mut sketch = Sketch::new(n_max);
            let mut exact = [0_u32; 30];
            for name in &names {
                sketch.add(&[*name], 1.0);
                exact[usize::from(*name)] += 1;
            }
            let sum: f64 = sketch.rows().iter().map(|(_, counts)| counts.requests).sum();
            prop_assert_eq!(sum, names.len() as f64);
            for (name, counts) in sketch.rows() {
                let exact = f64::from(exact[usize::from(name[0])]);
                prop_assert!(counts.requests >= exact && counts.requests - counts.error <= exact);
            }
        }
    }
}
