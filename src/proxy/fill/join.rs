//! Waiting for a fill: one that this exchange leads, another one of this worker, or one of another
//! worker.
//!
//! A cold key costs one request to the origin: the first exchange leads, and the others follow what
//! it has written so far. A follower that has sent nothing can always start over. So a fill that
//! breaks, or is for another variant, costs it no more than another look-up.

use std::future::Future;
use std::ops::Range;
use std::rc::Rc;

use crate::cache::Cache;
use crate::cache::fill_object::FillObject;
use crate::cache::fills::FillAt;
use crate::cache::fills::entry::FillState;
use crate::cache::hot::HotObject;
use crate::cache::lease::{Follower, LeadOrFollow};
use crate::cache::name::Name;
use crate::http::content_range::ContentRange;
use crate::http::fields::Fields;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::range::Ranges;
use crate::http::status::Status;
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::fetch::FetchError;
use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::answer::{self, Answer};
use crate::policy::rfc9111::freshness::Lifetimes;
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::facts::Facts;
use crate::proxy::fill;
use crate::proxy::fill::job::Job;
use crate::proxy::fill::resume;
use crate::proxy::progress::{Flow, Handover, LocalFill, Progress, Reading, UNSHARED};
use crate::proxy::respond::{self, Added, start};
use crate::reactor;
use crate::sys::pinned::Race;

/// The outcome of waiting for a fill.
#[derive(Debug)]
pub(crate) enum Joined {
    /// A whole object; this exchange led the fill, or followed it.
    Object(Rc<HotObject>, FillRole),
    /// The list of the stored parts, which a 304 has renewed.
    Parts(Rc<HotObject>, FillRole),
    /// A response that is being written.
    Stream(Reader, FillRole),
    /// It is not stored. The leader has the response.
    Passed(PassReason, Option<Box<Handover>>),
    /// There is no answer.
    Failed(FetchError),
    /// Look again: the cache has changed.
    Again,
    /// Look again: another worker's fill has ended, and what it brought is stored.
    Ended,
    /// The answer was for the leader alone: look again, and lead.
    Unshared,
    /// The client went away.
    Closed(CloseReason),
}

/// The role of this exchange in a fill.
#[derive(Clone, Debug)]
pub(crate) enum FillRole {
    /// It led, and can tell how the fetch went.
    Led(Rc<LocalFill>),
    /// It followed.
    Followed,
}

impl FillRole {
    /// Whether the request was answered by another's fetch.
    pub(crate) fn is_collapsed(&self) -> bool {
        matches!(self, Self::Followed)
    }
}

/// Leads or follows the fill of the job's key, until its outcome is known.
pub(crate) async fn join<C: Client>(
    context: &Rc<Context>,
    cache: &Rc<Cache>,
    client: &mut C,
    job: Job,
) -> Joined {
    let (name, request) = (job.found.name.clone(), job.request.clone());
    let (is_part, demands_validation) = (job.part.is_some(), job.has_fresh());
    match cache.lead_or_follow(&job.found, &job.key(), job.purge_epoch) {
        LeadOrFollow::Lead(lease) => {
            let local = fill::start(context, lease, job);
            lead(client, &local).await
        }
        // After the lease: a fill that ended since the look-up has left its hit-for-miss by now, and this
        // one is another.
        LeadOrFollow::Follow(_) if !is_part && cache.is_hit_for_miss(&name.key) => {
            Joined::Passed(PassReason::Remembered, None)
        }
        LeadOrFollow::Follow(follower) => match context.fills.get(follower.at) {
            Some(local) => {
                let at = follower.at;
                // A fill of this worker wakes its readers itself.
                drop(follower);
                if let Progress::Object(object) = local.progress()
                    && (demands_validation || !object.is_fresh(reactor::now().unix_s()))
                {
                    return outlast(client, &local).await;
                }
                follow_local(client, cache, at, &local, &request, &name).await
            }
            None => follow_remote(client, cache, follower, &request, &name).await,
        },
        LeadOrFollow::Changed => Joined::Again,
        LeadOrFollow::Full => Joined::Passed(PassReason::Store, None),
    }
}

/// Waits for a future; `false` if the client goes meanwhile.
async fn wait<C: Client>(client: &mut C, something: impl Future<Output = ()>) -> bool {
    Race::new(something, client.gone()).await.is_some()
}

/// Waits for a change of a fill that has no answer yet; `false` if the client goes meanwhile, or, while
/// the fill waits for a connection, if it closes its own side.
async fn wait_for_fetch<C: Client>(client: &mut C, local: &LocalFill, since: u64) -> bool {
    let change = local.event.after(since);
    match local.is_queued() {
        true => Race::new(change, client.left()).await.is_some(),
        false => wait(client, change).await,
    }
}

/// The window of an answer with the whole body, whatever its length will be.
const EVERYTHING: Range<u64> = 0..u64::MAX;

const GONE: Joined = Joined::Closed(CloseReason::ClientGone);

/// Whether a request may join a fill. A purge may name its response by a tag, and the tags are
/// known only now.
fn may_join(cache: &Cache, at: FillAt, name: &Name, lifetimes: &Lifetimes) -> bool {
    !cache.doom_if_purged(at, name, &lifetimes.surrogates)
}

async fn lead<C: Client>(client: &mut C, local: &Rc<LocalFill>) -> Joined {
    let reading = local.read();
    loop {
        let since = local.event.version();
        while let Some(head) = local.take_interim() {
            if let Err(reason) = client.interim(&head).await {
                return Joined::Closed(reason);
            }
        }
        let role = FillRole::Led(Rc::clone(local));
        match local.progress() {
            Progress::Fetching => {
                if !wait_for_fetch(client, local, since).await {
                    return GONE;
                }
            }
            Progress::Object(object) => return Joined::Object(object, role),
            Progress::Parts(object) => return Joined::Parts(object, role),
            Progress::Streaming(object) => {
                let leader = Leader::Local { fill: Rc::clone(local), _reading: reading };
                return Joined::Stream(Reader { object, leader }, role);
            }
            Progress::Passed(reason) | Progress::Unshared(reason) | Progress::Refused(reason) => {
                return Joined::Passed(reason, local.take_handover());
            }
            Progress::Failed(error) => return Joined::Failed(error),
        }
    }
}

/// Waits for the end of a fill, and looks again. The origin had answered it before this request came,
/// which has to ask it again (RFC 9111 section 5.2.1.4).
async fn outlast<C: Client>(client: &mut C, local: &LocalFill) -> Joined {
    loop {
        let since = local.event.version();
        if local.is_over() {
            return Joined::Again;
        }
        if !wait(client, local.event.after(since)).await {
            return GONE;
        }
    }
}

async fn follow_local<C: Client>(
    client: &mut C,
    cache: &Cache,
    at: FillAt,
    local: &Rc<LocalFill>,
    request: &RequestHead,
    name: &Name,
) -> Joined {
    let reading = local.read();
    loop {
        let since = local.event.version();
        match local.progress() {
            Progress::Fetching => {
                if !wait_for_fetch(client, local, since).await {
                    return GONE;
                }
            }
            Progress::Object(object)
                if object.key == name.key && may_join(cache, at, name, &object.lifetimes) =>
            {
                return Joined::Object(object, FillRole::Followed);
            }
            Progress::Parts(object)
                if object.key == name.key && may_join(cache, at, name, &object.lifetimes) =>
            {
                return Joined::Parts(object, FillRole::Followed);
            }
            Progress::Streaming(object)
                if object.is_for(&request.fields, name)
                    && may_join(cache, at, &object.name, &object.lifetimes) =>
            {
                let leader = Leader::Local { fill: Rc::clone(local), _reading: reading };
                return Joined::Stream(Reader { object, leader }, FillRole::Followed);
            }
            // It is another variant than the request selects, or it was purged.
            Progress::Object(_) | Progress::Parts(_) | Progress::Streaming(_) => {
                return Joined::Again;
            }
            Progress::Refused(_) => return Joined::Failed(FetchError::BadStatus),
            Progress::Passed(_) => return Joined::Passed(PassReason::Remembered, None),
            Progress::Unshared(_) => return Joined::Unshared,
            Progress::Failed(FetchError::FillLost) => return Joined::Again,
            Progress::Failed(error) => return Joined::Failed(error),
        }
    }
}

async fn follow_remote<C: Client>(
    client: &mut C,
    cache: &Cache,
    follower: Follower,
    request: &RequestHead,
    name: &Name,
) -> Joined {
    let at = follower.at;
    loop {
        let since = follower.version();
        match follower.state() {
            FillState::Fetching => {
                if !wait(client, follower.after(since)).await {
                    return GONE;
                }
            }
            FillState::Streaming { total, .. } => {
                let Some(object) = FillObject::followed(&follower, total).await else {
                    // Its file has got its name by now, and the index shows it next.
                    if !wait(client, follower.after(since)).await {
                        return GONE;
                    }
                    continue;
                };
                let is_it = object.is_for(&request.fields, name);
                if !is_it || !may_join(cache, at, &object.name, &object.lifetimes) {
                    return Joined::Again;
                }
                let object = Rc::new(object);
                let leader = Leader::Remote(follower);
                return Joined::Stream(Reader { object, leader }, FillRole::Followed);
            }
            FillState::Pass => return Joined::Passed(PassReason::Remembered, None),
            FillState::Failed { code: UNSHARED } => return Joined::Unshared,
            FillState::Failed { code } => {
                return FetchError::of_code(code).map_or(Joined::Again, Joined::Failed);
            }
            FillState::Done { .. } => return Joined::Ended,
            FillState::Gone => return Joined::Again,
        }
    }
}

/// Reads a response that is being written.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The response that is being written.
    pub object: Rc<FillObject>,
    leader: Leader,
}

#[derive(Debug)]
enum Leader {
    Local { fill: Rc<LocalFill>, _reading: Reading },
    Remote(Follower),
}

impl Reader {
    fn version(&self) -> u64 {
        match &self.leader {
            Leader::Local { fill, .. } => fill.event.version(),
            Leader::Remote(follower) => follower.version(),
        }
    }

    async fn flow(&self, sent: u64) -> Flow {
        match &self.leader {
            Leader::Local { fill, .. } => fill.flow(),
            Leader::Remote(follower) => {
                match follower.state() {
                    FillState::Streaming { bytes, .. } => Flow::Open(bytes),
                    FillState::Done { bytes } => Flow::Done(bytes),
                    // The row of the table may belong to another fill by now, but the file says how
                    // it ended.
                    FillState::Gone => match self.object.finished_len().await {
                        // A part that broke off is kept as far as it came.
                        Some(bytes) if self.object.total.is_none_or(|total| total == bytes) => {
                            Flow::Done(bytes)
                        }
                        _ => Flow::Broken(sent),
                    },
                    FillState::Pass => Flow::Unstored(sent),
                    FillState::Fetching | FillState::Failed { .. } => Flow::Broken(sent),
                }
            }
        }
    }

    async fn wait(&self, since: u64) {
        match &self.leader {
            Leader::Local { fill, .. } => fill.event.after(since).await,
            Leader::Remote(follower) => follower.after(since).await,
        }
    }
}

/// Answers with a response that is being written, as fast as it comes and the client reads. If the
/// fill stops storing the response, the caller sends the rest.
pub(crate) async fn send<C: Client>(
    client: &mut C,
    request: &RequestHead,
    reader: &Reader,
    role: &FillRole,
    added: &Added,
    facts: &mut Facts,
) -> Result<Delivery, CloseReason> {
    let object = &reader.object;
    let now_s = reactor::now().unix_s();
    let age_s = added.age_s(&object.lifetimes, now_s);
    let len = object.total.unwrap_or(u64::MAX);
    let (status, length, window) = match answer::answer(request, object.status, &object.fields, len)
    {
        Answer::NotModified => {
            let fields = respond::not_modified(&object.fields, age_s, added);
            respond::whole(client, Status(304), fields, b"", added, facts).await?;
            return Ok(Delivery::Whole);
        }
        Answer::Unsatisfiable if object.total.is_some() => {
            respond::unsatisfiable(client, len, added, facts).await?;
            return Ok(Delivery::Whole);
        }
        Answer::Partial(Ranges::One(range)) if object.total.is_some() => {
            (Status(206), BodyLength::Known(range.end - range.start), range)
        }
        // For several ranges, or a range of a body of unknown length, the whole is a correct answer
        // too.
        Answer::Full | Answer::Partial(_) | Answer::Unsatisfiable => {
            let length = object.total.map_or(BodyLength::Chunked, BodyLength::Known);
            (object.status, length, EVERYTHING)
        }
    };
    let mut fields = respond::stored_fields(&object.fields, age_s, added);
    if window != EVERYTHING {
        let place = ContentRange { range: window.clone(), complete: Some(len) };
        fields.set("Content-Range", place.text().as_bytes());
    }
    start(client, status, fields, length, added, facts);
    if client.wants_no_body() {
        client.finish(&Fields::new()).await?;
        return Ok(Delivery::Whole);
    }
    match copy(client, reader, role, window.clone()).await? {
        Copied::Whole(_) => {
            client.finish(&Fields::new()).await?;
            Ok(Delivery::Whole)
        }
        Copied::Unstored(at, None) if window != EVERYTHING => {
            client.abort();
            debug_assert!(at <= window.end, "no more is sent than asked for");
            Err(CloseReason::Incomplete)
        }
        Copied::Unstored(at, None) => Ok(Delivery::Part(at)),
        Copied::Unstored(at, Some(handover)) => {
            resume::finish_with_handover(client, *handover, at, window).await?;
            Ok(Delivery::Whole)
        }
    }
}

/// How much of a body that is being written was copied.
#[derive(Debug)]
pub(crate) enum Copied {
    /// The whole window, or the rest of the body, up to this offset.
    Whole(u64),
    /// Nothing after this offset is stored. The leader has the rest of the origin's response.
    Unstored(u64, Option<Box<Handover>>),
}

/// Copies a window of a body that is being written.
pub(crate) async fn copy<C: Client>(
    client: &mut C,
    reader: &Reader,
    role: &FillRole,
    window: Range<u64>,
) -> Result<Copied, CloseReason> {
    let object = &reader.object;
    let mut sent = window.start;
    loop {
        let since = reader.version();
        let flow = reader.flow(sent).await;
        let (Flow::Open(bytes) | Flow::Done(bytes) | Flow::Broken(bytes) | Flow::Unstored(bytes)) =
            flow;
        let end = bytes.min(window.end);
        if end > sent {
            client.send_file(&object.file, object.body_offset + sent, end - sent).await?;
            sent = end;
            continue;
        }
        if sent >= window.end {
            return Ok(Copied::Whole(sent));
        }
        match flow {
            Flow::Done(_) => return Ok(Copied::Whole(sent)),
            Flow::Broken(_) => {
                client.abort();
                return Err(CloseReason::Incomplete);
            }
            Flow::Unstored(bytes) => {
                let handover = match role {
                    FillRole::Led(local) => local.take_handover(),
                    FillRole::Followed => None,
                };
                return Ok(Copied::Unstored(bytes, handover));
            }
            Flow::Open(_) => {
                // The last byte waits for the end of the fill, and with it for the line of the log.
                if object.total != Some(sent) {
                    client.flush().await?;
                }
                if !wait(client, reader.wait(since)).await {
                    return Err(CloseReason::ClientGone);
                }
            }
        }
    }
}

/// How much of a stream the client got.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// All of it.
    Whole,
    /// This many bytes. The rest is not stored, and the leader has the origin's response.
    Part(u64),
}
