//! Timers and lazy deadlines.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::reactor::timer::{Elapsed, deadline, sleep, sleep_until, timeout};
use crate::reactor::{counts, now, spawn_task};

const MS: Duration = Duration::from_millis(1);

#[test]
fn ten_thousand_timers_fire_in_order_and_the_cancelled_do_not() {
    run(async {
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
                assert!(now().mono_ms() >= at_ms, "never early");
                fired.borrow_mut().push((at_ms, i % 3 != 0));
            });
            if i % 3 == 0 { cancelled.push(task) } else { kept.push(task) }
        }
        for _ in 0..60 {
            crate::reactor::yield_now().await;
        }
        assert_eq!(counts().n_timers, 10_001, "and that of the test");
        drop(cancelled);
        let n_kept = kept.len();
        for task in kept {
            task.await;
        }
        let fired = fired.borrow();
        assert_eq!(fired.len(), n_kept);
        assert!(fired.iter().all(|(_, is_kept)| *is_kept));
        assert_eq!(counts().n_timers, 1);
    });
}

#[test]
fn a_deadline_passes() {
    run(async {
        let (ours, _theirs) = pair();
        for wait_ms in [1, 5, 70] {
            let at_ms = deadline(wait_ms * MS);
            let error = ours.read(&mut [0; 8], at_ms).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            let late_ms = now().mono_ms() - at_ms;
            assert!(late_ms < 500, "{late_ms} ms late");
        }
    });
}

#[test]
fn a_deadline_in_the_past_passes_at_once_but_readiness_goes_first() {
    run(async {
        let (ours, theirs) = pair();
        send(&theirs, b"x");
        assert_eq!(ours.read(&mut [0; 8], 1).await.unwrap(), 1);
        assert_eq!(ours.read(&mut [0; 8], 1).await.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_deadline_moved_later_holds() {
    run(async {
        let (ours, theirs) = pair();
        let mut buf = [0; 8];
        // The first wait arms the timer for 20 ms; the next ones only store theirs.
        let first = timeout(2 * MS, ours.read(&mut buf, deadline(20 * MS))).await;
        assert_eq!(first.unwrap_err(), Elapsed);
        let n_timers = counts().n_timers;
        let at_ms = deadline(90 * MS);
        let sender = std::thread::spawn(move || {
            std::thread::sleep(50 * MS);
            send(&theirs, b"x");
            theirs
        });
        assert_eq!(ours.read(&mut buf, at_ms).await.unwrap(), 1);
        assert_eq!(counts().n_timers, n_timers);
        let error = ours.read(&mut buf, at_ms).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(now().mono_ms() >= at_ms);
        drop(sender.join().unwrap());
    });
}

#[test]
fn a_deadline_moved_earlier_holds() {
    run(async {
        let (ours, _theirs) = pair();
        let mut buf = [0; 8];
        assert!(timeout(2 * MS, ours.read(&mut buf, deadline(10_000 * MS))).await.is_err());
        let at_ms = deadline(10 * MS);
        assert!(ours.read(&mut buf, at_ms).await.is_err());
        assert!(now().mono_ms() - at_ms < 1_000);
    });
}

#[test]
fn each_direction_has_its_own_deadline() {
    run(async {
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
        let write_over_ms = writing.await;
        assert!((write_ms..read_ms + 1_000).contains(&write_over_ms));
        assert!(reading.await >= read_ms);
    });
}

#[test]
fn a_timer_without_a_wait_goes_away() {
    run(async {
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
    run(async {
        let n_timers = counts().n_timers;
        assert_eq!(timeout(MS, async { 5 }).await, Ok(5));
        assert_eq!(timeout(Duration::ZERO, async { 6 }).await, Ok(6));
        assert_eq!(timeout(MS, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(counts().n_timers, n_timers);
    });
}

#[test]
fn a_sleep_can_be_moved_while_it_sleeps() {
    run(async {
        let start_ms = now().mono_ms();
        let mut nap = std::pin::pin!(sleep(10_000 * MS));
        assert!(timeout(MS, nap.as_mut()).await.is_err());
        nap.reset(start_ms + 20);
        nap.await;
        assert!((start_ms + 20..start_ms + 5_000).contains(&now().mono_ms()));
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
