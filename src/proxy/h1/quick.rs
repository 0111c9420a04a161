//! The hot path: from the bytes of a request's head to the bytes of its answer without a wait and
//! without a file, and without parsing if the same bytes were answered before.

use std::rc::Rc;

use crate::cache::hot::{Body, HotObject};
use crate::http::head::RequestHead;
use crate::policy::reason::close::CloseReason;
use crate::proxy::context::Context;
use crate::proxy::finish::{Asked, Sent, finish};
use crate::proxy::h1::link::Link;
use crate::proxy::hot_hit;
use crate::proxy::routed::{Routed, Way};
use crate::reactor;

/// The outcome of the hot path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quick {
    /// It needs an exchange.
    No,
    /// Its answer is written or due, and the connection goes on.
    Answered,
    /// Its answer is written or due, and is the last one on this connection.
    Last,
}

impl Quick {
    fn of(head: &RequestHead) -> Self {
        if head.wants_keep_alive() { Self::Answered } else { Self::Last }
    }
}

/// Answers a request head whose bytes are an alias of a hot object.
///
/// `is_last` is set if no more of the client's bytes are at hand; the answer is then written from
/// the hot object, without a copy.
pub(super) fn answer_raw(
    context: &Context,
    link: &mut Link,
    raw: &[u8],
    is_last: bool,
) -> Result<Quick, CloseReason> {
    let Some(cache) = &context.cache else { return Ok(Quick::No) };
    let hot = cache.hot.borrow();
    let Some(alias) = hot.find_raw(link.connection().front.lane, raw) else { return Ok(Quick::No) };
    let now_s = reactor::now().unix_s();
    let has_marker = alias.marker.is_none_or(|marker| cache.is_in_use(marker));
    if !has_marker || !alias.object.is_fresh(now_s) || !cache.is_current(&alias.object) {
        return Ok(Quick::No);
    }
    send_hit(context, link, (&alias.head, alias.site), &alias.object, now_s, is_last)?;
    Ok(Quick::of(&alias.head))
}

/// Answers a request with the whole of a hot object, if it asks for that.
pub(super) fn answer_parsed(
    context: &Context,
    link: &mut Link,
    routed: &Routed,
    raw: &[u8],
    is_last: bool,
) -> Result<Quick, CloseReason> {
    let head = &routed.head;
    let now_s = reactor::now().unix_s();
    let (Some(cache), Way::Route(route)) = (&context.cache, &routed.way) else {
        return Ok(Quick::No);
    };
    let is_behind_head = |body: &Body| matches!(body, Body::Memory);
    let hit = hot_hit::full_hit(cache, route, head, now_s, is_behind_head);
    let Some((object, marker)) = hit else {
        return Ok(Quick::No);
    };
    send_hit(context, link, (head, routed.site), &object, now_s, is_last)?;
    // A request with `Cache-Control` may accept the object now, but not when it is older. The same
    // bytes from another client may have another route.
    if !head.fields.contains("cache-control")
        && !head.fields.contains("pragma")
        && !route.rule.depends_on_client
    {
        let lane = link.connection().front.lane;
        cache.hot.borrow_mut().add_alias(lane, raw, (head.clone(), routed.site), &object, marker);
    }
    Ok(Quick::of(head))
}

fn send_hit(
    context: &Context,
    link: &mut Link,
    (head, site): (&RequestHead, u32),
    object: &Rc<HotObject>,
    now_s: u64,
    is_last: bool,
) -> Result<(), CloseReason> {
    let end = |link: &Link, len: usize| {
        let close = (!head.wants_keep_alive()).then_some(CloseReason::Finished);
        let facts = hot_hit::facts(object, site, close);
        let sent = Sent { body_bytes: object.body_len, bytes: len as u64 };
        let front = &link.connection().front;
        let told = front.told_by(&head.fields, &context.config.trusted_proxies);
        finish(context, told.as_ref().unwrap_or(front), Asked::Head(head), &facts, sent);
    };
    if !head.wants_keep_alive() {
        return object.with_parts(now_s, |head, body| {
            end(link, head.len() + CLOSE.len() + body.len());
            link.out.reserve(head.len() + CLOSE.len() + body.len());
            link.out.extend_from_slice(head);
            link.out.extend_from_slice(CLOSE);
            link.out.extend_from_slice(body);
            link.flush_now()
        });
    }
    object.with_answer(now_s, |bytes| {
        end(link, bytes.len());
        if is_last {
            return link.write_now(bytes);
        }
        link.out.extend_from_slice(bytes);
        Ok(())
    })
}

/// The end of the head of the last answer on a connection.
const CLOSE: &[u8] = b"Connection: close\r\n\r\n";
