//! The helper threads, and what they share with the loop.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::disk::queue::{Kind, Queue};
use crate::sys::process;

/// The result of a job; an error is a panic.
pub(super) type Outcome = Result<Box<dyn Any + Send>, Box<dyn Any + Send>>;

/// A job, and the number of the task's wait for it, if there is one.
pub(super) struct Job {
    pub(super) waiter: Option<usize>,
    pub(super) work: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
}

/// The stack of a helper: a job reads into buffers on the heap.
const STACK_BYTES: usize = 256 << 10;

/// The state that helpers and the loop share.
#[derive(Debug)]
pub(super) struct Desk {
    state: Mutex<State>,
    work: Condvar,
    answers: Mutex<Vec<(usize, Outcome)>>,
    /// Posted when there are answers.
    pub(super) event: EventFd,
    n_helpers_max: usize,
}

#[derive(Debug)]
struct State {
    queue: Queue<Job>,
    n_helpers: usize,
    n_idle: usize,
    is_closed: bool,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("waiter", &self.waiter).finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk for this many helpers, none of which has started.
    pub(super) fn new(n_helpers_max: usize) -> io::Result<Arc<Self>> {
        let queue = Queue::new(n_helpers_max);
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Arc::new(Self {
            state: Mutex::new(State { queue, n_helpers: 0, n_idle: 0, is_closed: false }),
            work: Condvar::new(),
            answers: Mutex::default(),
            event,
            n_helpers_max,
        }))
    }

    /// Gives a job to the helpers, and starts one more if all are at work; gives the job back if
    /// too many wait.
    pub(super) fn give(self: &Arc<Self>, kind: Kind, job: Job) -> Result<(), Job> {
        let mut state = lock(&self.state);
        state.queue.push(kind, job)?;
        let is_short = state.queue.n_ready() > state.n_idle;
        if is_short && state.n_helpers < self.n_helpers_max {
            let desk = Arc::clone(self);
            match process::start_thread("ktrix-disk", STACK_BYTES, move || desk.help()) {
                Ok(()) => state.n_helpers += 1,
                // The others do it. Without any, the next job tries again.
                Err(error) => ::log::warn!("cannot start a thread for the disk: {error}"),
            }
        }
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Takes the answers that are there.
    pub(super) fn answers(&self) -> Vec<(usize, Outcome)> {
        std::mem::take(&mut lock(&self.answers))
    }

    /// Has every helper end after the job it is at; what waits is dropped.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        let jobs = std::mem::replace(&mut state.queue, Queue::new(1));
        drop(state);
        drop(jobs);
        self.work.notify_all();
    }

    /// The loop of a helper.
    fn help(&self) {
        let mut state = lock(&self.state);
        while !state.is_closed {
            let Some((kind, job)) = state.queue.take() else {
                state.n_idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.n_idle -= 1;
                continue;
            };
            drop(state);
            let outcome = catch_unwind(AssertUnwindSafe(job.work));
            if let Some(waiter) = job.waiter {
                self.answer(waiter, outcome);
            }
            state = lock(&self.state);
            if !state.is_closed {
                state.queue.done(kind);
            }
        }
    }

    fn answer(&self, waiter: usize, outcome: Outcome) {
        let mut answers = lock(&self.answers);
        answers.push((waiter, outcome));
        // The loop takes all that are there when it is woken.
        if answers.len() == 1 {
            // It can only fail when the counter is full, and then the loop is awake.
            let _ = self.event.write(1);
        }
    }
}

/// The code under these locks does not panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
