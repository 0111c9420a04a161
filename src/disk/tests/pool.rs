//! Tests of `disk::pool`.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Barrier, Mutex};
use std::thread::{self, ThreadId};

use nix::sys::signal::{SigSet, Signal};

use super::*;

/// Runs `main` in a reactor with a pool of this many helpers.
fn with_pool<T>(n_helpers: usize, main: impl Future<Output = T>) -> T {
    with_limits(Limits { n_helpers, timeout: Duration::from_secs(60) }, main)
}

fn with_limits<T>(limits: Limits, main: impl Future<Output = T>) -> T {
    let run = reactor::run(async {
        let _running = start(limits).unwrap();
        main.await
    });
    run.unwrap()
}

fn ok<T>(value: T) -> io::Result<T> {
    Ok(value)
}

/// A job that waits until the sender says something or is dropped.
fn held() -> (Sender<()>, impl FnOnce() -> io::Result<()> + Send) {
    let (sender, receiver): (_, Receiver<()>) = channel();
    let wait = move || {
        let _ = receiver.recv();
        Ok(())
    };
    (sender, wait)
}

#[test]
fn without_a_pool_a_job_is_done_in_place() {
    let own = thread::current().id();
    let run = reactor::run(async {
        assert_eq!(run(Kind::Read, || ok(thread::current().id())).await.unwrap(), own);
        let read = read(Medium::Disk, |access| ok((access, thread::current().id()))).await;
        assert_eq!(read.unwrap(), (Access::Wait, own));
        assert_eq!(delay_us(), 0);
    });
    run.unwrap();
}

#[test]
fn jobs_are_done_beside_one_another_while_the_loop_goes_on() {
    with_pool(4, async {
        // None of the jobs ends before all have begun.
        let barrier = Arc::new(Barrier::new(4));
        let jobs: Vec<_> = (0..4)
            .map(|n| {
                let barrier = Arc::clone(&barrier);
                run(Kind::Read, move || {
                    barrier.wait();
                    ok((n, thread::current().id()))
                })
            })
            .collect();
        let own = thread::current().id();
        for (n, job) in jobs.into_iter().enumerate() {
            let (which, helper) = job.await.unwrap();
            assert!(which == n && helper != own);
        }
    });
}

#[test]
fn what_is_in_memory_costs_no_hand_over() {
    with_pool(1, async {
        let own = thread::current().id();
        let here = |access| ok((access, thread::current().id()));
        assert_eq!(read(Medium::Disk, here).await.unwrap(), (Access::Cached, own));
        assert_eq!(read(Medium::Memory, here).await.unwrap(), (Access::Wait, own));
        let (access, helper) = read(Medium::Remote, here).await.unwrap();
        assert!(access == Access::Wait && helper != own);
        let cold = |access| match access {
            Access::Cached => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            Access::Wait => ok(thread::current().id()),
        };
        assert_eq!(read(Medium::Disk, cold).await.unwrap(), helper);
        let broken = |_| Err::<(), _>(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(read(Medium::Disk, broken).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn a_helper_takes_no_signals() {
    let mask = || Ok::<_, io::Error>(SigSet::thread_get_mask()?);
    let blocked = with_pool(1, async { run(Kind::Read, mask).await.unwrap() });
    let of_faults = [Signal::SIGKILL, Signal::SIGSTOP];
    for signal in Signal::iterator().filter(|signal| !of_faults.contains(signal)) {
        assert!(blocked.contains(signal), "{signal}");
    }
    assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM), "this thread's is kept");
}

#[test]
fn a_panic_is_an_error_of_its_job_alone() {
    with_pool(1, async {
        let panicked = run(Kind::Read, || -> io::Result<()> { panic!("of the test") }).await;
        assert_eq!(Refused::of(&panicked.unwrap_err()), Some(Refused::Panicked));
        assert_eq!(run(Kind::Read, || ok(7)).await.unwrap(), 7);
    });
}

/// Says which thread drops it.
struct Dropped(Arc<Mutex<Option<ThreadId>>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = Some(thread::current().id());
    }
}

#[test]
fn the_answer_of_a_job_that_nobody_awaits_is_dropped_by_the_loop() {
    with_pool(1, async {
        let dropped_by = Arc::<Mutex<_>>::default();
        let given = Dropped(Arc::clone(&dropped_by));
        let (hold, wait) = held();
        let left = run(Kind::Read, move || wait().map(|()| given));
        drop(left);
        drop(hold);
        // The helper does one job after the other.
        run(Kind::Read, || ok(())).await.unwrap();
        assert_eq!(*dropped_by.lock().unwrap(), Some(thread::current().id()));
        assert!(POOL.with_borrow(|pool| pool.as_ref().unwrap().waiters.borrow().is_empty()));
    });
}

#[test]
fn a_disk_that_hangs_is_waited_for_no_longer_than_its_timeout() {
    let limits = Limits { n_helpers: 2, timeout: Duration::from_millis(20) };
    with_limits(limits, async {
        let (hold, wait) = held();
        let late = run(Kind::Write(1), wait).await.unwrap_err();
        assert_eq!(
            (late.kind(), Refused::of(&late)),
            (io::ErrorKind::TimedOut, Some(Refused::Late))
        );
        assert!(delay_us() >= 20_000, "the write is under way still");
        assert_eq!(run(Kind::Read, || ok(7)).await.unwrap(), 7, "another helper reads");
        drop(hold);
    });
}

#[test]
fn too_many_writes_are_refused_and_reads_are_not() {
    with_pool(2, async {
        let (hold, wait) = held();
        let first = run(Kind::Write(64 << 20), wait);
        let refused = run(Kind::Write(1), || ok(())).await.unwrap_err();
        assert_eq!(Refused::of(&refused), Some(Refused::Busy));
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        run(Kind::Read, || ok(())).await.unwrap();
        drop(hold);
        first.await.unwrap();
        run(Kind::Remove, || ok(())).await.unwrap();
        run(Kind::Write(1), || ok(())).await.unwrap();
    });
}

#[test]
fn a_removed_file_that_is_dropped_in_the_loop_is_closed_by_a_helper() {
    use crate::disk::file::{DiskFile, close_waiting};
    with_pool(1, async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = DiskFile::new(std::fs::File::open(&path).unwrap(), Medium::of(&path));
        assert_eq!(file.read(8, 5).await.unwrap(), b"89");
        file.bring_in(0, 10).await.unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&*file);
        std::fs::remove_file(&path).unwrap();
        let path = format!("{} (deleted)", path.display());
        let is_open = || {
            std::fs::read_link(format!("/proc/self/fd/{number}"))
                .is_ok_and(|it| it.as_os_str() == &*path)
        };
        drop(file);
        assert!(is_open());
        close_waiting();
        run(Kind::Remove, || ok(())).await.unwrap();
        assert!(!is_open());
    });
}
