//! A listener: an address, and what its connections carry.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use crate::config::network::Network;
use crate::config::tcp::TcpTargets;
use crate::config::tls::ListenTls;

/// One address where clients are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    /// The address.
    pub address: ListenAddress,
    /// Whether ktrix starts without it if the kernel does not know its address family. Only the
    /// IPv6 half of "all addresses" is optional; an address that is written out must work.
    pub is_optional: bool,
    /// The content of its connections.
    pub mode: ListenMode,
    /// Where connections go with [`ListenMode::Tcp`].
    pub targets: TcpTargets,
    /// Whether a connection may speak HTTP/2.
    pub http2: bool,
    /// The permissions of a unix socket.
    pub permissions: u32,
    /// The owner of a unix socket, `user`, `user:group` or `:group`; without one it is the master's.
    pub owner: Option<String>,
    /// How clients speak TLS, if they do.
    pub tls: Option<Rc<ListenTls>>,
    /// The peers that must send a PROXY header, and no others may connect; empty without one.
    pub proxies: Vec<Network>,
}

impl ListenMode {
    /// Whether its connections carry requests.
    pub(crate) const fn speaks_http(self) -> bool {
        matches!(self, Self::Http | Self::Forward | Self::Admin)
    }
}

impl Listen {
    /// A listener of an address, without options.
    pub const fn at(address: ListenAddress) -> Self {
        let (permissions, owner, tls) = (SOCKET_PERMISSIONS, None, None);
        Self {
            address,
            is_optional: false,
            mode: ListenMode::Http,
            targets: TcpTargets { default: None, names: Vec::new() },
            http2: true,
            permissions,
            owner,
            tls,
            proxies: Vec::new(),
        }
    }
}

/// The content of the connections of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenMode {
    /// Requests for the sites of the configuration.
    Http,
    /// Bytes that go to a server as they are.
    Tcp,
    /// Requests for any host, as the section `forward` allows them.
    Forward,
    /// Requests for the status of ktrix itself.
    Admin,
}

/// Every user may connect to a unix socket; the directories above it restrict that.
const SOCKET_PERMISSIONS: u32 = 0o666;

/// An address that ktrix listens on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP; port 0 lets the kernel choose.
    Ip(SocketAddr),
    /// The path of a stream socket.
    Unix(PathBuf),
}
