//! The settings that a new configuration has as well, for the tunnels that outlive a reload: routes, and
//! the listeners of connections without a route.

use std::collections::HashSet;

use crate::config::{Config, Listen, ListenMode, RouteConfig};
use crate::upstream::ids::UpstreamId;

impl Config {
    /// For each setting of this configuration, in the order of their places, whether `new` has it too: a
    /// listener with the same address and what its tunnels depend on, a route with the same hosts,
    /// settings and upstream.
    pub(crate) fn unchanged_settings(&self, new: &Self) -> Vec<bool> {
        // The words of users hide their hashes, so the section is compared itself.
        let forward = if self.forward == new.forward { "same" } else { "another" };
        let known: HashSet<String> = new.settings_in_words(forward).collect();
        self.settings_in_words("same").map(|words| known.contains(&words)).collect()
    }

    /// The place of a listener, as connections have it.
    pub(crate) fn place_of_listener(&self, listen: &Listen) -> Option<usize> {
        self.listen.iter().position(|it| it.address == listen.address)
    }

    /// The place of the route with this index.
    pub(crate) fn place_of_route(&self, index: usize) -> usize {
        self.listen.len() + index
    }

    /// All that decides where a tunnel leads and whether it may, as text: of the listeners first, then of
    /// the routes of sites, and then of the default upstream.
    fn settings_in_words(&self, forward: &str) -> impl Iterator<Item = String> {
        // The number of an upstream is its place in the file.
        let upstream = |id: UpstreamId| self.upstreams.get(id.0);
        let of_listeners = self.listen.iter().map(move |listen| {
            let leads = match listen.mode {
                ListenMode::Http | ListenMode::Admin => String::new(),
                ListenMode::Forward => forward.to_owned(),
                ListenMode::Tcp => {
                    let names = listen.targets.names.iter();
                    let names: Vec<_> = names.map(|(name, id)| (name, upstream(*id))).collect();
                    format!("{names:?} {:?}", listen.targets.default.map(upstream))
                }
            };
            format!("{:?} {:?} {leads}", listen.address, listen.mode)
        });
        let of_sites = self.sites.iter().flat_map(move |site| {
            site.routes.iter().map(move |route| {
                let settings = RouteConfig { upstream: UpstreamId::default(), ..route.clone() };
                format!("{:?} {settings:?} {:?}", site.hosts, upstream(route.upstream))
            })
        });
        let default = self.default_upstream.map(|id| format!("default {:?}", upstream(id)));
        of_listeners.chain(of_sites).chain(default)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const OLD: &str = "
listen: [8080, {address: 81, mode: tcp, upstream: a, sni: {x.example: b}}, {address: 3128, mode: forward}]
upstream: d:80
upstreams: {a: {servers: [a:80]}, b: {servers: [b:80]}}
sites:
  - hosts: [one]
    routes: [{path: /a, upstream: a}, {path: /b, upstream: b}]
  - {hosts: [two], upstream: a}
";

    fn unchanged(change: impl Fn(String) -> String) -> Vec<bool> {
        let load = |text: &str| Config::load_for(Path::new("k.yaml"), text, 1).unwrap();
        let old = load(OLD);
        let mut unchanged = old.unchanged_settings(&load(&change(OLD.to_owned())));
        unchanged.split_off(old.place_of_route(0))
    }

    fn unchanged_listeners(change: impl Fn(String) -> String) -> Vec<bool> {
        let load = |text: &str| Config::load_for(Path::new("k.yaml"), text, 1).unwrap();
        let (old, new) = (load(OLD), load(&change(OLD.to_owned())));
        let unchanged = old.unchanged_settings(&new);
        let place = |listen| old.place_of_listener(listen).unwrap();
        old.listen.iter().map(|listen| unchanged[place(listen)]).collect()
    }

    #[test]
    fn a_listener_is_unchanged_with_its_address_and_where_it_leads() {
        let n_listeners = unchanged_listeners(|text| text).len();
        let but = |changed: &[usize]| -> Vec<bool> {
            (0..n_listeners).map(|listener| !changed.contains(&listener)).collect()
        };
        let [plain, tcp, forward] = [0, 1, 2].map(|at| at * n_listeners / 3);
        assert_eq!(unchanged_listeners(|text| text), but(&[]));
        let replaced = |old: &'static str, new: &'static str| {
            unchanged_listeners(move |text| text.replace(old, new))
        };
        let both = |at: usize| (at..at + n_listeners / 3).collect::<Vec<_>>();
        assert_eq!(replaced("[a:80]", "[a:81]"), but(&both(tcp)));
        assert_eq!(replaced("[b:80]", "[b:81]"), but(&both(tcp)));
        assert_eq!(replaced("x.example", "y.example"), but(&both(tcp)));
        assert_eq!(replaced("8080", "8081"), but(&both(plain)));
        assert_eq!(replaced("upstream: d:80", "upstream: e:80"), but(&[]));
        let stricter =
            replaced("upstream: d:80", "upstream: d:80\nforward: {connect-ports: [444]}");
        assert_eq!(stricter, but(&both(forward)));
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
