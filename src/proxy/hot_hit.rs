//! A hit that needs no wait: the whole of an object in memory answers a request, over any protocol.

use std::rc::Rc;

use crate::cache::Cache;
use crate::cache::hot::{Body, HotObject};
use crate::cache::index::slot::SlotRef;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::method::Method;
use crate::http::version::Version;
use crate::policy::cache_status::CacheVerdict;
use crate::policy::decide::{self, Action, Cached};
use crate::policy::reason::close::CloseReason;
use crate::policy::rfc9111::answer::{self, Answer};
use crate::proxy::facts::Facts;
use crate::proxy::routed::Route;
use crate::reactor;

/// The fresh object in memory that answers this request in full, if there is one and its body is where
/// the caller can send it from.
pub(crate) fn full_hit(
    cache: &Cache,
    route: &Route,
    head: &RequestHead,
    now_s: u64,
    can_send: impl FnOnce(&Body) -> bool,
) -> Option<(Rc<HotObject>, Option<SlotRef>)> {
    let Route { rules, lookup: Ok(primary), changed: None, .. } = route else { return None };
    let is_plain = head.method == Method::Get
        && head.version != Version::Http10
        && head.length == BodyLength::None;
    // A Cache-Status with the key is not part of a rendered head.
    if !is_plain || rules.report.key {
        return None;
    }
    let (object, marker) = cache.find_hot(&rules.key, primary, head)?;
    if !can_send(&object.body) {
        return None;
    }
    let (action, _) = decide::decide(head, Cached::Stored(&object.lifetimes), rules, now_s);
    let is_hit = matches!(action, Action::Answer { verdict: CacheVerdict::Hit, .. });
    let answer = answer::answer(head, object.status, &object.fields, object.body_len);
    if !is_hit || !object.is_fresh(now_s) || !matches!(answer, Answer::Full) {
        return None;
    }
    object.serve_by(rules);
    Some((object, marker))
}

/// The facts of such a hit.
pub(crate) fn facts(object: &Rc<HotObject>, site: u32, close: Option<CloseReason>) -> Facts {
    let now = reactor::turn_began();
    Facts {
        began: now,
        head_us: now.mono_us,
        body_us: now.mono_us,
        hit: Some(Rc::clone(object)),
        site,
        status: object.status.0,
        verdict: Some(CacheVerdict::Hit),
        close,
        ..Facts::default()
    }
}
