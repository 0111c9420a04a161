//! The operator's rules for storing and reusing. The default is that of RFC 9111.

use std::borrow::Cow;

use crate::base::chars::eq_ignore_case;
use crate::http::fields::Fields;
use crate::http::head::RequestHead;
use crate::http::status::Status;
use crate::policy::cache_status::Report;
use crate::policy::condition::Condition;
use crate::policy::key::KeyComponents;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::targeted::{self, TARGETS};

/// The rules of a route. By default a stale response is served only where the origin allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Lifetimes of responses without one, by status.
    pub ttl_status: StatusTtls,
    /// The shortest lifetime, in seconds; a shorter one is raised to it.
    pub ttl_min_s: u32,
    /// The longest lifetime, in seconds; a longer one is cut to it.
    pub ttl_max_s: u32,
    /// The heuristic lifetime, in percent of the time since Last-Modified.
    pub heuristic_percent: u32,
    /// The longest heuristic lifetime, in seconds.
    pub heuristic_max_s: u32,
    /// `stale-while-revalidate` in seconds, if the origin states none.
    pub stale_while_revalidate_s: u32,
    /// `stale-if-error` in seconds, if the origin states none.
    pub stale_if_error_s: u32,
    /// How long beyond its lifetime a response is served while its upstream is down, in seconds.
    pub outage_hold_s: u32,
    /// Whether responses with Set-Cookie are stored.
    pub set_cookie: SetCookie,
    /// Bytes of the largest response that is stored; the cache has a bound of its own.
    pub object_bytes_max: u64,
    /// Whether parts are stored, and fetched for requests for a part.
    pub parts: bool,
    /// Bytes of the largest response that is fetched whole for a request for a part.
    pub fetch_whole_bytes: u64,
    /// The components of keys.
    pub key: KeyComponents,
    /// Names that are ignored in Vary, lower-case.
    pub vary_ignored: Vec<Box<str>>,
    /// A stored variant answers a request that prefers its language to all others, though the two
    /// requests differ in Accept-Language.
    pub selects_language: bool,
    /// Response fields that the cache ignores, lower-case. Set-Cookie is never one.
    pub ignored: Vec<Box<str>>,
    /// The target list, lower-case, the strongest first (RFC 9213 section 2.2).
    pub targets: Vec<Box<str>>,
    /// Response fields that no client gets, lower-case.
    pub stripped: Vec<Box<str>>,
    /// The Cache-Status that clients get.
    pub report: Report,
    /// Requests that go round the cache.
    pub pass_if: Vec<Condition>,
    /// Requests whose answer must be validated, as if they said `no-cache`.
    pub refresh_if: Vec<Condition>,
    /// How many requests for a key it takes to store its response: 1 to 16.
    pub uses_min: u32,
    /// Whether an answer may lead to another route of the site by `X-Accel-Redirect`. Such an answer
    /// is not stored.
    pub may_redirect: bool,
}

/// Whether a response with Set-Cookie is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetCookie {
    /// It is not stored.
    Pass,
    /// It is stored without the cookie. Only the client of the fetch gets the cookie.
    Strip,
    /// It is stored with the cookie. All clients get the cookie.
    Store,
}

impl Rules {
    /// Whether this request may be answered from the cache by the rules.
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub fn may_look_up(&self, request: &RequestHead) -> Result<(), PassReason> {
        match self.pass_if.iter().any(|condition| condition.holds(request)) {
            true => Err(PassReason::PassIf),
            false => Ok(()),
        }
    }

    /// Whether a stored response must be validated for this request.
    pub fn refreshes(&self, request: &RequestHead) -> bool {
        self.refresh_if.iter().any(|condition| condition.holds(request))
    }

    /// The fields of a response that the cache goes by: without ignored ones, and with the
    /// strongest targeted field in the place of Cache-Control and Expires.
    pub fn effective_fields<'f>(&self, response: &'f Fields) -> Cow<'f, Fields> {
        let mut fields = without(&self.ignored, response);
        if targeted::is_targeted(&self.targets, &fields) {
            targeted::apply(&self.targets, fields.to_mut());
        }
        fields
    }

    /// The rules for the answers to a forward proxy: they are kept apart from those of the sites, and what
    /// origins tell the proxies in front of them is not meant for it.
    #[must_use]
    pub fn of_forward_proxy(mut self) -> Self {
        self.key.route = "forward".into();
        self.may_redirect = false;
        self.targets.clear();
        self.stripped.clear();
        self
    }

    /// The fields of an answer that a client gets.
    pub fn served<'f>(&self, answer: &'f Fields) -> Cow<'f, Fields> {
        without(&self.stripped, answer)
    }
}

/// The fields without those of these names, which are lower-case.
fn without<'f>(names: &[Box<str>], fields: &'f Fields) -> Cow<'f, Fields> {
    let is_one = |name: &[u8]| names.iter().any(|own| eq_ignore_case(name, own.as_bytes()));
    if names.is_empty() || !fields.iter().any(|(name, _)| is_one(name)) {
        return Cow::Borrowed(fields);
    }
    let mut rest = fields.clone();
    rest.retain(|name, _| !is_one(name));
    Cow::Owned(rest)
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            ttl_status: StatusTtls::default(),
            ttl_min_s: 0,
            ttl_max_s: u32::MAX,
            heuristic_percent: 10,
            heuristic_max_s: 86_400,
            stale_while_revalidate_s: 0,
            stale_if_error_s: 0,
            outage_hold_s: 0,
            set_cookie: SetCookie::Pass,
            object_bytes_max: u64::MAX,
            parts: true,
            fetch_whole_bytes: 4 << 20,
            key: KeyComponents::default(),
            vary_ignored: Vec::new(),
            selects_language: false,
            ignored: Vec::new(),
            targets: TARGETS.iter().map(|name| (*name).into()).collect(),
            stripped: vec![TARGETS[0].into()],
            report: Report::default(),
            pass_if: Vec::new(),
            refresh_if: Vec::new(),
            uses_min: 1,
            may_redirect: false,
        }
    }
}

/// Lifetimes by status, for responses without a stated one. The status wins over its class, and the
/// class over any.
///
/// This is a cache extension in the sense of RFC 9111 section 3: a response may then be stored even
/// if its status is not heuristically cacheable, for example a 503.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusTtls {
    exact: Vec<(u16, u32)>,
    classes: [Option<u32>; 6],
    any: Option<u32>,
}

/// The statuses that a lifetime is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statuses {
    /// One status.
    One(Status),
    /// Those with this first digit, 2 to 5.
    Class(u8),
    /// All statuses.
    Any,
}

impl Statuses {
    /// Reads `404`, `4xx` or `any`; `None` for another text, or an interim status.
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("any") {
            return Some(Self::Any);
        }
        let &[first @ b'2'..=b'5', ref rest @ ..] = text.as_bytes() else { return None };
        match rest {
            [b'x' | b'X', b'x' | b'X'] => Some(Self::Class(first - b'0')),
            [b'0'..=b'9', b'0'..=b'9'] => text.parse().ok().map(|code| Self::One(Status(code))),
            _ => None,
        }
    }
}

impl StatusTtls {
    /// Sets the lifetime of these statuses, in seconds.
    pub fn set(&mut self, statuses: Statuses, seconds: u32) {
        match statuses {
            Statuses::One(status) => {
                self.exact.retain(|(code, _)| *code != status.0);
                self.exact.push((status.0, seconds));
            }
            Statuses::Class(digit) => {
                if let Some(class) = self.classes.get_mut(usize::from(digit)) {
                    *class = Some(seconds);
                }
            }
            Statuses::Any => self.any = Some(seconds),
        }
    }

    /// The lifetime of a status, in seconds.
    pub fn of(&self, status: Status) -> Option<u32> {
        let exact = self.exact.iter().find(|(code, _)| *code == status.0);
        let class = || self.classes.get(usize::from(status.0 / 100)).copied().flatten();
        exact.map(|(_, seconds)| *seconds).or_else(class).or(self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrower_statuses_win() {
        let mut ttls = StatusTtls::default();
        assert_eq!(ttls.of(Status(404)), None);
        for (text, seconds) in [("any", 1), ("4xx", 2), ("404", 3), ("410", 4), ("404", 5)] {
            ttls.set(Statuses::parse(text).unwrap(), seconds);
        }
        for (code, seconds) in [(404, 5), (410, 4), (403, 2), (200, 1), (503, 1), (999, 1)] {
            assert_eq!(ttls.of(Status(code)), Some(seconds), "{code}");
        }
    }

    #[test]
    fn only_final_statuses_have_lifetimes() {
        assert_eq!(Statuses::parse("ANY"), Some(Statuses::Any));
        assert_eq!(Statuses::parse("5XX"), Some(Statuses::Class(5)));
        assert_eq!(Statuses::parse("301"), Some(Statuses::One(Status(301))));
        for text in ["", "1xx", "103", "600", "20", "2000", "2x4", "+20", "all"] {
            assert_eq!(Statuses::parse(text), None, "{text}");
        }
    }
}
