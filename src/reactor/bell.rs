//! Tasks of one thread telling one another that something has changed.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Something that tasks of this thread listen to. It says that there is a change, not which:
///
/// ```text
/// loop { let heard = bell.heard(); if the change is there { break } heard.await; }
/// ```
///
/// A ring between `heard` and the await is not lost. An unheard bell costs no allocation.
#[derive(Debug, Default)]
pub struct Bell {
    n_rings: Cell<u64>,
    waiters: RefCell<Slab<Waker>>,
}

/// Listening to a bell; dropping it ends that.
#[derive(Debug)]
#[must_use = "nothing is heard unless awaited"]
pub struct Heard<'a> {
    bell: &'a Bell,
    /// Rings before it began to listen.
    n_before: u64,
    key: usize,
}

impl Bell {
    /// A bell that nobody listens to.
    pub const fn new() -> Self {
        Self { n_rings: Cell::new(0), waiters: RefCell::new(Slab::new()) }
    }

    /// Wakes everybody who listens.
    pub fn ring(&self) {
        self.n_rings.set(self.n_rings.get() + 1);
        let mut waiters = self.waiters.take();
        for waker in waiters.drain() {
            waker.wake();
        }
        let mut place = self.waiters.borrow_mut();
        if place.is_empty() {
            // Its room is kept for the next who wait.
            *place = waiters;
        }
    }

    /// Listens from now on.
    pub const fn heard(&self) -> Heard<'_> {
        Heard { bell: self, n_before: self.n_rings.get(), key: NOWHERE }
    }

    /// How many wait.
    pub fn n_waiters(&self) -> usize {
        self.waiters.borrow().len()
    }
}

impl Future for Heard<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let heard = self.get_mut();
        if heard.bell.n_rings.get() != heard.n_before {
            return Poll::Ready(());
        }
        let mut waiters = heard.bell.waiters.borrow_mut();
        match waiters.get_mut(heard.key) {
            Some(waker) => waker.clone_from(context.waker()),
            None => heard.key = waiters.insert(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        // A ring has taken everybody off the list.
        if self.key != NOWHERE && self.bell.n_rings.get() == self.n_before {
            let waker = self.bell.waiters.borrow_mut().try_remove(self.key);
            drop(waker);
        }
    }
}

const NOWHERE: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::reactor::timer::timeout;
    use crate::reactor::{run, spawn_task, yield_now};

    #[test]
    fn everybody_who_listens_hears_one_ring() {
        run(async {
            let bell = Rc::new(Bell::new());
            let tasks: Vec<_> = (0..50)
                .map(|_| {
                    let bell = Rc::clone(&bell);
                    spawn_task(async move { bell.heard().await })
                })
                .collect();
            yield_now().await;
            assert_eq!(bell.n_waiters(), 50);
            bell.ring();
            for task in tasks {
                task.await;
            }
            assert_eq!(bell.n_waiters(), 0);
        })
        .unwrap();
    }

    #[test]
    fn a_ring_before_the_await_is_heard_and_one_before_listening_is_not() {
        run(async {
            let bell = Bell::new();
            bell.ring();
            let heard = bell.heard();
            bell.ring();
            heard.await;
            assert!(timeout(Duration::from_millis(2), bell.heard()).await.is_err());
        })
        .unwrap();
    }

    #[test]
    fn who_stops_listening_is_forgotten() {
        run(async {
            let bell = Bell::new();
            assert!(timeout(Duration::from_millis(1), bell.heard()).await.is_err());
            assert_eq!(bell.n_waiters(), 0);
            {
                let mut old = Box::pin(bell.heard());
                assert!(timeout(Duration::from_millis(1), &mut old).await.is_err());
                bell.ring();
                let mut new = Box::pin(bell.heard());
                assert!(timeout(Duration::from_millis(1), &mut new).await.is_err());
                drop(old);
                assert_eq!(bell.n_waiters(), 1, "the old one takes only itself away");
            }
            assert_eq!(bell.n_waiters(), 0);
        })
        .unwrap();
    }
}
