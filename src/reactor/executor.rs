//! The tasks of this thread: the queue of those that can run, and the budget of each run.
//!
//! A task that can run is once in a queue. A turn of the loop takes the tasks that were queued at
//! its beginning, at most `TURN_TASKS_MAX`, so that tasks they wake run after the next look at the
//! kernel. Each run of a task has a budget; the streams charge it, and a task that has spent it
//! goes to the end of the queue at its next wait. A task that panics ends alone.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Wake, Waker};

use async_task::{Builder, Runnable};
use slab::Slab;

/// The handle of a task; see `reactor::Task`.
pub(super) type Task<T> = async_task::Task<T, Tag>;

/// The executor's data of a task.
#[derive(Debug)]
pub struct Tag {
    /// The executor that runs the task; one per thread.
    executor: u32,
    /// Its place among the tasks that have no handle, or `NO_KEY`.
    key: u32,
}

/// The run queue and the tasks of one thread.
pub(super) struct Executor {
    /// How the thread gives a woken task to its executor, see [`Executor::wake`].
    schedule: fn(Runnable<Tag>),
    number: Cell<u32>,
    queue: RefCell<VecDeque<Runnable<Tag>>>,
    detached: RefCell<Slab<Task<()>>>,
    budget: Cell<u32>,
    is_closing: Cell<bool>,
    n_panics: Cell<u64>,
}

impl Executor {
    pub(super) const fn new(schedule: fn(Runnable<Tag>)) -> Self {
        Self {
            schedule,
            number: Cell::new(0),
            queue: RefCell::new(VecDeque::new()),
            detached: RefCell::new(Slab::new()),
            budget: Cell::new(BUDGET_BYTES),
            is_closing: Cell::new(false),
            n_panics: Cell::new(0),
        }
    }

    /// Starts a task that ends when its future ends, or when the reactor does.
    pub(super) fn spawn<F: Future<Output = ()> + 'static>(&self, future: F) {
        if self.is_closing.get() {
            return;
        }
        let key = self.detached.borrow().vacant_key();
        let (runnable, task) = self.build(u32::try_from(key).unwrap_or(NO_KEY), future);
        self.detached.borrow_mut().insert(task);
        self.queue.borrow_mut().push_back(runnable);
    }

    /// Starts a task that its handle holds.
    pub(super) fn spawn_task<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let (runnable, task) = self.build(NO_KEY, future);
        self.queue.borrow_mut().push_back(runnable);
        task
    }

    /// Runs the tasks that are queued now, up to the limit, and after some of them `read_clock`.
    pub(super) fn turn(&self, read_clock: impl Fn()) {
        let n_tasks = self.queue.borrow().len().min(TURN_TASKS_MAX);
        for n in 0..n_tasks {
            if n % READING_TASKS == READING_TASKS - 1 {
                read_clock();
            }
            let Some(runnable) = self.queue.borrow_mut().pop_front() else { break };
            self.run_one(runnable);
        }
    }

    /// Ends every task. Tasks that are started meanwhile do not run.
    pub(super) fn close(&self) {
        self.is_closing.set(true);
        let tasks = std::mem::take(&mut *self.detached.borrow_mut());
        drop(tasks);
        self.drain();
    }

    /// Drops the queued tasks, and those that are queued meanwhile.
    pub(super) fn drain(&self) {
        loop {
            let Some(runnable) = self.queue.borrow_mut().pop_front() else { break };
            drop(runnable);
        }
    }

    /// Allows tasks again, after `close`.
    pub(super) fn reopen(&self) {
        self.is_closing.set(false);
    }

    /// Gives the next task its full budget.
    pub(super) fn refill(&self) {
        self.budget.set(BUDGET_BYTES);
    }

    /// Charges the running task for a system call and the bytes it moved.
    pub(super) fn charge(&self, n_bytes: usize) {
        let cost = u32::try_from(n_bytes).unwrap_or(u32::MAX).saturating_add(CALL_BYTES);
        self.budget.set(self.budget.get().saturating_sub(cost));
    }

    /// Whether the running task has spent its budget and should let others run.
    pub(super) fn is_spent(&self) -> bool {
        self.budget.get() == 0
    }

    /// Whether no task can run.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// The number of tasks that panicked.
    pub(super) fn n_panics(&self) -> u64 {
        self.n_panics.get()
    }

    /// The number of tasks without a handle.
    pub(super) fn n_detached(&self) -> usize {
        self.detached.borrow().len()
    }

    fn build<F>(&self, key: u32, future: F) -> (Runnable<Tag>, Task<F::Output>)
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        if self.number.get() == 0 {
            self.number.set(NEXT_NUMBER.fetch_add(1, Ordering::Relaxed));
        }
        let tag = Tag { executor: self.number.get(), key };
        Builder::new().metadata(tag).spawn_local(move |_| future, self.schedule)
    }

    /// Puts a task that was woken into the queue, if it is a task of this executor. A wake from
    /// another thread is not supported, and the task must not be touched there: it is leaked and
    /// never runs again.
    pub(super) fn wake(&self, runnable: Runnable<Tag>) {
        match self.number.get() == runnable.metadata().executor {
            true => self.queue.borrow_mut().push_back(runnable),
            false => std::mem::forget(runnable),
        }
    }

    fn run_one(&self, runnable: Runnable<Tag>) {
        let key = runnable.metadata().key;
        self.refill();
        if catch_unwind(AssertUnwindSafe(|| runnable.run())).is_err() {
            self.n_panics.set(self.n_panics.get() + 1);
            ::log::error!("a task panicked; it was ended, the process continues");
        }
        if key != NO_KEY {
            self.forget_finished(key as usize);
        }
    }

    fn forget_finished(&self, key: usize) {
        let mut detached = self.detached.borrow_mut();
        if detached.get(key).is_some_and(|task| task.is_finished()) {
            let task = detached.remove(key);
            drop(detached);
            drop(task);
        }
    }
}

/// The waker of the main future, which is not a task: a flag.
#[derive(Debug)]
pub(super) struct MainWaker {
    is_woken: AtomicBool,
}

impl MainWaker {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { is_woken: AtomicBool::new(true) })
    }

    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// Whether it was woken since the last call.
    pub(super) fn take(&self) -> bool {
        self.is_woken.load(Ordering::Relaxed) && self.is_woken.swap(false, Ordering::Acquire)
    }

    pub(super) fn is_woken(&self) -> bool {
        self.is_woken.load(Ordering::Relaxed)
    }
}

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
    }
}

static NEXT_NUMBER: AtomicU32 = AtomicU32::new(1);

/// The number of tasks after which the clock is read again. This many hits from memory take less than
/// 100 µs together, the lowest bucket of times.
const READING_TASKS: usize = 16;

/// The limit of tasks between two looks at the kernel.
const TURN_TASKS_MAX: usize = 256;

/// The limit of bytes that one run of a task moves before it lets others run.
const BUDGET_BYTES: u32 = 1024 * 1024;

/// The charge for a system call, in bytes: 128 small ones are a budget.
const CALL_BYTES: u32 = 8 * 1024;

/// The key of a task that its handle holds.
const NO_KEY: u32 = u32::MAX;
