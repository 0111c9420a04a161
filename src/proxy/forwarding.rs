//! Requests to an origin, as a client's request asks it.

use std::rc::Rc;

use crate::config::ListenMode;
use crate::http::fields::Fields;
use crate::http::forward::{self, Peer};
use crate::http::h1::head;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::method::Method;
use crate::origin::fetch;
use crate::origin::fetch::Question;
use crate::origin::fetch::Response;
use crate::origin::fetch::Tie;
use crate::origin::request::FetchFailure;
use crate::origin::upload::Upload;
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::facts::Facts;
use crate::route::Rule;

/// The fields of a request as they go to an origin.
pub(crate) fn request_fields<C: Client>(
    context: &Context,
    client: &C,
    request: &RequestHead,
    framing: BodyLength,
) -> Fields {
    forward::request_fields(request, &peer(context, client, request), framing)
}

/// The client, the host and the instance that forwarding fields name.
pub(crate) fn peer<'p, C: Client>(
    context: &'p Context,
    client: &'p C,
    request: &'p RequestHead,
) -> Peer<'p> {
    let front = client.front();
    let (via, is_hidden) = match (&context.config.forward, front.listen.mode) {
        (Some(forward), ListenMode::Forward) => (context.via_by(forward), !forward.forwarded),
        _ => (&*context.via, false),
    };
    let peer = Peer::new(front.peer.ip(), front.scheme, request.authority(), via);
    peer.trusted(front.is_trusted).hidden(is_hidden)
}

/// The question to an upstream, as the client's request asks it.
pub(crate) fn question(rule: &Rule, tie: Tie, request: &RequestHead, fields: &Fields) -> Question {
    let target = request.target.path_and_query();
    question_by((rule, tie), request.method, &request.method_text, target, fields)
}

/// As [`question`], but always by GET, for this path and query. Fills ask so, because a response to
/// GET is stored.
pub(crate) fn question_by_get(
    rule: &Rule,
    tie: Tie,
    path_and_query: &[u8],
    fields: &Fields,
) -> Question {
    question_by((rule, tie), Method::Get, b"GET", path_and_query, fields)
}

fn question_by(
    (rule, tie): (&Rule, Tie),
    method: Method,
    method_text: &[u8],
    path_and_query: &[u8],
    fields: &Fields,
) -> Question {
    let mut head = Vec::with_capacity(fields.wire_len() + 256);
    head::write_request(&mut head, method_text, path_and_query, fields);
    let (destination, timeouts) = (rule.destination.clone(), rule.timeouts.origin);
    Question { destination, tie, timeouts, method, head, protocols: Vec::new() }
}

/// Asks the origin for this client alone.
pub(crate) async fn ask<U: Upload>(
    context: &Rc<Context>,
    question: &Question,
    upload: &mut U,
    facts: &mut Facts,
) -> Result<Response, FetchFailure<U::Error>> {
    let response = fetch::fetch(&context.pools, question, upload).await?;
    facts.fetched(&response.times);
    facts.server = Some(response.server.clone());
    Ok(response)
}
