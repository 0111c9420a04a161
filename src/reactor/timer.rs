//! Sleeping, and timeouts for work.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::reactor::LOCAL;
use crate::reactor::driver::Driver;
use crate::sys::pinned::Pinned;

/// The error of work that did not end in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// A future that ends at its time; dropping it frees its timer.
#[derive(Debug)]
#[must_use = "a sleep does nothing unless awaited"]
pub struct Sleep {
    at_ms: u64,
    key: u32,
    /// The run of the reactor that has its timer; 0 is none.
    run: u32,
}

/// Work raced against a timer; see `timeout`.
pub type Timeout<F> = Pinned<F, Sleep>;

/// Sleeps for at least `duration`, counted from this turn of the loop.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(deadline(duration))
}

/// Sleeps until the monotonic clock shows `mono_ms` milliseconds.
pub const fn sleep_until(mono_ms: u64) -> Sleep {
    Sleep { at_ms: mono_ms, key: 0, run: 0 }
}

/// The monotonic millisecond that is `duration` away from this turn, rounded up; never 0, which
/// stands for no deadline.
pub fn deadline(duration: Duration) -> u64 {
    let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    super::now().mono_us.saturating_add(duration_us).div_ceil(1_000).max(1)
}

/// Awaits `future`, but no longer than `duration`. It is polled first: work that is ready never
/// times out and arms no timer.
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Pinned::new(future, sleep(duration))
}

/// As `timeout`, until the monotonic clock shows `mono_ms` milliseconds.
pub fn timeout_at<F: Future>(mono_ms: u64, future: F) -> Timeout<F> {
    Pinned::new(future, sleep_until(mono_ms))
}

impl Sleep {
    /// Moves the end of the sleep, also after it has ended.
    pub fn reset(&mut self, mono_ms: u64) {
        self.at_ms = mono_ms;
    }

    /// Calls `act` with the driver that has the timer.
    fn with<T>(&self, act: impl FnOnce(&mut Driver) -> T) -> Option<T> {
        if self.run == 0 {
            return None;
        }
        LOCAL
            .try_with(|local| {
                let mut driver = local.driver.borrow_mut();
                driver.as_mut().filter(|driver| driver.run == self.run).map(act)
            })
            .ok()
            .flatten()
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.get_mut();
        if super::now().mono_ms() >= sleep.at_ms {
            return Poll::Ready(());
        }
        let waker = context.waker();
        let (key, at_ms) = (sleep.key, sleep.at_ms);
        if let Some(replaced) = sleep.with(|driver| driver.sleep_again(key, at_ms, waker)) {
            drop(replaced);
            return Poll::Pending;
        }
        LOCAL.with(|local| {
            if let Some(driver) = local.driver.borrow_mut().as_mut() {
                sleep.key = driver.sleep(at_ms, waker);
                sleep.run = driver.run;
            }
        });
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let waker = self.with(|driver| driver.unsleep(self.key));
        drop(waker);
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (work, sleep) = self.split();
        if let Poll::Ready(output) = work.poll(context) {
            return Poll::Ready(Ok(output));
        }
        sleep.poll(context).map(|()| Err(Elapsed))
    }
}
