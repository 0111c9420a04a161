//! Purging by request: `PURGE URL`, from those who may.
//!
//! It is answered here whatever comes of it, so that no origin ever sees such a request while a
//! cache is configured, be it open or not.

use std::net::IpAddr;

use crate::cache::purge::PurgeError;
use crate::cache::purge::request;
use crate::config::CacheConfig;
use crate::http::status::Status;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client;
use crate::proxy::exchange::Exchange;

impl<C: Client> Exchange<'_, C> {
    /// Purges what the request names, and answers with the number of the purge.
    pub(crate) async fn purge(&mut self, wanted: &CacheConfig) -> Result<(), CloseReason> {
        let address = self.client.front().peer.ip();
        if !wanted.purge.iter().any(|network| network.contains(address)) {
            self.facts.reason = request::DENIED;
            // Its own address, which a client behind others may not know.
            let text = format!("{} may not purge (see cache.purge)", named(address));
            return self.synthetic(Status(403), &text, &[]).await;
        }
        let Some(cache) = &self.context.cache else {
            let text = "the cache cannot be opened: nothing is purged";
            return self.synthetic(Status(503), text, &[]).await;
        };
        let (who, scheme) = (named(address), self.client.front().scheme);
        let router = &self.context.router;
        let key = &router.rules_for(self.request.host(), self.request.target.path()).key;
        let orders = match request::orders(key, scheme, self.request, &who) {
            Ok(orders) => orders,
            Err(refusal) => {
                self.facts.reason = request::REFUSED;
                return self.synthetic(Status(400), refusal.sentence(), &[]).await;
            }
        };
        let mut numbers = Vec::new();
        for order in orders {
            match cache.purge(&order) {
                Ok(number) => numbers.push(number),
                Err(error) => {
                    ::log::error!("cannot purge {} {}: {error}", order.kind.word(), order.name);
                    return self.unpurged(error, &numbers).await;
                }
            }
        }
        let text = listed(&numbers);
        self.synthetic(Status(200), &format!("purge {text}"), &[("Ktrix-Purge", &text)]).await
    }

    async fn unpurged(&mut self, error: PurgeError, done: &[u64]) -> Result<(), CloseReason> {
        let text = match done {
            [] => format!("nothing is purged: {error}"),
            done => format!("only purge {} is done: {error}", listed(done)),
        };
        self.synthetic(Status(503), &text, &[("Retry-After", "1")]).await
    }
}

/// Who asks, for people.
fn named(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unix socket".to_owned(), |it| it.to_canonical().to_string())
}

/// The numbers, one by one: others purge meanwhile, so what is between them need not be ours.
fn listed(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::http::h1::head::{HeadLimits, parse_request};
    use crate::proxy::client::fake::FakeClient;
    use crate::proxy::context::tests::context;
    use crate::proxy::facts::Facts;
    use crate::reactor::address::PeerAddress;

    #[test]
    fn whether_a_client_may_purge_is_told_by_what_it_came_in_by() {
        let dir = tempfile::tempdir().unwrap();
        let raw = b"PURGE /a HTTP/1.1\r\nHost: h\r\n\r\n";
        let (head, _) = parse_request(raw, &HeadLimits::default()).unwrap().unwrap();
        let ip = |address: [u8; 4]| PeerAddress::Ip((address, 1).into());
        for (peer, status) in
            [(ip([127, 0, 0, 9]), 503), (ip([192, 0, 2, 1]), 403), (PeerAddress::Unix, 403)]
        {
            let (mut client, mut facts) = (FakeClient::new(), Facts::default());
            client.front.peer = peer;
            let text = format!("cache: {}\n", dir.path().display());
            let run = crate::reactor::run(async {
                let context = Rc::new(context(dir.path(), &text));
                Exchange::new(&context, &mut client, &head, &mut facts).run().await
            });
            assert_eq!(run.unwrap(), Ok(()));
            // The cache of the test cannot be opened.
            assert_eq!((client.status(), client.is_answered()), (status, true), "{peer}");
            assert_eq!(facts.reason, if status == 403 { request::DENIED } else { "" });
        }
    }

    #[test]
    fn only_own_numbers_are_listed() {
        assert_eq!(listed(&[]), "");
        assert_eq!(listed(&[7]), "7");
        assert_eq!(listed(&[1123, 1130, 1143]), "1123, 1130, 1143");
    }
}
