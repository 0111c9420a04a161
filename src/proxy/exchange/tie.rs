//! The server that a client belongs to, and what that server is told of the client.

use crate::origin::fetch::Tie;
use crate::proxy::client::Client;
use crate::proxy::exchange::Exchange;

impl<C: Client> Exchange<'_, C> {
    /// For a fetch for this client alone.
    pub(crate) fn tie(&self) -> Tie {
        let tls = self.client.front().tls.as_ref();
        self.tie_with(tls.map_or(b"", |tls| tls.server_name.as_bytes()))
    }

    /// For a fetch whose answer is for all clients. It must not depend on the name that this client
    /// asked for by TLS, which no key has.
    pub(crate) fn tie_of_fill(&self) -> Tie {
        self.tie_with(b"")
    }

    fn tie_with(&self, authority: &[u8]) -> Tie {
        let (front, id) = (self.client.front(), self.facts.request_id);
        let version = self.context.pools.proxy(&self.route.rule.destination);
        let header = version.map(|it| front.proxy_header(it, id, b"http/1.1", authority));
        Tie { client: front.client, server: self.route.sticky, header }
    }
}
