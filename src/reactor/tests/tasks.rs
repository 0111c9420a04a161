//! Tasks: their start, their end, and what they free.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::*;
use crate::reactor::timer::{deadline, sleep};
use crate::reactor::{counts, now, refresh_now, spawn, spawn_task, turn_began, yield_now};

/// Counts its own drop.
struct Flag(Rc<Cell<u32>>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn tasks_run_in_the_order_in_which_they_were_woken() {
    run(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        for i in 0..3 {
            let order = Rc::clone(&order);
            spawn(async move {
                for step in 0..2 {
                    order.borrow_mut().push((step, i));
                    yield_now().await;
                }
            });
        }
        sleep(Duration::from_millis(2)).await;
        assert_eq!(*order.borrow(), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
        assert_eq!(counts().n_tasks, 0);
    });
}

#[test]
fn a_dropped_task_frees_its_source_and_its_timer() {
    run(async {
        let before = counts();
        let n_dropped = Rc::new(Cell::new(0));
        let (ours, theirs) = pair();
        let flag = Flag(Rc::clone(&n_dropped));
        let task = spawn_task(async move {
            let _flag = flag;
            ours.read(&mut [0; 8], deadline(Duration::from_secs(60))).await
        });
        settle().await;
        assert_eq!(counts().n_sources, before.n_sources + 1);
        drop(task);
        yield_now().await;
        yield_now().await;
        assert_eq!(n_dropped.get(), 1);
        assert_eq!(counts(), before);
        assert_eq!(read_to_end(theirs), b"", "its socket is closed");
    });
}

#[test]
fn a_dropped_wait_clears_its_waker() {
    run(async {
        let (ours, _theirs) = pair();
        let ours = Rc::new(ours);
        let n_dropped = Rc::new(Cell::new(0));
        let (stream, flag) = (Rc::clone(&ours), Flag(Rc::clone(&n_dropped)));
        let task = spawn_task(async move {
            let _flag = flag;
            let _ = stream.read(&mut [0; 8], 0).await;
        });
        settle().await;
        assert_eq!(Rc::strong_count(&ours), 2);
        drop(task);
        yield_now().await;
        yield_now().await;
        assert_eq!((n_dropped.get(), Rc::strong_count(&ours)), (1, 1));
        // If the task's waker were still there, the next wait would have to replace it; and the
        // kernel's event would wake no task.
        let soon = deadline(Duration::from_millis(2));
        assert!(ours.readable(soon).await.is_err());
    });
}

#[test]
fn the_end_of_main_drops_every_task() {
    let n_dropped = Rc::new(Cell::new(0));
    let (ours, theirs) = pair();
    let handle = Rc::new(RefCell::new(None));
    run(async {
        let flag = Flag(Rc::clone(&n_dropped));
        spawn(async move {
            let _flag = flag;
            let _ = ours.read(&mut [0; 8], 0).await;
        });
        let flag = Flag(Rc::clone(&n_dropped));
        spawn(async move {
            // No waker holds it: only its place among the tasks keeps it.
            let _flag = flag;
            std::future::pending::<()>().await;
        });
        let flag = Flag(Rc::clone(&n_dropped));
        spawn_task(async move {
            let _flag = flag;
            sleep(Duration::from_secs(60)).await;
        })
        .detach();
        let flag = Flag(Rc::clone(&n_dropped));
        *handle.borrow_mut() = Some(spawn_task(async move {
            let _flag = flag;
            sleep(Duration::from_secs(60)).await;
        }));
        settle().await;
        assert_eq!(n_dropped.get(), 0);
    });
    assert_eq!(n_dropped.get(), 3, "but for the one with a living handle");
    assert_eq!(read_to_end(theirs), b"");
    // The thread can run another reactor, and the old handle is harmless in it.
    run(async {
        drop(handle.borrow_mut().take());
        yield_now().await;
        yield_now().await;
    });
    assert_eq!(n_dropped.get(), 4);
}

#[test]
fn a_stream_outlives_its_reactor() {
    let (ours, theirs) = pair();
    run(async {
        let soon = deadline(Duration::from_millis(1));
        assert!(ours.read(&mut [0; 8], soon).await.is_err());
    });
    send(&theirs, b"x");
    run(async {
        let until = deadline(Duration::from_secs(2));
        assert_eq!(ours.read(&mut [0; 8], until).await.unwrap(), 1);
        assert!(ours.read(&mut [0; 8], deadline(Duration::from_millis(2))).await.is_err());
    });
    drop(ours);
    assert_eq!(read_to_end(theirs), b"");
}

#[test]
fn a_task_that_is_started_by_a_drop_does_not_run() {
    struct Starter;
    impl Drop for Starter {
        fn drop(&mut self) {
            spawn(async { panic!("must not run") });
        }
    }
    run(async {
        spawn(async {
            let _starter = Starter;
            std::future::pending::<()>().await;
        });
        yield_now().await;
    });
    run(async { yield_now().await });
}

#[test]
fn a_panic_ends_one_task() {
    run(async {
        let before = counts();
        let n_dropped = Rc::new(Cell::new(0));
        let flag = Flag(Rc::clone(&n_dropped));
        spawn(async move {
            let _flag = flag;
            panic!("this is part of a test");
        });
        let other = spawn_task(async {
            yield_now().await;
            7
        });
        assert_eq!(other.await, 7);
        assert_eq!(n_dropped.get(), 1);
        assert_eq!(counts().n_panics, before.n_panics + 1);
        assert_eq!(counts().n_tasks, before.n_tasks);
    });
}

#[test]
fn a_wake_from_another_thread_is_harmless() {
    run(async {
        let place: Rc<RefCell<Option<Waker>>> = Rc::default();
        let waiter = Rc::clone(&place);
        spawn(async move {
            std::future::poll_fn(|context| {
                waiter.borrow_mut().replace(context.waker().clone());
                Poll::<()>::Pending
            })
            .await;
        });
        yield_now().await;
        yield_now().await;
        let waker = place.borrow_mut().take().unwrap();
        std::thread::spawn(move || waker.wake()).join().unwrap();
        settle().await;
    });
}

#[test]
fn a_second_reactor_on_a_thread_is_refused() {
    run(async {
        assert!(crate::reactor::run(async {}).is_err());
    });
}

#[test]
fn a_wait_without_a_reactor_fails() {
    use std::pin::pin;
    let (ours, _theirs) = pair();
    assert!(ours.try_read(&mut [0; 8]).is_err());
    let mut wait = pin!(ours.readable(0));
    let polled = wait.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Err(_))));
}

#[test]
fn the_clock_stands_still_within_a_turn() {
    run(async {
        let first = now();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(now(), first);
        assert!(refresh_now().mono_us >= first.mono_us + 2_000);
        assert_eq!(now().mono_us / 1_000, now().mono_ms());
        assert!(now().unix_s() > 1_700_000_000);
    });
}

#[test]
fn the_clock_moves_on_in_a_turn_of_many_tasks_and_its_beginning_stays() {
    run(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..40 {
            let seen = Rc::clone(&seen);
            spawn(async move {
                seen.borrow_mut().push((now(), turn_began()));
                std::thread::sleep(Duration::from_millis(1));
            });
        }
        while seen.borrow().len() < 40 {
            yield_now().await;
        }
        let seen = seen.borrow();
        let (first, began) = seen[0];
        assert_eq!(first, began);
        assert!(seen.iter().all(|(_, it)| *it == began), "they ran in one turn");
        let gone_us = |n: usize| seen[n].0.mono_us - began.mono_us;
        assert_eq!(gone_us(14), 0);
        assert!(gone_us(15) >= 15_000 && gone_us(31) >= 31_000);
        assert_eq!(seen[31].0.unix_us - began.unix_us, gone_us(31));
    });
}

#[test]
fn an_idle_connection_is_small() {
    async fn idle(stream: Stream) {
        let _ = stream.readable(0).await;
    }
    let (ours, _theirs) = pair();
    let size = size_of_val(&idle(ours));
    assert!(size <= 80, "{size} bytes");
    assert!(size_of::<Stream>() <= 16);
    assert!(size_of::<crate::reactor::source::Wait<'_>>() <= 32);
    let size = size_of_val(&crate::reactor::timer::timeout(Duration::ZERO, async {}));
    assert!(size <= 32, "{size} bytes");
}
