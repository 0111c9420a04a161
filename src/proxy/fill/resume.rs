//! The rest of an answer whose fill gave up storing it: the disk is full, or it is too large.
//!
//! The leader of the fill goes on with the origin's answer. A follower asks for the whole once more
//! and compares it, byte by byte, with what it has sent already, which the fill's file still holds.
//! It sends the rest only if all these bytes are the same.

use std::ops::Range;

use crate::cache::fill_object::FillObject;
use crate::http::fields::Fields;
use crate::http::status::Status;
use crate::origin::fetch::Response;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::Client;
use crate::proxy::progress::Handover;

/// Goes on with an answer from the offset `at` of its body. The client gets the bytes in the
/// window, and has all of them before `at`.
pub(crate) async fn finish_with_handover<C: Client>(
    client: &mut C,
    handover: Handover,
    at: u64,
    window: Range<u64>,
) -> Result<(), CloseReason> {
    let trailers = send_handover(client, handover, at, window).await?;
    client.finish(&trailers).await
}

/// As [`finish_with_handover`], without the end of the answer; gives the trailers.
pub(crate) async fn send_handover<C: Client>(
    client: &mut C,
    mut handover: Handover,
    mut at: u64,
    window: Range<u64>,
) -> Result<Fields, CloseReason> {
    let mut more = true;
    loop {
        let read = &handover.read;
        let place = |wanted: u64| {
            usize::try_from(wanted.saturating_sub(at)).unwrap_or(usize::MAX).min(read.len())
        };
        let (start, end) = (place(window.start), place(window.end));
        client.send(read.get(start..end).unwrap_or_default()).await?;
        at = at.saturating_add(read.len() as u64);
        if at >= window.end {
            return Ok(Fields::new());
        }
        if !more && window.end == u64::MAX {
            return Ok(handover.response.body.take_trailers());
        }
        if !more {
            return break_off(client);
        }
        handover.read.clear();
        more = loop {
            let body = &mut handover.response.body;
            match body.take(&mut handover.read) {
                Ok(true) if handover.read.is_empty() => {
                    // The origin may pause: the client gets what there is.
                    client.flush().await?;
                    if handover.response.body.wait().await.is_err() {
                        return break_off(client);
                    }
                }
                Ok(more) => break more,
                Err(_) => return break_off(client),
            }
        };
    }
}

/// Goes on with an answer of which the client has `sent` bytes, from another answer to the same
/// question.
pub(crate) async fn finish_with_refetch<C: Client>(
    client: &mut C,
    object: &FillObject,
    sent: u64,
    mut response: Response,
) -> Result<(), CloseReason> {
    if response.head.status != object.status || object.status != Status(200) {
        return break_off(client);
    }
    let mut at = 0;
    let mut read = Vec::new();
    while at < sent {
        read.clear();
        let Ok(more) = response.body.next(&mut read).await else { return break_off(client) };
        let overlap = read.len().min(usize::try_from(sent - at).unwrap_or(usize::MAX));
        if !object.has_bytes(at, &read[..overlap]).await || (!more && at + (overlap as u64) < sent)
        {
            return break_off(client);
        }
        at += overlap as u64;
        read.drain(..overlap);
        if !more {
            client.send(&read).await?;
            return client.finish(&Fields::new()).await;
        }
    }
    finish_with_handover(client, Handover { response, read }, sent, sent..u64::MAX).await
}

fn break_off<C: Client, T>(client: &mut C) -> Result<T, CloseReason> {
    client.abort();
    Err(CloseReason::Incomplete)
}
