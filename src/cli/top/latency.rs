//! How long requests take, in buckets that are an eighth of their octave wide and decay.

/// Times of requests.
#[derive(Debug)]
pub(super) struct Latency {
    buckets: Vec<Bucket>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    weight: f64,
    /// Since its last request.
    idle_s: f64,
}

impl Latency {
    pub(super) fn new() -> Self {
        Self { buckets: vec![Bucket::default(); N_BUCKETS] }
    }

    pub(super) fn add(&mut self, us: u64, weight: f64) {
        let bucket = &mut self.buckets[bucket(us)];
        bucket.weight += weight;
        bucket.idle_s = 0.0;
    }

    /// Time has passed; the weights become less by this factor. Without the end of a bucket the longest
    /// time would be shown for minutes.
    pub(super) fn pass(&mut self, seconds: f64, factor: f64) {
        for bucket in &mut self.buckets {
            bucket.weight *= factor;
            bucket.idle_s += seconds;
            if bucket.idle_s >= KEPT_S {
                bucket.weight = 0.0;
            }
        }
    }

    /// The time that this share of requests takes at most, in microseconds; `None` without any.
    pub(super) fn quantile(&self, share: f64) -> Option<u64> {
        let all: f64 = self.buckets.iter().map(|bucket| bucket.weight).sum();
        let mut sum = 0.0;
        let reaches = |bucket: &Bucket| {
            sum += bucket.weight;
            sum >= all * share
        };
        let last = self.buckets.iter().rposition(|bucket| bucket.weight > 0.0);
        // The sum may miss the whole by a rounding.
        let found = self.buckets.iter().position(reaches).or(last).unwrap_or_default();
        (all > 0.0).then(|| upper(found))
    }
}

/// Below 8 µs each time has a bucket, and from there on each eighth of an octave.
fn bucket(us: u64) -> usize {
    let octave = us.max(8).ilog2() as usize - 3;
    let eighth = (us >> octave) as usize;
    (octave * 8 + eighth).min(N_BUCKETS - 1)
}

/// The longest time of a bucket.
fn upper(bucket: usize) -> u64 {
    let octave = (bucket / 8).saturating_sub(1);
    let eighth = (bucket - octave * 8) as u64;
    ((eighth + 1) << octave) - 1
}

/// Up to two weeks.
const N_BUCKETS: usize = 312;
/// A time is forgotten after this.
const KEPT_S: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bucket_that_ends_within_an_eighth_of_it() {
        for us in (0..100_000).chain([1 << 30, (1 << 40) - 1]) {
            let upper = upper(bucket(us));
            assert!(us <= upper && upper <= us + us / 8, "{us}: {upper}");
        }
        assert_eq!(bucket(u64::MAX), N_BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_times() {
        let mut latency = Latency::new();
        assert_eq!(latency.quantile(0.5), None);
        for us in 1..=1_000 {
            latency.add(us, 1.0);
        }
        for (share, us) in [(0.5, 500_u64), (0.9, 900), (0.99, 990), (1.0, 1_000)] {
            let found = latency.quantile(share).unwrap();
            assert!(found >= us && found <= us + us / 8, "{share}: {found}");
        }
        latency.pass(9.9, 0.2);
        assert!(latency.quantile(1.0).is_some_and(|us| us >= 1_000));
        latency.add(10, 1.0);
        latency.pass(0.2, 0.9);
        assert_eq!(latency.quantile(1.0), Some(10), "the others are older than ten seconds");
        latency.pass(10.0, 0.1);
        assert_eq!(latency.quantile(0.5), None);
    }
}
