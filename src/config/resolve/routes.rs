//! The routes of one site.
//!
//! A site's own upstream is the route for all paths outside of its routes, and the default of
//! those. Without it the default is the upstream at the top, and other paths get 404.

use std::rc::Rc;

use crate::config::RouteConfig;
use crate::config::action::Changes;
use crate::config::buffering::ResponseBuffering;
use crate::config::error::Faults;
use crate::config::matching::{Matching, PathPattern, PathSet};
use crate::config::resolve::action;
use crate::config::resolve::bounds::Bounds;
use crate::config::resolve::matching;
use crate::config::resolve::rules::{self, Caching};
use crate::config::resolve::upstreams::Upstreams;
use crate::config::section::Section;
use crate::upstream::ids::UpstreamId;

fn is_internal(route: &RouteConfig) -> bool {
    route.changes.as_ref().is_some_and(|changes| changes.is_internal)
}

fn response_buffering(faults: &mut Faults<'_>, section: &Section<'_>) -> Option<ResponseBuffering> {
    Some(match section.word_if_any(faults, "response-buffering")? {
        "off" => ResponseBuffering::Off,
        "memory" => ResponseBuffering::Memory,
        _ => ResponseBuffering::File,
    })
}

/// The routes of one site while they are read.
pub(crate) struct Routes<'a> {
    pub(crate) upstreams: &'a Upstreams<'a>,
    pub(crate) has_cache: bool,
    /// The bounds at the top.
    pub(crate) top: Bounds,
    /// The rules of the site itself.
    pub(crate) caching: Caching,
    pub(crate) site: &'a Section<'a>,
}

impl Routes<'_> {
    /// The routes, and the patterns among their paths.
    pub(crate) fn resolve(&self, faults: &mut Faults<'_>) -> (Vec<RouteConfig>, Option<PathSet>) {
        let name = self.site.scalar(faults, "upstream");
        let own = name.map(|name| self.upstreams.find(faults, &name).unwrap_or_default());
        let inherited = own.or(self.upstreams.default);
        let bounds = self.top.below(faults, self.site, &self.top);
        let rest = RouteConfig {
            matching: Matching::of_path(PathPattern::Prefix("/".to_owned())),
            upstream: inherited.unwrap_or_default(),
            cache: self.caching.is_on,
            tells_client: false,
            rules: Rc::clone(&self.caching.rules),
            request_buffering: self.site.switch(faults, "request-buffering").unwrap_or(true),
            response_buffering: response_buffering(faults, self.site)
                .unwrap_or(ResponseBuffering::File),
            upgrade: self.site.switch(faults, "upgrade").unwrap_or(true),
            limits: bounds.limits,
            timeouts: bounds.timeouts,
            changes: None,
        };
        let client_cert = self.site.switch(faults, "client-cert").unwrap_or(false);
        let rest = match client_cert {
            true => RouteConfig {
                cache: false,
                tells_client: true,
                changes: Some(Rc::new(Changes { client_cert, ..Changes::default() })),
                ..rest
            },
            false => rest,
        };
        let Some(items) = self.site.items(faults, "routes") else {
            if inherited.is_none() && self.site.node("upstream").is_none() {
                self.site.missing(faults, "upstream", "upstream: NAME");
            }
            return (vec![rest], None);
        };
        let (mut routes, mut sections) = (Vec::new(), Vec::new());
        for item in items {
            let section = Section::open(faults, "sites[].routes[]", item.path.clone(), item.node);
            if let Some(route) = self.route(faults, &section, &rest, inherited) {
                routes.push(route);
                sections.push(section);
            }
        }
        matching::check_reach(faults, &routes, &sections);
        if routes.iter().any(is_internal) {
            // Any answer of the site may lead there.
            for route in &mut routes {
                Rc::make_mut(&mut route.rules).may_redirect = true;
            }
        }
        let is_rest = |route: &RouteConfig| route.matching == rest.matching;
        if own.is_some() && !routes.iter().any(is_rest) {
            let mut rest = rest;
            if routes.iter().any(is_internal) {
                Rc::make_mut(&mut rest.rules).may_redirect = true;
            }
            routes.push(rest);
        }
        let patterns = matching::patterns(faults, self.site, &routes);
        (routes, patterns)
    }

    fn route(
        &self,
        faults: &mut Faults<'_>,
        section: &Section<'_>,
        rest: &RouteConfig,
        inherited: Option<UpstreamId>,
    ) -> Option<RouteConfig> {
        let answers_itself = action::answers_itself(section);
        let upstream = match section.scalar(faults, "upstream") {
            Some(name) => self.upstreams.find(faults, &name),
            None => {
                let is_needed = inherited.is_none() && !answers_itself;
                if is_needed && section.node("upstream").is_none() {
                    section.missing(faults, "upstream", "upstream: NAME");
                }
                inherited
            }
        };
        let caching = self.caching.below(faults, section, self.has_cache);
        let matching = matching::resolve(faults, section);
        let request_buffering =
            section.switch(faults, "request-buffering").unwrap_or(rest.request_buffering);
        let response_buffering =
            response_buffering(faults, section).unwrap_or(rest.response_buffering);
        let upgrade = section.switch(faults, "upgrade").unwrap_or(rest.upgrade);
        let inherited = Bounds { limits: rest.limits, timeouts: rest.timeouts };
        let bounds = inherited.below(faults, section, &self.top);
        let matching = matching?;
        let mut changes = action::resolve(faults, section, &matching);
        let upstream = upstream.unwrap_or_default();
        let addresses = self.upstreams.addresses(upstream);
        changes.host = action::host(faults, section, &addresses);
        let inherited = rest.changes.as_ref().is_some_and(|changes| changes.client_cert);
        let client_cert = section.switch(faults, "client-cert").unwrap_or(inherited);
        changes.client_cert = client_cert && !answers_itself;
        if changes.rewrite.is_some() || changes.host.is_some() {
            changes.origins = addresses;
            let host = changes.host.clone().filter(|host| !changes.origins.contains(host));
            changes.origins.extend(host);
        }
        let mut cache = caching.is_on && !answers_itself;
        let name = self.upstreams.name(upstream);
        let mut rules = rules::of_route(caching.rules, &matching, &changes, name);
        if cache {
            rules::select_by_fields(faults, section, &mut rules, &changes);
        }
        let tells_client = rules::tells_client(&rules, &changes);
        if cache && tells_client {
            // The answer is for the one client.
            cache = false;
            rules::check_own_cache(faults, section);
        }
        Some(RouteConfig {
            rules,
            matching,
            upstream,
            cache,
            tells_client,
            request_buffering,
            response_buffering,
            upgrade,
            limits: bounds.limits,
            timeouts: bounds.timeouts,
            changes: (changes != Changes::default()).then(|| Rc::new(changes)),
        })
    }
}
