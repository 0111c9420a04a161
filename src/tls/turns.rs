//! How many steps of handshakes a turn of the loop does.
//!
//! A step with a key exchange and a signature takes as long as hundreds of answers from memory, and
//! nothing interrupts it. The others wait for later turns, in their order.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::reactor;

/// The steps of a turn: with an RSA key of 2048 bits one takes about a millisecond.
const STEPS_MAX: usize = 1;

/// The steps of the handshakes of one direction in a worker.
#[derive(Debug, Default)]
pub struct Turns {
    /// The steps that this turn has done, or that it has granted to those that waited.
    n_done: Cell<usize>,
    /// A grant for each that waits, in their order. One that has left holds its grant no longer.
    waiting: RefCell<VecDeque<(Rc<Cell<bool>>, Waker)>>,
    /// A task waits for the next turn.
    is_counting: Cell<bool>,
}

impl Turns {
    /// Waits until this turn may do another step. A newcomer waits behind those that wait already.
    pub(super) async fn step(self: &Rc<Self>) {
        if self.n_done.get() >= STEPS_MAX || !self.waiting.borrow().is_empty() {
            let grant = Rc::new(Cell::new(false));
            let mut is_queued = false;
            return poll_fn(|context| {
                if grant.get() {
                    return Poll::Ready(());
                }
                if !std::mem::replace(&mut is_queued, true) {
                    let waker = context.waker().clone();
                    self.waiting.borrow_mut().push_back((Rc::clone(&grant), waker));
                }
                Poll::Pending
            })
            .await;
        }
        self.n_done.set(self.n_done.get() + 1);
        if !self.is_counting.replace(true) {
            reactor::spawn(Rc::clone(self).count());
        }
    }

    /// Begins the count again with each turn, while there are steps.
    async fn count(self: Rc<Self>) {
        while self.n_done.replace(0) > 0 || !self.waiting.borrow().is_empty() {
            while self.n_done.get() < STEPS_MAX {
                let Some((grant, waker)) = self.waiting.borrow_mut().pop_front() else { break };
                if Rc::strong_count(&grant) > 1 {
                    grant.set(true);
                    waker.wake();
                    self.n_done.set(self.n_done.get() + 1);
                }
            }
            reactor::yield_now().await;
        }
        self.is_counting.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_waits_behind_those_that_wait_and_none_waits_for_one_that_has_left() {
        let run = reactor::run(async {
            let turns = Rc::new(Turns::default());
            let done = Rc::new(RefCell::new(Vec::new()));
            let step = |name: &'static str| {
                let (turns, done) = (Rc::clone(&turns), Rc::clone(&done));
                reactor::spawn_task(async move {
                    turns.step().await;
                    done.borrow_mut().push(name);
                })
            };
            for _ in 0..STEPS_MAX {
                turns.step().await;
            }
            let left: Vec<_> = (0..3 * STEPS_MAX).map(|_| step("left")).collect();
            let waiting: Vec<_> = (0..STEPS_MAX).map(|_| step("waiting")).collect();
            reactor::yield_now().await;
            drop(left);
            turns.step().await;
            done.borrow_mut().push("newcomer");
            for task in waiting {
                task.await;
            }
            let done = done.borrow();
            let waited = done.iter().filter(|name| **name == "waiting").count();
            assert_eq!((waited, done.last()), (STEPS_MAX, Some(&"newcomer")), "{done:?}");
        });
        run.unwrap();
    }

    #[test]
    fn a_turn_does_few_steps_and_every_step_is_done_in_its_order() {
        let run = reactor::run(async {
            let turns = Rc::new(Turns::default());
            let done = Rc::new(RefCell::new(Vec::new()));
            for number in 0..50 {
                let (turns, done) = (Rc::clone(&turns), Rc::clone(&done));
                reactor::spawn(async move {
                    turns.step().await;
                    done.borrow_mut().push(number);
                });
            }
            let mut n_before = 0;
            while done.borrow().len() < 50 {
                reactor::yield_now().await;
                let n_done = done.borrow().len();
                assert!(n_done <= n_before + 2 * STEPS_MAX, "{n_done} after {n_before}");
                n_before = n_done;
            }
            assert_eq!(*done.borrow(), (0..50).collect::<Vec<_>>());
        });
        run.unwrap();
    }

    #[test]
    fn a_handshake_that_ends_while_it_waits_delays_no_other() {
        let run = reactor::run(async {
            let turns = Rc::new(Turns::default());
            let mut tasks = VecDeque::new();
            for _ in 0..20 {
                let turns = Rc::clone(&turns);
                tasks.push_back(reactor::spawn_task(async move { turns.step().await }));
            }
            reactor::yield_now().await;
            tasks.drain(4..19);
            for task in tasks {
                task.await;
            }
        });
        run.unwrap();
    }
}
