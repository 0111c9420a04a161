//! A notice board within one worker: something changed, whoever waits may look again.
//!
//! A waiter first reads the version, then looks, then waits for a later version; a change
//! between the look and the wait is therefore never missed.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Wakes every task that waits for a change.
#[derive(Debug, Default)]
pub struct Notice {
    version: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Notice {
    /// The number of changes so far.
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// Says that something changed.
    pub fn post(&self) {
        self.version.set(self.version.get() + 1);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits until there were more than `since` changes.
    pub fn later_than(&self, since: u64) -> Later<'_> {
        Later { notice: self, since }
    }
}

/// Waits for a change; safe to drop at any time.
#[derive(Debug)]
pub struct Later<'n> {
    notice: &'n Notice,
    since: u64,
}

impl Future for Later<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        if self.notice.version.get() > self.since {
            return Poll::Ready(());
        }
        let mut waiting = self.notice.waiting.borrow_mut();
        // A future that lost a race was dropped, but its waker is the task's own: once is enough.
        if !waiting.iter().any(|waker| waker.will_wake(task.waker())) {
            waiting.push(task.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_change_before_the_wait_is_not_missed() {
        let notice = Notice::default();
        let since = notice.version();
        notice.post();
        let mut later = pin!(notice.later_than(since));
        let waker = Waker::from(Arc::new(Count(AtomicUsize::new(0))));
        assert!(later.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn a_change_wakes_a_waiter_once() {
        let notice = Notice::default();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut task = Context::from_waker(&waker);
        let mut later = pin!(notice.later_than(notice.version()));
        assert!(later.as_mut().poll(&mut task).is_pending());
        assert!(later.as_mut().poll(&mut task).is_pending());
        notice.post();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(later.as_mut().poll(&mut task).is_ready());
    }
}
