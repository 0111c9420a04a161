//! The loop's side of the helpers: jobs given, answers awaited.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use crate::disk::helper::{Desk, Job, Outcome};
use crate::disk::meter::Meter;
use crate::disk::queue::Kind;
use crate::disk::refused::{JobError, Refused};
use crate::reactor::readable::Readable;
use crate::reactor::timer::{self, Sleep};
use crate::reactor::{self, Task};
use crate::sys::file::{Access, Medium};

/// The limits of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most helper threads.
    pub n_helpers: usize,
    /// `timeouts.disk`: how long an answer is awaited.
    pub timeout: Duration,
}

/// A pool, until this is dropped.
#[derive(Debug)]
pub struct Running {
    pool: Rc<Pool>,
    _answers: Task<()>,
}

#[derive(Debug)]
struct Pool {
    desk: Arc<Desk>,
    waiters: RefCell<Slab<Waiter>>,
    timeout: Duration,
    writes: Meter,
}

/// A task's wait for an answer. Its place is not used again before the answer has come.
#[derive(Debug)]
struct Waiter {
    since_us: u64,
    is_write: bool,
    state: WaiterState,
}

#[derive(Debug)]
enum WaiterState {
    Waiting(Option<Waker>),
    Answered(Outcome),
    /// The task no longer waits.
    Left,
}

thread_local! {
    static POOL: RefCell<Option<Rc<Pool>>> = const { RefCell::new(None) };
}

fn pool() -> Option<Rc<Pool>> {
    // While the thread ends there is none.
    POOL.try_with(|pool| pool.borrow().clone()).ok().flatten()
}

/// Whether jobs of this thread are done by helpers.
pub fn is_running() -> bool {
    pool().is_some()
}

/// Whether no job of this thread is awaited.
pub fn is_idle() -> bool {
    pool().is_none_or(|pool| pool.waiters.borrow().is_empty())
}

/// Begins to give the jobs of this thread, on which a reactor runs, to helpers. A helper starts when
/// it is needed.
///
/// # Errors
/// An error of eventfd(2).
pub fn start(limits: Limits) -> io::Result<Running> {
    let running = Running::new(limits)?;
    POOL.with(|place| *place.borrow_mut() = Some(Rc::clone(&running.pool)));
    Ok(running)
}

impl Running {
    /// A pool beside that of this thread, on which a reactor runs, for jobs that are not to wait behind
    /// others.
    ///
    /// # Errors
    /// An error of eventfd(2).
    pub fn new(limits: Limits) -> io::Result<Self> {
        let desk = Desk::new(limits.n_helpers)?;
        let event = Readable::new(desk.event.as_fd().try_clone_to_owned()?);
        let pool = Rc::new(Pool {
            desk,
            waiters: RefCell::default(),
            timeout: limits.timeout,
            writes: Meter::default(),
        });
        let answers = reactor::spawn_task({
            let pool = Rc::clone(&pool);
            async move {
                // Each post is an edge of its own, so the counter need not be read.
                while event.readable().await.is_ok() {
                    pool.take_answers();
                }
            }
        });
        Ok(Self { pool, _answers: answers })
    }

    /// Has a helper of this pool do a job, as [`run`] does.
    pub fn run<T, E>(
        &self,
        kind: Kind,
        job: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Answer<Result<T, E>>
    where
        T: Send + 'static,
        E: JobError + Send + 'static,
    {
        Answer(Rc::clone(&self.pool).give(kind, job))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = POOL.try_with(|place| {
            let mut place = place.borrow_mut();
            let is_its = place.as_ref().is_some_and(|pool| Rc::ptr_eq(pool, &self.pool));
            if is_its { place.take() } else { None }
        });
        self.pool.desk.close();
    }
}

/// Has a helper do a job, and awaits what comes of it, for at most `timeouts.disk`. The job is done
/// also if the answer is not awaited. Without a pool it is done in place.
pub fn run<T, E>(
    kind: Kind,
    job: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Answer<Result<T, E>>
where
    T: Send + 'static,
    E: JobError + Send + 'static,
{
    Answer(match pool() {
        None => State::Ready(job()),
        Some(pool) => pool.give(kind, job),
    })
}

/// Reads: at once if all that is wanted is in memory, else by a helper. The job is called with
/// [`Access::Cached`] first, where the medium allows that.
pub fn read<T, E>(
    medium: Medium,
    job: impl Fn(Access) -> Result<T, E> + Send + 'static,
) -> Answer<Result<T, E>>
where
    T: Send + 'static,
    E: JobError + Send + 'static,
{
    let Some(pool) = pool() else { return Answer(State::Ready(job(Access::Wait))) };
    Answer(match medium.at_once().map(&job) {
        Some(Err(error)) if error.would_block() => pool.give(Kind::Read, move || job(Access::Wait)),
        None => pool.give(Kind::Read, move || job(Access::Wait)),
        Some(result) => State::Ready(result),
    })
}

/// Has a helper do a job that nothing depends on. Without a pool it is done in place.
pub fn detach(job: impl FnOnce() + Send + 'static) {
    let Some(pool) = pool() else { return job() };
    let work = Box::new(move || {
        job();
        Box::new(()) as Box<dyn Any + Send>
    });
    // A job of this kind is never refused.
    let _ = pool.desk.give(Kind::Remove, Job { waiter: None, work });
}

/// How long a write takes: the moving average, or the age of the oldest one that is under way if
/// that is more. In microseconds; 0 without a pool.
pub fn delay_us() -> u64 {
    let Some(pool) = pool() else { return 0 };
    let now_us = reactor::now().mono_us;
    let waiters = pool.waiters.borrow();
    let under_way = waiters.iter().filter(|(_, it)| it.is_write && !it.is_answered());
    let oldest_us = under_way.map(|(_, it)| now_us.saturating_sub(it.since_us)).max();
    pool.writes.average_us(now_us).max(oldest_us.unwrap_or(0))
}

/// How long a client waits for a write that follows an answer which took the origin this long: not at
/// all if the disk is known to take longer.
pub fn patience(origin: Duration) -> Duration {
    let patience = origin.max(PATIENCE_MIN);
    match Duration::from_micros(delay_us()) > patience {
        true => Duration::ZERO,
        false => patience,
    }
}

/// A write that takes no longer than this is not slow, however quick the origin is: it may as well be
/// the processor that is busy.
const PATIENCE_MIN: Duration = Duration::from_millis(250);

impl Waiter {
    fn is_answered(&self) -> bool {
        matches!(self.state, WaiterState::Answered(_))
    }
}

impl Pool {
    fn give<T, E>(
        self: Rc<Self>,
        kind: Kind,
        job: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> State<Result<T, E>>
    where
        T: Send + 'static,
        E: JobError + Send + 'static,
    {
        let work = Box::new(move || Box::new(job()) as Box<dyn Any + Send>);
        let key = self.waiters.borrow_mut().insert(Waiter {
            since_us: reactor::now().mono_us,
            is_write: matches!(kind, Kind::Write(_)),
            state: WaiterState::Waiting(None),
        });
        if self.desk.give(kind, Job { waiter: Some(key), work }).is_err() {
            self.waiters.borrow_mut().remove(key);
            return State::Ready(Err(io::Error::from(Refused::Busy).into()));
        }
        let sleep = timer::sleep(self.timeout);
        State::Waiting(Ticket { pool: self, key }, sleep)
    }

    fn take_answers(&self) {
        let now_us = reactor::now().mono_us;
        for (key, outcome) in self.desk.answers() {
            let mut waiters = self.waiters.borrow_mut();
            let Some(waiter) = waiters.get_mut(key) else { continue };
            if waiter.is_write {
                self.writes.add(now_us.saturating_sub(waiter.since_us), now_us);
            }
            match std::mem::replace(&mut waiter.state, WaiterState::Answered(outcome)) {
                WaiterState::Waiting(waker) => {
                    drop(waiters);
                    waker.into_iter().for_each(Waker::wake);
                }
                _ => {
                    let gone = waiters.remove(key);
                    // The drop of a result may call the pool.
                    drop(waiters);
                    drop(gone);
                }
            }
        }
    }
}

/// The answer to a job. Dropping it leaves the job to itself.
#[must_use = "an answer is to be awaited"]
#[derive(Debug)]
pub struct Answer<R>(State<R>);

#[derive(Debug)]
enum State<R> {
    Ready(R),
    Waiting(Ticket, Sleep),
    Over,
}

/// A place among the waiters.
#[derive(Debug)]
struct Ticket {
    pool: Rc<Pool>,
    key: usize,
}

impl Ticket {
    /// The outcome, or a later call of this waker.
    fn poll(&self, context: &Context<'_>) -> Option<Outcome> {
        let mut waiters = self.pool.waiters.borrow_mut();
        let waiter = waiters.get_mut(self.key)?;
        match std::mem::replace(&mut waiter.state, WaiterState::Left) {
            WaiterState::Answered(outcome) => {
                waiters.remove(self.key);
                Some(outcome)
            }
            _ => {
                waiter.state = WaiterState::Waiting(Some(context.waker().clone()));
                None
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiters = self.pool.waiters.borrow_mut();
        let Some(waiter) = waiters.get_mut(self.key) else { return };
        if !waiter.is_answered() {
            waiter.state = WaiterState::Left;
            return;
        }
        let gone = waiters.remove(self.key);
        drop(waiters);
        drop(gone);
    }
}

impl<R> Unpin for Answer<R> {}

impl<T: 'static, E: JobError + 'static> Future for Answer<Result<T, E>> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.0 {
            State::Waiting(ticket, sleep) => match ticket.poll(context) {
                Some(outcome) => {
                    // The place may be another's by now.
                    ticket.key = usize::MAX;
                    result_of(outcome)
                }
                None => match Pin::new(sleep).poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => Err(io::Error::from(Refused::Late).into()),
                },
            },
            _ => match std::mem::replace(&mut self.0, State::Over) {
                State::Ready(result) => return Poll::Ready(result),
                // Polled after its end, which nothing does.
                _ => return Poll::Pending,
            },
        };
        self.0 = State::Over;
        Poll::Ready(result)
    }
}

fn result_of<T: 'static, E: JobError + 'static>(outcome: Outcome) -> Result<T, E> {
    let panicked = || io::Error::from(Refused::Panicked).into();
    match outcome.map(|result| result.downcast::<Result<T, E>>()) {
        Ok(Ok(result)) => *result,
        Ok(Err(_)) | Err(_) => Err(panicked()),
    }
}

#[cfg(test)]
#[path = "tests/pool.rs"]
mod tests;
