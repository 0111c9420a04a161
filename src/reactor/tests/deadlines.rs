//! Timers and lazy deadlines.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::reactor::clock::run_by_test_clock;
use crate::reactor::timer::{Elapsed, deadline, sleep, sleep_until, timeout};
use crate::reactor::{counts, now, spawn_task};

const MS: Duration = Duration::from_millis(1);

/// A stream of the reactor and the other end of its Unix socket, where bytes arrive at once.
fn pair() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Stream::from_fd(ours.into()), theirs)
}

#[test]
fn ten_thousand_timers_fire_in_order_and_the_cancelled_do_not() {
    run_by_test_clock(async {
        let fired = Rc::new(RefCell::new(Vec::new()));
        let start_ms = now().mono_ms();
        let mut state = 0x1234_5678_u64;
        let mut kept = Vec::new();
        let mut cancelled = Vec::new();
        for i in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at_ms = start_ms + 300 + (state >> 33) % 400;
            let fired = Rc::clone(&fired);
            let task = spawn_task(async move {
                sleep_until(at_ms).await;
                assert_eq!(now().mono_ms(), at_ms);
                fired.borrow_mut().push((at_ms, i % 3 != 0));
            });
            if i % 3 == 0 { cancelled.push(task) } else { kept.push(task) }
        }
        for _ in 0..60 {
            crate::reactor::yield_now().await;
        }
        assert_eq!(counts().n_timers, 10_000);
        drop(cancelled);
        let n_kept = kept.len();
        for task in kept {
            task.await;
        }
        let fired = fired.borrow();
        assert_eq!(fired.len(), n_kept);
        assert!(fired.iter().all(|(_, is_kept)| *is_kept));
        assert!(fired.is_sorted_by_key(|(at_ms, _)| *at_ms));
        assert_eq!(counts().n_timers, 0);
    });
}

#[test]
fn a_deadline_passes() {
    run_by_test_clock(async {
        let (ours, _theirs) = pair();
        for wait_ms in [1, 5, 70] {
            let at_ms = deadline(wait_ms * MS);
            let error = ours.read(&mut [0; 8], at_ms).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert_eq!(now().mono_ms(), at_ms);
        }
    });
}

#[test]
fn a_deadline_in_the_past_passes_at_once_but_readiness_goes_first() {
    run_by_test_clock(async {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        assert_eq!(ours.read(&mut [0; 8], 1).await.unwrap(), 1);
        assert_eq!(ours.read(&mut [0; 8], 1).await.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_deadline_moved_later_holds() {
    run_by_test_clock(async {
        let (ours, mut theirs) = pair();
        let mut buf = [0; 8];
        let _sender = spawn_task(async move {
            sleep(50 * MS).await;
            theirs.write_all(b"x").unwrap();
            sleep(50 * MS).await;
        });
        // The first wait arms the timer for 20 ms; the next ones only store theirs.
        let first = timeout(2 * MS, ours.read(&mut buf, deadline(20 * MS))).await;
        assert_eq!(first.unwrap_err(), Elapsed);
        let n_timers = counts().n_timers;
        let at_ms = deadline(90 * MS);
        assert_eq!(ours.read(&mut buf, at_ms).await.unwrap(), 1);
        assert_eq!(counts().n_timers, n_timers);
        let error = ours.read(&mut buf, at_ms).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(now().mono_ms(), at_ms);
    });
}

#[test]
fn a_deadline_moved_earlier_holds() {
    run_by_test_clock(async {
        let (ours, _theirs) = pair();
        let mut buf = [0; 8];
        assert!(timeout(2 * MS, ours.read(&mut buf, deadline(10_000 * MS))).await.is_err());
        let at_ms = deadline(10 * MS);
        assert!(ours.read(&mut buf, at_ms).await.is_err());
        assert_eq!(now().mono_ms(), at_ms);
    });
}

#[test]
fn each_direction_has_its_own_deadline() {
    run_by_test_clock(async {
        let (ours, _theirs) = pair();
        while ours.try_write(&[0; 65536]).is_ok() {}
        let ours = Rc::new(ours);
        let (first, second) = (Rc::clone(&ours), Rc::clone(&ours));
        let (read_ms, write_ms) = (deadline(40 * MS), deadline(10 * MS));
        let reading = spawn_task(async move {
            assert!(first.read(&mut [0; 8], read_ms).await.is_err());
            now().mono_ms()
        });
        let writing = spawn_task(async move {
            assert!(second.writable(write_ms).await.is_err());
            now().mono_ms()
        });
        assert_eq!((writing.await, reading.await), (write_ms, read_ms));
    });
}

#[test]
fn a_timer_without_a_wait_goes_away() {
    run_by_test_clock(async {
        let (ours, _theirs) = pair();
        let n_timers = counts().n_timers;
        assert!(timeout(2 * MS, ours.read(&mut [0; 8], deadline(10 * MS))).await.is_err());
        assert_eq!(counts().n_timers, n_timers + 1);
        sleep(30 * MS).await;
        assert_eq!(counts().n_timers, n_timers);
    });
}

#[test]
fn work_that_is_ready_arms_no_timer() {
    run_by_test_clock(async {
        let n_timers = counts().n_timers;
        assert_eq!(timeout(MS, async { 5 }).await, Ok(5));
        assert_eq!(timeout(Duration::ZERO, async { 6 }).await, Ok(6));
        assert_eq!(timeout(MS, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(counts().n_timers, n_timers);
    });
}

#[test]
fn a_sleep_can_be_moved_while_it_sleeps() {
    run_by_test_clock(async {
        let start_ms = now().mono_ms();
        let mut nap = std::pin::pin!(sleep(10_000 * MS));
        assert!(timeout(MS, nap.as_mut()).await.is_err());
        nap.reset(start_ms + 20);
        nap.await;
        assert_eq!(now().mono_ms(), start_ms + 20);
    });
}

#[test]
fn a_busy_pair_of_streams_starves_neither_a_timer_nor_a_task() {
    run(async {
        let (left, right) = pair_of_ours();
        let (left, right) = (Rc::new(left), Rc::new(right));
        let n_moved = Rc::new(Cell::new(0_u64));
        let writer = spawn_task(async move {
            loop {
                left.write_all(&[0; 1000], 0).await.unwrap();
            }
        });
        let count = Rc::clone(&n_moved);
        let reader = spawn_task(async move {
            let mut buf = vec![0; 1000];
            loop {
                count.set(count.get() + right.read(&mut buf, 0).await.unwrap() as u64);
            }
        });
        let n_turns = Rc::new(Cell::new(0_u64));
        let turns = Rc::clone(&n_turns);
        let bystander = spawn_task(async move {
            loop {
                crate::reactor::yield_now().await;
                turns.set(turns.get() + 1);
            }
        });
        let at_ms = deadline(100 * MS);
        sleep_until(at_ms).await;
        assert!(now().mono_ms() - at_ms < 1_000);
        assert!(n_moved.get() > 100_000);
        assert!(n_turns.get() > 5);
        drop((writer, reader, bystander));
    });
}
