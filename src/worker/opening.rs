//! The beginning of a connection, before its first request.
//!
//! ```text
//! accept ─▶ PROXY header, if the listener takes one ─┬─▶ TLS handshake, if it has TLS ────────┬─▶ Opened
//!                                                    └─▶ ClientHello, if a stream has names ─┘
//! ```

use std::rc::Rc;

use crate::config::{Listen, ListenMode};
use crate::http::proxy_protocol::ProxyHeader;
use crate::metrics::table::Metric;
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::handshake::HandshakeEnd;
use crate::proxy::client::front::Front;
use crate::proxy::context::Context;
use crate::proxy::tcp::Shown;
use crate::reactor;
use crate::reactor::address::PeerAddress;
use crate::reactor::stream::Stream;
use crate::shared::meter;
use crate::tls::handshake::{self, Refused, Secured};
use crate::tls::server::{Protocol, Server};
use crate::tls::turns::Turns;
use crate::transport::Transport;
use crate::upstream::ids::UpstreamId;
use crate::worker::hello;
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
    /// By bytes that go to this upstream, or nowhere for this reason.
    Bytes(Result<UpstreamId, CloseReason>, Shown),
}

fn end_of(accepted: &Result<Secured, Refused>) -> HandshakeEnd {
    match accepted {
        Ok(secured) if secured.is_resumed => HandshakeEnd::Resumed,
        Ok(_) => HandshakeEnd::Full,
        Err(refused) => refused.end(),
    }
}

impl Opening {
    /// Whether every connection is open as soon as it is accepted.
    pub(super) fn is_at_once(&self) -> bool {
        self.listen.proxies.is_empty() && self.tls.is_none() && !self.reads_names()
    }

    /// Whether the name in the ClientHello chooses the upstream.
    fn reads_names(&self) -> bool {
        !self.listen.targets.names.is_empty()
    }

    /// A connection that is open as soon as it is accepted.
    pub(super) fn at_once(&self, stream: Stream, peer: PeerAddress) -> Opened {
        let front = self.front(&stream, peer);
        let speaks = match self.listen.mode {
            ListenMode::Tcp => self.bytes(Shown::default()),
            _ => Speaks::Http1,
        };
        Opened { transport: Transport::plain(stream), front, speaks }
    }

    /// The bytes of a client that has shown its name.
    fn bytes(&self, shown: Shown) -> Speaks {
        let upstream = self.listen.targets.of(&shown.name);
        Speaks::Bytes(upstream.ok_or(CloseReason::UnknownName), shown)
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
        let timeout_ms = self.context.config.timeouts.tls_handshake.as_millis() as u64;
        let deadline_ms = reactor::now().mono_ms() + timeout_ms;
        let mode = self.listen.mode;
        let Some(server) = &self.tls else {
            let speaks = match mode {
                ListenMode::Tcp => self.named(&stream, deadline_ms).await,
                _ => Speaks::Http1,
            };
            return Some(Opened { transport: Transport::plain(stream), front, speaks });
        };
        let accepted = handshake::accept(stream, server, &self.turns, deadline_ms).await;
        meter::count(Metric::Handshakes.at(end_of(&accepted) as usize));
        match accepted {
            Ok(Secured { stream, session, facts, protocol, .. }) => {
                let speaks = match (mode, protocol) {
                    (ListenMode::Tcp, _) => {
                        self.bytes(Shown { name: facts.server_name.clone(), ..Shown::default() })
                    }
                    (_, Protocol::Http1) => Speaks::Http1,
                    (_, Protocol::Http2) => Speaks::Http2,
                };
                let (transport, front) =
                    (Transport::secured(stream, session), front.secured(facts));
                Some(Opened { transport, front, speaks })
            }
            Err(Refused::Plain(stream, first)) if mode.speaks_http() => {
                let transport = Transport::plain(stream);
                Some(Opened { transport, front, speaks: Speaks::Clear(first) })
            }
            Err(error) if error.is_of_certificate() => {
                ::log::info!("refused the certificate of the client {}: {error}", front.peer);
                None
            }
            Err(error) => {
                ::log::debug!("TLS handshake with {} failed: {error}", front.peer);
                None
            }
        }
    }

    /// The bytes of a stream, by the name in its ClientHello if names are configured.
    async fn named(&self, stream: &Stream, deadline_ms: u64) -> Speaks {
        let mut shown = Shown::default();
        if !self.reads_names() {
            return self.bytes(shown);
        }
        match hello::receive(stream, deadline_ms, &mut shown.ahead).await {
            Ok(name) => self.bytes(Shown { name, ..shown }),
            Err(reason) => Speaks::Bytes(Err(reason), shown),
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
        meter::count(Metric::Closed.at(reason as usize));
        if reason != CloseReason::ClientClosed {
            let now_ms = reactor::now().mono_ms();
            self.refusals.note(reason, peer, &self.listen.address, now_ms);
        }
    }
}
