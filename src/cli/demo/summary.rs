//! The sums that the demonstration shows at its end.

use crate::cli::line::Line;

/// Counts of the requests that the cache was asked about.
#[derive(Debug, Default)]
pub(super) struct Summary {
    n_requests: u64,
    /// Answers from the cache, the stale ones too.
    n_hits: u64,
}

impl Summary {
    pub(super) fn add(&mut self, line: &Line<'_>) {
        let is_hit = match line.verdict() {
            "purge" | "-" => return,
            word => matches!(word, "hit" | "stale"),
        };
        self.n_requests += 1;
        self.n_hits += u64::from(is_hit);
    }

    /// The sums, with the number of requests that the origin got.
    pub(super) fn text(&self, n_asked: u64) -> String {
        let Self { n_requests, n_hits } = self;
        let percent = (100 * n_hits).checked_div(*n_requests).unwrap_or(0);
        let n_saved = n_requests.saturating_sub(n_asked);
        format!(
            "requests: {n_requests}, hits: {n_hits} (hit ratio {percent} %), \
             requests to the origin: {n_asked} ({n_saved} saved)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::Record;

    #[test]
    fn requests_hits_and_saved_requests_are_counted() {
        let mut summary = Summary::default();
        let empty = "requests: 0, hits: 0 (hit ratio 0 %), requests to the origin: 0 (0 saved)";
        assert_eq!(summary.text(0), empty);
        for (method, verdict) in [
            ("GET", "miss"),
            ("GET", "hit"),
            ("GET", "stale"),
            ("GET", "pass"),
            ("PURGE", ""),
            ("", ""),
        ] {
            let method = method.as_bytes();
            summary.add(&Line(&Record { method, verdict, server: "s", ..Record::default() }));
        }
        let sums = "requests: 4, hits: 2 (hit ratio 50 %), requests to the origin: 3 (1 saved)";
        assert_eq!(summary.text(3), sums);
    }
}
