//! Passing a response on to one client, while the origin sends it.

use std::io;

use crate::config::buffering::ResponseBuffering;
use crate::http::fields::Fields;
use crate::http::forward;
use crate::http::head::BodyLength;
use crate::origin::body::OriginBody;
use crate::policy::reason::close::CloseReason;
use crate::proxy::backlog::{Backlog, Next};
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::facts::Facts;
use crate::proxy::progress::Handover;
use crate::proxy::respond::{Added, start};
use crate::reactor;
use crate::reactor::pipe::Pipe;
use crate::reactor::spare::Buffer;
use crate::route::Rule;
use crate::sys::pinned::Race;
use crate::upstream::destination::Destination;

/// Relays a response, with the part of its body that was read before.
pub(crate) async fn relay<C: Client>(
    context: &Context,
    client: &mut C,
    handover: Handover,
    rule: &Rule,
    added: &Added,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    let Handover { mut response, read } = handover;
    let mut fields = forward::response_fields(
        &response.head,
        context.via_to(&response.server.destination),
        reactor::now(),
    );
    if let Some(cookie) = &response.set_cookie {
        fields.push(b"Set-Cookie", cookie.as_bytes());
    }
    let length = match (response.head.length, response.head.content_length) {
        (BodyLength::None, Some(len)) => BodyLength::Known(len),
        (length, _) => length,
    };
    start(client, response.head.status, fields, length, added, facts);
    let mut part = Buffer::from(read);
    // Bytes that have arrived go out together with the head.
    match response.body.take(&mut part) {
        Ok(false) => {
            client.push(&part);
            client.finish(&response.body.take_trailers()).await
        }
        Ok(true) => {
            let buffering = buffering(rule, &response.head.fields);
            let backlog = Backlog::new(context, buffering, &rule.limits);
            Box::pin(pass_on(client, &mut response.body, part, backlog)).await
        }
        Err(_) => broken(client),
    }
}

/// How a response is buffered: an origin may say it, as to nginx.
fn buffering(rule: &Rule, fields: &Fields) -> ResponseBuffering {
    let of_route = rule.response_buffering;
    match (of_route, fields.get("x-accel-buffering")) {
        // The server of a forward proxy's client has no say in it.
        _ if matches!(rule.destination, Destination::Address(_)) => of_route,
        (_, Some(b"no")) => ResponseBuffering::Off,
        (ResponseBuffering::Off, Some(b"yes")) => ResponseBuffering::File,
        _ => of_route,
    }
}

/// Passes a body on to its end; `part` has its first bytes.
async fn pass_on<C: Client>(
    client: &mut C,
    body: &mut OriginBody,
    mut part: Buffer,
    mut backlog: Backlog<'_>,
) -> Result<(), CloseReason> {
    let mut next = Next::Bytes;
    loop {
        match next {
            Next::Bytes if part.is_empty() => {
                backlog.beside(body, 0, client.flush()).await?;
                if backlog.is_empty() {
                    wait(client, body).await?;
                }
            }
            Next::Bytes => {
                backlog.beside(body, part.len(), client.send(&part)).await?;
                part.clear();
            }
            Next::End => {
                client.push(&part);
                return client.finish(&body.take_trailers()).await;
            }
            Next::Broken => return broken(client),
        }
        let is_large = body.remaining().is_some_and(|left| left >= Pipe::BODY_BYTES_MIN);
        if is_large && client.takes_pipe() && backlog.is_empty() {
            splice(client, body, &mut backlog).await?;
        }
        next = backlog.next(body, &mut part).await;
    }
}

/// Passes a body on through a pipe, but for its last byte, as far as that is possible and the client
/// takes it as fast as it comes.
async fn splice<C: Client>(
    client: &mut C,
    body: &mut OriginBody,
    backlog: &mut Backlog<'_>,
) -> Result<(), CloseReason> {
    let Ok(mut pipe) = Pipe::take() else { return Ok(()) };
    while backlog.is_empty() {
        match body.fill_pipe(&mut pipe) {
            // The next read finds the end.
            Ok(0) => break,
            Ok(_) => backlog.beside(body, 0, client.send_pipe(&mut pipe)).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                backlog.beside(body, 0, client.flush()).await?;
                if backlog.is_empty() {
                    wait(client, body).await?;
                }
            }
            Err(_) => break,
        }
    }
    pipe.give_back();
    Ok(())
}

/// Waits until the origin has sent more of a body, unless the client leaves.
async fn wait<C: Client>(client: &mut C, body: &mut OriginBody) -> Result<(), CloseReason> {
    match Race::new(body.wait(), client.gone()).await {
        Some(Ok(())) => Ok(()),
        Some(Err(_)) => broken(client),
        None => Err(CloseReason::ClientGone),
    }
}

fn broken<C: Client>(client: &mut C) -> Result<(), CloseReason> {
    client.abort();
    Err(CloseReason::Incomplete)
}
