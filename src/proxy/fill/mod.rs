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
mod stream;
pub(crate) mod resume;
pub(crate) mod join;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use crate::cache::hot::HotObject;
use crate::cache::hot::MEMORY_BODY_MAX;
use crate::cache::index::slot::SlotRef;
use crate::cache::insert::{self, NewObject};
use crate::cache::lease::Lease;
use crate::cache::name::Name;
use crate::cache::variants::{self, NewVariant};
use crate::disk;
use crate::disk::refused::Refused;
use crate::http::fields::Fields;
use crate::http::forward;
use crate::http::head::{BodyLength, ResponseHead};
use crate::http::status::Status;
use crate::metrics::table::Metric;
use crate::origin::fetch::{self, FetchTimes, Response};
use crate::origin::request::FetchFailure;
use crate::origin::upload::Upload;
use crate::policy::purge::surrogate::SurrogateKeys;
use crate::policy::reason::fetch::FetchError;
use crate::policy::reason::pass::PassReason;
use crate::policy::reason::validation::ValidationEnd;
use crate::policy::rfc9111::freshness::{Lifetimes, Times};
use crate::policy::rfc9111::revalidate::Unfreshened;
use crate::policy::rfc9111::storable::{Omit, Storable};
use crate::proxy::context::Context;
use crate::proxy::fill::job::{Job, is_part};
use crate::proxy::progress::{Answered, LocalFill, Progress, UNSHARED};
use crate::reactor::{self, timer};
use crate::shared::meter;

/// How long a small response is waited for as a whole before it is streamed, in milliseconds.
const WHOLE_WAIT_MS: u64 = 20;

/// How long one client waits for an operation on the file of a stream, and how long several do.
const ALONE_PATIENCE: Duration = Duration::from_secs(1);
const SHARED_PATIENCE: Duration = Duration::from_secs(3);

/// Starts the fill of a key whose lease this worker holds.
pub(crate) fn start(context: &Rc<Context>, lease: Lease, job: Job) -> Rc<LocalFill> {
    meter::count(Metric::Fills.cell());
    let local = context.fills.add(lease.at);
    let fill = Fill { context: Rc::clone(context), lease, local: Rc::clone(&local), job };
    reactor::spawn(fill.run());
    local
}

/// How a validation ended.
fn end_of<E>(fetched: &Result<Response, E>) -> ValidationEnd {
    match fetched {
        Ok(response) if response.head.status == Status(304) => ValidationEnd::Confirmed,
        Ok(_) => ValidationEnd::Replaced,
        Err(_) => ValidationEnd::Failed,
    }
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
            if conditional.is_some() {
                meter::count(Metric::Validations.at(end_of(&fetched) as usize));
            }
            let response = match fetched {
                Ok(response) => response,
                Err(FetchFailure::Fetch(error)) => return self.fail(error),
                Err(_) => return self.fail(FetchError::FillLost),
            };
            let (status, times) = (response.head.status, response.times);
            let server = response.server.clone();
            self.local.answered.replace(Some(Answered { server, status, times }));
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

    /// Enters what was stored, in `slot` if it is new, into the list of its key's variants.
    pub(crate) async fn list(&self, note: Option<NewVariant>, slot: Option<SlotRef>) {
        if let Some(note) = note {
            note.enter(&self.lease.cache, slot).await;
        }
    }

    /// Moves the fields that are for the leader's client alone out of those that are stored.
    pub(crate) fn keep_private(&self, fields: &mut Fields, omit: &Omit) {
        // Each answer gets its own Age.
        fields.remove("age");
        if !omit.is_empty() {
            let mut private = fields.clone();
            private.retain(|name, _| omit.contains(name));
            *self.local.private.borrow_mut() = private;
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
        let mut fields = forward::response_fields(
            &response.head,
            self.context.via_to(&response.server.destination),
            reactor::now(),
        );
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
        let name = match self.resolve_name(&lifetimes, response.times).await {
            Ok(name) => name,
            Err(error) => return self.refused(&error, response, Vec::new()),
        };
        let new = NewObject { name, status: response.head.status, fields, lifetimes };
        self.take_in(new, response).await;
    }

    /// The name that the response belongs under, see [`Lease::resolve_name`].
    pub(crate) async fn resolve_name(
        &self,
        lifetimes: &Lifetimes,
        times: FetchTimes,
    ) -> io::Result<Name> {
        let (found, fields) = (&self.job.found, &self.job.request.fields);
        self.in_time(times, self.lease.resolve_name(found, fields, lifetimes)).await
    }

    /// Does work with the disk that clients wait for, unless the disk is known to be slower than the
    /// origin and only one client would have to ask the origin.
    async fn in_time<T>(
        &self,
        times: FetchTimes,
        work: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        if patience(times).is_zero() && !self.is_shared() {
            return Err(Refused::Busy.into());
        }
        let work = timer::timeout(self.disk_patience(), work).await;
        work.unwrap_or_else(|_| Err(Refused::Late.into()))
    }

    /// How long clients wait for an operation on the file of a stream. Without the file, each of several
    /// clients would ask the origin for the whole.
    fn disk_patience(&self) -> Duration {
        if self.is_shared() { SHARED_PATIENCE } else { ALONE_PATIENCE }
    }

    /// Whether several clients wait for the response.
    fn is_shared(&self) -> bool {
        self.local.n_readers() > 1 || self.lease.has_followers()
    }

    /// The disk has refused what was to be stored: the response is passed on.
    pub(crate) fn refused(self, error: &io::Error, response: Response, read: Vec<u8>) {
        self.lease.cache.refused(error);
        let reason = match Refused::of(error) {
            Some(_) => PassReason::DiskBusy,
            None => PassReason::Store,
        };
        self.pass(reason, response, read);
    }

    /// Stores a response, as a whole or as it comes.
    pub(crate) async fn take_in(self, new: NewObject, mut response: Response) {
        self.doom_if_purged(&new);
        let mut body = Vec::new();
        match whole_body(&mut response, &mut body).await {
            Ok(true) if body.len() as u64 > self.object_bytes_max() => {
                self.pass(PassReason::TooLarge, response, body);
            }
            Ok(true) => self.store_whole(new, &body, response.times).await,
            Ok(false) => self.stream(new, response, body).await,
            Err(error) => self.fail(error),
        }
    }

    /// Whether the admission rules let the response be stored.
    pub(crate) fn is_admitted(&self) -> bool {
        let Self { lease, job, .. } = self;
        // A purged object was admitted before.
        job.renews
            || job.found.is_purged()
            || lease.cache.admits(&job.found.name.key, job.rules.uses_min, || self.is_shared())
    }

    /// Stores a small response as a whole, then gives it to all readers at once. If the disk is
    /// slower than the origin, they do not wait for it.
    async fn store_whole(self, new: NewObject, body: &[u8], times: FetchTimes) {
        self.doom_if_purged(&new);
        let unstored = || Rc::new(new.clone().with_body(None, body));
        let object = match self.lease.is_doomed() {
            true => unstored(),
            false => {
                let mut storing = pin!(self.insert(&new, body));
                let patience = patience(times);
                let stored = match timer::timeout(patience, storing.as_mut()).await {
                    Ok(stored) => stored,
                    Err(_) => {
                        self.local.set(Progress::Object(unstored()));
                        storing.await
                    }
                };
                stored.unwrap_or_else(|error| {
                    self.lease.cache.refused(&error);
                    unstored()
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

    /// Stores a whole response, and enters it into its lists.
    async fn insert(&self, new: &NewObject, body: &[u8]) -> io::Result<Rc<HotObject>> {
        let object = self.lease.insert(new.clone(), body).await?;
        self.lease.remove_if_doomed(&self.job.found);
        match is_part(new) {
            true => self.enlist(new, body.len() as u64, true).await,
            false if new.lifetimes.vary.is_some() => {
                self.list(NewVariant::of(new), object.slot).await
            }
            false => {}
        }
        self.lease.remove_if_doomed(&self.job.found);
        Ok(object)
    }

    /// Bytes of the largest body that is stored.
    pub(crate) fn object_bytes_max(&self) -> u64 {
        self.lease.cache.object_bytes_max().min(self.job.rules.object_bytes_max)
    }

    /// Does not store the response. The leader takes it over, and the others ask for themselves. If
    /// the origin fails while something is stored, the others get what is stored, or the same
    /// failure.
    pub(crate) fn pass(self, reason: PassReason, response: Response, read: Vec<u8>) {
        let status = response.head.status;
        // One client's bad request says nothing about what others asked for.
        let is_gone = matches!(status.0, 404 | 410);
        let is_about_all = status.0 < 400 || is_gone;
        if reason.is_of_response() && is_about_all {
            if is_gone && !self.job.has_fresh() {
                self.lease.cache.remove(&self.job.found.name.key);
            }
            self.remember_hit_for_miss(insert::HIT_FOR_MISS_S);
        }
        self.local.hand_over(response, read);
        if status.0 >= 500 && self.job.renews {
            self.lease.fail(FetchError::BadStatus.code());
            self.local.set(Progress::Refused(reason));
        } else if reason.is_of_request() || status.0 < 500 && !is_about_all {
            self.lease.fail(UNSHARED);
            self.local.set(Progress::Unshared(reason));
        } else {
            self.lease.pass();
            self.local.set(Progress::Passed(reason));
        }
    }

    /// Enters a hit-for-miss for the key, so that no request waits for another's fetch. There is
    /// none for a fresh object: one client asked for more than the others, which it still answers.
    fn remember_hit_for_miss(&self, for_s: u64) {
        if !self.job.has_fresh() {
            self.lease.cache.remember_hit_for_miss(&self.job.found.name.key, for_s);
        }
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.context.fills.remove(self.lease.at);
        self.local.break_off(FetchError::FillLost);
        self.local.end();
    }
}

/// The upload of a fill's request. Interim responses go to the leader of the fill.
struct FillUpload<'f> {
    lease: &'f Lease,
    local: &'f LocalFill,
    is_background: bool,
}

impl<'f> FillUpload<'f> {
    fn new(lease: &'f Lease, local: &'f LocalFill, is_background: bool) -> Self {
        Self { lease, local, is_background }
    }

    fn is_wanted(&self) -> bool {
        self.is_background || self.local.has_readers() || self.lease.has_followers()
    }
}

impl Upload for FillUpload<'_> {
    type Error = Infallible;

    fn in_memory(&self) -> Option<&[u8]> {
        Some(b"")
    }

    async fn next(&mut self, _into: &mut Vec<u8>) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn rewind(&mut self) -> bool {
        true
    }

    async fn interim(&mut self, head: &ResponseHead) -> Result<(), Infallible> {
        self.local.push_interim(head.clone());
        Ok(())
    }

    async fn gone(&mut self) {
        loop {
            let since = self.local.event.version();
            if !self.is_wanted() {
                return;
            }
            self.local.event.after(since).await;
        }
    }

    async fn left(&mut self) {
        let _queued = self.local.queue();
        self.gone().await;
    }
}

/// How long clients wait for the disk: no longer than they did for the origin.
fn patience(times: FetchTimes) -> Duration {
    let origin_us = times.received.mono_us.saturating_sub(times.requested.mono_us);
    disk::patience(Duration::from_micros(origin_us))
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
            let left = Duration::from_millis(WHOLE_WAIT_MS);
            match timer::timeout(left, response.body.wait()).await {
                Ok(result) => result?,
                Err(_) => return Ok(false),
            }
        }
    }
}
