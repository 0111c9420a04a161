//! The sites: which hosts each of them claims.

use std::collections::HashMap;
use std::rc::Rc;

use crate::config::address::parse_host;
use crate::config::document::Place;
use crate::config::error::Faults;
use crate::config::resolve::action;
use crate::config::resolve::bounds::Bounds;
use crate::config::resolve::client_auth::Policies;
use crate::config::resolve::routes::Routes;
use crate::config::resolve::rules::Caching;
use crate::config::resolve::tls;
use crate::config::resolve::upstreams::Upstreams;
use crate::config::schema::Kind;
use crate::config::section::{Item, Section};
use crate::config::tls::ToHttps;
use crate::config::{CacheConfig, HostPattern, SiteConfig};
use crate::http::status::Status;

/// Every site, in the order of the text.
pub(crate) fn resolve(
    faults: &mut Faults<'_>,
    root: &Section<'_>,
    upstreams: &Upstreams<'_>,
    cache: Option<&CacheConfig>,
    (bounds, policies): (Bounds, &mut Policies),
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
        let routes = Routes { upstreams, has_cache, top: bounds, caching, site: &section };
        let (routes, patterns) = routes.resolve(faults);
        let (tls, client_policy) = tls::of_site(faults, &section, policies);
        let to_https = to_https(faults, &section);
        sites.push(SiteConfig { hosts, tls, client_policy, to_https, routes, patterns });
    }
    sites
}

/// The redirect of a site's requests in the clear, if it has one.
fn to_https(faults: &mut Faults<'_>, site: &Section<'_>) -> Option<ToHttps> {
    site.node("redirect")?;
    let section = site.section(faults, "sites[].redirect", "redirect");
    // There is one scheme to redirect to.
    let _ = section.word(faults, "to");
    let status = action::redirection(faults, &section).unwrap_or(Status(301));
    Some(ToHttps { status, port: u16::try_from(section.count(faults, "port")).unwrap_or(443) })
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
                let line = faults.line_of(*place, site.place());
                let message =
                    format!("names no hosts, but {first} ({line}) already claims any host");
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
                        let line = faults.line_of(*place, item.node.place);
                        let why = format!("is already claimed by {first} ({line})");
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
