//! The routes that a new configuration has as well, for the tunnels that outlive a reload.

use std::collections::HashSet;

use crate::config::{Config, RouteConfig};
use crate::upstream::ids::UpstreamId;

impl Config {
    /// For each route of this configuration, in the order of their ids, whether `new` has it too: with the
    /// same hosts, settings and upstream.
    pub(crate) fn unchanged_routes(&self, new: &Self) -> Vec<bool> {
        let known: HashSet<String> = new.routes_in_words().collect();
        self.routes_in_words().map(|route| known.contains(&route)).collect()
    }

    /// All that decides what a route does, as text: of the sites first, and then the default upstream.
    fn routes_in_words(&self) -> impl Iterator<Item = String> {
        let upstream = |id: UpstreamId| self.upstreams.get(id.0);
        let of_sites = self.sites.iter().flat_map(move |site| {
            site.routes.iter().map(move |route| {
                // The number of an upstream is its place in the file.
                let settings = RouteConfig { upstream: UpstreamId::default(), ..route.clone() };
                format!("{:?} {settings:?} {:?}", site.hosts, upstream(route.upstream))
            })
        });
        let default = self.default_upstream.map(|id| format!("default {:?}", upstream(id)));
        of_sites.chain(default)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const OLD: &str = "
upstream: d:80
upstreams: {a: {servers: [a:80]}, b: {servers: [b:80]}}
sites:
  - hosts: [one]
    routes: [{path: /a, upstream: a}, {path: /b, upstream: b}]
  - {hosts: [two], upstream: a}
";

    fn unchanged(change: impl Fn(String) -> String) -> Vec<bool> {
        let load = |text: &str| Config::load_for(Path::new("k.yaml"), text, 1).unwrap();
        load(OLD).unchanged_routes(&load(&change(OLD.to_owned())))
    }

    #[test]
    fn a_route_is_unchanged_with_its_hosts_settings_and_upstream() {
        assert_eq!(unchanged(|text| text), [true; 4]);
        assert_eq!(unchanged(|text| format!("limits: {{connections: 9}}\n{text}")), [true; 4]);
        let reordered = "{b: {servers: [b:80]}, a: {servers: [a:80]}}";
        let old = "{a: {servers: [a:80]}, b: {servers: [b:80]}}";
        assert_eq!(unchanged(|text| text.replace(old, reordered)), [true; 4]);
        assert_eq!(unchanged(|text| text.replace("[b:80]", "[c:80]")), [true, false, true, true]);
        assert_eq!(unchanged(|text| text.replace("[one]", "[three]")), [false, false, true, true]);
        assert_eq!(unchanged(|text| text.replace("d:80", "e:80")), [true, true, true, false]);
        let off = |text: String| text.replace("path: /a,", "path: /a, upgrade: off,");
        assert_eq!(unchanged(off), [false, true, true, true]);
    }
}
