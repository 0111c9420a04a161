//! A request with its route: made once, when the head of a request is complete, before the hot tier
//! is looked up, and handed on to the exchange.

use std::rc::Rc;

use crate::base::time::Now;
use crate::cache::name::Name;
use crate::config::ListenMode;
use crate::config::bounds::{RouteLimits, RouteTimeouts};
use crate::config::tls::ToHttps;
use crate::http::authority::Authority;
use crate::http::flaw::Flaw;
use crate::http::forwarded;
use crate::http::h1::head::HeadLimits;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::method::Method;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::http::target::{Form, Target};
use crate::http::upgrade;
use crate::http::via;
use crate::policy::acme;
use crate::policy::decide::{self, SyntheticAnswer};
use crate::policy::purge::request::METHOD;
use crate::policy::reason::own::OwnReason;
use crate::policy::reason::pass::PassReason;
use crate::policy::reason::refusal::ForwardRefusal;
use crate::policy::rfc9111::rules::Rules;
use crate::proxy::client::front::Front;
use crate::proxy::context::{Context, Forward};
use crate::proxy::facts::Facts;
use crate::reactor;
use crate::route::Rule;
use crate::route::asked::Asked;
use crate::route::changed::{Changed, RequestPeer};
use crate::route::forward::destination;
use crate::shared::in_flight::Entry;
use crate::upstream::destination::HostPort;
use crate::upstream::ids::ServerId;

#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) head: RequestHead,
    pub(crate) way: Way,
    /// Its site, see [`Rule::site`].
    pub(crate) site: u32,
    /// How the request came in, where a trusted proxy tells it; else the front of the connection.
    pub(crate) front: Option<Box<Front>>,
}

/// The handling of a request.
// Nearly every request has a route, and a box would be an allocation for each.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(crate) enum Way {
    /// ktrix answers it without a route.
    Synthetic(SyntheticAnswer),
    /// A PURGE request.
    Purge,
    /// ktrix refuses it, whatever its route.
    Denied(OwnReason),
    /// It asks the admin listener.
    Admin,
    /// It breaks a bound of its route.
    Refused(Flaw),
    /// No site or route is configured for it.
    Unrouted,
    /// It asks for the proof of an ACME challenge, with this token.
    Acme(Box<str>),
    /// It came in the clear, and its site wants https.
    ToHttps(ToHttps),
    /// The forward proxy refuses it.
    Forbidden(ForwardRefusal),
    /// The forward proxy must know its client, and has not compared the password yet.
    Unverified(Box<Self>),
    /// It asks for the settings of the forward proxy.
    ProxySettings,
    /// It asks for a tunnel to a host.
    Connect(Rc<HostPort>),
    /// Its route answers it without an upstream.
    Own(Rc<Changed>),
    Route(Route),
}

#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) rule: Rule,
    pub(crate) rules: Rc<Rules>,
    /// The name to look up in the cache, before Vary; or why the request passes the cache.
    pub(crate) lookup: Result<Name, PassReason>,
    /// The server that the client's cookie names. The request has the cookie no more.
    pub(crate) sticky: Option<ServerId>,
    /// The request with what the route changes, if it changes anything.
    pub(crate) changed: Option<Rc<Changed>>,
}

impl Routed {
    /// The facts of its exchange, of which all of the head has been read now.
    pub(crate) fn facts(&self, began: Now, entry: Option<&Entry<'_>>) -> Facts {
        Facts {
            began,
            head_us: reactor::now().mono_us,
            site: self.site,
            entry: entry.and_then(Entry::number),
            ..Facts::default()
        }
    }

    pub(crate) fn new(context: &Context, front: &Front, mut head: RequestHead) -> Self {
        let told = front.told_by(&head.fields, &context.config.trusted_proxies);
        context.router.identity().remove_from(&mut head.fields);
        // The client of a forward proxy names a host by its URL alone.
        if told.is_some()
            && front.listen.mode == ListenMode::Http
            && let Some(host) = forwarded::host(&head.fields)
            && let Ok(authority) = Authority::parse(&host)
        {
            head.set_authority(&authority);
        }
        let mut site = 0;
        let front = told.as_ref().unwrap_or(front);
        let way = match context.is_refused(&head) {
            true => Way::Denied(OwnReason::CrashGuard),
            false => Way::of(context, front, &mut head, None, &mut site),
        };
        Self { head, way, site, front: told.map(Box::new) }
    }

    /// The request that an internal redirect leads to: a GET or HEAD of another target.
    pub(crate) fn internal(&self, context: &Context, front: &Front, target: &[u8]) -> Option<Self> {
        let mut head = self.head.redirected(Target::parse(Method::Get, target).ok()?);
        let mut site = 0;
        let way = Way::of(context, front, &mut head, Some(&self.way), &mut site);
        Some(Self { head, way, site, front: None })
    }

    /// The bounds on waiting that apply to its exchange.
    pub(crate) fn timeouts<'c>(&'c self, context: &'c Context) -> &'c RouteTimeouts {
        match &self.way {
            Way::Route(route) => &route.rule.timeouts,
            _ => &context.config.timeouts.route,
        }
    }
}

impl Way {
    /// Takes the cookie that names a server out of the request, and notes its site; `before` led to it
    /// by an internal redirect.
    fn of(
        context: &Context,
        front: &Front,
        head: &mut RequestHead,
        before: Option<&Self>,
        site: &mut u32,
    ) -> Self {
        if front.listen.mode == ListenMode::Admin {
            return Self::Admin;
        }
        if let (ListenMode::Forward, Some(forward)) = (front.listen.mode, &context.forward) {
            return Self::forwarded(context, forward, front, head);
        }
        if let Some(answer) = decide::synthetic_answer(head) {
            return Self::Synthetic(answer);
        }
        if via::has_passed(&head.fields, &context.via) {
            return Self::Denied(OwnReason::Loop);
        }
        if &*head.method_text == METHOD && context.config.cache.is_some() {
            if !front.admits(context.router.client_policy(head.host())) {
                return Self::Denied(OwnReason::Misdirected);
            }
            return Self::Purge;
        }
        if context.config.acme.is_some()
            && let Some(token) = acme::token(head)
        {
            return Self::Acme(token.into());
        }
        let is_connect = upgrade::is_by_connect(head);
        let router = &context.router;
        let asked = Asked::of(head, front.client);
        let Some(route) = router.find(&asked) else {
            return match front.admits(router.client_policy(head.host())) {
                true => Self::Unrouted,
                false => Self::Denied(OwnReason::Misdirected),
            };
        };
        let rule = router.rule(route).clone();
        *site = rule.site;
        if before.is_none() && is_too_large(head, &rule.limits, &context.client_head) {
            return Self::Refused(Flaw::HeadTooLarge);
        }
        if let (Scheme::Http, Some(to_https)) = (front.scheme, rule.to_https) {
            return Self::ToHttps(to_https);
        }
        if !front.admits(rule.client_policy) {
            return Self::Denied(OwnReason::Misdirected);
        }
        let rules = Rc::clone(router.rules(rule.rules));
        let sticky =
            context.pools.take_sticky(&rule.destination, &mut head.fields).or(match before {
                Some(Self::Route(before)) if before.rule.destination == rule.destination => {
                    before.sticky
                }
                _ => None,
            });
        let mut changed = None;
        if let Some(changes) = router.changes(route) {
            if changes.is_internal() && before.is_none() {
                return Self::Unrouted;
            }
            let (client, scheme) = (front.client, front.scheme);
            let (id, tls) = (context.next_request_id(), front.tls.clone());
            let peer = RequestPeer { client, scheme, id, tls };
            let request = Rc::new(Changed::new(changes, head, peer));
            if changes.answers_itself() {
                return Self::Own(request);
            }
            changed = Some(request);
        }
        let head = changed.as_ref().map_or(&*head, |changed| &changed.asked);
        let lookup = lookup(context, (&rule, &rules), front, head);
        if is_connect && !matches!(lookup, Err(PassReason::Upgrade)) {
            return Self::Synthetic(NOT_OFFERED);
        }
        Self::Route(Route { rule, rules, lookup, sticky, changed })
    }

    /// The handling of a request to a forward proxy.
    fn forwarded(context: &Context, forward: &Forward, front: &Front, head: &RequestHead) -> Self {
        if !forward.config.clients.iter().any(|network| network.contains(front.client, false)) {
            return Self::Forbidden(ForwardRefusal::Client);
        }
        if head.method != Method::Connect
            && let Some(answer) = decide::synthetic_answer(head)
        {
            return Self::Synthetic(answer);
        }
        if via::has_passed(&head.fields, &context.via) {
            return Self::Denied(OwnReason::Loop);
        }
        let is_read = matches!(head.method, Method::Get | Method::Head);
        if is_read && head.target.form() == Form::Origin && head.target.path() == SETTINGS_PATH {
            return Self::ProxySettings;
        }
        let way = match destination(&forward.config, head) {
            Err(refusal) => Self::Forbidden(refusal),
            Ok(destination) if head.method == Method::Connect => Self::Connect(destination),
            Ok(destination) => match context.router.forward(&destination) {
                None => Self::Unrouted,
                Some(rule) => {
                    let rules = Rc::clone(context.router.rules(rule.rules));
                    let lookup = lookup(context, (&rule, &rules), front, head);
                    Self::Route(Route { rule, rules, lookup, sticky: None, changed: None })
                }
            },
        };
        match &forward.credentials {
            Some(credentials) if !credentials.are_known(&head.fields) => {
                Self::Unverified(Box::new(way))
            }
            _ => way,
        }
    }
}

/// The path of the settings of a forward proxy, of its own host.
const SETTINGS_PATH: &[u8] = b"/proxy.pac";

/// The name under which the cache may have an answer, or why it is not asked.
fn lookup(
    context: &Context,
    (rule, rules): (&Rule, &Rules),
    front: &Front,
    head: &RequestHead,
) -> Result<Name, PassReason> {
    let permission = match rule.cache && context.cache.is_some() {
        _ if rule.upgrade && upgrade::offered(head).is_some() => Err(PassReason::Upgrade),
        false if rule.tells_client => Err(PassReason::ClientIdentity),
        false => Err(PassReason::Off),
        true if !rule.request_buffering && head.length != BodyLength::None => {
            Err(PassReason::RequestBody)
        }
        true => decide::may_look_up(head, rules),
    };
    permission.map(|()| Name::of_request(&rules.key, front.scheme, head))
}

/// The answer to a CONNECT for a protocol, where the route allows none.
const NOT_OFFERED: SyntheticAnswer =
    SyntheticAnswer { status: Status::NOT_IMPLEMENTED, text: "this protocol is not offered here" };

/// Whether a head is larger than its route allows. `read` are the limits within which it was read,
/// before its route was known.
fn is_too_large(head: &RequestHead, limits: &RouteLimits, read: &HeadLimits) -> bool {
    let n_bytes = head.request_line().len() + head.fields.wire_len() + b"\r\n\r\n".len();
    limits.head_bytes < read.head_bytes && n_bytes > limits.head_bytes
}

impl Route {
    /// The text of the key, if the route tells it to clients.
    pub(crate) fn told_key(&self) -> Option<&Rc<[u8]>> {
        let name = self.lookup.as_ref().ok()?;
        self.rules.report.key.then_some(&name.text)
    }
}
