//! A fill: the one fetch of a key that stores it, as a task of its own.
//!
//! ```text
//! Fetching ─┬─ whole and small ─────────────▶ Object
//!           ├─ storable ─▶ Streaming ─ end ─▶ Streaming, done
//!           ├─ not storable ────────────────▶ Passed   (the leader takes the response over)
//!           └─ no answer ───────────────────▶ Failed
//! ```
//!
//! The task tells its own worker's exchanges through a [`LocalFill`], and the other workers
//! through the shared table and their event counters. However it ends, killed or cancelled
//! included, the lease is given up: by [`Lease`]'s drop, after a SIGKILL by the master.

pub(crate) mod job;
pub(crate) mod part_fill;
mod renew;
pub(crate) mod resume;
pub(crate) mod join;

use std::io;
use std::pin::pin;
use std::rc::Rc;

use crate::cache::files::writer::Writer;
use crate::cache::fill_object::FillObject;
use crate::cache::hot::MEMORY_BODY_MAX;
use crate::cache::insert::{self, NewObject};
use crate::cache::lease::Lease;
use crate::cache::variants::{self, NewVariant};
use crate::http::fields::Fields;
use crate::http::forward;
use crate::http::head::BodyLength;
use crate::http::status::Status;
use crate::origin::alone::Alone;
use crate::origin::fetch::{self, FetchTimes, Response};
use crate::origin::request::FetchFailure;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::policy::reason::fetch::FetchError;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::freshness::Times;
use crate::policy::rfc9111::omit::Omit;
use crate::policy::rfc9111::revalidate::Unfreshened;
use crate::policy::rfc9111::storable::Storable;
use crate::proxy::context::Context;
use crate::proxy::fill::job::{FillUpload, Job, is_part};
use crate::proxy::progress::{Answered, Flow, LocalFill, Progress};
use crate::reactor::{self, timer};
use crate::sys::pinned::Race;

/// How long a small response is waited for as a whole before it is streamed, in milliseconds.
const WHOLE_WAIT_MS: u64 = 20;

/// Other workers are told of progress in steps of at least this.
const TELL_BYTES: u64 = 64 << 10;

/// Starts the fill of a key whose lease this worker holds.
pub(crate) fn start(context: &Rc<Context>, lease: Lease, job: Job) -> Rc<LocalFill> {
    let local = context.fills.add(lease.at);
    let fill = Fill { context: Rc::clone(context), lease, local: Rc::clone(&local), job };
    reactor::spawn(fill.run());
    local
}

pub(crate) struct Fill {
    pub(crate) context: Rc<Context>,
    pub(crate) lease: Lease,
    /// The fill as this worker's exchanges see it.
    pub(crate) local: Rc<LocalFill>,
    pub(crate) job: Job,
}

impl Fill {
    async fn run(mut self) {
        let mut upload = FillUpload::new(&self.lease, &self.local, self.job.is_background);
        let context = &self.context;
        loop {
            let conditional = self.job.conditional.take();
            let question = conditional.as_ref().unwrap_or(&self.job.whole);
            let fetched = fetch::fetch(&context.pools, question, &mut upload).await;
            let response = match fetched {
                Ok(response) => response,
                Err(FetchFailure::Fetch(error)) => return self.fail(error),
                Err(_) => return self.fail(FetchError::FillLost),
            };
            let (server, status, times) = (response.server, response.head.status, response.times);
            self.local.set_answered(Answered { server, status, times });
            if conditional.is_none() || response.head.status != Status(304) {
                return match self.job.part {
                    Some(_) => self.fetched_for_part(response).await,
                    None => self.fetched(response).await,
                };
            }
            let mut response = response;
            // A 304 has no body; reading its end gives the connection back.
            let _ = response.body.take(&mut Vec::new());
            let (own, others) = (self.job.stored.take(), self.job.others.take());
            let (cache, name) = (&self.lease.cache, &self.job.found.name);
            let confirmed = variants::confirmed(cache, name, own, others, &response.head).await;
            if let Some((name, stored)) = confirmed {
                match self.renewed(&stored, &response) {
                    Ok(new) if is_part(&new) => return self.renew_parts(new, &stored).await,
                    Ok(new) => return self.revalidated(new, name, &stored).await,
                    Err(Unfreshened::Outdated) if !self.job.has_fresh() => {
                        self.lease.cache.remove(&self.job.found.name.key);
                    }
                    Err(_) => {}
                }
            }
            // The 304 confirms no stored response that may be used, so the loop asks again without
            // a condition.
        }
    }

    /// Ends it without an answer.
    pub(crate) fn fail(&self, error: FetchError) {
        self.lease.fail(error.code());
        self.local.break_off(error);
    }

    /// Enters what was stored into the list of its key's variants.
    pub(crate) fn list(&self, note: Option<NewVariant>) {
        // A variant that is not on the list is still found, but a revalidation does not offer its
        // tag.
        let _ = note.map(|note| note.enter(&self.lease));
    }

    /// Moves the fields that are for the leader's client alone out of those that are stored.
    pub(crate) fn keep_private(&self, fields: &mut Fields, omit: &Omit) {
        // Each answer gets its own Age.
        fields.remove("age");
        if !omit.is_empty() {
            let mut private = fields.clone();
            private.retain(|name, _| omit.contains(name));
            self.local.set_private(private);
            omit.apply(fields);
        }
    }

    pub(crate) fn surrogates(&self, fields: &Fields) -> SurrogateKeys {
        let job = &self.job;
        SurrogateKeys::of(fields, job.scheme, job.request.authority(), job.purge_epoch)
    }

    /// Dooms the fill if its response was purged since the origin was asked: it is not stored, and
    /// no request joins it.
    pub(crate) fn doom_if_purged(&self, new: &NewObject) {
        let Lease { cache, at, .. } = &self.lease;
        cache.doom_if_purged(*at, &new.name, &new.lifetimes.surrogates);
    }

    /// Stores a response, or passes it on.
    pub(crate) async fn fetched(self, response: Response) {
        let mut fields = forward::response_fields(&response.head, reactor::now());
        let job = &self.job;
        let (asked, times, head) = (&job.request.fields, times(response.times), &response.head);
        // The origin was asked with GET, whatever the client's method.
        let storable = Storable::of(asked, head.status, &head.fields, &times, &job.rules);
        let Storable { mut lifetimes, omit } = match storable {
            Ok(storable) => storable,
            Err(reason) => return self.pass(reason, response, Vec::new()),
        };
        // The error would replace a stored response that may still be served.
        if job.outlasts(response.head.status) {
            return self.pass(PassReason::Status, response, Vec::new());
        }
        let is_too_large = |len: u64| len > self.object_bytes_max();
        if matches!(response.head.length, BodyLength::Known(len) if is_too_large(len)) {
            return self.pass(PassReason::TooLarge, response, Vec::new());
        }
        if !self.is_admitted() {
            return self.pass(PassReason::Rare, response, Vec::new());
        }
        lifetimes.surrogates = self.surrogates(&response.head.fields);
        self.keep_private(&mut fields, &omit);
        let name = match self.lease.resolve_name(&job.found, &job.request.fields, &lifetimes) {
            Ok(name) => name,
            Err(error) => {
                self.lease.cache.refused(&error);
                return self.pass(PassReason::Store, response, Vec::new());
            }
        };
        let new = NewObject { name, status: response.head.status, fields, lifetimes };
        self.take_in(new, response).await;
    }

    /// Stores a response, as a whole or as it comes.
    pub(crate) async fn take_in(self, new: NewObject, mut response: Response) {
        self.doom_if_purged(&new);
        let mut body = Vec::new();
        match whole_body(&mut response, &mut body).await {
            Ok(true) if body.len() as u64 > self.object_bytes_max() => {
                self.pass(PassReason::TooLarge, response, body);
            }
            Ok(true) => self.store_whole(new, &body).await,
            Ok(false) => self.stream(new, response, body).await,
            Err(error) => self.fail(error),
        }
    }

    /// Whether the admission rules let the response be stored.
    pub(crate) fn is_admitted(&self) -> bool {
        let Self { lease, local, job, .. } = self;
        let is_shared = || local.n_readers() > 1 || lease.has_followers();
        // A purged object was admitted before.
        job.renews
            || job.found.is_purged()
            || lease.cache.admits(&job.found.name.key, job.rules.uses_min, is_shared)
    }

    /// Stores a small response as a whole, then gives it to all readers at once.
    async fn store_whole(self, new: NewObject, body: &[u8]) {
        self.doom_if_purged(&new);
        let object = match self.lease.is_doomed() {
            true => Rc::new(new.with_body(None, body)),
            false => {
                let stored = self.lease.insert(new.clone(), body);
                match stored {
                    Ok(_) if is_part(&new) => self.enlist(&new, body.len() as u64, true).await,
                    _ if new.lifetimes.vary.is_some() => self.list(NewVariant::of(&new)),
                    _ => {}
                }
                self.lease.remove_if_doomed(&self.job.found);
                stored.unwrap_or_else(|error| {
                    self.lease.cache.refused(&error);
                    Rc::new(new.with_body(None, body))
                })
            }
        };
        match object.slot {
            Some(_) => self.lease.done(),
            // There is nothing that other workers could find.
            None => self.lease.pass(),
        }
        self.local.set(Progress::Object(object));
    }

    /// Writes a larger response as it comes. All readers read it from the file.
    async fn stream(self, new: NewObject, mut response: Response, mut part: Vec<u8>) {
        let total = match response.head.length {
            BodyLength::Known(len) => Some(len),
            _ => None,
        };
        let opened = self
            .lease
            .begin(&new, total.filter(|_| !is_part(&new)))
            .and_then(|writer| Ok((FillObject::begun(&new, &writer, total)?, writer)));
        let (object, mut writer) = match opened {
            Ok(pair) => pair,
            Err(error) => {
                self.lease.cache.refused(&error);
                return self.pass(PassReason::Store, response, part);
            }
        };
        self.lease.head_ready(total);
        self.lease.cache.announce(total);
        self.local.set(Progress::Streaming(Rc::new(object)));
        match self.pour(&mut writer, &mut response, &mut part).await {
            Ok(()) => {}
            Err(Spill::Origin(error)) => return self.broken_off(&new, writer, error).await,
            Err(Spill::Abandoned) => {
                return self.broken_off(&new, writer, FetchError::FillLost).await;
            }
            Err(spill) => {
                let mut for_s = insert::PASS_S;
                if let Spill::Disk(error) = &spill {
                    self.lease.cache.refused(error);
                    for_s = insert::PASS_REFUSED_S;
                }
                return self.unstored(response, part, writer.written(), for_s);
            }
        }
        let bytes = writer.written();
        self.doom_if_purged(&new);
        if !self.lease.is_doomed() {
            self.lease.cache.room_for(bytes).await;
        }
        self.lease.settle();
        // The object that has the name by now may be newer than the purge that doomed this fill: it
        // stays.
        let was_doomed = self.lease.is_doomed();
        let stored = match was_doomed {
            // A reader in another worker may have to learn from the file that it is complete.
            true => writer.finish().map(drop),
            false => self.lease.publish(&new, writer).map(drop),
        };
        match stored {
            Ok(()) if was_doomed => {}
            Ok(()) if is_part(&new) => self.enlist(&new, bytes, true).await,
            Ok(()) if new.lifetimes.vary.is_some() => self.list(NewVariant::of(&new)),
            Ok(()) => {}
            Err(error) => self.lease.cache.refused(&error),
        }
        if !was_doomed {
            self.lease.remove_if_doomed(&self.job.found);
        }
        // Followers take "done" to be after the last byte they were told of.
        self.lease.progress(bytes);
        self.lease.done();
        self.local.set_flow(Flow::Done(bytes));
    }

    /// Bytes of the largest body that is stored.
    pub(crate) fn object_bytes_max(&self) -> u64 {
        self.lease.cache.object_bytes_max().min(self.job.rules.object_bytes_max)
    }

    /// Writes the body to the file, and tells the followers how far it is. On an error `part`
    /// holds what was read and not written.
    async fn pour(
        &self,
        writer: &mut Writer,
        response: &mut Response,
        part: &mut Vec<u8>,
    ) -> Result<(), Spill> {
        let local = &self.local;
        let mut told = 0;
        let mut alone = None;
        loop {
            // Bytes that are not written stay in `part`: the leader may have to pass them on.
            if writer.written() + part.len() as u64 > self.object_bytes_max() {
                return Err(Spill::TooLarge);
            }
            writer.append(part).map_err(Spill::Disk)?;
            part.clear();
            let bytes = writer.written();
            local.set_flow(Flow::Open(bytes));
            let more = response.body.take(part).map_err(Spill::Origin)?;
            let is_waiting = part.is_empty();
            if bytes - told >= TELL_BYTES || (is_waiting && bytes > told) {
                told = bytes;
                self.lease.progress(bytes);
            }
            if !more && is_waiting {
                return Ok(());
            }
            if more && !self.is_wanted(&mut alone, bytes, response) {
                return Err(Spill::Abandoned);
            }
            if !is_waiting || !more {
                reactor::yield_now().await;
                continue;
            }
            // When a reader has left, the fill may be without readers: check again.
            let left = local.event.after(local.event.version());
            let doubt = async {
                match &alone {
                    Some(alone) => Race::new(left, alone.doubt()).await.unwrap_or_default(),
                    None => left.await,
                }
            };
            if let Some(result) = Race::new(response.body.wait(), pin!(doubt)).await {
                result.map_err(Spill::Origin)?;
            }
        }
    }

    /// Whether a fill should go on: it has readers, or ends soon and is in the way of no other fetch.
    fn is_wanted(&self, alone: &mut Option<Alone>, bytes: u64, response: &Response) -> bool {
        let is_background = self.job.is_background && !self.is_overlong(bytes);
        if is_background || self.local.has_readers() || self.lease.has_followers() {
            *alone = None;
            return true;
        }
        if alone.is_none() {
            *alone = Alone::begin(self.context.pools.upstream(self.job.whole.upstream));
        }
        let since_ms = response.times.received.mono_ms();
        let remaining = response.body.remaining();
        alone.as_ref().is_some_and(|alone| alone.may_go_on(since_ms, bytes, remaining))
    }

    /// Does not store the response. The leader takes it over, and the others ask for themselves. If
    /// the origin fails while something is stored, the others get what is stored, or the same
    /// failure.
    pub(crate) fn pass(self, reason: PassReason, response: Response, read: Vec<u8>) {
        let status = response.head.status;
        // One client's bad request says nothing about what others asked for.
        let is_about_all = status.0 < 400 || matches!(status.0, 404 | 410);
        if reason.is_of_response() && is_about_all {
            self.note_pass(insert::PASS_S);
        }
        self.local.hand_over(response, read);
        if status.0 >= 500 && self.job.renews {
            self.lease.fail(FetchError::BadStatus.code());
            self.local.set(Progress::Refused(reason));
        } else {
            self.lease.pass();
            self.local.set(Progress::Passed(reason));
        }
    }

    /// Enters a hit-for-miss under the key, which removes what is stored there. A fresh object
    /// stays: one client asked for more than the others, and they can still be answered with it.
    fn note_pass(&self, for_s: u64) {
        if !self.job.has_fresh() {
            self.lease.cache.note_pass(&self.job.found.name.key, for_s);
        }
    }

    /// Stops storing. The leader goes on with the origin's response, and every other reader asks
    /// for the rest alone. Later requests pass for `for_s` seconds.
    fn unstored(self, response: Response, read: Vec<u8>, bytes: u64, for_s: u64) {
        self.note_pass(for_s);
        self.local.hand_over(response, read);
        self.lease.progress(bytes);
        self.lease.pass();
        self.local.set_flow(Flow::Unstored(bytes));
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.context.fills.remove(self.lease.at);
        self.local.break_off(FetchError::FillLost);
    }
}

/// Why a stream ended early.
#[derive(Debug)]
enum Spill {
    Origin(FetchError),
    Disk(io::Error),
    TooLarge,
    Abandoned,
}

/// The times of a fetch as the policy counts them. The delay is measured by the monotonic clock, so
/// that neither a second that ends meanwhile nor a clock that is set ages the response.
pub(crate) fn times(fetch: FetchTimes) -> Times {
    let received_s = fetch.received.unix_s();
    let delay_s = fetch.received.mono_us.saturating_sub(fetch.requested.mono_us) / 1_000_000;
    Times { requested_s: received_s.saturating_sub(delay_s), received_s }
}

/// Reads a small body to its end if it comes at once; `false` when it is to be streamed.
async fn whole_body(response: &mut Response, body: &mut Vec<u8>) -> Result<bool, FetchError> {
    if matches!(response.head.length, BodyLength::Known(len) if len > MEMORY_BODY_MAX) {
        return Ok(false);
    }
    let until_ms = reactor::now().mono_ms() + WHOLE_WAIT_MS;
    loop {
        let before = body.len();
        if !response.body.take(body)? {
            return Ok(body.len() as u64 <= MEMORY_BODY_MAX);
        }
        if body.len() as u64 > MEMORY_BODY_MAX || reactor::now().mono_ms() >= until_ms {
            return Ok(false);
        }
        if body.len() == before {
            let left = std::time::Duration::from_millis(WHOLE_WAIT_MS);
            match timer::timeout(left, response.body.wait()).await {
                Ok(result) => result?,
                Err(_) => return Ok(false),
            }
        }
    }
}
