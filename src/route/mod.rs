//! From a request to its route.
//!
//! A site claims hosts: the exact name wins over the longest `*.name`, which wins over the site for
//! any host. Within the site the most specific route wins ([`crate::config::matching`]), by the
//! normalised path: the prefix `/up` matches `/up`, `/up/x` and `/upper`. Requests for a host without
//! a site go to the default upstream; requests that no route of their site takes get 404.
//!
//! A lookup costs two or three hashes of the host, one of the path and one binary search, however many
//! sites and routes there are. It allocates nothing unless the path begins as a glob or a regular
//! expression does.

pub mod id;
pub mod asked;
mod rewrite;
mod seen;
pub mod changed;
pub mod forward;
mod prefixes;
mod table;
pub(crate) mod hosts;
pub mod identity;

use std::rc::Rc;

use crate::config::Config;
use crate::config::bounds::{RouteLimits, RouteTimeouts};
use crate::config::buffering::ResponseBuffering;
use crate::config::tls::{SitePolicy, ToHttps};
use crate::policy::key::KeyComponents;
use crate::policy::rfc9111::rules::Rules;
use crate::route::asked::{Asked, Unmet};
use crate::route::changed::{AskedUrl, Prepared};
use crate::route::hosts::Hosts;
use crate::route::id::RouteId;
use crate::route::identity::IdentityFields;
use crate::route::table::RouteTable;
use crate::upstream::destination::{Destination, HostPort};
use crate::upstream::ids::UpstreamId;

/// The settings of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its site: 0 for none, 1 for the default upstream, and then those of the configuration.
    pub site: u32,
    /// The route; none if a forward proxy takes the request.
    pub id: Option<RouteId>,
    /// Where its requests go.
    pub destination: Destination,
    /// Whether the cache stores and answers.
    pub cache: bool,
    /// The rules for the cache, see [`Router::rules`].
    pub rules: RulesId,
    /// Whether a request is received completely before a server sees it.
    pub request_buffering: bool,
    /// Whether a response is taken from a server faster than the client takes it.
    pub response_buffering: ResponseBuffering,
    /// Whether a request may switch to another protocol.
    pub upgrade: bool,
    /// The bounds on the sizes of its messages.
    pub limits: RouteLimits,
    /// The bounds on waiting in its exchanges.
    pub timeouts: RouteTimeouts,
    /// Whether the same bytes from another client may have another route.
    pub depends_on_client: bool,
    /// The redirect of requests in the clear.
    pub to_https: Option<ToHttps>,
    /// How clients of its site are asked for a certificate; `None` for as the listener says.
    pub client_policy: Option<SitePolicy>,
    /// Whether the origin is told who the client is, so that its answers are for that client alone.
    pub tells_client: bool,
}

/// The rules for the cache, by [`Router::rules`] of the same router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RulesId(u32);

/// Every site and route of a configuration, ready to be looked up.
#[derive(Debug)]
pub struct Router {
    rules: Vec<Rule>,
    /// In the order of [`RulesId`]s; routes that share rules in the configuration share them here.
    caching: Vec<Rc<Rules>>,
    /// The rules for URLs without a route.
    unrouted: Rc<Rules>,
    /// In the order of [`RouteId`]s.
    changes: Vec<Option<Rc<Prepared>>>,
    sites: Vec<RouteTable>,
    /// In the order of the sites.
    client_policies: Vec<Option<SitePolicy>>,
    identity: IdentityFields,
    hosts: Hosts,
    default: Option<RouteId>,
    /// The settings of requests to a forward proxy.
    forward: Option<Rule>,
}

impl Router {
    /// The router of a configuration.
    pub fn new(config: &Config) -> Self {
        let mut router = Self {
            rules: Vec::new(),
            caching: Vec::new(),
            unrouted: Rc::default(),
            changes: Vec::new(),
            sites: Vec::with_capacity(config.sites.len()),
            client_policies: config.sites.iter().map(|site| site.client_policy).collect(),
            identity: IdentityFields::of(config),
            hosts: Hosts::of(&config.sites),
            default: None,
            forward: None,
        };
        for (number, site) in (2..).zip(&config.sites) {
            let first = router.rules.len();
            let table = RouteTable::new(site, (first..).map(|n| RouteId(id_of(n))));
            for route in &site.routes {
                let rules = router.share(&route.rules);
                let changes = route.changes.as_ref();
                router.changes.push(changes.map(|changes| Rc::new(Prepared::new(changes))));
                router.rules.push(Rule {
                    site: number,
                    id: Some(RouteId(id_of(router.rules.len()))),
                    destination: Destination::Upstream(route.upstream),
                    cache: route.cache,
                    rules,
                    request_buffering: route.request_buffering,
                    response_buffering: route.response_buffering,
                    upgrade: route.upgrade,
                    limits: route.limits,
                    timeouts: route.timeouts,
                    depends_on_client: table.depends_on_client,
                    to_https: site.to_https,
                    client_policy: site.client_policy,
                    tells_client: route.tells_client,
                });
            }
            router.sites.push(table);
        }
        if let Some(upstream) = config.default_upstream {
            router.default = Some(RouteId(id_of(router.rules.len())));
            let cache = config.cache.is_some();
            let rules = config.cache.as_ref().map(|cache| Rc::clone(&cache.rules));
            let rules = router.share(&rules.unwrap_or_default());
            router.rules.push(Rule {
                site: 1,
                id: Some(RouteId(id_of(router.rules.len()))),
                destination: Destination::Upstream(upstream),
                cache,
                rules,
                request_buffering: true,
                response_buffering: ResponseBuffering::File,
                upgrade: true,
                limits: config.limits.route,
                timeouts: config.timeouts.route,
                depends_on_client: false,
                to_https: None,
                client_policy: None,
                tells_client: false,
            });
        }
        if config.forward.is_some() {
            let rules = config.cache.as_ref().map(|cache| Rules::clone(&cache.rules));
            let rules = rules.unwrap_or_default().of_forward_proxy();
            router.forward = Some(Rule {
                site: 0,
                id: None,
                // The request names its own.
                destination: Destination::Upstream(UpstreamId(0)),
                cache: config.cache.is_some(),
                rules: router.share(&Rc::new(rules)),
                request_buffering: true,
                upgrade: true,
                response_buffering: ResponseBuffering::File,
                limits: config.limits.route,
                timeouts: config.timeouts.route,
                depends_on_client: true,
                to_https: None,
                client_policy: None,
                tells_client: false,
            });
        }
        router
    }

    /// The settings of a request to a forward proxy, if there is one.
    pub fn forward(&self, destination: &Rc<HostPort>) -> Option<Rule> {
        let destination = Destination::Address(Rc::clone(destination));
        Some(Rule { destination, ..self.forward.clone()? })
    }

    fn share(&mut self, rules: &Rc<Rules>) -> RulesId {
        // A site's routes are adjacent, and those without rules of their own share its rules.
        if !self.caching.last().is_some_and(|last| Rc::ptr_eq(last, rules)) {
            self.caching.push(Rc::clone(rules));
        }
        RulesId(id_of(self.caching.len() - 1))
    }

    /// The route of a request; `None` is 404.
    pub fn find(&self, asked: &Asked<'_>) -> Option<RouteId> {
        match self.site(asked.host) {
            Some(site) => site.find(asked),
            None => self.default,
        }
    }

    /// The routes that may take a request for this path, in their order, each with the condition that
    /// the request does not meet.
    pub fn tried<'t>(
        &'t self,
        asked: &'t Asked<'_>,
    ) -> impl Iterator<Item = (RouteId, Option<Unmet>)> + 't {
        let site = self.site(asked.host);
        let default = self.default.filter(|_| site.is_none()).map(|route| (route, None));
        site.into_iter().flat_map(|site| site.tried(asked)).chain(default)
    }

    /// How clients of the site for a host are asked for a certificate; `None` for as the listener says.
    pub fn client_policy(&self, host: &[u8]) -> Option<SitePolicy> {
        *self.client_policies.get(self.hosts.site(host)?)?
    }

    /// The fields in which routes tell origins who a client is.
    pub const fn identity(&self) -> &IdentityFields {
        &self.identity
    }

    /// The settings of a route that [`Self::find`] of this router returned.
    pub fn rule(&self, id: RouteId) -> &Rule {
        &self.rules[id.0 as usize]
    }

    /// The number of a route that [`Self::find`] of this router returned: the routes of all sites
    /// in the order of the configuration, then the default.
    pub fn number(&self, id: RouteId) -> usize {
        id.0 as usize
    }

    /// The changes of a route, if it makes any.
    pub fn changes(&self, id: RouteId) -> Option<&Rc<Prepared>> {
        self.changes.get(id.0 as usize)?.as_ref()
    }

    /// The cache rules of a route of this router.
    pub fn rules(&self, id: RulesId) -> &Rc<Rules> {
        &self.caching[id.0 as usize]
    }

    /// The components of the keys of a URL, and its path and query in them, by every route that may
    /// take a request for it, whatever its conditions are; those of the default where there is none.
    /// One may occur twice.
    pub fn keys_of_url<'t>(&'t self, url: &AskedUrl<'_>) -> Vec<(&'t KeyComponents, Vec<u8>)> {
        let AskedUrl { host, path_and_query, .. } = *url;
        let path = path_and_query.split(|byte| *byte == b'?').next().unwrap_or_default();
        let asked = Asked::of_url(host, path);
        let mut found = Vec::new();
        for (route, unmet) in self.tried(&asked).filter(|(_, unmet)| *unmet != Some(Unmet::Path)) {
            let target = self.changes(route).and_then(|changes| changes.target(url));
            let target = target.unwrap_or_else(|| path_and_query.to_vec());
            found.push((&self.rules(self.rule(route).rules).key, target));
            if unmet.is_none() {
                break;
            }
        }
        if let Some(forward) = &self.forward {
            found.push((&self.rules(forward.rules).key, path_and_query.to_vec()));
        }
        if found.is_empty() {
            found.push((&self.unrouted.key, path_and_query.to_vec()));
        }
        found
    }

    fn site(&self, host: &[u8]) -> Option<&RouteTable> {
        self.sites.get(self.hosts.site(host)?)
    }
}

/// The length limit of a configuration's text keeps every count far below this type's maximum.
fn id_of(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::bounds::OriginTimeouts;
    use crate::config::matching::{Matching, PathPattern, PathSet, compile};
    use crate::config::{HostPattern, RouteConfig, SiteConfig};
    use crate::http::h1::head::{HeadLimits, parse_request};

    const TEXT: &str = "
cache: /c
upstreams: {u0: {servers: [a]}, u1: {servers: [a]}, u2: {servers: [a]}, u3: {servers: [a]}}
upstream: u0
sites:
  - hosts: [www.example.com, '[::1]']
    routes:
      - {path: /up, upstream: u1, cache: off}
      - {path: /up/x/y, upstream: u2, request-buffering: off}
      - {path: /b, upstream: u3, cache: {ttl-min: 7s}}
  - hosts: ['*.example.com']
    upstream: u2
  - hosts: ['*.a.example.com']
    upstream: u3
";

    fn upstream_of(router: &Router, host: &str, path: &str) -> Option<UpstreamId> {
        let path = path.split('?').next().unwrap_or_default();
        let asked = Asked::of_url(host.as_bytes(), path.as_bytes());
        router.find(&asked).and_then(|id| router.rule(id).destination.upstream())
    }

    #[test]
    fn hosts_and_paths_choose_a_rule() {
        let router = Router::new(&Config::load_for(Path::new("f"), TEXT, 1).unwrap());
        for (host, path, upstream) in [
            ("www.example.com", "/up", Some(1)),
            ("WWW.Example.COM", "/upper", Some(1)),
            ("www.example.com.", "/up/x", Some(1)),
            ("www.example.com", "/up/x/y?q", Some(2)),
            ("www.example.com", "/up/x/yz", Some(2)),
            ("www.example.com", "/b", Some(3)),
            ("www.example.com", "/u", None),
            ("www.example.com", "/", None),
            ("www.example.com", "*", None),
            ("[::1]", "/b", Some(3)),
            ("x.example.com", "/", Some(2)),
            ("x.example.com", "*", Some(2)),
            ("x.y.example.com", "/", Some(2)),
            ("a.example.com", "/", Some(2)),
            ("b.a.example.com", "/", Some(3)),
            ("example.com", "/", Some(0)),
            (".example.com", "/", Some(0)),
            ("", "/", Some(0)),
            ("other", "/", Some(0)),
        ] {
            assert_eq!(upstream_of(&router, host, path), upstream.map(UpstreamId), "{host} {path}");
        }
        let long = format!("{}.example.com", "x".repeat(300));
        assert_eq!(upstream_of(&router, &long, "/"), Some(UpstreamId(0)));
        let find = |path| router.find(&Asked::of_url(b"www.example.com", path)).unwrap();
        let rule = |path: &'static [u8]| router.rule(find(path));
        let switches = |path| {
            (rule(path).destination.upstream(), rule(path).cache, rule(path).request_buffering)
        };
        assert_eq!(switches(b"/up"), (Some(UpstreamId(1)), false, true));
        assert_eq!(switches(b"/up/x/y"), (Some(UpstreamId(2)), true, false));
        let ttl_min_s = |path| router.rules(rule(path).rules).ttl_min_s;
        assert_eq!((ttl_min_s(b"/up"), ttl_min_s(b"/b")), (0, 7));
    }

    #[test]
    fn without_a_site_or_a_default_there_is_no_rule() {
        let text = "upstreams: {u: {servers: [a]}}\nsites: [{hosts: [h], upstream: u}]\n";
        let router = Router::new(&Config::load_for(Path::new("f"), text, 1).unwrap());
        assert_eq!(upstream_of(&router, "other", "/"), None);
        assert_eq!(upstream_of(&router, "h", "/"), Some(UpstreamId(0)));
        assert!(!router.rule(RouteId(0)).cache, "there is no cache");
    }

    #[test]
    fn conditions_choose_among_the_routes_of_a_path() {
        let text = "
upstreams: {u0: {servers: [a]}, u1: {servers: [a]}, u2: {servers: [a]}, u3: {servers: [a]}, u4: {servers: [a]}}
upstream: u0
sites:
  - upstream: u0
    routes:
      - {path: /a, methods: [POST], upstream: u1}
      - {path: /a, headers: {x-v: '2*'}, query: {b: '1'}, upstream: u2}
      - {path: /a, clients: [10.0.0.0/8], upstream: u3}
      - {path: {exact: /a/b}, methods: [POST], upstream: u4}
";
        let router = Router::new(&Config::load_for(Path::new("f"), text, 1).unwrap());
        let upstream = |line: &str, field: &str, client: &str| {
            let raw = format!("{line} HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n");
            let (head, _) = parse_request(raw.as_bytes(), &HeadLimits::default()).unwrap().unwrap();
            let asked = Asked::of(&head, client.parse().ok());
            let route = router.find(&asked).unwrap();
            let tried: Vec<_> = router.tried(&asked).collect();
            assert!(tried.contains(&(route, None)), "{tried:?}");
            router.rule(route).destination.upstream().unwrap().0
        };
        for (line, field, client, expected) in [
            ("GET /a", "A: b", "", 0),
            ("POST /a", "A: b", "", 1),
            ("GET /a?b=1", "X-V: 2.1", "", 2),
            ("POST /a?b=1", "X-V: 2.1", "10.0.0.1", 2),
            ("GET /a?b=2", "X-V: 2.1", "10.0.0.1", 3),
            ("GET /a?b=1", "X-V: 3", "11.0.0.1", 0),
            ("POST /a/b", "A: b", "10.0.0.1", 4),
            ("GET /a/b", "A: b", "10.0.0.1", 3),
            ("OPTIONS *", "A: b", "", 0),
        ] {
            assert_eq!(upstream(line, field, client), expected, "{line} {field} {client}");
        }
        assert_eq!(router.keys_of_url(&url(b"/a")).len(), 4, "all that a URL may have");
    }

    fn url(path_and_query: &[u8]) -> AskedUrl<'_> {
        let scheme = crate::http::scheme::Scheme::Http;
        AskedUrl { scheme, authority: b"h:80", host: b"h", path_and_query }
    }

    #[test]
    fn the_key_of_a_url_has_what_a_rewriting_names_of_it() {
        let text = "
upstream: a
sites:
  - routes:
      - {path: /a, rewrite: {regex: ^, to: '/{scheme}/{host}{path}'}}
      - {path: /b, rewrite: {regex: ^, to: '/{method}{query}'}}
";
        let router = Router::new(&Config::load_for(Path::new("f"), text, 1).unwrap());
        let target = |path| String::from_utf8(router.keys_of_url(&url(path)).remove(0).1).unwrap();
        assert_eq!(target(b"/a/b?c"), "/http/h/a/b?c");
        assert_eq!(target(b"/b?c"), "/GET?c&c");
    }

    #[test]
    fn routes_by_method_share_no_key() {
        let text = "
upstreams: {u0: {servers: [a]}, u1: {servers: [a]}}
sites:
  - routes:
      - {path: /, methods: [GET], upstream: u0}
      - {path: /, upstream: u1}
";
        let router = Router::new(&Config::load_for(Path::new("f"), text, 1).unwrap());
        let keys = router.keys_of_url(&url(b"/"));
        assert_eq!(keys.iter().map(|(key, _)| &*key.route).collect::<Vec<_>>(), ["method GET", ""]);
    }

    /// The routing rule of the manual, written without tables.
    fn naive(config: &Config, host: &str, path: &str) -> Option<UpstreamId> {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let strength = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(name) => (name == host).then_some(usize::MAX),
            HostPattern::Below(suffix) => (host.len() > suffix.len()
                && host.ends_with(suffix.as_str()))
            .then_some(suffix.len()),
            HostPattern::Any => Some(0),
        };
        let claim = |site: &SiteConfig| match site.hosts.is_empty() {
            true => Some(0),
            false => site.hosts.iter().filter_map(strength).max(),
        };
        let mut best: Option<(usize, &SiteConfig)> = None;
        for site in &config.sites {
            let Some(strength) = claim(site) else { continue };
            if best.is_none_or(|(least, _)| strength > least) {
                best = Some((strength, site));
            }
        }
        let Some((_, site)) = best else { return config.default_upstream };
        let fits = |route: &&RouteConfig| match &route.matching.path {
            PathPattern::Exact(text) => path == text,
            PathPattern::Prefix(text) => path.starts_with(text),
            other => compile(&other.regex().unwrap()).unwrap().is_match(path.as_bytes()),
        };
        let mut first: Option<&RouteConfig> = None;
        for route in site.routes.iter().filter(fits) {
            if first.is_none_or(|known| route.matching.order() < known.matching.order()) {
                first = Some(route);
            }
        }
        first.map(|route| route.upstream)
    }

    fn patterns() -> impl Strategy<Value = HostPattern> {
        prop_oneof![
            4 => "[ab]{1,2}(\\.[ab]){0,2}".prop_map(HostPattern::Exact),
            4 => "(\\.[ab]){1,3}".prop_map(HostPattern::Below),
            1 => Just(HostPattern::Any),
        ]
    }

    fn sites() -> impl Strategy<Value = Vec<SiteConfig>> {
        let path = prop_oneof![
            "/[ab]{0,4}".prop_map(PathPattern::Prefix),
            "/[ab]{1,2}(/[ab]{1,2})?".prop_map(PathPattern::Exact),
            "/[ab]{0,2}(\\*|\\?|/\\*\\*)[ab]{0,1}".prop_map(PathPattern::Glob),
            "\\^/[ab]{0,2}(\\.\\*|a\\+|[ab]\\$)".prop_map(PathPattern::Regex),
            "[ab]{1,2}\\$".prop_map(PathPattern::Regex),
        ];
        let route = |(path, upstream)| RouteConfig {
            matching: Matching::of_path(path),
            upstream: UpstreamId(upstream),
            cache: true,
            tells_client: false,
            rules: Rc::default(),
            request_buffering: true,
            response_buffering: ResponseBuffering::File,
            upgrade: true,
            limits: RouteLimits {
                head_bytes: 0,
                body_bytes: 0,
                response_memory_bytes: 0,
                response_file_bytes: 0,
            },
            timeouts: RouteTimeouts {
                client_body: Duration::ZERO,
                client_request: Duration::ZERO,
                client_send: Duration::ZERO,
                tunnel: Duration::ZERO,
                origin: OriginTimeouts::default(),
            },
            changes: None,
        };
        let routes = proptest::collection::vec((path, 0usize..100).prop_map(route), 1..8);
        let hosts = proptest::collection::vec(patterns(), 0..4);
        let site = (hosts, routes).prop_map(|(hosts, routes)| SiteConfig {
            tls: None,
            client_policy: None,
            to_https: None,
            hosts,
            routes,
            patterns: None,
        });
        proptest::collection::vec(site, 0..6)
    }

    /// Ensures what resolving a configuration guarantees: no host has two sites, and no site has a
    /// path twice.
    fn without_doubles(mut sites: Vec<SiteConfig>) -> Vec<SiteConfig> {
        let mut seen = std::collections::HashSet::new();
        for site in &mut sites {
            if site.hosts.is_empty() {
                site.hosts.push(HostPattern::Any);
            }
            site.hosts.retain(|host| seen.insert(host.clone()));
            let mut paths = std::collections::HashSet::new();
            site.routes.retain(|route| paths.insert(route.matching.path.clone()));
            let all: Vec<_> =
                site.routes.iter().filter_map(|route| route.matching.path.regex()).collect();
            site.patterns = Some(PathSet::new(&all).unwrap());
        }
        sites.retain(|site| !site.hosts.is_empty());
        sites
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn tables_agree_with_the_plain_rule(
            sites in sites(),
            default in proptest::option::of(Just(UpstreamId(7))),
            requests in proptest::collection::vec(
                ("[abAB.]{0,6}\\.?", "(/[ab]{1,3}){0,2}/?"), 1..20),
        ) {
            let none: [&str; 0] = [];
            let mut config = Config::from_flags(&none, "a", None).unwrap();
            config.default_upstream = default;
            config.sites = without_doubles(sites);
            let router = Router::new(&config);
            for (host, path) in requests {
                let path = if path.is_empty() { "/".to_owned() } else { path };
                prop_assert_eq!(
                    upstream_of(&router, &host, &path),
                    naive(&config, &host, &path),
                    "{} {}", host, path
                );
            }
        }

        #[test]
        fn no_host_and_no_path_panic(host: Vec<u8>, path: Vec<u8>) {
            let router = Router::new(&Config::load_for(Path::new("f"), TEXT, 1).unwrap());
            let _ = router.find(&Asked::of_url(&host, &path));
        }
    }
}
