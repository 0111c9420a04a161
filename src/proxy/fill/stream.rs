//! A fill whose response is written as it comes, and read by all clients from the file.
//!
//! A helper writes while the task reads on from the origin. If the disk does not keep up, the
//! response is no longer stored, and the leader goes on with it.

use std::future::{pending, ready};
use std::io;
use std::pin::pin;
use std::rc::Rc;

use crate::cache::files::spool::Spool;
use crate::cache::fill_object::FillObject;
use crate::cache::insert::{self, NewObject};
use crate::cache::variants::NewVariant;
use crate::http::head::BodyLength;
use crate::origin::alone::Alone;
use crate::origin::fetch::Response;
use crate::policy::reason::fetch::FetchError;
use crate::proxy::fill::job::is_part;
use crate::proxy::fill::{Fill, patience};
use crate::proxy::progress::Flow;
use crate::proxy::progress::Progress;
use crate::reactor::{self, timer};
use crate::sys::pinned::Race;

/// Other workers are told of progress in steps of at least this.
const TELL_BYTES: u64 = 64 << 10;

/// What is read from the origin while a helper writes what came before.
const AHEAD_BYTES: usize = 512 << 10;

/// Why a stream ended early.
#[derive(Debug)]
enum EarlyEnd {
    Origin(FetchError),
    Disk(io::Error),
    TooLarge,
    Abandoned,
}

impl Fill {
    /// A larger response: written as it comes, and read by all clients from the file.
    pub(super) async fn stream(self, new: NewObject, mut response: Response, mut part: Vec<u8>) {
        let total = match response.head.length {
            BodyLength::Known(len) => Some(len),
            _ => None,
        };
        let begin = self.lease.begin(&new, total.filter(|_| !is_part(&new)));
        let mut spool = match self.in_time(response.times, begin).await {
            Ok(spool) => spool,
            Err(error) => return self.refused(&error, response, part),
        };
        self.lease.head_ready(total);
        self.lease.cache.announce(total);
        let object = FillObject::begun(&new, &spool, total);
        self.local.set(Progress::Streaming(Rc::new(object)));
        match self.pour(&mut spool, &mut response, &mut part).await {
            Ok(()) => {}
            Err(EarlyEnd::Origin(error)) => return self.broken_off(&new, spool, error).await,
            Err(EarlyEnd::Abandoned) => {
                return self.broken_off(&new, spool, FetchError::FillLost).await;
            }
            Err(end) => {
                let mut for_s = insert::HIT_FOR_MISS_S;
                if let EarlyEnd::Disk(error) = &end {
                    self.lease.cache.refused(error);
                    for_s = insert::HIT_FOR_MISS_REFUSED_S;
                }
                return self.unstored(response, part, spool.written(), for_s);
            }
        }
        let bytes = spool.written();
        let mut ending = pin!(self.end(&new, spool));
        if timer::timeout(patience(response.times), ending.as_mut()).await.is_err() {
            // The clients have all of it, and need not wait for its name.
            self.local.set_flow(Flow::Done(bytes));
            ending.await;
        }
        // Followers take "done" to be after the last byte they were told of.
        self.lease.progress(bytes);
        self.lease.done();
        self.local.set_flow(Flow::Done(bytes));
    }

    /// Completes the file of a stream, and shows it in the index unless something made it untrue.
    async fn end(&self, new: &NewObject, spool: Spool) {
        let bytes = spool.written();
        self.doom_if_purged(new);
        if !self.lease.is_doomed() {
            self.lease.cache.room_for(bytes).await;
        }
        self.lease.settle();
        // The object under the name may be newer than the purge that doomed this fill: it stays.
        let was_doomed = self.lease.is_doomed();
        let stored = match was_doomed {
            // A reader in another worker may have to learn from the file that it is complete.
            true => spool.finish().await.map(|()| None),
            false => self.lease.publish(new, spool).await.map(Some),
        };
        if !was_doomed {
            self.lease.remove_if_doomed(&self.job.found);
        }
        match stored {
            Ok(_) if was_doomed => {}
            Ok(_) if is_part(new) => self.enlist(new, bytes, true).await,
            Ok(slot) if new.lifetimes.vary.is_some() => self.list(NewVariant::of(new), slot).await,
            Ok(_) => {}
            Err(error) => self.lease.cache.refused(&error),
        }
        if !was_doomed {
            self.lease.remove_if_doomed(&self.job.found);
        }
    }

    /// Writes the body to the file, and tells the followers how far it is. On an error `part`
    /// holds what was read and not written.
    async fn pour(
        &self,
        spool: &mut Spool,
        response: &mut Response,
        part: &mut Vec<u8>,
    ) -> Result<(), EarlyEnd> {
        let poured = self.pour_on(spool, response, part).await;
        spool.settle().await;
        if let Err(EarlyEnd::Origin(_) | EarlyEnd::Abandoned) = poured
            && spool.is_sound()
        {
            // A part is kept as far as it came.
            spool.append(std::mem::take(part), self.disk_patience());
            spool.settle().await;
        }
        let settled = spool.check().map_err(EarlyEnd::Disk);
        self.local.set_flow(Flow::Open(spool.written()));
        let mut unwritten = spool.unwritten();
        unwritten.append(part);
        *part = unwritten;
        poured.and(settled)
    }

    /// Reads on from the origin while a helper writes.
    async fn pour_on(
        &self,
        spool: &mut Spool,
        response: &mut Response,
        part: &mut Vec<u8>,
    ) -> Result<(), EarlyEnd> {
        let (mut more, mut told, mut flow, mut alone) = (true, 0, 0, None);
        loop {
            let before = part.len();
            if more && before < AHEAD_BYTES {
                more = response.body.take(part).map_err(EarlyEnd::Origin)?;
            }
            let is_waiting = part.len() == before;
            // Bytes that are not written stay in `part`: the leader may have to pass them on.
            let bytes = spool.written() + (spool.n_flying() + part.len()) as u64;
            if bytes > self.object_bytes_max() {
                return Err(EarlyEnd::TooLarge);
            }
            Race::new(spool.settle(), ready(())).await;
            spool.check().map_err(EarlyEnd::Disk)?;
            let bytes = spool.written();
            // After the look at the helper, so that no bytes stay behind while the task waits.
            if spool.is_idle() && spool.is_sound() && !part.is_empty() {
                let spare = spool.spare();
                spool.append(std::mem::replace(part, spare), self.disk_patience());
            }
            if bytes > flow {
                flow = bytes;
                self.local.set_flow(Flow::Open(bytes));
            }
            if bytes - told >= TELL_BYTES || (is_waiting && bytes > told) {
                told = bytes;
                self.lease.progress(bytes);
            }
            let received = bytes + (spool.n_flying() + part.len()) as u64;
            if more && !self.is_wanted(&mut alone, received, response) {
                return Err(EarlyEnd::Abandoned);
            }
            if !is_waiting {
                reactor::yield_now().await;
            } else if !more && part.is_empty() && spool.is_idle() {
                return Ok(());
            } else if !more || part.len() >= AHEAD_BYTES {
                spool.settle().await;
            } else {
                self.wait(spool, response, alone.as_ref()).await.map_err(EarlyEnd::Origin)?;
            }
        }
    }

    /// Waits for the origin, for the helper that writes, or until the fill may be without use.
    async fn wait(
        &self,
        spool: &mut Spool,
        response: &mut Response,
        alone: Option<&Alone>,
    ) -> Result<(), FetchError> {
        // When a reader has left, the fill may be without readers: check again.
        let left = self.local.event.after(self.local.event.version());
        let doubt = async {
            match alone {
                Some(alone) => Race::new(left, alone.doubt()).await.unwrap_or_default(),
                None => left.await,
            }
        };
        let written = async {
            match spool.is_idle() {
                true => pending().await,
                false => spool.settle().await,
            }
        };
        let end = pin!(Race::new(written, doubt));
        Race::new(response.body.wait(), end).await.unwrap_or(Ok(()))
    }

    /// Whether a fill should go on: it has readers, or ends soon and is in the way of no other
    /// fetch.
    fn is_wanted(&self, alone: &mut Option<Alone>, bytes: u64, response: &Response) -> bool {
        let is_background = self.job.is_background && !self.is_overlong(bytes);
        if is_background || self.local.has_readers() || self.lease.has_followers() {
            *alone = None;
            return true;
        }
        if alone.is_none() {
            let upstream = self.context.pools.upstream(&self.job.whole.destination);
            *alone = upstream.as_ref().and_then(Alone::begin);
        }
        let since_ms = response.times.received.mono_ms();
        let remaining = response.body.remaining();
        alone.as_ref().is_some_and(|alone| alone.may_go_on(since_ms, bytes, remaining))
    }

    /// Stops storing. The leader goes on with the origin's answer. Every other reader asks for the
    /// rest alone, and so do requests that come within `for_s` seconds.
    fn unstored(self, response: Response, read: Vec<u8>, bytes: u64, for_s: u64) {
        self.remember_hit_for_miss(for_s);
        self.local.hand_over(response, read);
        self.lease.progress(bytes);
        self.lease.pass();
        self.local.set_flow(Flow::Unstored(bytes));
    }
}
