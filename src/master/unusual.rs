//! Warnings about a valid configuration that is hardly meant so: a cache that its disk has no room for, a
//! public address that serves every name, workers that run as root.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::ifaddrs::getifaddrs;

use crate::base::units::format_size;
use crate::cache::index::reader::IndexReader;
use crate::config::{CacheConfig, Config, ListenAddress, ListenMode};
use crate::master::access_check::Problem;
use crate::sys::file;
use crate::sys::privileges;

/// All that is unusual.
pub(crate) fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |keys, message| problems.push(Problem { keys, message });
    if config.user.is_none() && privileges::is_root() {
        add(&[], "the workers run as root (add a line like \"user: ktrix\")".to_owned());
    }
    if let Some(message) = config.cache.as_ref().and_then(shortage) {
        add(&["cache.size", "cache.path", "cache"], message);
    }
    if config.sites.is_empty() && config.default_upstream.is_some() {
        let addresses = config.listen.iter().filter(|it| it.mode == ListenMode::Http);
        let public = addresses.filter(|it| is_public(&it.address)).map(|it| it.address.to_string());
        let public: Vec<_> = public.collect();
        if !public.is_empty() {
            let addresses = public.join(", ");
            let message = format!(
                "{addresses} can be reached from everywhere and answers for any host, as there are no sites \
                 (name the hosts, as in \"sites: [{{hosts: www.example.com}}]\")"
            );
            add(&["listen", "upstream"], message);
        }
    }
    problems
}

/// A cache on the root file system that could fill it.
fn shortage(cache: &CacheConfig) -> Option<String> {
    let there = cache.path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    if fs::metadata(there).ok()?.dev() != fs::metadata("/").ok()?.dev() {
        return None;
    }
    let stored = IndexReader::open(&cache.path).map_or(0, |index| index.bytes());
    let room = file::free_bytes(there).ok()?.saturating_add(stored);
    (room < cache.size_bytes).then(|| {
        format!(
            "the cache may grow to {}, but the root file system, where it is, has room for {} MiB \
             (make it smaller, or give it a file system of its own)",
            format_size(cache.size_bytes),
            room >> 20
        )
    })
}

/// Whether hosts of other networks may reach the address; "all addresses" are those of this machine.
fn is_public(address: &ListenAddress) -> bool {
    let ListenAddress::Ip(address) = address else { return false };
    if !address.ip().is_unspecified() {
        return is_global(address.ip());
    }
    let addresses = getifaddrs().into_iter().flatten().filter_map(|it| it.address);
    let ips = addresses.filter_map(|it| {
        let v4 = it.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
        v4.or_else(|| it.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())))
    });
    ips.filter(|ip| ip.is_ipv4() == address.is_ipv4()).any(is_global)
}

/// Whether the address is one of the Internet.
fn is_global(address: IpAddr) -> bool {
    let is_shared = |ip: Ipv4Addr| ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
    let is_inner_v4 = |ip: Ipv4Addr| {
        let is_bound = ip.is_loopback() || ip.is_link_local() || ip.is_unspecified();
        is_bound || ip.is_private() || is_shared(ip) || ip.is_multicast() || ip.is_broadcast()
    };
    let is_inner_v6 = |ip: Ipv6Addr| {
        let is_bound = ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified();
        is_bound || ip.is_unique_local() || ip.is_multicast()
    };
    match address {
        IpAddr::V4(ip) => !is_inner_v4(ip),
        IpAddr::V6(ip) => !ip.to_ipv4_mapped().map_or_else(|| is_inner_v6(ip), is_inner_v4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<&'static str> {
        let config = Config::load_for(Path::new("k"), text, 1).unwrap();
        let found = problems(&config).into_iter();
        found.filter_map(|problem| problem.keys.first().copied()).collect()
    }

    #[test]
    fn a_public_address_needs_sites_and_others_do_not() {
        let public = "listen: 203.0.113.1:80\nupstream: 10.0.0.1\n";
        assert_eq!(keys(public), ["listen"]);
        assert_eq!(
            keys(
                &format!(
                    "{public}sites: [{{hosts: x, upstream: a}}]\nupstreams: {{a: {{servers: b}}}}\n"
                )
                .replace("upstream: 10.0.0.1\n", "")
            ),
            [""; 0]
        );
        for address in [
            "127.0.0.1:80", "10.1.2.3:80", "100.64.0.1:80", "\"[fe80::1]:80\"", "\"[fd00::1]:80\"",
            "\"unix:/s\"",
        ] {
            assert_eq!(keys(&public.replace("203.0.113.1:80", address)), [""; 0], "{address}");
        }
    }

    #[test]
    fn a_cache_without_room_on_the_root_file_system_is_unusual() {
        let of = |size: &str, path: &str| {
            keys(&format!(
                "cache: {{path: {path}, size: {size}}}\nlisten: 127.0.0.1:1\nupstream: a\n"
            ))
        };
        assert_eq!(of("512 TiB", "/no-such-directory/cache"), ["cache.size"]);
        assert_eq!(of("1 MiB", "/no-such-directory/cache"), [""; 0]);
        assert_eq!(of("512 TiB", "/proc/no-such-directory"), [""; 0]);
    }
}
