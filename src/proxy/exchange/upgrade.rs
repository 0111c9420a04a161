//! A request to switch the protocol: the origin is asked for this client alone, round the cache. If it
//! agrees, the exchange goes on as a tunnel; else its answer is an ordinary one that is not stored.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::http::forward;
use crate::http::head::BodyLength;
use crate::http::status::Status;
use crate::http::{upgrade, websocket};
use crate::origin::fetch::Response;
use crate::policy::cache_status::{CacheStatus, CacheVerdict};
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::fetch::FetchError;
use crate::policy::reason::pass::PassReason;
use crate::proxy::client::{Client, Switch};
use crate::proxy::exchange::Exchange;
use crate::proxy::forwarding;
use crate::proxy::respond;
use crate::proxy::tunnels;
use crate::proxy::upload::{Received, Whole};
use crate::reactor;
use crate::sys::pinned::Race;
use crate::tunnel::moved::Moved;

impl<C: Client> Exchange<'_, C> {
    pub(super) async fn upgrade(&mut self) -> Result<(), CloseReason> {
        let protocols = upgrade::offered(self.request).unwrap_or_default();
        let mut fields =
            forwarding::request_fields(self.context, self.client, self.request, BodyLength::None);
        upgrade::ask(&mut fields, &protocols);
        let key = upgrade::is_by_connect(self.request).then(|| {
            let [high, low] =
                [(); 2].map(|()| u128::from(RandomState::new().build_hasher().finish()));
            websocket::key(high << 64 | low)
        });
        if let Some(key) = &key {
            fields.set("Sec-WebSocket-Key", key.as_bytes());
        }
        let mut question =
            forwarding::question(&self.route.rule, self.tie(), self.request, &fields);
        question.protocols = protocols;
        let purge_epoch = self.purge_epoch();
        let mut nothing = Received::nothing();
        let mut upload = Whole { client: self.client, body: &mut nothing };
        match forwarding::ask(self.context, &question, &mut upload, self.facts).await {
            Ok(response) if response.head.status == Status::SWITCHING_PROTOCOLS => {
                let accept = response.head.fields.get("sec-websocket-accept");
                match key.as_deref().map(websocket::accept) {
                    Some(expected) if accept != Some(expected.as_bytes()) => {
                        self.failed(FetchError::BadResponse, Some(PassReason::Upgrade.fwd())).await
                    }
                    _ => self.tunnel(response).await,
                }
            }
            asked => self.passed(asked, purge_epoch, PassReason::Upgrade).await,
        }
    }

    /// Gives the client the 101 of the origin, and joins the two until the tunnel ends.
    async fn tunnel(&mut self, response: Response) -> Result<(), CloseReason> {
        let Response { head, body, set_cookie, .. } = response;
        let Some(mut origin) = body.switched() else { return Err(CloseReason::Incomplete) };
        let protocol = head.fields.list("upgrade").collect::<Vec<_>>().join(&b", "[..]);
        let mut fields = forward::response_fields(
            &head,
            self.context.via_to(&self.route.rule.destination),
            reactor::now(),
        );
        if let Some(cookie) = &set_cookie {
            fields.push(b"Set-Cookie", cookie.as_bytes());
        }
        self.facts.verdict = Some(CacheVerdict::Tunnel);
        let added = self.added_with(CacheStatus::own(), None);
        let fields = respond::served(head.status, &mut fields, &added, self.facts);
        let switch = Switch { protocol: Some(&protocol), fields: &fields };
        let (moved, idle) = (Moved::default(), self.route.rule.timeouts.tunnel);
        let route = self.route.rule.id;
        let setting = route.map(|id| self.context.config.place_of_route(id.index()));
        let open = self.context.tunnels.open(setting);
        let tunnel = self.client.tunnel(&switch, origin.side(), idle, &moved);
        let end = Race::new(Box::pin(tunnel), open.ended()).await;
        self.facts.received_bytes = moved.n_to_origin();
        self.facts.tunnel_bytes = moved.n_to_client();
        Err(tunnels::close_reason(end))
    }
}
