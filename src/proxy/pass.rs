//! Round the cache: ask the origin for this client alone, and pass its answer on.

use std::rc::Rc;

use crate::base::chars;
use crate::http::fields::Fields;
use crate::http::forward::{self, Peer};
use crate::http::h1::write;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::method::Method;
use crate::origin::fetch;
use crate::origin::fetch::Question;
use crate::origin::fetch::Response;
use crate::origin::request::FetchFailure;
use crate::origin::upload::Upload;
use crate::policy::key::components::KeyComponents;
use crate::policy::reason::close::CloseReason;
use crate::policy::rfc9111::revalidate;
use crate::proxy::added::{Added, start};
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::facts::Facts;
use crate::reactor;
use crate::sys::pinned::Race;
use crate::upstream::ids::UpstreamId;

/// The fields of a request as they go to an origin.
pub fn request_fields<C: Client>(client: &C, request: &RequestHead, framing: BodyLength) -> Fields {
    forward::request_fields(request, &peer(client, request), framing)
}

/// The fields of a request by which the origin is asked for what is to be stored: the whole
/// response, and nothing in them that one client says and the key does not hold.
pub fn fill_fields(request: &RequestHead, peer: &Peer<'_>, key: &KeyComponents) -> Fields {
    let mut fields = forward::request_fields(request, peer, BodyLength::None);
    revalidate::ask_for_whole(&mut fields);
    fields.retain(|name, _| !is_unkeyed(name, key));
    if !is_chosen(b"forwarded", key) {
        forward::forget_claims(&mut fields);
    }
    fields
}

/// Who asks, as an origin is told.
pub fn peer<'p, C: Client>(client: &'p C, request: &'p RequestHead) -> Peer<'p> {
    let front = client.front();
    Peer { client: front.peer.ip(), scheme: front.scheme, host: request.authority() }
}

/// Request fields that some origins build answers from though they are in no key: an answer that
/// is stored for all must not be made from one client's. So are those that CGI and its kin cannot
/// tell from them.
pub fn is_unkeyed(name: &[u8], key: &KeyComponents) -> bool {
    UNKEYED.iter().any(|other| chars::eq_as_variable(name, other.as_bytes()))
        && !is_chosen(name, key)
}

/// What proxies before an origin say of the host, scheme, port, path, method and client of a
/// request, beyond what ktrix says itself (see [`forward::request_fields`]).
const UNKEYED: [&str; 48] = [
    "x-forwarded",
    "x-forwarded-base-url",
    "x-forwarded-by",
    "x-forwarded-client-ip",
    "x-forwarded-context",
    "x-forwarded-https",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-forwarded-url",
    "forwarded-for",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-envoy-original-host",
    "x-scheme",
    "x-proto",
    "x-https",
    "x-url-scheme",
    "x-original-scheme",
    "x-original-proto",
    "front-end-https",
    "cloudfront-forwarded-proto",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-script-name",
    "x-envoy-original-path",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-originating-ip",
    "x-remote-addr",
    "x-remote-ip",
    "cf-connecting-ip",
];

/// Whether a field chooses among the variants of a key.
fn is_chosen(name: &[u8], key: &KeyComponents) -> bool {
    key.chosen.as_ref().is_some_and(|chosen| chosen.contains(name))
}

/// Whether an origin that got this request whole saw something that its key leaves out.
pub fn has_unkeyed(request: &RequestHead, key: &KeyComponents) -> bool {
    let target = request.target.path_and_query();
    request.fields.iter().any(|(name, _)| is_unkeyed(name, key))
        || (forward::has_claims(&request.fields) && !is_chosen(b"forwarded", key))
        || *key.origin_target(target) != *target
}

/// What to ask an upstream.
pub fn question(upstream: UpstreamId, request: &RequestHead, fields: &Fields) -> Question {
    let target = request.target.path_and_query();
    question_by(upstream, request.method, &request.method_text, target, fields)
}

/// As [`question`], but by GET whatever the request's method, for this path and query: for what
/// is to be stored.
pub fn question_by_get(upstream: UpstreamId, path_and_query: &[u8], fields: &Fields) -> Question {
    question_by(upstream, Method::Get, b"GET", path_and_query, fields)
}

fn question_by(
    upstream: UpstreamId,
    method: Method,
    method_text: &[u8],
    path_and_query: &[u8],
    fields: &Fields,
) -> Question {
    let mut head = Vec::with_capacity(fields.wire_len() + 256);
    write::write_request(&mut head, method_text, path_and_query, fields);
    Question { upstream, method, head }
}

/// Asks, for this client alone.
pub async fn ask<U: Upload>(
    context: &Rc<Context>,
    question: &Question,
    upload: &mut U,
    facts: &mut Facts,
) -> Result<Response, FetchFailure<U::Error>> {
    let response = fetch::fetch(&context.pools, question, upload).await?;
    facts.connected_us = response.times.requested.mono_us;
    facts.first_byte_us = response.times.received.mono_us;
    facts.server = Some(response.server);
    Ok(response)
}

/// Passes a response on. `read` is the part of its body that was read before.
pub async fn relay<C: Client>(
    client: &mut C,
    mut response: Response,
    read: Vec<u8>,
    added: &Added,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let fields = forward::response_fields(&response.head, reactor::now());
    let length = match (response.head.length, response.head.content_length) {
        (BodyLength::None, Some(len)) => BodyLength::Known(len),
        (length, _) => length,
    };
    start(client, response.head.status, fields, length, added, facts);
    let mut part = read;
    loop {
        // What has come already goes out in one piece with the head.
        match response.body.take(&mut part) {
            Ok(false) => {
                client.push(&part);
                return client.finish(&response.body.take_trailers()).await;
            }
            Ok(true) => {}
            Err(_) => {
                client.abort();
                return Err(CloseReason::Incomplete);
            }
        }
        let is_waiting = part.is_empty();
        client.send(&part).await?;
        part.clear();
        if is_waiting {
            client.flush().await?;
            match Race::new(response.body.wait(), client.gone()).await {
                Some(Ok(())) => {}
                Some(Err(_)) => {
                    client.abort();
                    return Err(CloseReason::Incomplete);
                }
                None => return Err(CloseReason::ClientGone),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::key::vary::VaryNames;

    #[test]
    fn a_field_is_unkeyed_in_every_spelling_that_makes_one_variable() {
        let key = KeyComponents::default();
        for name in ["X-Original-URL", "X_Original_URL", "x_script-name", "TRUE_CLIENT_IP"] {
            assert!(is_unkeyed(name.as_bytes(), &key), "{name}");
        }
        for name in ["Accept", "X-Original-URLs", "X-Forwarded-For", "Accept_Language"] {
            assert!(!is_unkeyed(name.as_bytes(), &key), "{name}");
        }
    }

    #[test]
    fn what_is_in_the_key_is_so_by_its_own_name_only() {
        let chosen = VaryNames::chosen(["x-real-ip"].into_iter(), std::iter::empty());
        let key = KeyComponents { chosen, ..KeyComponents::default() };
        assert!(!is_unkeyed(b"X-Real-IP", &key));
        assert!(is_unkeyed(b"X_Real_IP", &key), "its value is in no key");
    }
}
