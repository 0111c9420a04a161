//! The sites: hosts and paths, and their upstreams.
//!
//! A site's own upstream is the route for all paths outside of its routes, and the default of
//! those. Without it the default is the upstream at the top, and other paths get 404.

use std::collections::HashMap;
use std::rc::Rc;

use crate::config::address::parse_host;
use crate::config::document::Place;
use crate::config::error::{Faults, quoted};
use crate::config::resolve::rules::{self, Caching};
use crate::config::resolve::upstreams::Upstreams;
use crate::config::schema::Kind;
use crate::config::section::{Item, Scalar, Section};
use crate::config::{CacheConfig, HostPattern, RouteConfig, SiteConfig};
use crate::upstream::ids::UpstreamId;

/// The length limit of a path prefix.
const PATH_BYTES_MAX: usize = 4096;

/// Every site, in the order of the text.
pub(crate) fn resolve(
    faults: &mut Faults<'_>,
    root: &Section<'_>,
    upstreams: &Upstreams<'_>,
    cache: Option<&CacheConfig>,
) -> Vec<SiteConfig> {
    let rules = cache.map(|cache| Rc::clone(&cache.rules)).unwrap_or_default();
    let object_bytes_max = cache.map_or(u64::MAX, |cache| cache.object_bytes_max);
    let top = Caching { is_on: cache.is_some(), rules, object_bytes_max };
    let mut claims = Claims { hosts: HashMap::new() };
    let mut sites = Vec::new();
    for item in root.items(faults, "sites").unwrap_or_default() {
        let section = Section::open(faults, "sites[]", item.path.clone(), item.node);
        let hosts = claims.hosts(faults, &section, &item);
        let caching = top.below(faults, &section, cache.is_some());
        let has_cache = cache.is_some();
        let routes = Routes { upstreams, has_cache, caching, site: &section }.resolve(faults);
        sites.push(SiteConfig { hosts, routes });
    }
    sites
}

/// The first site that claims each host.
struct Claims {
    hosts: HashMap<HostPattern, (String, Place)>,
}

impl Claims {
    /// The hosts of a site; none for any.
    fn hosts(
        &mut self,
        faults: &mut Faults<'_>,
        site: &Section<'_>,
        item: &Item<'_>,
    ) -> Vec<HostPattern> {
        let claimant = (item.path.clone(), item.node.place);
        if site.node("hosts").is_none() {
            if let Some((first, place)) = self.hosts.get(&HostPattern::Any) {
                let line = place.line;
                let message =
                    format!("names no hosts, but {first} (line {line}) already claims any host");
                faults.add(site.place(), item.path.clone(), message);
            } else {
                self.hosts.insert(HostPattern::Any, claimant);
            }
            return Vec::new();
        }
        let mut hosts = Vec::new();
        for item in site.items(faults, "hosts").unwrap_or_default() {
            let Some(scalar) = item.scalar(faults, Kind::Text("host name")) else { continue };
            match parse_host(scalar.text) {
                Ok(host) => {
                    if let Some((first, place)) = self.hosts.get(&host) {
                        let line = place.line;
                        let why = format!("is already claimed by {first} (line {line})");
                        scalar.wrong(faults, &why);
                    } else {
                        self.hosts.insert(host.clone(), claimant.clone());
                    }
                    hosts.push(host);
                }
                Err(message) => scalar.fault(faults, message),
            }
        }
        hosts
    }
}

/// The routes of one site while they are read.
struct Routes<'a> {
    upstreams: &'a Upstreams<'a>,
    has_cache: bool,
    /// The rules of the site itself.
    caching: Caching,
    site: &'a Section<'a>,
}

impl Routes<'_> {
    fn resolve(&self, faults: &mut Faults<'_>) -> Vec<RouteConfig> {
        let name = self.site.scalar(faults, "upstream");
        let own = name.map(|name| self.upstreams.find(faults, &name).unwrap_or_default());
        let inherited = own.or(self.upstreams.default);
        let rest = RouteConfig {
            path: "/".to_owned(),
            upstream: inherited.unwrap_or_default(),
            cache: self.caching.is_on,
            rules: Rc::clone(&self.caching.rules),
            request_buffering: self.site.switch(faults, "request-buffering").unwrap_or(true),
        };
        let Some(items) = self.site.items(faults, "routes") else {
            if inherited.is_none() && self.site.node("upstream").is_none() {
                self.site.missing(faults, "upstream", "upstream: NAME");
            }
            return vec![rest];
        };
        let mut lines: HashMap<String, u32> = HashMap::new();
        let mut routes = Vec::new();
        for item in items {
            let section = Section::open(faults, "sites[].routes[]", item.path.clone(), item.node);
            let route = self.route(faults, &section, &rest, inherited);
            if route.path.is_empty() {
                // Noted already.
            } else if let Some(line) = lines.get(&route.path) {
                let path = quoted(&route.path);
                let message = format!("{path} is already a route of this site (line {line})");
                let place = section.node("path").map_or(section.place(), |node| node.place);
                faults.add(place, section.path_of("path"), message);
            } else {
                lines.insert(route.path.clone(), section.place().line);
            }
            routes.push(route);
        }
        if own.is_some() && !lines.contains_key("/") {
            routes.push(rest);
        }
        routes
    }

    fn route(
        &self,
        faults: &mut Faults<'_>,
        section: &Section<'_>,
        rest: &RouteConfig,
        inherited: Option<UpstreamId>,
    ) -> RouteConfig {
        let upstream = match section.scalar(faults, "upstream") {
            Some(name) => self.upstreams.find(faults, &name),
            None => {
                if inherited.is_none() && section.node("upstream").is_none() {
                    section.missing(faults, "upstream", "upstream: NAME");
                }
                inherited
            }
        };
        let caching = self.caching.below(faults, section, self.has_cache);
        let path = path(faults, section);
        RouteConfig {
            rules: rules::of_route(caching.rules, &path),
            path,
            upstream: upstream.unwrap_or_default(),
            cache: caching.is_on,
            request_buffering: section
                .switch(faults, "request-buffering")
                .unwrap_or(rest.request_buffering),
        }
    }
}

/// The prefix of a route; empty where it is missing.
fn path(faults: &mut Faults<'_>, section: &Section<'_>) -> String {
    let Some(scalar) = section.required(faults, "path", "path: /") else { return String::new() };
    let is_sendable = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    if !scalar.text.starts_with('/') {
        scalar.wrong(faults, &format!("does not begin with a slash (try \"/{}\")", tail(&scalar)));
    } else if let Some(odd) = scalar.text.chars().find(|c| !c.is_ascii() || !is_sendable(*c as u8))
    {
        let why = format!("contains {odd:?}, which a path cannot (percent-encode it)");
        scalar.wrong(faults, &why);
    } else if scalar.text.len() > PATH_BYTES_MAX {
        scalar.wrong(faults, &format!("is longer than {PATH_BYTES_MAX} bytes"));
    }
    scalar.text.to_owned()
}

/// The printable part of an invalid path, for the error message.
fn tail(scalar: &Scalar<'_>) -> String {
    scalar.text.chars().filter(char::is_ascii_graphic).filter(|c| *c != '"').take(40).collect()
}
