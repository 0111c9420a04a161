//! The bytes of a response that the origin has sent and the client has not taken yet.
//!
//! ```text
//! origin ─▶ memory ─▶ file ─▶ client
//! ```
//!
//! The client takes the oldest bytes, wherever they are, and while it takes them as fast as they come
//! there are none. Once it has been waited for, the origin is read ahead: into memory first, and then
//! into a file, within the bounds of the route. So a slow client does not hold a connection to an
//! origin. All responses of a worker have a bound on their memory together; past it a response goes to
//! its file at once. If the file cannot be written, the origin is read only as fast as the client takes it.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::pin::pin;
use std::task::Poll;

use crate::config::bounds::RouteLimits;
use crate::config::buffering::ResponseBuffering;
use crate::origin::body::OriginBody;
use crate::policy::reason::fetch::FetchError;
use crate::proxy::context::Context;
use crate::proxy::overflow::Overflow;
use crate::reactor::spare::Buffer;
use crate::reactor::{self, timer};
use crate::sys::pinned::Race;

/// How long a client is waited for, on the whole, before it counts as slow. A client that keeps up
/// gets its response through a pipe, which costs less than to read ahead.
const PATIENCE_MS: u64 = 200;

/// The most that [`Next::End`] leaves to be sent.
const LAST_BYTES_MAX: usize = 64 << 10;

/// The response to one client.
#[derive(Debug)]
pub(super) struct Backlog<'c> {
    context: &'c Context,
    memory_max: usize,
    /// 0 for no file.
    file_max: u64,
    file: Option<Overflow>,
    /// Behind what is in the file.
    memory: Vec<u8>,
    /// How the body has ended, behind what is in memory.
    end: Option<Result<(), FetchError>>,
    waited_ms: u64,
    /// The bytes of memory that count with those of all others.
    n_counted: usize,
}

/// The next part of an answer.
pub(super) enum Next {
    /// The bytes that were appended; without any, the origin has sent nothing.
    Bytes,
    /// The bytes that were appended, and the end.
    End,
    /// The body has broken off.
    Broken,
}

impl<'c> Backlog<'c> {
    pub(super) fn new(
        context: &'c Context,
        buffering: ResponseBuffering,
        limits: &RouteLimits,
    ) -> Self {
        let (memory_max, file_max) = match buffering {
            ResponseBuffering::Off => (0, 0),
            ResponseBuffering::Memory => (limits.response_memory_bytes, 0),
            ResponseBuffering::File => (limits.response_memory_bytes, limits.response_file_bytes),
        };
        Self {
            context,
            memory_max,
            file_max,
            file: None,
            memory: Vec::new(),
            end: None,
            waited_ms: 0,
            n_counted: 0,
        }
    }

    /// Whether the client has been given all that the origin has sent.
    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.file.is_none() && self.end.is_none()
    }

    /// Gives the next part of the answer, in a buffer that is empty.
    pub(super) async fn next(&mut self, body: &mut OriginBody, part: &mut Buffer) -> Next {
        if self.file.is_some() {
            self.settle_now().await;
        }
        if let Some(file) = &mut self.file {
            match file.read().await {
                Ok(bytes) => **part = bytes,
                Err(_) => return Next::Broken,
            }
            if part.is_empty() {
                // The bytes that a helper is writing are here still.
                **part = file.take_flying();
                self.file = None;
            }
            if !part.is_empty() {
                return Next::Bytes;
            }
        }
        match self.end {
            _ if !self.memory.is_empty() => **part = std::mem::take(&mut self.memory),
            None => self.end = ended(body.take(part)),
            Some(_) => {}
        }
        self.count(part.len());
        match self.end {
            Some(Ok(())) if part.len() <= LAST_BYTES_MAX => Next::End,
            Some(Err(_)) if part.is_empty() => Next::Broken,
            _ => Next::Bytes,
        }
    }

    /// Does what waits for the client, which has `n_given` bytes of memory, and reads ahead meanwhile.
    pub(super) async fn beside<T>(
        &mut self,
        body: &mut OriginBody,
        n_given: usize,
        work: impl Future<Output = T>,
    ) -> T {
        let since_ms = reactor::now().mono_ms();
        let done = {
            let (mut work, mut ahead) = (pin!(work), pin!(self.read_ahead(body, n_given)));
            poll_fn(|context| {
                let done = work.as_mut().poll(context);
                if done.is_pending() {
                    let _: Poll<Infallible> = ahead.as_mut().poll(context);
                }
                done
            })
            .await
        };
        self.waited_ms += reactor::now().mono_ms() - since_ms;
        done
    }

    /// Reads what the origin sends, as far as there is room. It may be dropped at any time.
    async fn read_ahead(&mut self, body: &mut OriginBody, n_given: usize) -> Infallible {
        if self.memory_max == 0 && self.file_max == 0 {
            return pending().await;
        }
        if let Some(left_ms @ 1..) = PATIENCE_MS.checked_sub(self.waited_ms) {
            timer::sleep_until(reactor::now().mono_ms() + left_ms).await;
        }
        while self.end.is_none() {
            reactor::breathe().await;
            self.settle_now().await;
            let n_flying = self.file.as_ref().map_or(0, Overflow::n_flying);
            let n_kept = n_flying + self.memory.len();
            let may_spill = self.file_max > 0 && n_kept == 0;
            let has_room = self.count(n_given + n_kept);
            if (has_room && n_given + n_kept < self.memory_max) || may_spill {
                let before = self.memory.len();
                self.end = ended(body.take(&mut self.memory));
                if self.memory.len() == before && self.end.is_none() {
                    self.end = body.wait().await.err().map(Err);
                }
            } else if n_flying > 0 {
                self.settle().await;
            } else if !self.spill() {
                return pending().await;
            }
        }
        pending().await
    }

    /// Counts the bytes that this response has in memory; `false` if all responses of the worker have as
    /// many as they may.
    fn count(&mut self, n_bytes: usize) -> bool {
        let counted = &self.context.response_bytes;
        let n_others = counted.get() - self.n_counted;
        self.n_counted = n_bytes;
        counted.set(n_others + n_bytes);
        n_others + n_bytes < self.context.config.limits.responses_bytes
    }

    /// Has a helper write what is in memory; `false` if there is no room for it.
    fn spill(&mut self) -> bool {
        if self.file_max == 0 || self.memory.is_empty() {
            return false;
        }
        let context = self.context;
        let new = || Overflow::new(&context.temporary, &context.bodies, self.file_max);
        match self.file.get_or_insert_with(new).write(&mut self.memory) {
            Ok(has_begun) => has_begun,
            Err(error) => {
                self.give_up(&error);
                false
            }
        }
    }

    /// Waits until what a helper writes is in the file.
    async fn settle(&mut self) {
        let Some(file) = &mut self.file else { return };
        let Err(error) = file.settle().await else { return };
        let mut unwritten = file.take_flying();
        unwritten.append(&mut self.memory);
        self.memory = unwritten;
        self.give_up(&error);
    }

    async fn settle_now(&mut self) {
        Race::new(self.settle(), ready(())).await;
    }

    /// Writes no more. What is in the file can still be read.
    fn give_up(&mut self, error: &io::Error) {
        self.file_max = 0;
        self.context.unbuffered(error);
    }
}

impl Drop for Backlog<'_> {
    fn drop(&mut self) {
        self.count(0);
    }
}

/// How a body has ended, if it has.
fn ended(taken: Result<bool, FetchError>) -> Option<Result<(), FetchError>> {
    match taken {
        Ok(true) => None,
        Ok(false) => Some(Ok(())),
        Err(error) => Some(Err(error)),
    }
}
