//! The buckets of histograms. Their bounds grow by a constant factor, or nearly so.

/// The scale of a histogram: the upper bounds of its buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Times from 100 µs to 50 s, in microseconds.
    Time,
    /// Sizes from 256 bytes to 1 GiB.
    Size,
    /// Ages from 4 s to half a year, in seconds.
    Age,
}

const TIME: [u64; 18] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000,
];
const SIZE: [u64; 12] = powers_of_4(4);
const AGE: [u64; 12] = powers_of_4(1);

/// Powers of 4 from `4^first` on.
const fn powers_of_4(first: u32) -> [u64; 12] {
    let mut bounds = [0; 12];
    let mut n = 0;
    while n < bounds.len() {
        bounds[n] = 4_u64.pow(first + n as u32);
        n += 1;
    }
    bounds
}

impl Scale {
    /// The upper bound of each bucket but the last one, which has none.
    pub const fn bounds(self) -> &'static [u64] {
        match self {
            Self::Time => &TIME,
            Self::Size => &SIZE,
            Self::Age => &AGE,
        }
    }

    /// How many buckets there are.
    pub const fn n_buckets(self) -> usize {
        self.bounds().len() + 1
    }

    /// The bucket of a value. Most values are small, so that the search begins there.
    #[inline]
    pub fn bucket(self, value: u64) -> usize {
        let bounds = self.bounds();
        bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len())
    }

    /// The value that this share of all values is below, between 0 and 1, if there are values. It is
    /// interpolated within a bucket; above the last bound nothing is known, and it is infinite.
    pub fn quantile(self, buckets: &[u64], share: f64) -> Option<f64> {
        let n_all: u64 = buckets.iter().sum();
        let wanted = share * n_all as f64;
        let mut below = 0.0;
        let mut lower = 0;
        for (n, bound) in buckets.iter().zip(self.bounds()) {
            let n = *n as f64;
            if n > 0.0 && below + n >= wanted {
                let part = (wanted - below) / n;
                return Some(lower as f64 + part * (bound - lower) as f64);
            }
            (below, lower) = (below + n, *bound);
        }
        (n_all > 0).then_some(f64::INFINITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_the_first_bucket_that_has_room_for_it() {
        for scale in [Scale::Time, Scale::Size, Scale::Age] {
            let bounds = scale.bounds();
            assert!(bounds.is_sorted_by(|a, b| a < b));
            for (n, bound) in bounds.iter().enumerate() {
                assert_eq!((scale.bucket(*bound), scale.bucket(bound + 1)), (n, n + 1));
            }
            assert_eq!((scale.bucket(0), scale.bucket(u64::MAX)), (0, bounds.len()));
            assert_eq!(scale.n_buckets(), bounds.len() + 1);
        }
    }

    #[test]
    fn a_quantile_is_within_the_bucket_of_its_value() {
        let mut buckets = [0; 19];
        assert_eq!(Scale::Time.quantile(&buckets, 0.5), None);
        buckets[3] = 100;
        assert_eq!(Scale::Time.quantile(&buckets, 0.5), Some(750.0));
        buckets[18] = 100;
        assert_eq!(Scale::Time.quantile(&buckets, 0.5), Some(1_000.0));
        assert_eq!(Scale::Time.quantile(&buckets, 0.99), Some(f64::INFINITY));
        buckets[17] = 200;
        assert_eq!(Scale::Time.quantile(&buckets, 0.75), Some(50_000_000.0));
    }
}
