//! The clock of tests.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::reactor::clock::{TEST_START, run_by_test_clock};
use crate::reactor::stream::Stream;
use crate::reactor::timer::{deadline, sleep};
use crate::reactor::{now, spawn_task, yield_now};

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn an_hour_passes_at_once_and_exactly() {
    let begun = Instant::now();
    run_by_test_clock(async {
        assert_eq!(now(), TEST_START);
        let long = spawn_task(async {
            sleep(HOUR).await;
            now()
        });
        sleep(HOUR / 4).await;
        assert_eq!(now().mono_us - TEST_START.mono_us, 900_000_000);
        let end = long.await;
        assert_eq!(end.mono_us - TEST_START.mono_us, 3_600_000_000);
        assert_eq!(end.unix_us - TEST_START.unix_us, 3_600_000_000);
    });
    assert!(begun.elapsed() < HOUR / 60);
    assert!(now().mono_ms() != TEST_START.mono_ms() && now().unix_s() != TEST_START.unix_s());
}

#[test]
fn no_time_passes_while_a_task_or_a_socket_has_work() {
    run_by_test_clock(async {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let streams = [ours, theirs].map(|it| {
            it.set_nonblocking(true).unwrap();
            Rc::new(Stream::from_fd(it.into()))
        });
        let [ours, theirs] = streams;
        let echo = spawn_task(async move {
            let mut buf = [0; 8];
            while theirs.read(&mut buf, deadline(HOUR)).await.unwrap() > 0 {
                theirs.write_all(&buf, 0).await.unwrap();
            }
        });
        for _ in 0..100 {
            ours.write_all(b"question", 0).await.unwrap();
            assert_eq!(ours.read(&mut [0; 8], deadline(HOUR)).await.unwrap(), 8);
            yield_now().await;
        }
        assert_eq!(now(), TEST_START);
        assert!(ours.read(&mut [0; 8], deadline(HOUR / 2)).await.is_err());
        assert_eq!(now().mono_us - TEST_START.mono_us, 1_800_000_000);
        drop(ours);
        echo.await;
    });
}

#[test]
#[should_panic(expected = "no task can run again")]
fn waiting_for_nothing_fails() {
    run_by_test_clock(std::future::pending::<()>());
}
