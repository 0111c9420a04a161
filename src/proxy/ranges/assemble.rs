//! Answers from parts and from what is fetched between them.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use crate::cache::found::Found;
use crate::cache::hot::HotObject;
use crate::cache::name::PART_STATUS;
use crate::cache::ranges::list;
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
use crate::proxy::fill::join::{self, Copied, Joined, Part, Reader};
use crate::proxy::fill::resume;
use crate::proxy::ranges::answer::Parted;
use crate::proxy::stored;
use crate::reactor;

/// How often it is looked for what brings missing bytes, while others change the list.
const LOOKS_MAX: usize = 8;

/// What brings missing bytes.
enum Source {
    /// A part that is being written, and who leads its fill.
    Stream(Reader, Part),
    /// A part that was written.
    Object(Rc<HotObject>),
    /// A part on the list of what is stored. It may end before it says, having broken off.
    Listed(Rc<HotObject>),
}

impl Source {
    fn fields(&self) -> &Fields {
        match self {
            Self::Stream(reader, _) => &reader.object.fields,
            Self::Object(object) | Self::Listed(object) => &object.fields,
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Stream(reader, _) => reader.object.status,
            Self::Object(object) | Self::Listed(object) => object.status,
        }
    }

    /// Its place in the whole, if it is a part of what is listed, has this byte of it, and does not
    /// contradict itself.
    fn place(&self, listed: &HotObject, length: u64, at: u64) -> Option<Range<u64>> {
        let ContentRange { range, complete } = ContentRange::of(self.fields())?;
        let len = range.end - range.start;
        let is_as_long = match self {
            Self::Stream(reader, _) => reader.object.total.is_none_or(|total| total == len),
            Self::Object(part) => part.body_len == len,
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
    pub(crate) async fn complete(
        &mut self,
        mut parted: Parted<'_>,
        plan: &Plan,
    ) -> Result<Filled, CloseReason> {
        let (cache, found) = (parted.cache, parted.found);
        let object = parted.object;
        let has_validator = partial::strong_validator(&object.fields).is_some();
        let (Plan::Bytes(form, ranges), Some(length)) = (plan, parted.list.length()) else {
            return self.anew(parted).await;
        };
        // Without a validator nothing can be put together; but the origin may well have all of it
        // for who asks for the rest.
        if !has_validator && (*form != Form::Whole || self.request.method != Method::Get) {
            return self.anew(parted).await;
        }
        let items = pieces::load(cache, &found.name, &mut parted.list, ranges).await;
        let Some(gap) = items.iter().flatten().find_map(pieces::missing) else {
            return Ok(Filled::Again);
        };
        let gap = self.widened(&parted, gap, length);
        let joined = self.ask_for(&parted, found, gap.clone(), length).await;
        let source = match joined {
            Joined::Stream(reader, part) => Source::Stream(reader, part),
            Joined::Object(part, _) if part.status == PART_STATUS && part.key != object.key => {
                Source::Object(part)
            }
            // An answer to a question of ours, not to the client's.
            Joined::Passed(_, Some(handover))
                if matches!(handover.response.head.status.0, 206 | 304 | 416) =>
            {
                return self.without(parted).await;
            }
            joined => {
                return self.joined(cache, &found.name, joined, None, Fwd::Partial).await;
            }
        };
        if source.place(object, length, gap.start).is_none() {
            return match source {
                Source::Stream(reader, part) if reader.object.status != PART_STATUS => {
                    let joined = Joined::Stream(reader, part);
                    self.joined(cache, &found.name, joined, None, Fwd::Partial).await
                }
                _ => self.without(parted).await,
            };
        }
        let part = match &source {
            Source::Stream(_, part) => part.clone(),
            Source::Object(_) | Source::Listed(_) => Part::Followed,
        };
        let added = self.filled(Fwd::Partial, &part, true);
        let fields = partial::combine(&object.fields, source.fields());
        let now_s = reactor::now().unix_s();
        let age_s = match &source {
            Source::Stream(reader, _) => reader.object.lifetimes.current_age_s(now_s),
            Source::Object(part) | Source::Listed(part) => part.age_s(now_s),
        };
        let fields = stored::stored_fields(&fields, age_s, &added);
        let queue = self.begin(*form, ranges, fields, &parted.list, items, &added);
        self.fill_gaps(&parted, queue, source, length).await?;
        Ok(Filled::Answered)
    }

    /// Answers a request that what is missing did not come for, though it was asked for: by what
    /// is stored now, or, if nothing has changed, without the parts.
    async fn without(&mut self, parted: Parted<'_>) -> Result<Filled, CloseReason> {
        match parted.cache.is_current(parted.object) {
            true => self.anew(parted).await,
            false => Ok(Filled::Again),
        }
    }

    /// Sends a body, and fetches what is missing of it when it is its turn.
    async fn fill_gaps(
        &mut self,
        parted: &Parted<'_>,
        mut queue: VecDeque<Item>,
        first: Source,
        length: u64,
    ) -> Result<(), CloseReason> {
        let mut first = Some(first);
        let mut n_asked = 0;
        while let Some(item) = queue.pop_front() {
            let gap = match item {
                Item::Text(text) => {
                    self.client.push(&text);
                    continue;
                }
                Item::Stored(part, range) => {
                    stored::send_range(self.client, &part, range).await?;
                    continue;
                }
                Item::Missing(gap) => gap,
            };
            let source = match first.take() {
                Some(source) => Some(source),
                None => {
                    n_asked += 1;
                    self.next_source(parted, &gap, length).await
                }
            };
            let place = source.as_ref().and_then(|it| it.place(parted.object, length, gap.start));
            let (Some(source), Some(place)) = (source, place) else { return self.broken() };
            let end = gap.end.min(place.end);
            let window = gap.start - place.start..end - place.start;
            let sent = self.send_from(&source, window).await?;
            let has_lied = matches!(source, Source::Stream(..)) && gap.start + sent < end;
            if sent == 0 || has_lied || n_asked > 2 * PARTS_MAX {
                return self.broken();
            }
            if gap.start + sent < gap.end {
                queue.push_front(Item::Missing(gap.start + sent..gap.end));
            }
        }
        self.client.finish(&Fields::new()).await
    }

    /// What brings the next missing bytes: a part that somebody else has stored meanwhile, or a
    /// fetch.
    async fn next_source(
        &mut self,
        parted: &Parted<'_>,
        gap: &Range<u64>,
        length: u64,
    ) -> Option<Source> {
        let (cache, name) = (parted.cache, &parted.found.name);
        for _ in 0..LOOKS_MAX {
            // With each part that comes there is another list.
            let found = cache.find_again(parted.found, name).await;
            if let Some(listed) = found.object() {
                let list = list::read(listed).filter(|_| listed.is_part_list())?;
                let first = list.stretches(&(gap.start..gap.start + 1)).into_iter().next();
                if let Some(Stretch::Stored { id, .. }) = first
                    && list.length() == Some(length)
                    && let Some(part) = cache.find_object(&name.part(id)).await
                {
                    return Some(Source::Listed(part));
                }
            }
            match self.ask_for(parted, &found, gap.clone(), length).await {
                Joined::Stream(reader, part) => return Some(Source::Stream(reader, part)),
                Joined::Object(part, _) => return Some(Source::Object(part)),
                Joined::Again => {}
                _ => return None,
            }
        }
        None
    }

    /// Sends this window of a part; says how much of it there was.
    async fn send_from(&mut self, source: &Source, window: Range<u64>) -> Result<u64, CloseReason> {
        match source {
            Source::Object(part) | Source::Listed(part) => {
                let end = window.end.min(part.body_len);
                let bytes = end.saturating_sub(window.start);
                if bytes > 0 {
                    stored::send_range(self.client, part, window.start..end).await?;
                }
                Ok(bytes)
            }
            Source::Stream(reader, part) => {
                match join::copy(self.client, reader, part, window.clone()).await? {
                    Copied::Whole(end) => Ok(end.saturating_sub(window.start)),
                    Copied::Unstored(at, Some(handover)) => {
                        let rest = at.max(window.start)..window.end;
                        resume::send_on(self.client, *handover, at, rest).await?;
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

    /// Asks for missing bytes of what is listed.
    async fn ask_for(
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

    /// Of what is small, all that is missing around a place is fetched at once.
    fn widened(&self, parted: &Parted<'_>, gap: Range<u64>, length: u64) -> Range<u64> {
        if length > self.route.rules.fetch_whole_bytes {
            return gap;
        }
        let stretches = parted.list.stretches(&(0..length)).into_iter();
        stretches
            .filter_map(|stretch| match stretch {
                Stretch::Missing(range) => Some(range),
                Stretch::Stored { .. } => None,
            })
            .find(|range| range.contains(&gap.start))
            .unwrap_or(gap)
    }
}
