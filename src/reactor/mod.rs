//! The executor of a worker: straight-line tasks on one mio loop, one thread.
//!
//! ```text
//!        ┌─▶ run what can run (bounded) ─▶ ask the kernel (wait only if nothing can run) ─┐
//!        └── wake tasks ◀── note edges, fire timers ◀── read the clock ◀─────────────────┘
//! ```
//!
//! # No wake-up is lost
//!
//! mio reports edges: once, when something changes. Each direction of a source has a flag that
//! means 'worth a try'. It starts raised, an event raises it, and only a try lowers it: by
//! `WouldBlock`, or by moving less than it was asked to (the short-read rule), which says the same
//! without a second system call. A wait sleeps only while the flag is down. So a wake-up could be
//! lost only if something became ready and the flag were down with no event to come:
//!
//! - *Ready before the source is registered.* Registration is lazy, at the first wait. Adding to
//!   epoll reports a present state as a first edge, at the next look.
//! - *Ready between the try and the wait, or the try and lowering the flag.* All of this happens
//!   on one thread between two looks at the kernel, and an edge stays in epoll's list until the
//!   next look. Events are noted before any task runs, and never lower a flag.
//! - *An edge that came before the try.* If it was noted before, the try has seen its cause. If
//!   not, it is noted at the next look and costs one useless try.
//! - *A short read in front of a FIN.* A FIN before the last look has set `CLOSED`, and then a
//!   short read lowers nothing, so that the next read finds the end. A FIN after it is a
//!   new edge. Broken connections do the same.
//! - *A wake while the task runs.* async-task puts a task that is woken while it runs back into
//!   the queue when it pauses.
//! - *A slot used again.* A token carries a generation; events of a source that is gone are
//!   ignored, and nothing of it is left in the slot.
//!
//! (Urgent data and descriptors passed along end a read early though more is there. A peer that
//! sends them delays itself until it sends more; ktrix uses neither.)
//!
//! # Limits
//!
//! A turn runs at most 256 tasks; one run of a task may move 1 MiB or make 128 calls before its
//! next wait puts it at the end of the queue. A task that awaits nothing of the reactor for long
//! calls `yield_now`. One task at a time may wait for a direction of a source. A deadline of 0 is
//! none. Timers fire up to a turn late, never early.

pub mod address;
pub(crate) mod clock;
pub mod event;
mod wheel;
mod executor;
pub mod driver;
pub mod source;
pub mod timer;
pub mod pipe;
pub mod stream;
pub mod listener;
pub mod connect;
pub mod readable;
pub mod scratch;
pub mod spare;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use async_task::Runnable;

use crate::base::time::Now;
use crate::reactor::clock::Clock;
use crate::reactor::driver::Driver;
use crate::reactor::executor::{Executor, MainWaker, Tag};

/// A handle of a task: awaiting it gives its output, dropping it cancels the task, `detach` lets
/// it run on its own.
pub type Task<T> = executor::Task<T>;

/// Runs `main` on this thread until it ends, and the tasks it spawns beside it; then drops the
/// tasks that are left.
///
/// # Errors
///
/// A reactor runs on this thread already, or the kernel refuses an epoll descriptor.
pub fn run<F: Future>(main: F) -> io::Result<F::Output> {
    LOCAL.with(|local| {
        let _run = Run::start(local)?;
        let flag = MainWaker::new();
        let waker = flag.waker();
        let mut main = pin!(main);
        loop {
            if flag.take() {
                local.executor.refill();
                if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Ok(output);
                }
            }
            local.executor.turn(|| local.clock.advance());
            local.look(!flag.is_woken() && local.executor.is_idle())?;
        }
    })
}

/// Gives a woken task to the executor of this thread.
fn schedule(runnable: Runnable<Tag>) {
    let mut runnable = Some(runnable);
    let _ = LOCAL.try_with(|local| runnable.take().map(|it| local.executor.wake(it)));
    // The thread is ending, and its executor is gone.
    std::mem::forget(runnable);
}

/// Starts a task that runs on its own until it ends, or until the reactor does.
pub fn spawn<F: Future<Output = ()> + 'static>(future: F) {
    LOCAL.with(|local| local.executor.spawn(future));
}

/// Starts a task; its handle gives its output, and dropping the handle cancels it.
pub fn spawn_task<F>(future: F) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    LOCAL.with(|local| local.executor.spawn_task(future))
}

/// The time of the last reading of the clock: that of the last look at the kernel, or later in this turn.
pub fn now() -> Now {
    LOCAL.with(|local| local.clock.now())
}

/// The time of the last look at the kernel. Bytes that are read now came before it, or at most one turn
/// later.
pub fn turn_began() -> Now {
    LOCAL.with(|local| local.clock.turn())
}

/// Reads the clock again within a turn, after something that took long.
pub fn refresh_now() -> Now {
    LOCAL.with(|local| local.clock.read())
}

/// Lets all other tasks that can run do so, and handles events.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Yields if this task has spent its budget; streams do so themselves.
pub async fn breathe() {
    if is_spent() {
        yield_now().await;
    }
}

/// Whether the running task has spent its budget of bytes and calls, and should let others run.
pub fn is_spent() -> bool {
    LOCAL.with(|local| local.executor.is_spent())
}

/// Charges the task for work that the streams do not see (bytes spliced, files read).
pub fn charge(n_bytes: usize) {
    LOCAL.with(|local| local.executor.charge(n_bytes));
}

/// The numbers of tasks, sources and timers of this thread's reactor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that `spawn` started and that have not ended.
    pub n_tasks: usize,
    /// Sources registered with the kernel.
    pub n_sources: usize,
    /// Timers, armed or due.
    pub n_timers: usize,
    /// Tasks that ended by a panic, ever.
    pub n_panics: u64,
}

/// Counts the tasks, sources and timers of this thread's reactor.
pub fn counts() -> Counts {
    LOCAL.with(|local| {
        let (n_sources, n_timers) = local.driver.borrow().as_ref().map_or((0, 0), Driver::counts);
        Counts {
            n_tasks: local.executor.n_detached(),
            n_sources,
            n_timers,
            n_panics: local.executor.n_panics(),
        }
    })
}

/// The reactor of a thread.
struct Local {
    executor: Executor,
    driver: RefCell<Option<Driver>>,
    clock: Clock,
}

impl Local {
    const fn new() -> Self {
        Self { executor: Executor::new(schedule), driver: RefCell::new(None), clock: Clock::new() }
    }

    /// Asks the kernel for events once, and calls their wakers.
    fn look(&self, may_wait: bool) -> io::Result<()> {
        let mut place = self.driver.borrow_mut();
        let Some(driver) = place.as_mut() else { return Ok(()) };
        let is_still = self.clock.is_still();
        driver.wait(may_wait && !is_still, self.clock.now().mono_ms())?;
        if is_still && may_wait && driver.has_no_event() {
            let next_ms = driver.next_timer_ms();
            self.clock.jump_to(next_ms.ok_or_else(|| io::Error::other("no task can run again"))?);
        }
        let now = self.clock.begin_turn();
        let mut woken = driver.sort(now.mono_ms());
        drop(place);
        for waker in woken.drain(..) {
            waker.wake();
        }
        if let Some(driver) = self.driver.borrow_mut().as_mut() {
            driver.recycle(woken);
        }
        Ok(())
    }
}

/// The time between the start of a reactor and its end, also by a panic.
struct Run<'a> {
    local: &'a Local,
}

impl<'a> Run<'a> {
    fn start(local: &'a Local) -> io::Result<Self> {
        if local.driver.borrow().is_some() {
            return Err(io::Error::other("a reactor runs on this thread already"));
        }
        let now = local.clock.begin_turn();
        let number = NEXT_RUN.fetch_add(1, Ordering::Relaxed);
        *local.driver.borrow_mut() = Some(Driver::new(number, now)?);
        Ok(Self { local })
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.local.executor.close();
        let driver = self.local.driver.borrow_mut().take();
        // Its wakers may hold the last reference to a task, which must be dropped on this thread.
        drop(driver);
        self.local.executor.drain();
        self.local.executor.reopen();
    }
}

/// Numbers the runs of the process's reactors, from 1.
static NEXT_RUN: AtomicU32 = AtomicU32::new(1);

thread_local! {
    static LOCAL: Local = const { Local::new() };
}

#[cfg(test)]
mod tests;
