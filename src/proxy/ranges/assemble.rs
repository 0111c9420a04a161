//! Answers from parts and from what is fetched between them.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use crate::cache::found::{Found, Lookup};
use crate::cache::hot::HotObject;
use crate::cache::name::PART_STATUS;
use crate::cache::ranges::pieces::{self, Item};
use crate::http::content_range::ContentRange;
use crate::http::fields::Fields;
use crate::http::method::Method;
use crate::http::range::Spec;
use crate::http::status::Status;
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::forward::Fwd;
use crate::policy::rfc9111::partial::{self, Form, Plan};
use crate::policy::rfc9111::parts::{PARTS_MAX, Stretch};
use crate::proxy::client::Client;
use crate::proxy::exchange::{Exchange, Filled};
use crate::proxy::fill::join::{self, Copied, FillRole, Joined, Reader};
use crate::proxy::fill::resume;
use crate::proxy::ranges::answer::Parted;
use crate::proxy::respond::{self, Added, Around, start};
use crate::reactor;

/// How often it is looked for what brings missing bytes, while others change the list.
const LOOKS_MAX: usize = 8;

/// A source of missing bytes.
pub(crate) enum GapSource {
    /// A part that is being written, and the role of this exchange in its fill.
    Stream(Reader, FillRole),
    /// A part that was written, and the role of this exchange in its fill.
    Object(Rc<HotObject>, FillRole),
    /// A part on the list of what is stored. It may end before it says, having broken off.
    Listed(Rc<HotObject>),
}

impl GapSource {
    fn fields(&self) -> &Fields {
        match self {
            Self::Stream(reader, _) => &reader.object.fields,
            Self::Object(object, _) | Self::Listed(object) => &object.fields,
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Stream(reader, _) => reader.object.status,
            Self::Object(object, _) | Self::Listed(object) => object.status,
        }
    }

    /// Its place in the whole, if it is a part of what is listed, has this byte of it, and does not
    /// contradict itself.
    fn place(&self, listed: &HotObject, length: u64, at: u64) -> Option<Range<u64>> {
        let ContentRange { range, complete } = ContentRange::of(self.fields())?;
        let len = range.end - range.start;
        let is_as_long = match self {
            Self::Stream(reader, _) => reader.object.total.is_none_or(|total| total == len),
            Self::Object(part, _) => part.body_len == len,
            Self::Listed(part) => part.body_len <= len,
        };
        let is_right = self.status() == PART_STATUS
            && is_as_long
            && complete == Some(length)
            && range.contains(&at)
            && partial::is_same(&listed.fields, self.fields());
        is_right.then_some(range)
    }
}

impl<C: Client> Exchange<'_, C> {
    /// Answers from parts and from what is fetched between them; or, where that cannot be put
    /// together, from what is fetched for this request.
    pub(crate) async fn complete(&mut self, mut parted: Parted<'_>) -> Result<Filled, CloseReason> {
        let (cache, found, object) = (parted.cache, parted.found, parted.object);
        let (Plan::Bytes(form, ranges), Some(length)) = (&parted.plan, parted.list.length()) else {
            return self.fetch_requested(&parted).await;
        };
        // Without a validator nothing can be put together, but many origins answer the request for
        // the rest with the whole.
        let wants_whole = *form == Form::Whole && self.request.method == Method::Get;
        if partial::strong_validator(&object.fields).is_none() && !wants_whole {
            return self.fetch_requested(&parted).await;
        }
        let items = pieces::load(cache, &found.name, &mut parted.list, ranges).await;
        let Some(gap) = items.iter().flatten().find_map(pieces::missing) else {
            return Ok(Filled::Again);
        };
        // Of what is small, all that is missing around a place is fetched at once.
        let is_small = length <= self.route.rules.fetch_whole_bytes;
        let gap = parted.list.missing_at(gap.start).filter(|_| is_small).unwrap_or(gap);
        let joined = self.fetch_missing(&parted, found, gap.clone(), length).await;
        let source = match joined {
            Joined::Stream(reader, role) if reader.object.status == PART_STATUS => {
                GapSource::Stream(reader, role)
            }
            Joined::Object(bytes, role) if bytes.status == PART_STATUS => {
                GapSource::Object(bytes, role)
            }
            // The origin answers the request of ktrix, and not the client's.
            Joined::Passed(_, Some(handover))
                if matches!(handover.response.head.status.0, 206 | 304 | 416) =>
            {
                return self.retry(&parted).await;
            }
            joined => return self.joined(cache, found, joined, None, Fwd::Partial).await,
        };
        if source.place(object, length, gap.start).is_none() {
            return self.retry(&parted).await;
        }
        let now_s = reactor::now().unix_s();
        let (role, age_s) = match &source {
            GapSource::Stream(reader, role) => {
                (role.clone(), reader.object.lifetimes.current_age_s(now_s))
            }
            GapSource::Object(bytes, role) => (role.clone(), bytes.age_s(now_s)),
            GapSource::Listed(bytes) => (FillRole::Followed, bytes.age_s(now_s)),
        };
        let added = self.filled(Fwd::Partial, &role, true);
        let fields = partial::combine(&object.fields, source.fields());
        let fields = respond::stored_fields(&fields, age_s, &added);
        self.assemble(&parted, fields, items, Some(source), &added).await?;
        Ok(Filled::Answered)
    }

    /// Answers a request for which the origin did not send the missing bytes: by what is stored
    /// now, or, if nothing has changed, without the parts.
    async fn retry(&mut self, parted: &Parted<'_>) -> Result<Filled, CloseReason> {
        match parted.cache.is_current(parted.object) {
            true => self.fetch_requested(parted).await,
            false => Ok(Filled::Again),
        }
    }

    /// Sends an answer of these items, and fetches missing bytes when it is their turn; the first
    /// of them come from `first`.
    pub(crate) async fn assemble(
        &mut self,
        parted: &Parted<'_>,
        mut fields: Fields,
        items: Vec<Vec<Item>>,
        mut first: Option<GapSource>,
        added: &Added,
    ) -> Result<(), CloseReason> {
        let Plan::Bytes(form, ranges) = &parted.plan else { return self.broken() };
        let complete = parted.list.length();
        let around = Around::new(*form, ranges, complete, &mut fields);
        start(self.client, around.status, fields, around.length, added, self.facts);
        let mut n_asked = 0;
        for (head, items) in around.heads.iter().zip(items) {
            self.client.push(head);
            let mut queue = VecDeque::from(items);
            while let Some(item) = queue.pop_front() {
                let gap = match item {
                    Item::Stored(part, range) => {
                        respond::send_range(self.client, &part, range).await?;
                        continue;
                    }
                    Item::Missing(gap) => gap,
                };
                let Some(length) = complete else { return self.broken() };
                let source = match first.take() {
                    Some(source) => Some(source),
                    None => {
                        n_asked += 1;
                        self.next_source(parted, &gap, length).await
                    }
                };
                let place =
                    source.as_ref().and_then(|it| it.place(parted.object, length, gap.start));
                let (Some(source), Some(place)) = (source, place) else { return self.broken() };
                let end = gap.end.min(place.end);
                let window = gap.start - place.start..end - place.start;
                let sent = self.send_from(&source, window).await?;
                let has_lied = matches!(source, GapSource::Stream(..)) && gap.start + sent < end;
                if sent == 0 || has_lied || n_asked > 2 * PARTS_MAX {
                    return self.broken();
                }
                if gap.start + sent < gap.end {
                    queue.push_front(Item::Missing(gap.start + sent..gap.end));
                }
            }
        }
        self.client.push(&around.end);
        self.client.finish(&Fields::new()).await
    }

    /// The source of the next missing bytes: a part that another fill has stored meanwhile, or a
    /// fetch.
    async fn next_source(
        &mut self,
        parted: &Parted<'_>,
        gap: &Range<u64>,
        length: u64,
    ) -> Option<GapSource> {
        let (cache, name) = (parted.cache, &parted.found.name);
        for _ in 0..LOOKS_MAX {
            // With each part that comes there is another list.
            let found = cache.find_again(parted.found, name).await;
            match &found.lookup {
                Lookup::Parts { list, .. } => {
                    let first = list.stretches(&(gap.start..gap.start + 1)).into_iter().next();
                    if let Some(Stretch::Stored { id, .. }) = first
                        && list.length() == Some(length)
                        && let Some(part) = cache.find_object(&name.part(id)).await
                    {
                        return Some(GapSource::Listed(part));
                    }
                }
                Lookup::Stored(_) => return None,
                Lookup::Miss { .. } | Lookup::HitForMiss | Lookup::Unreadable => {}
            }
            match self.fetch_missing(parted, &found, gap.clone(), length).await {
                Joined::Stream(reader, role) => return Some(GapSource::Stream(reader, role)),
                Joined::Object(bytes, role) => return Some(GapSource::Object(bytes, role)),
                Joined::Again => {}
                _ => return None,
            }
        }
        None
    }

    /// Sends this window of a part; says how much of it there was.
    async fn send_from(
        &mut self,
        source: &GapSource,
        window: Range<u64>,
    ) -> Result<u64, CloseReason> {
        match source {
            GapSource::Object(part, _) | GapSource::Listed(part) => {
                let end = window.end.min(part.body_len);
                let bytes = end.saturating_sub(window.start);
                if bytes > 0 {
                    respond::send_range(self.client, part, window.start..end).await?;
                }
                Ok(bytes)
            }
            GapSource::Stream(reader, role) => {
                match join::copy(self.client, reader, role, window.clone()).await? {
                    Copied::Whole(end) => Ok(end.saturating_sub(window.start)),
                    Copied::Unstored(at, Some(handover)) => {
                        let rest = at.max(window.start)..window.end;
                        resume::send_handover(self.client, *handover, at, rest).await?;
                        Ok(window.end - window.start)
                    }
                    Copied::Unstored(_, None) => self.broken().map(|()| 0),
                }
            }
        }
    }

    fn broken(&mut self) -> Result<(), CloseReason> {
        self.client.abort();
        Err(CloseReason::Incomplete)
    }

    /// Fetches missing bytes of the listed response.
    async fn fetch_missing(
        &mut self,
        parted: &Parted<'_>,
        found: &Found,
        gap: Range<u64>,
        length: u64,
    ) -> Joined {
        let spec = Spec::of_missing(&gap, length);
        let validator = partial::strong_validator(&parted.object.fields);
        let mut job = self.part_job(found, spec, validator);
        job.renews = true;
        Box::pin(join::join(self.context, parted.cache, self.client, job)).await
    }
}
