//! The method PURGE, for the clients that `cache.purge` names.
//!
//! ktrix always answers such a request itself while a cache is configured, even if the cache cannot
//! be opened. No origin ever sees it.

use std::net::IpAddr;

use crate::cache::purge::PurgeError;
use crate::cache::purge::request as purge_request;
use crate::http::head::RequestHead;
use crate::http::status::Status;
use crate::policy::cache_status::CacheStatus;
use crate::policy::purge::request::is_forwarded;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client;
use crate::proxy::client::front::Front;
use crate::proxy::context::Context;
use crate::proxy::exchange::synthetic;
use crate::proxy::facts::Facts;
use crate::proxy::respond::Added;
use crate::route::changed::AskedUrl;

/// Purges what the request names, and answers with the number of the purge.
pub(crate) async fn answer<C: Client>(
    context: &Context,
    client: &mut C,
    request: &RequestHead,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let (status, text, numbers) = purge(context, client.front(), request, facts);
    let number: &[(&str, &str)] = match &numbers {
        Some(numbers) => &[("Ktrix-Purge", numbers)],
        None if status == Status(503) && context.cache.is_some() => &[("Retry-After", "1")],
        None => &[],
    };
    let added = Added::new(CacheStatus::own(), None, None);
    synthetic::answer(client, status, &text, number, &added, facts).await
}

/// Gives the status, the text and, if all purges are done, their numbers.
fn purge(
    context: &Context,
    front: &Front,
    request: &RequestHead,
    facts: &mut Facts,
) -> (Status, String, Option<String>) {
    let address = front.client;
    let configured = context.config.cache.as_ref();
    let is_forwarded = is_forwarded(&request.fields);
    let may =
        configured.is_some_and(|it| it.purge.iter().any(|net| net.contains(address, is_forwarded)));
    if !may {
        facts.reason = purge_request::DENIED;
        // A client behind others may not know its own address.
        let text = format!("{} may not purge (see cache.purge)", named(address));
        return (Status(403), text, None);
    }
    let Some(cache) = &context.cache else {
        let text = "the cache cannot be opened: nothing is purged".to_owned();
        return (Status(503), text, None);
    };
    let keys = context.router.keys_of_url(&AskedUrl::of(front.scheme, request));
    let orders = match purge_request::orders(&keys, front.scheme, request, &named(address)) {
        Ok(orders) => orders,
        Err(refusal) => {
            facts.reason = purge_request::REFUSED;
            return (Status(400), refusal.sentence().to_owned(), None);
        }
    };
    let mut numbers = Vec::new();
    for order in orders {
        match cache.purge(&order) {
            Ok(number) => numbers.push(number),
            Err(error) => {
                ::log::error!("cannot purge {} {}: {error}", order.kind.word(), order.name);
                return (Status(503), unpurged(error, &numbers), None);
            }
        }
    }
    let text = listed(&numbers);
    (Status(200), format!("purge {text}"), Some(text))
}

fn unpurged(error: PurgeError, done: &[u64]) -> String {
    match done {
        [] => format!("nothing is purged: {error}"),
        done => format!("only purge {} is done: {error}", listed(done)),
    }
}

/// The client for people.
fn named(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unix socket".to_owned(), |it| it.to_canonical().to_string())
}

/// The numbers, one by one. Numbers between them may belong to purges of other clients.
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
    use crate::proxy::exchange::run;
    use crate::proxy::routed::Routed;
    use crate::reactor::address::PeerAddress;

    #[test]
    fn only_addresses_in_cache_purge_may_purge() {
        let dir = tempfile::tempdir().unwrap();
        let raw = b"PURGE /a HTTP/1.1\r\nHost: h\r\n\r\n";
        let (head, _) = parse_request(raw, &HeadLimits::default()).unwrap().unwrap();
        let ip = |address: [u8; 4]| PeerAddress::Ip((address, 1).into());
        for (peer, status) in
            [(ip([127, 0, 0, 9]), 503), (ip([192, 0, 2, 1]), 403), (PeerAddress::Unix, 503)]
        {
            let (mut client, mut facts) = (FakeClient::new(), Facts::default());
            client.front.peer = peer;
            client.front.client = peer.ip();
            let text = format!("cache: {}\n", dir.path().display());
            let done = crate::reactor::run(async {
                let context = Rc::new(context(dir.path(), &text));
                let routed = Routed::new(&context, &client.front, head.clone());
                run(&context, &mut client, &routed, &mut facts).await
            });
            assert_eq!(done.unwrap(), Ok(()));
            // The cache of the test cannot be opened.
            assert_eq!((client.status(), client.is_answered()), (status, true), "{peer}");
            assert_eq!(facts.reason, if status == 403 { purge_request::DENIED } else { "" });
        }
    }

    #[test]
    fn only_own_numbers_are_listed() {
        assert_eq!(listed(&[]), "");
        assert_eq!(listed(&[7]), "7");
        assert_eq!(listed(&[1123, 1130, 1143]), "1123, 1130, 1143");
    }
}
