//! Requests to an origin, and relaying a response to one client.

use std::io;
use std::rc::Rc;

use crate::http::fields::Fields;
use crate::http::forward::{self, Peer};
use crate::http::h1::head;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::method::Method;
use crate::origin::body::OriginBody;
use crate::origin::fetch;
use crate::origin::fetch::Question;
use crate::origin::fetch::Response;
use crate::origin::fetch::Tie;
use crate::origin::request::FetchFailure;
use crate::origin::upload::Upload;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::facts::Facts;
use crate::proxy::respond::{Added, start};
use crate::reactor;
use crate::reactor::pipe::Pipe;
use crate::reactor::spare::Buffer;
use crate::sys::pinned::Race;
use crate::upstream::ids::UpstreamId;

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
    let peer = Peer::new(front.peer.ip(), front.scheme, request.authority(), &context.via);
    peer.trusted(front.is_trusted)
}

/// The question to an upstream, as the client's request asks it.
pub(crate) fn question(
    upstream: UpstreamId,
    tie: Tie,
    request: &RequestHead,
    fields: &Fields,
) -> Question {
    let target = request.target.path_and_query();
    question_by((upstream, tie), request.method, &request.method_text, target, fields)
}

/// As [`question`], but always by GET, for this path and query. Fills ask so, because a response to
/// GET is stored.
pub(crate) fn question_by_get(
    upstream: UpstreamId,
    tie: Tie,
    path_and_query: &[u8],
    fields: &Fields,
) -> Question {
    question_by((upstream, tie), Method::Get, b"GET", path_and_query, fields)
}

fn question_by(
    (upstream, tie): (UpstreamId, Tie),
    method: Method,
    method_text: &[u8],
    path_and_query: &[u8],
    fields: &Fields,
) -> Question {
    let mut head = Vec::with_capacity(fields.wire_len() + 256);
    head::write_request(&mut head, method_text, path_and_query, fields);
    Question { upstream, tie, method, head }
}

/// Asks the origin for this client alone.
pub(crate) async fn ask<U: Upload>(
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

/// Relays a response. `read` is the part of its body that was read before.
pub(crate) async fn relay<C: Client>(
    context: &Context,
    client: &mut C,
    mut response: Response,
    read: Vec<u8>,
    added: &Added,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let mut fields = forward::response_fields(&response.head, &context.via, reactor::now());
    if let Some(cookie) = &response.set_cookie {
        fields.push(b"Set-Cookie", cookie.as_bytes());
    }
    let length = match (response.head.length, response.head.content_length) {
        (BodyLength::None, Some(len)) => BodyLength::Known(len),
        (length, _) => length,
    };
    start(client, response.head.status, fields, length, added, facts);
    let mut part = Buffer::from(read);
    loop {
        // Bytes that have arrived go out together with the head.
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
        let is_large = response.body.remaining().is_some_and(|left| left >= PIPE_MIN);
        if is_large && client.takes_pipe() && Box::pin(splice(client, &mut response.body)).await? {
            continue;
        }
        if is_waiting {
            client.flush().await?;
            wait(client, &mut response.body).await?;
        }
    }
}

/// A body is moved through a pipe while at least this much of it is to come. For less, the system
/// calls cost more than the copy.
const PIPE_MIN: u64 = 64 << 10;

/// Passes a body on through a pipe, but for its last byte, as far as that is possible; `false` if
/// no byte was passed on.
async fn splice<C: Client>(client: &mut C, body: &mut OriginBody) -> Result<bool, CloseReason> {
    let Ok(mut pipe) = Pipe::take() else { return Ok(false) };
    let mut has_moved = false;
    loop {
        match body.fill_pipe(&mut pipe) {
            // The next read finds the end.
            Ok(0) => break,
            Ok(_) => {
                has_moved = true;
                client.send_pipe(&mut pipe).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                client.flush().await?;
                wait(client, body).await?;
            }
            Err(_) => break,
        }
    }
    pipe.give_back();
    Ok(has_moved)
}

/// Waits until the origin has sent more of a body, unless the client leaves.
async fn wait<C: Client>(client: &mut C, body: &mut OriginBody) -> Result<(), CloseReason> {
    match Race::new(body.wait(), client.gone()).await {
        Some(Ok(())) => Ok(()),
        Some(Err(_)) => {
            client.abort();
            Err(CloseReason::Incomplete)
        }
        None => Err(CloseReason::ClientGone),
    }
}
