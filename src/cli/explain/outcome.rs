//! The result for a request: the verdict, the `Cache-Status`, and the request to the origin.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;

use crate::cache::variants::Others;
use crate::cli::explain::explainer::Routed;
use crate::cli::name::printable;
use crate::http::fields::Fields;
use crate::http::forward::{self, Peer};
use crate::http::h1::head;
use crate::http::status::Status;
use crate::http::upgrade;
use crate::policy::cache_status::CacheStatus;
use crate::policy::decide::Action;
use crate::policy::fill_request;
use crate::policy::reason::forward::Fwd;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::partial;

/// The result for a request.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    /// `hit`, `stale`, `miss`, `validate`, `partial`, `pass`, `not-cached` or `own`.
    pub(super) verdict: &'static str,
    /// The word for the reason.
    pub(super) reason: &'static str,
    /// The beginning of `Cache-Status`, where the route sends it; the origin's answer may add to
    /// it.
    pub(super) cache_status: Option<String>,
    /// The status, where it does not depend on the origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    /// The request that the origin would get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) origin_request: Option<String>,
}

impl Outcome {
    /// An answer that ktrix makes itself.
    pub(super) fn own(status: Status, reason: &'static str) -> Self {
        Self::of("own", reason, &CacheStatus::own(), Some(status))
    }

    pub(super) fn of(
        verdict: &'static str,
        reason: &'static str,
        cache_status: &CacheStatus<'_>,
        status: Option<Status>,
    ) -> Self {
        let mut text = Vec::new();
        cache_status.write(&mut text);
        let cache_status = cache_status.is_sent().then(|| printable(&text));
        let status = status.map(|status| status.0);
        Self { verdict, reason, cache_status, status, origin_request: None }
    }

    /// Writes the end of an explanation.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { verdict, reason, .. } = self;
        writeln!(out, "\nverdict: {verdict} ({reason})")?;
        if let Some(cache_status) = &self.cache_status {
            writeln!(out, "Cache-Status: {cache_status}")?;
        }
        if let Some(status) = self.status {
            writeln!(out, "status: {status} {}", Status(status).reason())?;
        }
        let Some(request) = &self.origin_request else { return Ok(()) };
        writeln!(out, "the origin would be sent:")?;
        request.lines().try_for_each(|line| writeln!(out, "    {line}"))
    }
}

/// The facts that a decision depends on.
pub(super) struct Basis<'a> {
    /// The fields of the stored response.
    pub(super) stored: Option<&'a Fields>,
    /// The status of an answer with it.
    pub(super) status: Option<Status>,
    /// The other variants under the same key.
    pub(super) others: Option<&'a Others>,
    /// Only parts are stored.
    pub(super) has_parts: bool,
}

impl Basis<'_> {
    /// The result of a action.
    pub(super) fn outcome(&self, routed: &Routed, action: Action, reason: &'static str) -> Outcome {
        let report = routed.rules.report;
        match action {
            Action::Answer { verdict, ttl_s, refreshes } => {
                let hit = CacheStatus::hit(ttl_s).with_report(report);
                let mut outcome = Outcome::of(verdict.word(), reason, &hit, self.status);
                if refreshes {
                    outcome.origin_request = Some(self.fill_request(routed).0);
                }
                outcome
            }
            Action::NotCached => {
                let own = CacheStatus::own().with_report(report);
                Outcome::of("not-cached", reason, &own, Some(Status(504)))
            }
            Action::Pass(why) => pass_outcome(routed, why),
            Action::Fill { fwd, .. } => {
                let (request, is_conditional) = self.fill_request(routed);
                let verdict = if is_conditional { "validate" } else { "miss" };
                let forward = CacheStatus::forward(fwd).with_report(report);
                let mut outcome = Outcome::of(verdict, reason, &forward, None);
                outcome.origin_request = Some(request);
                outcome
            }
        }
    }

    /// The request of a fill to the origin, and whether it is conditional.
    fn fill_request(&self, routed: &Routed) -> (String, bool) {
        let mut fields = fill_request::fill_fields(&routed.head, &peer(routed), &routed.rules.key);
        let target = routed.rules.key.origin_target(routed.head.target.path_and_query());
        // A part is requested as such where nothing is stored, or only parts are.
        let spec = partial::requested_part(&routed.head, &routed.rules);
        if let Some(spec) = spec.filter(|_| self.stored.is_none() || self.has_parts) {
            let is_conditional = fill_request::condition(&mut fields, self.stored, &[]);
            let if_range = routed.head.fields.get("if-range").filter(|_| self.stored.is_none());
            fill_request::ask_for_part(&mut fields, spec, if_range);
            return (request_text(b"GET", &target, &fields), is_conditional);
        }
        let tags = self.others.map(Others::tags).unwrap_or_default();
        let is_conditional = fill_request::condition(&mut fields, self.stored, &tags);
        (request_text(b"GET", &target, &fields), is_conditional)
    }
}

/// The result for a request that stored parts can answer only together with the origin.
pub(super) fn partial_outcome(routed: &Routed) -> Outcome {
    let forward = CacheStatus::forward(Fwd::Partial).with_report(routed.rules.report);
    Outcome::of("partial", Fwd::Partial.word(), &forward, None)
}

/// The result for a request that passes the cache.
pub(super) fn pass_outcome(routed: &Routed, why: PassReason) -> Outcome {
    let pass = CacheStatus::pass(why).with_report(routed.rules.report);
    let mut outcome = Outcome::of("pass", why.word(), &pass, None);
    let head = &routed.head;
    let mut fields = forward::request_fields(head, &peer(routed), head.length);
    if why == PassReason::Upgrade {
        upgrade::ask(&mut fields, &upgrade::offered(head).unwrap_or_default());
    }
    let target = head.target.path_and_query();
    outcome.origin_request = Some(request_text(&head.method_text, target, &fields));
    outcome
}

fn request_text(method: &[u8], target: &[u8], fields: &Fields) -> String {
    let mut head = Vec::new();
    head::write_request(&mut head, method, target, fields);
    let lines = head.split(|&byte| byte == b'\n');
    let lines = lines.map(|line| printable(line.strip_suffix(b"\r").unwrap_or(line)));
    lines.filter(|line| !line.is_empty()).map(|line| line + "\n").collect()
}

/// The request is taken as one of this machine.
fn peer(routed: &Routed) -> Peer<'_> {
    let client = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Peer::new(client, routed.scheme, routed.head.authority(), &routed.via)
}
