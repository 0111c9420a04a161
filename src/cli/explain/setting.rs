//! The configuration, and the line that sets each key.

use std::path::Path;

use anyhow::{Context, Result};

use crate::cli::explain::step::Because;
use crate::config::places::Places;
use crate::config::{Config, UpstreamConfig};
use crate::proxy::context::instance_name;
use crate::route::id::RouteId;
use crate::route::{Router, Rule};

/// A configuration with its places.
pub(super) struct Setting {
    pub(super) config: Config,
    pub(super) via: String,
    pub(super) router: Router,
    places: Option<Places>,
    file: String,
}

/// The place of a route in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteAt {
    /// A route of a site, both counted from 0.
    Site(usize, usize),
    /// At the top: the default for hosts without a site.
    Top,
}

impl Setting {
    /// The configuration in a file; `None` when it has errors, which are then on stderr.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub(super) fn of_file(file: &Path) -> Result<Option<Self>> {
        let name = file.display().to_string();
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read \"{name}\""))?;
        match Config::load(file, &text) {
            Ok(config) => {
                let places = Places::of(file, &text).ok();
                let (via, router) = (instance_name(&config), Router::new(&config));
                Ok(Some(Self { via, router, config, places, file: name }))
            }
            Err(errors) => {
                eprintln!("{errors}");
                Ok(None)
            }
        }
    }

    /// The configuration of a ktrix that was started without a file, with its cache in a directory.
    ///
    /// # Errors
    ///
    /// When there is no such configuration.
    pub(super) fn of_dir(dir: &Path) -> Result<Self> {
        let config = Config::from_flags(&[] as &[&str], "http://127.0.0.1", Some(dir))?;
        let (via, router) = (instance_name(&config), Router::new(&config));
        Ok(Self { via, router, config, places: None, file: String::new() })
    }

    /// Whether it was read from a file.
    pub(super) fn has_file(&self) -> bool {
        self.places.is_some()
    }

    /// The place of a rule of the router.
    pub(super) fn route_at(&self, route: RouteId) -> RouteAt {
        let mut n_left = self.router.number(route);
        for (site, config) in self.config.sites.iter().enumerate() {
            if n_left < config.routes.len() {
                return RouteAt::Site(site, n_left);
            }
            n_left -= config.routes.len();
        }
        RouteAt::Top
    }

    /// The pattern of a site that matches a host, and its key.
    pub(super) fn host_pattern(&self, site: usize, host: &[u8]) -> (String, String) {
        let hosts = self.config.sites.get(site).map(|site| site.hosts.as_slice());
        let taken = hosts.unwrap_or_default().iter().enumerate();
        let taken = taken.filter(|(_, pattern)| pattern.rank(host).is_some());
        // The router chose the site; the narrowest of its patterns that matches is named.
        match taken.max_by_key(|(_, pattern)| pattern.rank(host)) {
            Some((n, pattern)) => (pattern.to_string(), format!("sites[{site}].hosts[{n}]")),
            None => ("any host".to_owned(), format!("sites[{site}]")),
        }
    }

    /// The upstream of a route.
    pub(super) fn upstream(&self, rule: &Rule) -> Option<&UpstreamConfig> {
        self.config.upstreams.get(rule.destination.upstream()?.0)
    }

    /// The setting for a route: the narrowest of its own key, its site's and the top's.
    pub(super) fn about(&self, at: RouteAt, key: &str, at_top: &str) -> Because {
        self.because_of(&match at {
            RouteAt::Site(site, route) => vec![
                format!("sites[{site}].routes[{route}].{key}"),
                format!("sites[{site}].{key}"),
                at_top.to_owned(),
            ],
            RouteAt::Top => vec![at_top.to_owned()],
        })
    }

    /// The setting for how a route caches.
    pub(super) fn about_cache(&self, at: RouteAt, key: &str) -> Because {
        let top = format!("cache.rules.{key}");
        self.about(at, &format!("cache.{key}"), &top)
    }

    /// The first of these keys that is set, else the default of the last one.
    pub(super) fn because_of(&self, keys: &[String]) -> Because {
        let said = self.places.as_ref().and_then(|it| it.first(keys.iter().map(String::as_str)));
        match said {
            Some(said) => {
                let file = self.places.as_ref().filter(|_| said.place.file > 0);
                let file = file.map(|places| places.file_of(said.place).display().to_string());
                let file = file.unwrap_or_else(|| self.file.clone());
                Because::Config { file, line: said.place.line, key: said.key }
            }
            None => Because::Default(keys.last().cloned().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::asked::Asked;

    const TEXT: &str = "\
cache: {path: /c, rules: {ttl-max: 1h}}
upstream: 10.0.0.1
upstreams: {app: {servers: [10.0.0.2]}}
sites:
  - hosts: [a.example, '*.example']
    upstream: app
    cache: {ttl-min: 5s}
    routes:
      - path: /x
        cache: {ttl-min: 7s}
      - path: /y
  - hosts: [b.test]
    upstream: app
";

    fn setting() -> Setting {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TEXT).unwrap();
        Setting::of_file(file.path()).unwrap().unwrap()
    }

    /// The line with the setting for the route of a host and path.
    fn line(setting: &Setting, host: &str, path: &str, key: &str) -> Option<u32> {
        let route = setting.router.find(&Asked::of_url(host.as_bytes(), path.as_bytes())).unwrap();
        match setting.about_cache(setting.route_at(route), key) {
            Because::Config { line, .. } => Some(line),
            Because::Default(_) => None,
            Because::Rfc(section) => panic!("{section}"),
        }
    }

    #[test]
    fn the_narrowest_line_is_named() {
        let setting = setting();
        for (host, path, key, expected) in [
            ("a.example", "/x", "ttl-min", Some(10)),
            ("a.example", "/y", "ttl-min", Some(7)),
            ("a.example", "/z", "ttl-min", Some(7)),
            ("b.test", "/", "ttl-min", None),
            ("b.test", "/", "ttl-max", Some(1)),
            ("nobody.test", "/", "ttl-max", Some(1)),
            ("nobody.test", "/", "ttl-min", None),
        ] {
            assert_eq!(line(&setting, host, path, key), expected, "{host}{path} {key}");
        }
    }

    #[test]
    fn a_rule_is_found_among_the_routes_of_all_sites() {
        let setting = setting();
        let at = |host: &str, path: &str| {
            setting.route_at(
                setting.router.find(&Asked::of_url(host.as_bytes(), path.as_bytes())).unwrap(),
            )
        };
        assert_eq!(at("a.example", "/x/1"), RouteAt::Site(0, 0));
        assert_eq!(at("c.example", "/y"), RouteAt::Site(0, 1));
        assert_eq!(at("a.example", "/z"), RouteAt::Site(0, 2));
        assert_eq!(at("b.test", "/z"), RouteAt::Site(1, 0));
        assert_eq!(at("nobody.test", "/z"), RouteAt::Top);
        assert_eq!(setting.host_pattern(0, b"c.example").1, "sites[0].hosts[1]");
        assert_eq!(setting.host_pattern(0, b"a.example").0, "a.example");
    }
}
