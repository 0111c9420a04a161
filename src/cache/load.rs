//! Loading a cache file into the hot tier. Every part of the file is checked before it is used.

use std::rc::Rc;

use crate::cache::files::front::OpenError;
use crate::cache::files::object::Fault;
use crate::cache::files::store::Object;
use crate::cache::found::Lookup;
use crate::cache::hot::HotObject;
use crate::cache::index::slot::SlotView;
use crate::cache::name::Name;
use crate::cache::purge::bucket::PurgeStatus;
use crate::cache::shared::Shared;
use crate::cache::worker::Cache;
use crate::http::h1::head;
use crate::http::status::Status;
use crate::policy::meta;
use crate::reactor;

/// The most fields of a stored head: an origin's limit, and those that ktrix adds.
pub const STORED_FIELDS_MAX: usize = 1024;

impl Cache {
    /// Reads the object of this name from its file, checks all of it, and keeps it in the hot tier.
    /// `None` if there is no file, or it was replaced.
    pub(super) async fn load(
        &self,
        name: &Name,
        slot: &SlotView,
    ) -> Result<Option<Lookup>, OpenError> {
        let Shared { index, purges, store, .. } = &*self.shared;
        let small_max = self.hot.borrow().small_body_max();
        let loaded = store.load(name.key, &name.text, small_max).await?;
        let Some((object, body)) = loaded else { return Ok(None) };
        let mut lifetimes = meta::decode(object.meta()).map_err(|_| Fault::FrontDamaged)?;
        let version = purges.version();
        let purge_status = purges.purge_status(&name.text, &lifetimes.surrogates);
        let slot_ref = Some(slot.slot_ref());
        match purge_status {
            PurgeStatus::Valid => {}
            PurgeStatus::Stale(since_s) => {
                lifetimes.end_freshness(since_s.min(reactor::now().unix_s()));
            }
            PurgeStatus::Purged => return Ok(Some(Lookup::Miss { purged: slot_ref })),
        }
        let fields = head::parse_fields(object.head(), STORED_FIELDS_MAX)
            .map_err(|_| Fault::FrontDamaged)?;
        let (key, status) = (name.key, Status(object.status()));
        let stamp = object.stamp.get();
        let hot = match body {
            Some(body) => HotObject::in_memory(key, slot_ref, status, lifetimes, fields, &body),
            None => {
                if slot.stamp != stamp {
                    verify(&object).await?;
                }
                HotObject::in_file(key, slot_ref, status, lifetimes, fields, object)
            }
        };
        if slot.stamp != stamp {
            index.restamp(slot.slot_ref(), stamp);
        }
        if !index.is_current(slot.slot_ref()) {
            return Ok(None);
        }
        let hot = Rc::new(hot.purge_status(purge_status, version));
        self.hot.borrow_mut().insert(Rc::clone(&hot));
        Ok(Some(Lookup::Stored(hot)))
    }
}

/// Checks a body step by step, so that other tasks can run between the steps.
async fn verify(object: &Object) -> Result<(), OpenError> {
    let mut verify = object.verify();
    while !verify.step_aside(object).await?.1 {
        reactor::yield_now().await;
    }
    Ok(())
}

/// A whole body, read and checked step by step.
///
/// # Errors
///
/// A fault of the body, or what the system says.
pub async fn read_body(object: &Object) -> Result<Vec<u8>, OpenError> {
    let mut verify = object.verify();
    let mut body = Vec::new();
    loop {
        let (bytes, is_over) = verify.step_aside(object).await?;
        // Most are read in one step.
        if is_over && body.is_empty() {
            return Ok(bytes);
        }
        if body.is_empty() {
            body.reserve_exact(usize::try_from(object.body_len).unwrap_or(0));
        }
        body.extend_from_slice(&bytes);
        if is_over {
            return Ok(body);
        }
        reactor::yield_now().await;
    }
}
