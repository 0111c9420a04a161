//! Flushes a log of requests, in a thread of its own: neither the loop nor the cache's helpers wait for the
//! disk of the log.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use crate::config::request_log::RequestLog;
use crate::disk::{self, Kind};
use crate::log::flusher::Flushed;
use crate::proxy::context::Context;
use crate::reactor::{self, timer};

/// The longest that a line stays in the ring while the file is free.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// A flush that takes longer may never end: requests do not wait for it.
const SLOW: Duration = Duration::from_secs(1);

/// The pause before a flush while another one is under way.
const PAUSE: Duration = Duration::from_millis(20);

/// A flush is awaited however long it takes, since only it knows what is written.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);

/// The flushes of a log.
pub(super) struct LogFlush {
    context: Rc<Context>,
    which: RequestLog,
    thread: disk::Running,
}

impl LogFlush {
    /// Begins to flush, if there is such a log.
    ///
    /// # Errors
    /// An error of eventfd(2).
    pub(super) fn start(context: &Rc<Context>, which: RequestLog) -> io::Result<Option<Rc<Self>>> {
        if context.logs[which].is_none() {
            return Ok(None);
        }
        let thread = disk::Running::new(disk::Limits { n_helpers: 1, timeout: FOR_EVER })?;
        let flush = Rc::new(Self { context: Rc::clone(context), which, thread });
        reactor::spawn(Rc::clone(&flush).always());
        Ok(Some(flush))
    }

    /// Flushes everything that is in the ring, to the spill file if need be, for at most this long.
    pub(super) async fn rest(&self, patience: Duration) {
        let all = async {
            while let Some(retry) = self.once(true).await {
                timer::sleep(retry).await;
            }
        };
        // What is left is written by the master.
        let _ = timer::timeout(patience, all).await;
    }

    async fn always(self: Rc<Self>) {
        let Some(log) = &self.context.logs[self.which] else { return };
        loop {
            let since = log.due.version();
            match self.once(false).await {
                None => {
                    // Elapsed or due: flush in either case.
                    let _ = timer::timeout(FLUSH_EVERY, log.due.after(since)).await;
                }
                Some(retry) => {
                    // Lines that fill the ring meanwhile go to the spill file. Where requests wait for
                    // the log, each try would only wake them for nothing.
                    let may_spill = log.lines.borrow().may_spill();
                    let pause = if may_spill { retry.min(PAUSE) } else { retry };
                    timer::sleep(pause).await;
                    let _ = timer::timeout(retry - pause, log.due.after(since)).await;
                }
            }
        }
    }

    /// Flushes once; gives when to try again if lines are left.
    async fn once(&self, is_last: bool) -> Option<Duration> {
        let log = self.context.logs[self.which].as_ref()?;
        let lines = &log.lines;
        if !lines.borrow().has_lines() {
            log.flushed.notify();
            return None;
        }
        let Some(mut flusher) = lines.borrow_mut().begin_flush() else { return Some(PAUSE) };
        let job = move || {
            let flushed = if is_last { flusher.flush_last() } else { flusher.flush() };
            Ok::<_, io::Error>((flusher, flushed))
        };
        let mut job = pin!(self.thread.run(Kind::Remove, job));
        let outcome = match timer::timeout(SLOW, job.as_mut()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                lines.borrow_mut().note_slow_flush();
                log.flushed.notify();
                job.await
            }
        };
        let retry = match outcome {
            Ok((flusher, flushed)) => {
                lines.borrow_mut().end_flush(flusher, flushed);
                match flushed {
                    Flushed::Done => None,
                    Flushed::Busy { retry_ms } | Flushed::Failed { retry_ms } => {
                        Some(Duration::from_millis(retry_ms))
                    }
                }
            }
            Err(error) => {
                ::log::error!("cannot flush the {}: {error}", self.which.name());
                lines.borrow_mut().lose_flusher();
                Some(FLUSH_EVERY)
            }
        };
        log.flushed.notify();
        retry
    }
}
