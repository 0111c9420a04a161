//! An event within one worker: it wakes the tasks that wait for a change.
//!
//! A task first reads the version, then looks, then waits for a later version; a change between the
//! look and the wait is therefore never missed.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Wakes every task that waits for a change.
#[derive(Debug, Default)]
pub struct Event {
    version: Cell<u64>,
    waiting: RefCell<Slab<Waker>>,
}

impl Event {
    /// The number of changes so far.
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// Reports a change.
    pub fn notify(&self) {
        self.version.set(self.version.get() + 1);
        for (_, waker) in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits until there were more than `since` changes.
    pub fn after(&self, since: u64) -> Later<'_> {
        Later { event: self, since, place: None }
    }
}

/// Waits for a change; safe to drop at any time.
#[derive(Debug)]
pub struct Later<'n> {
    event: &'n Event,
    since: u64,
    /// The place of its waker, and the version when it was stored: a change removes all wakers.
    place: Option<(usize, u64)>,
}

impl Later<'_> {
    fn leave(&mut self) {
        if let Some((place, version)) = self.place.take()
            && version == self.event.version.get()
        {
            self.event.waiting.borrow_mut().remove(place);
        }
    }
}

impl Future for Later<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        let version = self.event.version.get();
        if version > self.since {
            self.leave();
            return Poll::Ready(());
        }
        self.leave();
        let place = self.event.waiting.borrow_mut().insert(task.waker().clone());
        self.place = Some((place, version));
        Poll::Pending
    }
}

impl Drop for Later<'_> {
    fn drop(&mut self) {
        self.leave();
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
        let event = Event::default();
        let since = event.version();
        event.notify();
        let mut later = pin!(event.after(since));
        let waker = Waker::from(Arc::new(Count(AtomicUsize::new(0))));
        assert!(later.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn a_change_wakes_a_waiter_once() {
        let event = Event::default();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut task = Context::from_waker(&waker);
        let mut later = pin!(event.after(event.version()));
        assert!(later.as_mut().poll(&mut task).is_pending());
        assert!(later.as_mut().poll(&mut task).is_pending());
        event.notify();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(later.as_mut().poll(&mut task).is_ready());
    }

    #[test]
    fn a_dropped_wait_is_forgotten() {
        let event = Event::default();
        let waker = Waker::from(Arc::new(Count(AtomicUsize::new(0))));
        for _ in 0..3 {
            let mut later = Box::pin(event.after(event.version()));
            assert!(later.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert!(event.waiting.borrow().is_empty());
    }
}
