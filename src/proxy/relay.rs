//! Passing a response on to one client, while the origin sends it.

use std::io;

use crate::http::forward;
use crate::http::head::BodyLength;
use crate::origin::body::OriginBody;
use crate::origin::fetch::Response;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::facts::Facts;
use crate::proxy::respond::{Added, start};
use crate::reactor;
use crate::reactor::pipe::Pipe;
use crate::reactor::spare::Buffer;
use crate::sys::pinned::Race;

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
