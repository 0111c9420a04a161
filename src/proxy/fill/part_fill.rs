//! A fill that fetches a part: stored by itself, and put on the list of its whole.
//!
//! A 206 is stored as a part. Any other response is handled as one to a request without `Range`. A
//! part that breaks off is kept as far as it came, because a client that stops in the middle of a
//! film comes back for the rest.

use std::rc::Rc;

use crate::cache::files::spool::Spool;
use crate::cache::hot::HotObject;
use crate::cache::insert::NewObject;
use crate::cache::name::{Name, PART_STATUS};
use crate::cache::ranges::combine;
use crate::cache::ranges::list;
use crate::cache::variants::NewVariant;
use crate::http::fields::Fields;
use crate::http::forward;
use crate::http::head::BodyLength;
use crate::http::range::Spec;
use crate::http::status::Status;
use crate::origin::fetch::Response;
use crate::policy::reason::fetch::FetchError;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::partial::{self, Fit, PartialContent};
use crate::policy::rfc9111::parts::{Extent, PartList, StoredPart};
use crate::policy::rfc9111::storable::Storable;
use crate::proxy::fill::job::{Job, PartJob, is_part};
use crate::proxy::fill::{self, Fill};
use crate::proxy::progress::Progress;
use crate::reactor;

/// A part that broke off is kept if it has at least this many bytes.
const KEPT_BYTES_MIN: u64 = 4 << 10;

/// The most fills in a row that complete a small response. Each fetches what the one before it left
/// missing.
const FILLS_MAX: usize = 16;

impl Fill {
    /// Stores the response to a request for a part, or passes it on.
    pub(crate) async fn fetched_for_part(mut self, response: Response) {
        let mut fields = forward::response_fields(
            &response.head,
            self.context.via_to(&response.server.destination),
            reactor::now(),
        );
        let spec = self.job.part.as_ref().map(|part| part.spec);
        let piece = spec.and_then(|spec| PartialContent::of(spec, &response.head));
        let fit = self.fit(response.head.status, piece.as_ref(), &fields).await;
        if self.is_unread() && !self.is_small(piece.as_ref(), response.head.length) {
            return self.pass(PassReason::Part, response, Vec::new());
        }
        if response.head.status != PART_STATUS {
            let whole_max = self.job.rules.fetch_whole_bytes;
            self.job.is_background |=
                matches!(response.head.length, BodyLength::Known(len) if len <= whole_max);
            return self.fetched(response).await;
        }
        // A gap fetch can only use a part that fits the stored ones.
        let is_missing =
            |_: &PartialContent| !self.job.renews || fit.is_none_or(|fit| fit == Fit::Joins);
        let Some(piece) = piece.filter(is_missing) else {
            return self.pass(PassReason::Part, response, Vec::new());
        };
        let (asked, times) = (&self.job.request.fields, fill::times(response.times));
        let (rules, whole) = (&self.job.rules, Status(200));
        let storable = Storable::of(asked, whole, &response.head.fields, &times, rules);
        let Storable { mut lifetimes, omit } = match storable {
            Ok(storable) => storable,
            Err(reason) => return self.pass(reason, response, Vec::new()),
        };
        lifetimes.surrogates = self.surrogates(&response.head.fields);
        let bytes = match piece.extent {
            Extent::Length(length) => length,
            Extent::ToEnd | Extent::Open => piece.range.end,
        };
        if bytes > self.object_bytes_max() {
            return self.pass(PassReason::TooLarge, response, Vec::new());
        }
        if !self.is_admitted() {
            return self.pass(PassReason::Rare, response, Vec::new());
        }
        self.keep_private(&mut fields, &omit);
        let name = match self.resolve_name(&lifetimes, response.times).await {
            Ok(name) => name,
            Err(error) => return self.refused(&error, response, Vec::new()),
        };
        // The part is the whole only if Content-Length agrees.
        let is_whole = piece.is_whole() && response.head.length == BodyLength::Known(bytes);
        if is_whole && bytes <= self.job.rules.fetch_whole_bytes {
            // The fill goes on even if all readers leave.
            self.job.is_background = true;
            let fields = partial::whole_fields(&fields);
            let new = NewObject { name, status: Status(200), fields, lifetimes };
            return self.take_in(new, response).await;
        }
        let part_name = name.part(self.lease.at.id());
        if let Some(part) = &mut self.job.part {
            part.piece = Some((piece, name));
        }
        let new = NewObject { name: part_name, status: PART_STATUS, fields, lifetimes };
        self.take_in(new, response).await;
    }

    /// Puts a stored part of this many bytes on the list of its whole. If the origin ended the body
    /// there (`is_ended`), but had announced another end, the length that it stated for the whole
    /// is not used either.
    pub(crate) async fn enlist(&self, new: &NewObject, bytes: u64, is_ended: bool) {
        let part = self.job.part.as_ref().filter(|_| is_part(new));
        let Some((piece, name)) = part.and_then(|part| part.piece.as_ref()) else { return };
        let len = piece.range.end - piece.range.start;
        self.doom_if_purged(new);
        if bytes == 0 || bytes > len || self.lease.is_doomed() {
            return self.lease.cache.remove(&new.name.key);
        }
        let extent = match piece.extent {
            Extent::Length(length) if bytes == len || !is_ended => Extent::Length(length),
            Extent::ToEnd if bytes == len => Extent::ToEnd,
            _ => Extent::Open,
        };
        let range = piece.range.start..piece.range.start + bytes;
        let stored = StoredPart { range, id: self.lease.at.id() };
        let (cache, is_doomed) = (&self.lease.cache, || self.lease.is_doomed());
        let listed = list::add(cache, name, extent, stored, new, is_doomed).await;
        let Some(list) = listed else { return };
        if list.is_whole() {
            let (cache, found) = (Rc::clone(cache), self.job.found.clone());
            reactor::spawn(combine::put_together(cache, found, name.clone()));
        } else if bytes == len {
            self.fetch_rest(name, &list).await;
        }
    }

    /// Fetches what is missing of a small response, in the background.
    async fn fetch_rest(&self, name: &Name, list: &PartList) {
        let (cache, job) = (&self.lease.cache, &self.job);
        let is_small = |length: &u64| *length <= job.rules.fetch_whole_bytes;
        let Some(length) = list.length().filter(is_small) else { return };
        let Some(part) = job.part.as_ref().filter(|it| it.n_before < FILLS_MAX) else { return };
        let Some(missing) = list.first_missing(&(0..length)) else { return };
        let found = cache.find_again(&job.found, name).await;
        let Some(listed) = found.stored() else { return };
        let Some(validator) = partial::strong_validator(&listed.fields) else { return };
        let spec = Spec::of_missing(&missing, length);
        let next = PartJob::new(part.ask.clone(), name, spec, Some(validator));
        let next = PartJob { n_before: part.n_before + 1, ..next };
        let purge_epoch = cache.purge_epoch();
        let lease = cache.lead_or_follow(&found, &next.key, purge_epoch).lead();
        let Some(lease) = lease else { return };
        let whole = next.ask.question(spec, Some(validator));
        let (request, rules) = (job.request.clone(), Rc::clone(&job.rules));
        let new = Job::new(whole, request, found, job.scheme, purge_epoch, rules);
        let next = Job { renews: true, is_background: true, part: Some(next), ..new };
        fill::start(&self.context, lease, next);
    }

    /// The origin says that the stored parts are still good: their list gets the new head.
    pub(crate) async fn renew_parts(self, new: NewObject, stored: &Rc<HotObject>) {
        let (name, cache) = (new.name.clone(), Rc::clone(&self.lease.cache));
        let (lifetimes, fields) = (new.lifetimes.clone(), new.fields.clone());
        let renewed = Rc::new(stored.renewed(name.key, stored.slot, lifetimes, fields));
        self.local.is_revalidated.set(true);
        let lock = cache.lock_list(&name).await;
        self.doom_if_purged(&new);
        // A list that has grown meanwhile, or has become a whole, must not be replaced by the older
        // one.
        let is_same = lock.is_some() && !cache.has_changed(&self.job.found);
        if is_same && !self.lease.is_doomed() {
            let note = NewVariant::of(&new);
            if let Err(error) = self.lease.renew(new, stored).await {
                cache.refused(&error);
            }
            self.list(note, None).await;
            self.lease.remove_if_doomed(&self.job.found);
        }
        self.lease.done();
        // An answer from parts may look the list up again, and must find the new one.
        self.local.set(Progress::Parts(renewed));
    }

    /// Ends a stream that broke off. The bytes of a part are kept.
    pub(crate) async fn broken_off(self, new: &NewObject, spool: Spool, error: FetchError) {
        let bytes = spool.written();
        if is_part(new) && bytes >= KEPT_BYTES_MIN && !self.lease.is_doomed() {
            self.lease.settle();
            match self.lease.publish(new, spool).await {
                Ok(_) => self.enlist(new, bytes, false).await,
                Err(error) => self.lease.cache.refused(&error),
            }
            self.lease.remove_if_doomed(&self.job.found);
        }
        self.fail(error);
    }

    /// Whether no client waits for the response.
    fn is_unread(&self) -> bool {
        self.job.is_background && !self.local.has_readers() && !self.lease.has_followers()
    }

    /// Whether a response of this length is small enough to be fetched without a client.
    fn is_small(&self, piece: Option<&PartialContent>, length: BodyLength) -> bool {
        let bytes = match (length, piece) {
            (BodyLength::Known(bytes), _) => bytes,
            (_, Some(piece)) => piece.range.end - piece.range.start,
            (_, None) => return false,
        };
        bytes <= self.job.rules.fetch_whole_bytes.max(1)
    }

    /// Whether a part has more bytes than it said.
    pub(crate) fn is_overlong(&self, bytes: u64) -> bool {
        let piece = self.job.part.as_ref().and_then(|part| part.piece.as_ref());
        piece.is_some_and(|(piece, _)| bytes > piece.range.end - piece.range.start)
    }

    /// How a response fits the stored parts, if there are any. The stored parts are removed if the
    /// response shows that the origin no longer has them, or if it does not fit them and is of more
    /// use.
    async fn fit(
        &self,
        status: Status,
        piece: Option<&PartialContent>,
        fields: &Fields,
    ) -> Option<Fit> {
        let (stored, list) = self.job.found.parts()?;
        let fit = match status.0 {
            206 => list::fit(stored, list, piece.map(|piece| piece.extent), fields),
            200 | 404 | 410 | 416 => Fit::Replaces,
            _ => Fit::Useless,
        };
        if fit == Fit::Replaces {
            list::remove(&self.lease.cache, &self.job.found.name, stored, list).await;
        }
        Some(fit)
    }
}
