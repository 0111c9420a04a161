//! What the cache did with a request, for the client (Cache-Status, RFC 9211) and for the log.

use crate::http::status::Status;
use crate::policy::reason::forward::Fwd;
use crate::policy::reason::pass::PassReason;

/// One member of a Cache-Status field: what ktrix did (RFC 9211 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// Whether the answer came from the cache or why it did not (sections 2.1 and 2.2).
    pub way: Way,
    /// The status that the origin answered with (section 2.3); see [`Self::sent_as`].
    pub fwd_status: Option<Status>,
    /// The response was stored (section 2.5).
    pub stored: bool,
    /// The request waited for the fetch of another one (section 2.6).
    pub collapsed: bool,
    /// Seconds of freshness left, negative when stale (section 2.4).
    pub ttl_s: Option<i64>,
    /// The key text (section 2.7). Left out when it holds what a string cannot.
    pub key: Option<&'a [u8]>,
    /// A word of detail (section 2.8); must be a token.
    pub detail: Option<&'a str>,
    /// What of all this is told.
    pub report: Report,
}

/// What clients are told in Cache-Status. Whether it was a hit, or why it was none, is told in any
/// case that anything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether there is such a field at all.
    pub is_on: bool,
    /// `fwd-status`.
    pub fwd_status: bool,
    /// `stored`.
    pub stored: bool,
    /// `collapsed`.
    pub collapsed: bool,
    /// `ttl`.
    pub ttl: bool,
    /// `key`.
    pub key: bool,
    /// `detail`.
    pub detail: bool,
}

impl Default for Report {
    fn default() -> Self {
        DEFAULT
    }
}

impl Report {
    /// A report with all of its parts, or none.
    pub const fn with_all(is_told: bool) -> Self {
        Self {
            is_on: true,
            fwd_status: is_told,
            stored: is_told,
            collapsed: is_told,
            ttl: is_told,
            key: is_told,
            detail: is_told,
        }
    }
}

/// Where an answer came from. RFC 9211 allows one of the two, never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Answered from the cache, without the origin's help.
    Hit,
    /// The request went to the origin, for this reason.
    Fwd(Fwd),
    /// Neither: ktrix answered by itself.
    Own,
}

impl<'a> CacheStatus<'a> {
    /// An answer from the cache with this much freshness left.
    pub const fn hit(ttl_s: i64) -> Self {
        Self { ttl_s: Some(ttl_s), ..Self::of(Way::Hit) }
    }

    /// An answer for which the origin was asked.
    pub const fn forward(fwd: Fwd) -> Self {
        Self::of(Way::Fwd(fwd))
    }

    /// An answer of our own, for which nobody was asked.
    pub const fn own() -> Self {
        Self::of(Way::Own)
    }

    /// A request that was passed round the cache.
    pub const fn pass(reason: PassReason) -> Self {
        Self { detail: Some(reason.word()), ..Self::of(Way::Fwd(reason.fwd())) }
    }

    /// As it is told with an answer of this status: what the origin answered with is told where it
    /// is another, for by RFC 9211 section 2.3 it is taken to be the one sent otherwise.
    pub fn sent_as(self, sent: Status) -> Self {
        Self { fwd_status: self.fwd_status.filter(|status| *status != sent), ..self }
    }

    /// As it is told by this report.
    pub const fn told_by(self, report: Report) -> Self {
        Self { report, ..self }
    }

    /// Appends the member to `out`, as in `ktrix; hit; ttl=30`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let told = self.report;
        out.extend_from_slice(CACHE_NAME.as_bytes());
        match self.way {
            Way::Hit => out.extend_from_slice(b"; hit"),
            Way::Fwd(fwd) => parameter("fwd", fwd.word().as_bytes(), out),
            Way::Own => {}
        }
        let mut digits = itoa::Buffer::new();
        if let Some(status) = self.fwd_status.filter(|_| told.fwd_status) {
            parameter("fwd-status", digits.format(status.0).as_bytes(), out);
        }
        if self.stored && told.stored {
            out.extend_from_slice(b"; stored");
        }
        if self.collapsed && told.collapsed {
            out.extend_from_slice(b"; collapsed");
        }
        if let Some(ttl_s) = self.ttl_s.filter(|_| told.ttl) {
            let ttl_s = ttl_s.clamp(-INTEGER_MAX, INTEGER_MAX);
            parameter("ttl", digits.format(ttl_s).as_bytes(), out);
        }
        let is_string = |key: &&[u8]| key.iter().all(|b| (0x20..=0x7e).contains(b));
        if let Some(key) = self.key.filter(is_string).filter(|_| told.key) {
            out.extend_from_slice(b"; key=\"");
            for &byte in key {
                if byte == b'"' || byte == b'\\' {
                    out.push(b'\\');
                }
                out.push(byte);
            }
            out.push(b'"');
        }
        if let Some(detail) = self.detail.filter(|_| told.detail) {
            parameter("detail", detail.as_bytes(), out);
        }
    }

    const fn of(way: Way) -> Self {
        Self {
            way,
            fwd_status: None,
            stored: false,
            collapsed: false,
            ttl_s: None,
            key: None,
            detail: None,
            report: DEFAULT,
        }
    }
}

/// What the access log says about the cache's part in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheVerdict {
    /// The cache was not asked: the answer is ktrix's own.
    Unasked,
    /// Answered from the cache, fresh.
    Hit,
    /// Answered from a fetch, nothing usable was stored.
    Miss,
    /// Answered from the cache though stale.
    Stale,
    /// Answered from the cache after the origin confirmed it with 304.
    Revalidated,
    /// Went round the cache.
    Pass(PassReason),
}

impl CacheVerdict {
    /// The word used in logs, counters and the manual.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unasked => "-",
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Pass(_) => "pass",
        }
    }

    /// The word for why, `-` where there is nothing to explain.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Pass(reason) => reason.word(),
            _ => "-",
        }
    }
}

/// Appends `; name=value`.
fn parameter(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"; ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value);
}

/// [`Report::default`], for constants.
const DEFAULT: Report = Report { key: false, ..Report::with_all(true) };

/// The name of this cache in Cache-Status.
const CACHE_NAME: &str = "ktrix";

/// Largest integer of a structured field, RFC 9651 section 3.3.1.
const INTEGER_MAX: i64 = 999_999_999_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: CacheStatus<'_>) -> String {
        let mut out = Vec::new();
        status.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_member_reads_as_the_rfc_has_it() {
        assert_eq!(text(CacheStatus::hit(30)), "ktrix; hit; ttl=30");
        assert_eq!(text(CacheStatus::hit(-7)), "ktrix; hit; ttl=-7");
        assert_eq!(text(CacheStatus::hit(i64::MAX)), "ktrix; hit; ttl=999999999999999");
        assert_eq!(
            text(CacheStatus { stored: true, ..CacheStatus::forward(Fwd::UriMiss) }),
            "ktrix; fwd=uri-miss; stored"
        );
        assert_eq!(
            text(CacheStatus {
                fwd_status: Some(Status(304)),
                collapsed: true,
                ttl_s: Some(60),
                ..CacheStatus::forward(Fwd::Stale)
            }),
            "ktrix; fwd=stale; fwd-status=304; collapsed; ttl=60"
        );
        assert_eq!(text(CacheStatus::pass(PassReason::Method)), "ktrix; fwd=method; detail=method");
    }

    #[test]
    fn a_key_is_a_string_or_left_out() {
        let with = |key| {
            let status = CacheStatus { key: Some(key), ..CacheStatus::forward(Fwd::Miss) };
            assert_eq!(text(status), "ktrix; fwd=miss", "it is told only if wanted");
            text(status.told_by(Report::with_all(true)))
        };
        assert_eq!(with(b"GET http://h/\"\\"), r#"ktrix; fwd=miss; key="GET http://h/\"\\""#);
        assert_eq!(with(b"GET http://h/\nfoo"), "ktrix; fwd=miss");
        assert_eq!(with(b"GET http://h/\xff"), "ktrix; fwd=miss");
    }

    #[test]
    fn what_is_not_told_is_left_out() {
        let status = CacheStatus {
            fwd_status: Some(Status(304)),
            stored: true,
            collapsed: true,
            ttl_s: Some(1),
            key: Some(b"k"),
            detail: Some("d"),
            ..CacheStatus::forward(Fwd::Stale)
        };
        let none = Report::with_all(false);
        assert_eq!(text(status.told_by(none)), "ktrix; fwd=stale");
        let some = Report { collapsed: true, key: true, ..none };
        assert_eq!(text(status.told_by(some)), "ktrix; fwd=stale; collapsed; key=\"k\"");
    }

    #[test]
    fn verdicts_have_words() {
        assert_eq!(CacheVerdict::Pass(PassReason::SetCookie).word(), "pass");
        assert_eq!(CacheVerdict::Pass(PassReason::SetCookie).reason(), "set-cookie");
        assert_eq!(CacheVerdict::Hit.reason(), "-");
    }
}
