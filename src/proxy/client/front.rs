//! How a connection came in: its listener, scheme and addresses. It is made once, where the
//! connection is accepted; keys, aliases, forwarding fields and the log read it.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use crate::cache::hot::Lane;
use crate::config::network::Network;
use crate::config::tls::SitePolicy;
use crate::config::{Listen, ListenMode};
use crate::http::fields::Fields;
use crate::http::forwarded;
use crate::http::proxy_protocol::{Told, Version};
use crate::http::scheme::Scheme;
use crate::http::tls::TlsFacts;
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
    /// The address of the peer of the connection.
    pub peer: PeerAddress,
    /// The address of the client: the peer's, unless the peer is a trusted proxy that names another.
    pub client: Option<IpAddr>,
    /// Whether the peer is a proxy whose word counts for client, scheme and host.
    pub is_trusted: bool,
    /// The address that the client connected to; none for a Unix socket.
    pub local: Option<SocketAddr>,
    /// The facts of the connection's TLS, if it has any.
    pub tls: Option<Rc<TlsFacts>>,
}

impl Front {
    /// The front of a connection without TLS. `trusted` are the proxies whose word counts.
    pub fn plain(
        listen: &Rc<Listen>,
        peer: PeerAddress,
        local: Option<SocketAddr>,
        trusted: &[Network],
    ) -> Self {
        let client = peer.ip();
        let is_trusted = trusted.iter().any(|network| network.contains(client, false));
        let lane = lane_of(Lane::PLAIN, listen, is_trusted);
        let (listen, scheme) = (Rc::clone(listen), Scheme::Http);
        Self { listen, scheme, lane, peer, client, is_trusted, local, tls: None }
    }

    /// The same with TLS.
    pub fn secured(self, facts: TlsFacts) -> Self {
        let listener = self.listen.tls.as_ref().map(|tls| tls.policy).unwrap_or_default();
        let lane = Lane::tls(listener, facts.policy);
        let lane = lane_of(lane, &self.listen, self.is_trusted);
        let scheme = match self.listen.mode {
            // The URL says it, and not the way to the proxy.
            ListenMode::Forward => Scheme::Http,
            ListenMode::Http | ListenMode::Tcp | ListenMode::Admin => Scheme::Https,
        };
        Self { scheme, lane, tls: Some(Rc::new(facts)), ..self }
    }

    /// The PROXY header that tells a server of this client and of the request with this id: the protocol
    /// that the server is spoken to by, and the name that the client asked for by TLS, if it may be told.
    pub(crate) fn proxy_header(
        &self,
        version: Version,
        request_id: u128,
        protocol: &[u8],
        authority: &[u8],
    ) -> Rc<[u8]> {
        let client = match self.peer {
            PeerAddress::Ip(peer) if self.peer.ip() == self.client => Some(peer),
            // The port of a client that a proxy names is not known.
            _ => self.client.map(|address| SocketAddr::new(address, 0)),
        };
        let unique_id = format!("{request_id:032x}");
        let told = Told {
            addresses: client.zip(self.local),
            unique_id: unique_id.as_bytes(),
            tls: self.tls.as_deref(),
            protocol,
            authority,
        };
        version.header(&told).into()
    }

    /// Whether a request of this connection may have an answer of a site with this policy of its own,
    /// because the client was asked for its certificate as clients of that site are. RFC 9110 section
    /// 15.5.20 says what else it gets.
    pub fn admits(&self, site: Option<SitePolicy>) -> bool {
        match (&self.tls, &self.listen.tls) {
            (Some(tls), Some(listen)) => tls.policy == site.map_or(listen.policy, |site| site.id),
            _ => !site.is_some_and(|site| site.is_required),
        }
    }

    /// The front of one request as a trusted proxy tells it; `None` if the peer is none.
    pub fn told_by(&self, fields: &Fields, trusted: &[Network]) -> Option<Self> {
        if !self.is_trusted {
            return None;
        }
        let is_trusted = |address| trusted.iter().any(|it| it.contains(Some(address), false));
        let client = forwarded::client(fields, self.peer.ip(), is_trusted);
        let told = forwarded::scheme(fields).filter(|_| self.listen.mode != ListenMode::Forward);
        let scheme = told.unwrap_or(self.scheme);
        Some(Self { client, scheme, ..self.clone() })
    }
}

/// The lane of the connections of a listener, from trusted proxies or from others.
fn lane_of(lane: Lane, listen: &Listen, is_trusted: bool) -> Lane {
    let lane = if is_trusted { lane.trusted() } else { lane };
    match listen.mode {
        ListenMode::Http | ListenMode::Tcp => lane,
        ListenMode::Forward => lane.forwarding(),
        ListenMode::Admin => lane.admin(),
    }
}
