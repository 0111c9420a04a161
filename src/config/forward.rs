//! The requests that the clients of a forward proxy may make.
//!
//! Two questions are asked of a destination: before a name is looked up, whether its host and port are
//! allowed; and of each address that the name has, whether ktrix may connect to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::config::host::HostPattern;
use crate::config::network::Network;
use crate::config::users::Users;

/// The settings of all listeners that are forward proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardConfig {
    /// The clients that may use it.
    pub clients: Vec<Network>,
    /// The users, if a client must be one of them.
    pub users: Option<Users>,
    /// The ports of requests for http.
    pub ports: Vec<u16>,
    /// The ports of tunnels.
    pub connect_ports: Vec<u16>,
    /// The hosts that may be asked; none for any.
    pub hosts: Vec<HostPattern>,
    /// The addresses that ktrix does not connect to.
    pub deny: Vec<Denied>,
    /// Whether requests and responses say that they passed ktrix.
    pub via: bool,
    /// Whether requests name their client.
    pub forwarded: bool,
    /// The most destinations that a worker has connections to.
    pub destinations: usize,
    /// The most connections of a worker to one destination.
    pub connections: usize,
    /// The time for which the addresses of a name are used.
    pub resolve: Duration,
}

/// Addresses that ktrix does not connect to for a client of a forward proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Networks that are not part of the Internet: RFC 1918, RFC 4193, RFC 6598 and others.
    Private,
    /// This machine, also by its unspecified address.
    Loopback,
    /// RFC 3927 and RFC 4291 section 2.5.6.
    LinkLocal,
    /// One network.
    Network(Network),
}

impl ForwardConfig {
    /// Whether requests for a host may be forwarded. The host is in lower case, and an IPv6 address is
    /// in brackets.
    pub fn allows_host(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|it| it.rank(host.as_bytes()).is_some())
    }

    /// Whether ktrix may connect to an address. No server has a multicast or broadcast address. The
    /// forms of IPv6 that carry an IPv4 address are judged by that too.
    pub fn allows_address(&self, address: IpAddr) -> bool {
        let carried = match address {
            IpAddr::V6(address) => carried_ipv4(address),
            IpAddr::V4(_) => None,
        };
        let is_denied = |address: IpAddr| {
            is_of_no_server(address) || self.deny.iter().any(|denied| denied.contains(address))
        };
        !is_denied(address) && !carried.is_some_and(|address| is_denied(IpAddr::V4(address)))
    }
}

impl Denied {
    /// Whether an address is one of these.
    fn contains(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::Network(network), address) => network.contains(Some(address), false),
            (Self::Loopback, address) => address.is_loopback() || address.is_unspecified(),
            (Self::LinkLocal, IpAddr::V4(address)) => address.is_link_local(),
            (Self::LinkLocal, IpAddr::V6(address)) => address.is_unicast_link_local(),
            (Self::Private, IpAddr::V4(address)) => {
                PRIVATE.iter().any(|(first, n_bits)| begins_with(address, *first, *n_bits))
            }
            (Self::Private, IpAddr::V6(address)) => {
                // The second are the site-local addresses that RFC 3879 has withdrawn.
                let [first, second, third, ..] = address.segments();
                // RFC 8215: translated within a network, in several forms.
                let is_translated = [first, second, third] == [0x64, 0xff9b, 1];
                address.is_unique_local() || first & 0xffc0 == 0xfec0 || is_translated
            }
        }
    }
}

/// The networks of IPv4 that are not part of the Internet (RFC 6890), without those of the machine and
/// of the link.
const PRIVATE: [(Ipv4Addr, u32); 9] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (Ipv4Addr::new(255, 255, 255, 255), 32),
];

fn begins_with(address: Ipv4Addr, network: Ipv4Addr, n_bits: u32) -> bool {
    (address.to_bits() ^ network.to_bits()).leading_zeros() >= n_bits
}

fn is_of_no_server(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// The IPv4 address that packets to an IPv6 address may reach: mapped and compatible (RFC 4291),
/// translated (RFC 6052, RFC 8215), and tunnelled (RFC 3056, RFC 4380).
fn carried_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let ipv4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    let [.., high, low] = segments;
    match segments {
        [0, 0, 0, 0, 0, 0, ..] if !address.is_loopback() && !address.is_unspecified() => {
            Some(ipv4(high, low))
        }
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(ipv4(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Some(ipv4(high, low)),
        [0x2002, high, low, ..] => Some(ipv4(high, low)),
        [0x2001, 0, ..] => Some(ipv4(!high, !low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(deny: Vec<Denied>) -> ForwardConfig {
        ForwardConfig {
            clients: Vec::new(),
            users: None,
            ports: vec![80],
            connect_ports: vec![443],
            hosts: Vec::new(),
            deny,
            via: true,
            forwarded: false,
            destinations: 1,
            connections: 1,
            resolve: Duration::from_secs(30),
        }
    }

    #[test]
    fn addresses_inside_are_denied_in_every_form() {
        let all = config(vec![Denied::Private, Denied::Loopback, Denied::LinkLocal]);
        for inside in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
            "192.0.0.8",
            "198.18.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a00:1",
            "64:ff9b:1:a00:0:100:808:808",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "2001:0:4136:e378:8000:63bf:80ff:fffe",
        ] {
            assert!(!all.allows_address(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "192.0.2.1", "8.8.8.8", "172.32.0.1", "172.15.255.255", "100.128.0.1", "11.0.0.0",
            "2001:db8::1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(all.allows_address(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn each_word_denies_its_own_addresses() {
        let denies =
            |denied, address: &str| !config(vec![denied]).allows_address(address.parse().unwrap());
        for (denied, address) in [
            (Denied::Private, "10.0.0.1"),
            (Denied::Loopback, "127.0.0.1"),
            (Denied::LinkLocal, "169.254.0.1"),
        ] {
            for (other, _) in
                [(Denied::Private, ""), (Denied::Loopback, ""), (Denied::LinkLocal, "")]
            {
                assert_eq!(denies(other, address), other == denied, "{other:?} {address}");
            }
        }
        let network = Denied::Network(Network::Ip("192.0.2.0".parse().unwrap(), 24));
        assert!(denies(network, "192.0.2.9") && denies(network, "::ffff:192.0.2.9"));
        assert!(!denies(network, "192.0.3.9"));
        assert!(config(Vec::new()).allows_address("127.0.0.1".parse().unwrap()));
        assert!(!config(Vec::new()).allows_address("224.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_list_of_hosts_allows_no_other() {
        let mut config = config(Vec::new());
        assert!(config.allows_host("any"));
        config.hosts =
            vec![HostPattern::Exact("a.example".into()), HostPattern::Below(".b.example".into())];
        let allowed = ["a.example", "b.example", "x.b.example", "xb.example", "a.example.org"]
            .map(|host| config.allows_host(host));
        assert_eq!(allowed, [true, false, true, false, false]);
    }
}
