//! The beginning of a connection, before its first request.
//!
//! ```text
//! accept ─▶ PROXY header, if the listener has it ─▶ TLS handshake, if the listener has it ─▶ Opened
//! ```

use std::rc::Rc;

use crate::config::Listen;
use crate::http::proxy_protocol::ProxyHeader;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::front::Front;
use crate::proxy::context::Context;
use crate::reactor;
use crate::reactor::address::PeerAddress;
use crate::reactor::stream::Stream;
use crate::tls::handshake::{self, Refused, Secured};
use crate::tls::server::{Protocol, Server};
use crate::tls::turns::Turns;
use crate::transport::Transport;
use crate::worker::proxy_header;
use crate::worker::refusals::Refusals;

/// The listener of a connection that is to be opened, and what all connections share.
pub(super) struct Opening {
    pub(super) context: Rc<Context>,
    pub(super) listen: Rc<Listen>,
    pub(super) tls: Option<Rc<Server>>,
    pub(super) turns: Rc<Turns>,
    pub(super) refusals: Rc<Refusals>,
}

/// A connection that was opened.
pub(super) struct Opened {
    pub(super) transport: Transport,
    pub(super) front: Front,
    pub(super) speaks: Speaks,
}

/// How its client begins.
pub(super) enum Speaks {
    Http1,
    Http2,
    /// In the clear, to a listener with TLS, by these bytes.
    Clear(Vec<u8>),
}

impl Opening {
    /// Whether every connection is open as soon as it is accepted.
    pub(super) fn is_at_once(&self) -> bool {
        self.listen.proxies.is_empty() && self.tls.is_none()
    }

    /// The front of a connection that has told nothing of itself.
    pub(super) fn front(&self, stream: &Stream, peer: PeerAddress) -> Front {
        let local = stream.local_addr().ok().flatten();
        Front::plain(&self.listen, peer, local, &self.context.config.trusted_proxies)
    }

    /// Whether the peer may connect; if not, that is noted.
    pub(super) fn admits(&self, peer: PeerAddress) -> bool {
        let proxies = &self.listen.proxies;
        let is_admitted =
            proxies.is_empty() || proxies.iter().any(|it| it.contains(peer.ip(), false));
        if !is_admitted {
            self.refused(CloseReason::ProxyRefused, peer);
        }
        is_admitted
    }

    /// Opens a connection; `None` if it is to be closed.
    pub(super) async fn open(self: Rc<Self>, stream: Stream, peer: PeerAddress) -> Option<Opened> {
        let front = match self.listen.proxies.is_empty() {
            true => self.front(&stream, peer),
            false => self.told(&stream, peer).await?,
        };
        let Some(server) = &self.tls else {
            let transport = Transport::plain(stream);
            return Some(Opened { transport, front, speaks: Speaks::Http1 });
        };
        let timeout_ms = self.context.config.timeouts.tls_handshake.as_millis() as u64;
        let deadline_ms = reactor::now().mono_ms() + timeout_ms;
        match handshake::accept(stream, server, &self.turns, deadline_ms).await {
            Ok(Secured { stream, session, facts, protocol }) => {
                let (transport, front) =
                    (Transport::secured(stream, session), front.secured(facts));
                let speaks = match protocol {
                    Protocol::Http1 => Speaks::Http1,
                    Protocol::Http2 => Speaks::Http2,
                };
                Some(Opened { transport, front, speaks })
            }
            Err(Refused::Plain(stream, first)) => {
                let transport = Transport::plain(stream);
                Some(Opened { transport, front, speaks: Speaks::Clear(first) })
            }
            Err(error @ (Refused::Io(_) | Refused::Tls(_))) => {
                ::log::debug!("TLS handshake with {} failed: {error}", front.peer);
                None
            }
        }
    }

    /// The front of a connection as its PROXY header tells it. From here on its peer is the client
    /// that the header names: whether that one is trusted decides about its X-Forwarded-For.
    async fn told(&self, stream: &Stream, peer: PeerAddress) -> Option<Front> {
        let timeout_ms = self.context.config.timeouts.client_head.as_millis() as u64;
        let deadline_ms = reactor::now().mono_ms() + timeout_ms;
        let trusted = &self.context.config.trusted_proxies;
        match proxy_header::receive(stream, deadline_ms).await {
            Ok(ProxyHeader::Local) => Some(self.front(stream, peer)),
            Ok(ProxyHeader::Client { source, destination }) => {
                let (client, local) = (PeerAddress::Ip(source), Some(destination));
                Some(Front::plain(&self.listen, client, local, trusted))
            }
            Err(reason) => {
                self.refused(reason, peer);
                None
            }
        }
    }

    fn refused(&self, reason: CloseReason, peer: PeerAddress) {
        if reason != CloseReason::ClientClosed {
            let now_ms = reactor::now().mono_ms();
            self.refusals.note(reason, peer, &self.listen.address, now_ms);
        }
    }
}
