//! A configuration without a file: from the command line's flags, and for the demonstration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use crate::config::address::{LISTEN_PORT, all_addresses, parse_listen, parse_server};
use crate::config::document::Place;
use crate::config::error::{ConfigErrors, Faults};
use crate::config::load::cores;
use crate::config::resolve::upstreams::upstream_at;
use crate::config::resolve::{self, workers_for};
use crate::config::section::Section;
use crate::config::{Config, ErrorSink, Listen, ListenAddress, LogConfig, ServerAddress};
use crate::http::scheme::Scheme;
use crate::upstream::ids::UpstreamId;

impl Config {
    /// `--listen ADDR` (as often as wanted, port 8080 of all addresses without any),
    /// `--upstream URL` and `--cache DIR`. Everything else has its default.
    ///
    /// # Errors
    /// Every invalid flag, by its name.
    pub fn from_flags(
        listen: &[impl AsRef<str>],
        upstream: &str,
        cache: Option<&Path>,
    ) -> Result<Self, ConfigErrors> {
        let mut faults = Faults::of(Path::new(""));
        let mut listens = Vec::new();
        for text in listen {
            match parse_listen(text.as_ref()) {
                Ok(read) => listens.extend(read),
                Err(message) => faults.add(Place::default(), "--listen".to_owned(), message),
            }
        }
        if listen.is_empty() {
            listens = all_addresses(LISTEN_PORT);
        }
        if cache.is_some_and(|path| path.as_os_str().is_empty()) {
            let message = "names no directory (try \"--cache /var/cache/ktrix\")";
            faults.add(Place::default(), "--cache".to_owned(), message);
        }
        match parse_server(upstream, false) {
            Ok(server) => faults.or_value(of_defaults(listens, server, cache)),
            Err(message) => {
                faults.add(Place::default(), "--upstream".to_owned(), message);
                Err(faults.into_errors())
            }
        }
    }

    /// Two workers on a port of this machine in front of one origin, with a small cache in this
    /// directory.
    pub fn demo(cache_dir: &Path, port: u16, origin: SocketAddr) -> Self {
        let address = ListenAddress::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        let listens = vec![Listen::at(address)];
        let mut config = of_defaults(listens, (ServerAddress::Ip(origin), None), Some(cache_dir));
        config.workers = 2;
        config.log.error = ErrorSink::Stderr;
        if let Some(cache) = &mut config.cache {
            cache.size_bytes = 64 << 20;
            cache.object_bytes_max = 32 << 20;
            cache.free_bytes_min = cache.size_bytes / 50;
            cache.objects = 1_000;
            cache.memory_bytes = 8 << 20;
        }
        config
    }
}

/// One server behind some addresses, and every setting at its default.
fn of_defaults(
    listen: Vec<Listen>,
    server: (ServerAddress, Option<Scheme>),
    cache: Option<&Path>,
) -> Config {
    let mut faults = Faults::of(Path::new(""));
    let absent = |schema| Section::absent(schema, String::new(), Place::default());
    let cache = cache.map(|path| resolve::cache_at(&mut faults, &absent("cache"), path.to_owned()));
    Config {
        client_policies: Vec::new(),
        file: None,
        user: None,
        sandbox: true,
        core_dumps: false,
        workers: workers_for(cores()),
        pid: cache.as_ref().map(|cache| cache.path.join("ktrix.pid")),
        via: None,
        listen,
        tickets: resolve::tls::tickets(&mut faults, &absent("tls")),
        acme: None,
        trusted_proxies: Vec::new(),
        log: LogConfig {
            access: None,
            slow: None,
            error: ErrorSink::Auto,
            level: log::LevelFilter::Info,
        },
        cache,
        admin: None,
        forward: None,
        upstreams: vec![upstream_at("default".to_owned(), server)],
        sites: Vec::new(),
        default_upstream: Some(UpstreamId(0)),
        timeouts: resolve::timeouts(&mut faults, &absent("timeouts")),
        limits: resolve::limits(&mut faults, &absent("limits")),
        effective: Rc::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_make_a_whole_configuration() {
        let config = Config::from_flags(&["127.0.0.1:0"], "http://app:81", None).unwrap();
        assert_eq!((config.listen.len(), config.cache, config.pid), (1, None, None));
        assert_eq!(config.upstreams[0].servers[0].address.to_string(), "app:81");
        assert_eq!(config.default_upstream, Some(UpstreamId(0)));

        let none: [&str; 0] = [];
        let config = Config::from_flags(&none, "app", Some(Path::new("/c"))).unwrap();
        assert_eq!(config.listen, all_addresses(LISTEN_PORT));
        assert_eq!(config.pid.as_deref(), Some(Path::new("/c/ktrix.pid")));
        assert!(config.workers >= 1);
    }

    #[test]
    fn flags_and_the_same_file_mean_the_same() {
        let flags = Config::from_flags(&["8080"], "192.168.0.1", Some(Path::new("/c"))).unwrap();
        let text = "cache: /c\nupstream: 192.168.0.1\n";
        let mut file = Config::load_for(Path::new("f"), text, cores());
        if let Ok(config) = &mut file {
            config.file = None;
            config.effective = Rc::default();
        }
        assert_eq!(file, Ok(flags));
    }

    #[test]
    fn bad_flags_are_all_reported() {
        let errors =
            Config::from_flags(&["x", "1.2.3.4:x"], "ftp://a", Some(Path::new(""))).unwrap_err();
        let keys: Vec<_> = errors.0.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(keys, ["--listen", "--listen", "--cache", "--upstream"]);
    }

    #[test]
    fn the_demonstration_stays_on_this_machine() {
        let origin = SocketAddr::from(([127, 0, 0, 1], 9));
        let config = Config::demo(Path::new("/tmp/d"), 8080, origin);
        assert_eq!(config.listen[0].address.to_string(), "127.0.0.1:8080");
        assert_eq!((config.workers, config.upstreams[0].servers.len()), (2, 1));
    }
}
