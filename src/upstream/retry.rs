//! Which failures are answered by another try, and how many of them an upstream bears.

/// The failures after which another server is tried, if the request may be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// No connection was made.
    pub connect: bool,
    /// No answer came in time.
    pub timeout: bool,
    /// The connection closed before an answer, or the answer was not one.
    pub broken: bool,
    /// The answer has one of these statuses.
    pub statuses: Vec<u16>,
}

impl RetryOn {
    pub(crate) fn has_status(&self, status: u16) -> bool {
        self.statuses.contains(&status)
    }
}

/// Counts requests and retries of the last ten seconds, so that retries do not multiply the load of
/// servers that fail because they have too much to do.
#[derive(Debug)]
pub(crate) struct Budget {
    percent: u64,
    /// One for each second; `at_s` says which second the newest one is.
    seconds: [Second; N_SECONDS],
    at_s: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    n_requests: u64,
    n_retries: u64,
}

const N_SECONDS: usize = 10;

/// So many retries in ten seconds are always allowed: of a few requests, any share is less than one.
const RETRIES_MIN: u64 = 100;

impl Budget {
    pub(crate) fn new(percent: u32) -> Self {
        Self { percent: percent.into(), seconds: [Second::default(); N_SECONDS], at_s: 0 }
    }

    /// Counts a request.
    pub(crate) fn request(&mut self, now_s: u64) {
        self.second(now_s).n_requests += 1;
    }

    /// Counts a retry, if there may be another one.
    pub(crate) fn retry(&mut self, now_s: u64) -> bool {
        self.second(now_s);
        let sum = |of: fn(&Second) -> u64| self.seconds.iter().map(of).sum::<u64>();
        let (n_requests, n_retries) = (sum(|it| it.n_requests), sum(|it| it.n_retries));
        let may_retry = n_retries < RETRIES_MIN + n_requests * self.percent / 100;
        if may_retry && self.percent > 0 {
            self.second(now_s).n_retries += 1;
        }
        may_retry && self.percent > 0
    }

    fn second(&mut self, now_s: u64) -> &mut Second {
        let n_passed = now_s.saturating_sub(self.at_s).min(N_SECONDS as u64);
        for n in 0..n_passed {
            self.seconds[((now_s - n) % N_SECONDS as u64) as usize] = Second::default();
        }
        self.at_s = self.at_s.max(now_s);
        &mut self.seconds[(self.at_s % N_SECONDS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_requests_of_ten_seconds() {
        let mut budget = Budget::new(20);
        let retries =
            |budget: &mut Budget, now_s| (0..1_000).filter(|_| budget.retry(now_s)).count();
        (0..500).for_each(|_| budget.request(1_000));
        assert_eq!(retries(&mut budget, 1_001), 200);
        assert_eq!(retries(&mut budget, 1_009), 0);
        // The requests are forgotten, the retries not yet.
        assert_eq!(retries(&mut budget, 1_010), 0);
        assert_eq!(retries(&mut budget, 1_011), 100);
        assert_eq!(retries(&mut budget, 9_999), 100);
    }

    #[test]
    fn a_budget_of_nothing_allows_none() {
        assert!(!Budget::new(0).retry(5));
    }
}
