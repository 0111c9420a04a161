//! Round the cache: ask the origin for this client alone, and pass its answer on.

use std::rc::Rc;

use crate::http::fields::Fields;
use crate::http::forward::{self, Peer};
use crate::http::h1::write;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::method::Method;
use crate::policy::parts::KeyParts;
use crate::policy::revalidate;
use crate::policy::status::CacheStatus;
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::facts::{Facts, Stage};
use crate::proxy::failure::CloseReason;
use crate::proxy::fetch::{self, FetchFailure, Question, Response};
use crate::proxy::stored;
use crate::proxy::upload::Upload;
use crate::reactor;
use crate::sys::pinned::Race;

/// The fields of a request as they go to an origin.
pub fn request_fields<C: Client>(client: &C, request: &RequestHead, framing: BodyLength) -> Fields {
    forward::request_fields(request, &peer(client, request), framing)
}

/// The fields of a request by which the origin is asked for what is to be stored: the whole
/// response, and nothing in them that one client says and the key does not hold.
pub fn fill_fields(request: &RequestHead, peer: &Peer<'_>, key: &KeyParts) -> Fields {
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
    Peer { client: client.address(), scheme: client.scheme(), host: request.authority() }
}

/// Request fields that some origins build answers from though they are in no key: an answer that
/// is stored for all must not be made from one client's.
pub fn is_unkeyed(name: &[u8], key: &KeyParts) -> bool {
    const UNKEYED: [&[u8]; 20] = [
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-server",
        b"x-forwarded-scheme",
        b"x-real-ip",
        b"x-host",
        b"x-original-url",
        b"x-rewrite-url",
        b"x-http-method-override",
        b"x-method-override",
        b"x-http-method",
        b"x-http-host-override",
        b"x-original-host",
        b"x-original-uri",
        b"x-forwarded-path",
        b"x-forwarded-uri",
        b"x-forwarded-protocol",
        b"x-forwarded-ssl",
        b"x-url-scheme",
        b"front-end-https",
    ];
    UNKEYED.iter().any(|other| name.eq_ignore_ascii_case(other)) && !is_chosen(name, key)
}

/// Whether a field chooses among the variants of a key.
fn is_chosen(name: &[u8], key: &KeyParts) -> bool {
    key.chosen.as_ref().is_some_and(|chosen| chosen.contains(name))
}

/// Whether an origin that got this request whole saw something that its key leaves out.
pub fn has_unkeyed(request: &RequestHead, key: &KeyParts) -> bool {
    let target = request.target.path_and_query();
    request.fields.iter().any(|(name, _)| is_unkeyed(name, key))
        || (forward::has_claims(&request.fields) && !is_chosen(b"forwarded", key))
        || *key.asked(target) != *target
}

/// What to ask an upstream.
pub fn question(upstream: usize, request: &RequestHead, fields: &Fields) -> Question {
    let target = request.target.path_and_query();
    question_by(upstream, request.method, &request.method_text, target, fields)
}

/// As [`question`], but by GET whatever the request's method, for this path and query: for what
/// is to be stored.
pub fn question_by_get(upstream: usize, path_and_query: &[u8], fields: &Fields) -> Question {
    question_by(upstream, Method::Get, b"GET", path_and_query, fields)
}

fn question_by(
    upstream: usize,
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
) -> Result<Response, FetchFailure> {
    facts.stage = Stage::Fetch;
    let response = fetch::fetch(&context.pools, context.origin, question, upload).await?;
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
    status: &CacheStatus<'_>,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    facts.stage = Stage::Send;
    facts.status = response.head.status.0;
    let fields = forward::response_fields(&response.head, reactor::now());
    let fields = stored::with_cache_status(fields, status);
    let length = match (response.head.length, response.head.content_length) {
        (BodyLength::None, Some(len)) => BodyLength::Known(len),
        (length, _) => length,
    };
    client.start(response.head.status, &fields, length);
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
