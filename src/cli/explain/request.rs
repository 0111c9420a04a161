//! From the bytes of a request to its route, and whether the cache is looked up.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use crate::base::units::{format_duration, format_size};
use crate::cli::explain::explainer::{Explainer, Routed};
use crate::cli::explain::outcome::Outcome;
use crate::cli::explain::setting::RouteAt;
use crate::cli::explain::step::Because;
use crate::cli::name::printable;
use crate::cli::request::UrlRequest;
use crate::http::cookie;
use crate::http::h1::head::HeadLimits;
use crate::http::head::RequestHead;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::http::target;
use crate::http::upgrade;
use crate::http::via;
use crate::policy::acme::{FOLDER, token};
use crate::policy::decide::{may_look_up, synthetic_answer};
use crate::policy::reason::pass::PassReason;
use crate::route::Rule;
use crate::route::asked::Asked;
use crate::route::changed::{Changed, RequestPeer};

/// The routes that are listed at most.
const TRIED_MAX: usize = 20;

impl Explainer<'_> {
    /// Reads the request and finds its route; if there is none, returns the result without one.
    pub(super) fn request(&mut self, asked: &UrlRequest) -> Result<Routed, Outcome> {
        let limits = &self.setting.config.limits;
        let limits = HeadLimits {
            head_bytes: limits.head_bytes,
            fields: limits.headers,
            target_bytes: limits.target_bytes,
        };
        let head = asked.head(&limits).map_err(|flaw| {
            let status = flaw.status();
            self.add_rfc_step("request", format!("refused: {flaw}"), "RFC 9112 section 2.2");
            Outcome::own(status, flaw.word())
        })?;
        let line = printable(head.request_line());
        self.add_rfc_step("request", line, "RFC 9112 section 3");
        let authority = printable(head.authority());
        self.add_rfc_step("host", authority, "RFC 9112 section 3.3");
        if let Some(own) = synthetic_answer(&head) {
            self.add_rfc_step("method", own.text, "RFC 9110 section 9.3");
            return Err(Outcome::own(own.status, "method"));
        }
        if via::has_passed(&head.fields, &self.setting.via) {
            self.add_rfc_step("via", "it has passed this ktrix before", "RFC 9110 section 7.6.3");
            return Err(Outcome::own(Status::LOOP_DETECTED, "loop"));
        }
        if let Some(outcome) = self.purge(asked, &head) {
            return Err(outcome);
        }
        if let Some(outcome) = self.acme(&head) {
            return Err(outcome);
        }
        self.route(asked, head)
    }

    fn acme(&mut self, head: &RequestHead) -> Option<Outcome> {
        let setting = self.setting;
        let path = setting.config.acme.as_ref()?.join(FOLDER).join(token(head)?);
        let because = setting.because_of(&["acme".to_owned()]);
        self.add_step("acme", format!("the proof {}", path.display()), Some(because));
        let status = if path.is_file() { Status(200) } else { Status(404) };
        Some(Outcome::own(status, "acme"))
    }

    fn route(&mut self, asked: &UrlRequest, head: RequestHead) -> Result<Routed, Outcome> {
        let setting = self.setting;
        let meant = target::normalise(head.target.path());
        if *meant != *head.target.path() {
            let value = format!("normalised to {}", printable(&meant));
            self.add_rfc_step("path", value, "RFC 3986 section 6.2.2");
        }
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let request = Asked::of(&head, Some(client));
        let Some(route) = setting.router.find(&request) else {
            self.add_step("route", "no site or route is configured for this", None);
            self.explain_order(&request);
            return Err(Outcome::own(Status(404), "unrouted"));
        };
        let (rule, at) = (setting.router.rule(route).clone(), setting.route_at(route));
        self.explain_route(at, &head);
        self.explain_order(&request);
        if let (Scheme::Http, Some(to)) = (asked.scheme, rule.to_https) {
            let url = to.url(head.host(), head.target.path_and_query());
            let value = format!("{} to {}", to.status.0, printable(url.as_bytes()));
            self.add_step("redirect", value, None);
            return Err(Outcome::own(to.status, "route"));
        }
        let mut head = head;
        let upstream = setting.upstream(&rule);
        if let Some(cookie) = upstream.and_then(|upstream| upstream.sticky.as_deref())
            && cookie::take(&mut head.fields, cookie.as_bytes()).is_some()
        {
            let value = format!("the cookie {cookie} may name a server; it goes no further");
            self.add_step("sticky", value, None);
        }
        if let Some(changes) = setting.router.changes(route) {
            if changes.is_internal() {
                self.add_step("internal", "only an answer of an origin leads here", None);
                return Err(Outcome::own(Status(404), "unrouted"));
            }
            let peer = RequestPeer { client: Some(client), scheme: asked.scheme, id: 0, tls: None };
            let changed = Changed::new(changes, &head, peer);
            if let Some(own) = changed.own() {
                let location = own.location.map(|url| format!(" to {}", printable(&url)));
                let value = format!("{}{}", own.status.0, location.unwrap_or_default());
                self.add_step("answer", value, None);
                return Err(Outcome::own(own.status, "route"));
            }
            if changed.asked.target != head.target {
                let target = printable(changed.asked.target.path_and_query());
                let because = setting.about(at, "rewrite", "upstream");
                self.add_step("rewrite", target, Some(because));
            }
            head = changed.asked;
        }
        let servers = upstream.map(|upstream| {
            let servers = upstream.servers.iter().map(|server| server.address.to_string());
            format!("{}: {}", upstream.name, servers.collect::<Vec<_>>().join(", "))
        });
        if setting.has_file() {
            let because = setting.about(at, "upstream", "upstream");
            self.add_step("upstream", servers.unwrap_or_default(), Some(because));
            self.explain_bounds(at, &rule);
        }
        let rules = Rc::clone(setting.router.rules(rule.rules));
        let via = setting.via.clone();
        Ok(Routed { via, head, scheme: asked.scheme, at, rule, rules })
    }

    fn explain_route(&mut self, at: RouteAt, head: &RequestHead) {
        let setting = self.setting;
        let RouteAt::Site(site, route) = at else {
            let because = setting.has_file().then(|| setting.because_of(&["upstream".to_owned()]));
            return self.add_step("site", "no site claims the host: the default upstream", because);
        };
        let (pattern, key) = setting.host_pattern(site, head.host());
        self.add_step("site", pattern, Some(setting.because_of(&[key])));
        let config = setting.config.sites.get(site).and_then(|site| site.routes.get(route));
        let path = config.map(|route| route.matching.path.to_string()).unwrap_or_default();
        let because = setting.because_of(&[
            format!("sites[{site}].routes[{route}].path"),
            format!("sites[{site}].upstream"),
            format!("sites[{site}]"),
        ]);
        self.add_step("route", path, Some(because));
    }

    /// How messages are buffered, and the bounds on sizes and on waiting, each by the innermost mapping
    /// that may have set some.
    fn explain_bounds(&mut self, at: RouteAt, rule: &Rule) {
        let (setting, limits, timeouts) = (self.setting, &rule.limits, &rule.timeouts);
        let request = if rule.request_buffering { "on" } else { "off" };
        let value = format!("request {request}, response {}", rule.response_buffering.word());
        let because = setting.about(at, "response-buffering", "sites[].response-buffering");
        self.add_step("buffering", value, Some(because));
        let texts = [
            ("head", format_size(limits.head_bytes as u64)),
            ("body", format_size(limits.body_bytes)),
        ];
        let value = texts.map(|(key, text)| format!("{key} {text}")).join(", ");
        self.add_step("limits", value, Some(setting.about(at, "limits", "limits")));
        let Some(upstream) = setting.upstream(rule) else { return };
        let top = &setting.config.timeouts;
        let first_byte = timeouts.origin.first_byte.or(upstream.timeouts.first_byte);
        let idle = timeouts.origin.idle.or(upstream.timeouts.idle);
        let texts = [
            ("client-body", timeouts.client_body),
            ("client-send", timeouts.client_send),
            ("connect", upstream.timeouts.connect.unwrap_or(top.connect)),
            ("first-byte", first_byte.unwrap_or(top.first_byte)),
            ("idle", idle.unwrap_or(top.idle)),
            ("tunnel", timeouts.tunnel),
        ];
        let value = texts.map(|(key, time)| format!("{key} {}", format_duration(time))).join(", ");
        let of_upstream = format!("upstreams.{}.timeouts", upstream.name);
        let because = match at {
            RouteAt::Site(site, route) => setting.because_of(&[
                format!("sites[{site}].routes[{route}].timeouts"),
                format!("sites[{site}].timeouts"),
                of_upstream,
                "timeouts".to_owned(),
            ]),
            RouteAt::Top => setting.because_of(&[of_upstream, "timeouts".to_owned()]),
        };
        self.add_step("timeouts", value, Some(because));
    }

    /// The routes that were tried, in their order, if there is more than one.
    fn explain_order(&mut self, request: &Asked<'_>) {
        let setting = self.setting;
        let mut has_route = false;
        let mut lines = Vec::new();
        for (route, unmet) in setting.router.tried(request).take(TRIED_MAX) {
            let RouteAt::Site(site, number) = setting.route_at(route) else { continue };
            let config = setting.config.sites.get(site).and_then(|site| site.routes.get(number));
            let path = config.map(|route| route.matching.path.to_string()).unwrap_or_default();
            let why = match unmet {
                Some(unmet) => format!("no: {}", unmet.key()),
                None if has_route => "not needed: it is less specific".to_owned(),
                None => "yes".to_owned(),
            };
            has_route |= unmet.is_none();
            lines
                .push(format!("{}. sites[{site}].routes[{number}] {path}: {why}", lines.len() + 1));
        }
        if lines.len() > 1 || (lines.len() == 1 && !has_route) {
            self.add_step("tried", lines.join("\n"), None);
        }
    }

    /// Whether a request may be looked up in the cache, or why it may not.
    pub(super) fn permission(&mut self, routed: &Routed) -> Result<(), PassReason> {
        let setting = self.setting;
        if let Some(protocols) = upgrade::offered(&routed.head) {
            let because = setting.about(routed.at, "upgrade", "sites[].upgrade");
            if routed.rule.upgrade {
                let value = format!("the origin is asked for {}", printable(&protocols));
                self.add_step("upgrade", value, Some(because));
                return Err(PassReason::Upgrade);
            }
            self.add_step("upgrade", "off", Some(because));
        }
        if !routed.rule.cache || setting.config.cache.is_none() {
            let because = setting.about(routed.at, "cache", "cache");
            self.add_step("cache", "off", Some(because));
            return Err(match routed.rule.tells_client {
                true => PassReason::ClientIdentity,
                false => PassReason::Off,
            });
        }
        if setting.has_file() {
            let because = setting.about(routed.at, "cache", "cache");
            self.add_step("cache", "on", Some(because));
        }
        let may = may_look_up(&routed.head, &routed.rules);
        match may {
            Ok(()) => self.add_rfc_step("look-up", "the cache may be asked", "RFC 9111 section 4"),
            Err(PassReason::PassIf) => {
                let because = setting.about_cache(routed.at, "pass-if");
                self.add_step("look-up", "no: a condition of pass-if holds", Some(because));
            }
            Err(reason) => {
                let value = format!("no: {}", reason.sentence());
                self.add_step("look-up", value, reason.section().map(Because::Rfc));
            }
        }
        may
    }
}
