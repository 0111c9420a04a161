//! Networks: the clients that may do something restricted.
//!
//! | written | clients |
//! | --- | --- |
//! | `local` | `loopback` and `unix`, unless the request comes through a proxy |
//! | `loopback` | 127.0.0.0/8 and ::1 |
//! | `10.0.0.0/8`, `2001:db8::/32` | addresses that begin with these bits |
//! | `10.0.0.1` | this address |
//! | `unix` | the clients of a unix socket that ktrix listens on |

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::error::quoted;

/// A set of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// Addresses that begin with this many bits of this one.
    Ip(IpAddr, u8),
    /// Connections to a unix socket, which have no address.
    Unix,
    /// Loopback and unix sockets, but no request that a proxy on this machine forwards for another.
    Local,
}

impl Network {
    /// Whether all clients of another network belong to this one.
    pub(crate) fn has_all_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ip(_, n_bits), Self::Ip(address, n_other)) => {
                n_bits <= n_other && self.contains(Some(*address), false)
            }
            _ => self == other,
        }
    }

    /// Whether a client with this address belongs to the network; an IPv4-mapped IPv6 address
    /// counts as IPv4. `is_forwarded` says that the request names another client.
    pub fn contains(&self, address: Option<IpAddr>, is_forwarded: bool) -> bool {
        match (self, address.map(|address| address.to_canonical())) {
            (Self::Unix, None) => true,
            (Self::Local, address) => {
                !is_forwarded && address.is_none_or(|address| address.is_loopback())
            }
            (Self::Ip(IpAddr::V4(network), n_bits), Some(IpAddr::V4(address))) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(*n_bits)
            }
            (Self::Ip(IpAddr::V6(network), n_bits), Some(IpAddr::V6(address))) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(*n_bits)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Local => f.write_str("local"),
            Self::Ip(address, 32) if address.is_ipv4() => address.fmt(f),
            Self::Ip(address, 128) => address.fmt(f),
            Self::Ip(address, n_bits) => write!(f, "{address}/{n_bits}"),
        }
    }
}

/// This machine, by its loopback addresses.
pub fn loopback() -> [Network; 2] {
    [
        Network::Ip(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
        Network::Ip(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    ]
}

/// Reads a network; a word may stand for several.
///
/// # Errors
/// Why the text is not a network, with examples of one.
pub fn parse_network(text: &str) -> Result<Vec<Network>, String> {
    match text {
        "loopback" => return Ok(loopback().to_vec()),
        "unix" => return Ok(vec![Network::Unix]),
        "local" => return Ok(vec![Network::Local]),
        _ => {}
    }
    let wrong = |why: &str| {
        Err(format!(
            "{} {why} (try \"10.0.0.0/8\", \"::1\", \"local\", \"loopback\" or \"unix\")",
            quoted(text)
        ))
    };
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else { return wrong("is not a network") };
    let n_bits_max = if address.is_ipv4() { 32 } else { 128 };
    let n_bits = match bits {
        None => n_bits_max,
        // A sign or a leading zero is read as a number by some parsers and not by others.
        Some(bits) if bits.starts_with('+') || bits.len() > 3 => {
            return wrong("has an invalid prefix length");
        }
        Some(bits) => match bits.parse::<u8>() {
            Ok(n_bits) if n_bits <= n_bits_max => n_bits,
            _ => return wrong("has an invalid prefix length"),
        },
    };
    let is_exact = match address {
        IpAddr::V4(address) => address.to_bits().trailing_zeros() + u32::from(n_bits) >= 32,
        IpAddr::V6(address) => address.to_bits().trailing_zeros() + u32::from(n_bits) >= 128,
    };
    if !is_exact {
        return wrong("has bits set beyond its prefix length");
    }
    Ok(vec![Network::Ip(address, n_bits)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in(network: &str, address: &str) -> bool {
        let address = address.parse().ok();
        parse_network(network).unwrap().iter().any(|network| network.contains(address, false))
    }

    #[test]
    fn a_network_contains_the_addresses_with_its_prefix() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.2", false),
            ("0.0.0.0/0", "255.0.0.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:ffff::", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("loopback", "127.5.0.1", true),
            ("loopback", "::1", true),
            ("loopback", "::ffff:127.0.0.1", true),
            ("loopback", "128.0.0.1", false),
            ("unix", "127.0.0.1", false),
        ] {
            assert_eq!(is_in(network, address), expected, "{address} in {network}");
        }
        assert!(Network::Unix.contains(None, false));
        let local = |address: &str, is_forwarded| {
            Network::Local.contains(address.parse().ok(), is_forwarded)
        };
        assert!(local("127.9.9.9", false) && local("::1", false) && local("", false));
        assert!(!local("127.0.0.1", true) && !local("", true) && !local("10.0.0.1", false));
        assert!(loopback().iter().all(|network| !network.contains(None, false)));
    }

    #[test]
    fn a_network_is_written_as_it_is_read() {
        for text in ["unix", "10.0.0.0/8", "10.1.2.3", "2001:db8::/32", "::1", "0.0.0.0/0"] {
            let networks: Vec<_> = parse_network(text).unwrap();
            assert_eq!(networks.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
        }
    }

    #[test]
    fn invalid_networks_are_refused() {
        for text in [
            "", "localhost", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.1/8", "::1/129",
            "10/8",
        ] {
            assert!(parse_network(text).is_err(), "{text}");
        }
    }
}
