//! How a connection came in: its listener, scheme and addresses. It is made once, where the
//! connection is accepted; keys, aliases, forwarding fields and the log read it.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::cache::hot::Lane;
use crate::config::Listen;
use crate::http::scheme::Scheme;
use crate::reactor::address::PeerAddress;

/// How a connection came in.
#[derive(Clone, Debug)]
pub struct Front {
    /// The listener, as configured.
    pub listen: Rc<Listen>,
    /// The scheme of every request on this connection.
    pub scheme: Scheme,
    /// The connections whose requests mean the same by the same bytes.
    pub lane: Lane,
    /// The client's address.
    pub peer: PeerAddress,
    /// The address that the client connected to; none for a Unix socket.
    pub local: Option<SocketAddr>,
}

impl Front {
    /// The front of a connection without TLS.
    pub fn plain(listen: &Rc<Listen>, peer: PeerAddress, local: Option<SocketAddr>) -> Self {
        let (scheme, lane) = (Scheme::Http, Lane::PLAIN);
        Self { listen: Rc::clone(listen), scheme, lane, peer, local }
    }
}
