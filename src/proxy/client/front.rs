//! What a connection came in by: made once where it is accepted, and read from there by keys,
//! aliases, forwarding fields and the log.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::cache::hot::Lane;
use crate::config::Listen;
use crate::http::scheme::Scheme;
use crate::reactor::address::PeerAddress;

/// What a connection came in by.
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
    /// That of a connection without TLS.
    pub fn plain(listen: &Rc<Listen>, peer: PeerAddress, local: Option<SocketAddr>) -> Self {
        let (scheme, lane) = (Scheme::Http, Lane::PLAIN);
        Self { listen: Rc::clone(listen), scheme, lane, peer, local }
    }
}
