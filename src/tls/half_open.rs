//! The connections whose handshakes are under way: their number is bounded, and the oldest goes first.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::reactor::{self, Task};
use crate::tls::turns::Turns;

/// The handshakes of a worker.
#[derive(Debug)]
pub struct HalfOpen {
    n_max: usize,
    next: Cell<u64>,
    /// By their order: since when, in milliseconds of the monotonic clock, and the task.
    all: RefCell<BTreeMap<u64, (u64, Task<()>)>>,
    turns: Rc<Turns>,
}

impl HalfOpen {
    /// At most `n_max` at once.
    pub fn new(n_max: usize) -> Self {
        Self { n_max, next: Cell::new(0), all: RefCell::default(), turns: Rc::default() }
    }

    /// The steps of all.
    pub fn turns(&self) -> Rc<Turns> {
        Rc::clone(&self.turns)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts `handshake` as a task, and `then` with its result. If there are too many, the oldest
    /// ends.
    pub fn spawn<T: 'static>(
        self: &Rc<Self>,
        handshake: impl Future<Output = T> + 'static,
        then: impl FnOnce(T) + 'static,
    ) {
        if self.len() >= self.n_max && self.shed(1, u64::MAX) > 0 {
            let n_max = self.n_max;
            ::log::warn!(
                "closed the oldest TLS handshake or PROXY header, because limits.handshakes \
                 ({n_max}) are under way"
            );
        }
        let number = self.next.replace(self.next.get() + 1);
        let half_open = Rc::clone(self);
        let task = reactor::spawn_task(async move {
            let result = handshake.await;
            // A task that is dropped is cancelled; this one is at its end.
            let own = half_open.all.borrow_mut().remove(&number);
            own.into_iter().for_each(|(_, task)| task.detach());
            then(result);
        });
        self.all.borrow_mut().insert(number, (reactor::now().mono_ms(), task));
    }

    /// Ends at most `n` of those that began before `before_ms`, the oldest first; returns how many.
    pub fn shed(&self, n: usize, before_ms: u64) -> usize {
        let mut n_shed = 0;
        while n_shed < n {
            let mut all = self.all.borrow_mut();
            let Some(oldest) = all.first_entry() else { break };
            if oldest.get().0 >= before_ms {
                break;
            }
            let task = oldest.remove();
            drop(all);
            drop(task);
            n_shed += 1;
        }
        n_shed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[test]
    fn the_oldest_ends_when_there_are_too_many() {
        let run = reactor::run(async {
            let half_open = Rc::new(HalfOpen::new(2));
            let ended: Rc<RefCell<Vec<u32>>> = Rc::default();
            struct Ends(Rc<RefCell<Vec<u32>>>, u32);
            impl Drop for Ends {
                fn drop(&mut self) {
                    self.0.borrow_mut().push(self.1);
                }
            }
            for number in 0..4 {
                let ends = Ends(Rc::clone(&ended), number);
                let handshake = async move {
                    let _ends = ends;
                    pending::<()>().await;
                };
                half_open.spawn(handshake, |()| unreachable!("it never ends"));
                reactor::yield_now().await;
            }
            reactor::yield_now().await;
            assert_eq!(half_open.len(), 2);
            assert_eq!(*ended.borrow(), [0, 1]);
            assert_eq!(half_open.shed(10, u64::MAX), 2);
            reactor::yield_now().await;
            assert_eq!(*ended.borrow(), [0, 1, 2, 3]);
            // One that ends gives its place back.
            let is_done = Rc::new(Cell::new(false));
            let done = Rc::clone(&is_done);
            half_open.spawn(async {}, move |()| done.set(true));
            while !is_done.get() {
                reactor::yield_now().await;
            }
            assert!(half_open.is_empty());
        });
        run.unwrap();
    }
}
