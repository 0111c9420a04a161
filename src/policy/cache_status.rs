//! How the cache handled a request, for clients (Cache-Status, RFC 9211) and for the access log.

use crate::http::status::Status;
use crate::policy::reason::forward::Fwd;
use crate::policy::reason::pass::PassReason;

/// The member of ktrix in a Cache-Status field (RFC 9211 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// Whether the answer came from the cache, or why it did not (sections 2.1 and 2.2).
    pub handling: Handling,
    /// The status that the origin answered with (section 2.3); see [`Self::sent_as`].
    pub fwd_status: Option<Status>,
    /// The response was stored (section 2.5).
    pub stored: bool,
    /// The request waited for the fetch of another request (section 2.6).
    pub collapsed: bool,
    /// Seconds of freshness left, negative if stale (section 2.4).
    pub ttl_s: Option<i64>,
    /// The key text (section 2.7). It is left out if it has a byte that a string cannot have.
    pub key: Option<&'a [u8]>,
    /// A word of detail (section 2.8); must be a token.
    pub detail: Option<&'a str>,
    /// Which of these parameters are sent.
    pub report: Report,
}

/// The parameters of Cache-Status that clients get. If they get the field at all, it has `hit` or
/// `fwd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether answers have the field.
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
    /// A report with all parameters, or with none.
    pub const fn with_all(is_sent: bool) -> Self {
        Self {
            is_on: true,
            fwd_status: is_sent,
            stored: is_sent,
            collapsed: is_sent,
            ttl: is_sent,
            key: is_sent,
            detail: is_sent,
        }
    }
}

/// Where an answer came from. RFC 9211 allows `hit` or `fwd`, never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// The cache, without the origin.
    Hit,
    /// The origin, for this reason.
    Fwd(Fwd),
    /// Neither: ktrix made the answer.
    Own,
}

impl<'a> CacheStatus<'a> {
    /// An answer from the cache with this much freshness left.
    pub const fn hit(ttl_s: i64) -> Self {
        Self { ttl_s: Some(ttl_s), ..Self::of(Handling::Hit) }
    }

    /// An answer from the origin.
    pub const fn forward(fwd: Fwd) -> Self {
        Self::of(Handling::Fwd(fwd))
    }

    /// A synthetic answer.
    pub const fn own() -> Self {
        Self::of(Handling::Own)
    }

    /// A request that was passed round the cache.
    pub const fn pass(reason: PassReason) -> Self {
        Self { detail: Some(reason.word()), ..Self::of(Handling::Fwd(reason.fwd())) }
    }

    /// The same for an answer of this status: without `fwd-status` if the origin's status is the
    /// same, which RFC 9211 section 2.3 has as the default.
    pub fn sent_as(self, sent: Status) -> Self {
        Self { fwd_status: self.fwd_status.filter(|status| *status != sent), ..self }
    }

    /// The same with this report.
    pub const fn with_report(self, report: Report) -> Self {
        Self { report, ..self }
    }

    /// Whether an answer has the field. An answer that ktrix makes itself was not handled by a
    /// cache (RFC 9211 section 2).
    pub fn is_sent(&self) -> bool {
        self.report.is_on && self.handling != Handling::Own
    }

    /// Appends the member to `out`, as in `ktrix; hit; ttl=30`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let report = self.report;
        out.extend_from_slice(CACHE_NAME.as_bytes());
        match self.handling {
            Handling::Hit => out.extend_from_slice(b"; hit"),
            Handling::Fwd(fwd) => parameter("fwd", fwd.word().as_bytes(), out),
            Handling::Own => {}
        }
        let mut digits = itoa::Buffer::new();
        if let Some(status) = self.fwd_status.filter(|_| report.fwd_status) {
            parameter("fwd-status", digits.format(status.0).as_bytes(), out);
        }
        if self.stored && report.stored {
            out.extend_from_slice(b"; stored");
        }
        if self.collapsed && report.collapsed {
            out.extend_from_slice(b"; collapsed");
        }
        if let Some(ttl_s) = self.ttl_s.filter(|_| report.ttl) {
            let ttl_s = ttl_s.clamp(-INTEGER_MAX, INTEGER_MAX);
            parameter("ttl", digits.format(ttl_s).as_bytes(), out);
        }
        let is_string = |key: &&[u8]| key.iter().all(|b| (0x20..=0x7e).contains(b));
        if let Some(key) = self.key.filter(is_string).filter(|_| report.key) {
            out.extend_from_slice(b"; key=\"");
            for &byte in key {
                if byte == b'"' || byte == b'\\' {
                    out.push(b'\\');
                }
                out.push(byte);
            }
            out.push(b'"');
        }
        if let Some(detail) = self.detail.filter(|_| report.detail) {
            parameter("detail", detail.as_bytes(), out);
        }
    }

    const fn of(handling: Handling) -> Self {
        Self {
            handling,
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

/// How the cache handled a request, for the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheVerdict {
    /// The cache was not looked up: the answer is synthetic.
    NotLookedUp,
    /// The cache answered, with a fresh response.
    Hit,
    /// A fetch answered, as nothing usable was stored.
    Miss,
    /// The cache answered, with a stale response.
    Stale,
    /// The cache answered, after the origin had confirmed the response with 304.
    Revalidated,
    /// The request or the response went round the cache.
    Pass(PassReason),
    /// The connection switched to another protocol.
    Tunnel,
}

impl CacheVerdict {
    /// The word in logs, metrics and the manual.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotLookedUp => "-",
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Pass(_) => "pass",
            Self::Tunnel => "tunnel",
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
    fn a_member_has_the_form_of_rfc_9211() {
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
            assert_eq!(text(status), "ktrix; fwd=miss", "the default report has no key");
            text(status.with_report(Report::with_all(true)))
        };
        assert_eq!(with(b"GET http://h/\"\\"), r#"ktrix; fwd=miss; key="GET http://h/\"\\""#);
        assert_eq!(with(b"GET http://h/\nfoo"), "ktrix; fwd=miss");
        assert_eq!(with(b"GET http://h/\xff"), "ktrix; fwd=miss");
    }

    #[test]
    fn the_report_leaves_parameters_out() {
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
        assert_eq!(text(status.with_report(none)), "ktrix; fwd=stale");
        let some = Report { collapsed: true, key: true, ..none };
        assert_eq!(text(status.with_report(some)), "ktrix; fwd=stale; collapsed; key=\"k\"");
    }
}
