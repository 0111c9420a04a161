//! Addresses to connect to, and of clients that connected.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// An address that a stream can be connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP.
    Ip(SocketAddr),
    /// A Unix socket in the file system.
    Unix(PathBuf),
}

/// The other end of an accepted stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// TCP.
    Ip(SocketAddr),
    /// A Unix socket; its client has no address.
    Unix,
}

impl PeerAddress {
    /// The IP address; an IPv4-mapped IPv6 address is returned as IPv4.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_one_it_maps() {
        let peer = PeerAddress::Ip("[::ffff:192.0.2.1]:80".parse().unwrap());
        assert_eq!(peer.ip(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(PeerAddress::Unix.ip(), None);
    }

    #[test]
    fn addresses_read_as_they_are_configured() {
        assert_eq!(Address::Unix("/run/app".into()).to_string(), "unix:/run/app");
        assert_eq!(Address::Ip("[::1]:80".parse().unwrap()).to_string(), "[::1]:80");
    }
}
