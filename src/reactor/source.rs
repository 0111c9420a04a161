//! A handle of a descriptor that the kernel makes ready: its known state, and waiting for it.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::reactor::LOCAL;
use crate::reactor::driver::{BROKEN, CLOSED, Direction, Driver, READ, WRITE};

/// The registration of a descriptor, made at the first wait.
///
/// ```text
/// unregistered (flags here) ── first wait ──▶ registered (flags in the driver's slot)
/// ```
///
/// A direction begins as `ready`, which means only that a try may succeed.
#[derive(Debug)]
pub(super) struct Source {
    slot: Cell<u32>,
    /// The run of the reactor in which it is registered; 0 is none.
    run: Cell<u32>,
    flags: Cell<u8>,
    /// It belongs to the reactor of its thread.
    _here: PhantomData<*const ()>,
}

impl Source {
    /// A source without any known state.
    pub(super) const fn new() -> Self {
        Self {
            slot: Cell::new(0),
            run: Cell::new(0),
            flags: Cell::new(READ | WRITE),
            _here: PhantomData,
        }
    }

    /// A try in this direction may succeed.
    pub(super) fn is_ready(&self, direction: Direction) -> bool {
        self.flags() & direction as u8 != 0
    }

    /// The other side is known to have closed.
    pub(super) fn is_closed(&self) -> bool {
        self.flags() & CLOSED != 0
    }

    /// The kernel reports every change.
    pub(super) fn is_registered(&self) -> bool {
        self.run.get() != 0
    }

    /// A try found the direction exhausted: only an edge raises it again.
    pub(super) fn lower(&self, direction: Direction) {
        self.update(|flags| flags & !(direction as u8));
    }

    /// A try is worth it for a reason that the kernel does not know.
    pub(super) fn raise(&self, direction: Direction) {
        self.update(|flags| flags | direction as u8);
    }

    /// A try got less than it asked for, so the direction is exhausted; but after a close there
    /// is no further edge, and the next try must be made.
    pub(super) fn lower_unless_closed(&self, direction: Direction) {
        self.update(|flags| if flags & CLOSED != 0 { flags } else { flags & !(direction as u8) });
    }

    /// The end of the other side's bytes was read.
    pub(super) fn note_closed(&self) {
        self.update(|flags| flags | CLOSED);
    }

    /// Ends the registration. `shared` is the descriptor if closing it is not enough, because
    /// its open file may have other descriptors.
    pub(super) fn deregister(&self, shared: Option<BorrowedFd<'_>>) {
        let wakers = self.with(|driver| driver.deregister(self.slot.get(), shared));
        self.run.set(0);
        drop(wakers);
    }

    /// Ends the registration of a shared descriptor, and wakes the tasks that wait for it.
    pub(super) fn leave(&self, shared: BorrowedFd<'_>) {
        let wakers = self.with(|driver| driver.deregister(self.slot.get(), Some(shared)));
        self.run.set(0);
        self.flags.set(READ | WRITE);
        wakers.into_iter().flatten().flatten().for_each(Waker::wake);
    }

    /// Ready when one of the flags `wanted` is up, or an error at the deadline (0: never). If it is
    /// not, the task's waker is kept until an event of this direction takes it or another waker
    /// takes its place; dropping the task alone does not remove it.
    pub(super) fn poll(
        &self,
        fd: BorrowedFd<'_>,
        direction: Direction,
        wanted: u8,
        deadline_ms: u64,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.flags() & wanted != 0 {
            if super::is_spent() {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Ok(()));
        }
        if deadline_ms != 0 && super::now().mono_ms() >= deadline_ms {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.watch(fd, direction, context.waker(), deadline_ms)?;
        Poll::Pending
    }

    /// Ends the wait for the direction.
    fn unwatch(&self, direction: Direction) {
        let waker = self.with(|driver| driver.unwatch(self.slot.get(), direction));
        drop(waker);
    }

    /// Registers the source if it is not, and stores the waker.
    fn watch(
        &self,
        fd: BorrowedFd<'_>,
        direction: Direction,
        waker: &Waker,
        deadline_ms: u64,
    ) -> io::Result<()> {
        let replaced = LOCAL.with(|local| {
            let mut driver = local.driver.borrow_mut();
            let driver = driver.as_mut().ok_or_else(no_reactor)?;
            if self.run.get() != driver.run {
                self.slot.set(driver.register(fd, self.flags.get())?);
                self.run.set(driver.run);
            }
            Ok::<_, io::Error>(driver.watch(self.slot.get(), direction, waker, deadline_ms))
        })?;
        drop(replaced);
        Ok(())
    }

    fn flags(&self) -> u8 {
        if self.run.get() == 0 {
            return self.flags.get();
        }
        self.with(|driver| driver.flags(self.slot.get())).unwrap_or(self.flags.get())
    }

    fn update(&self, change: impl Fn(u8) -> u8) {
        let done = self.with(|driver| {
            let key = self.slot.get();
            driver.set_flags(key, change(driver.flags(key)));
        });
        if done.is_none() {
            self.flags.set(change(self.flags.get()));
        }
    }

    /// Calls `act` with the driver, if the source is registered there.
    fn with<T>(&self, act: impl FnOnce(&mut Driver) -> T) -> Option<T> {
        if self.run.get() == 0 {
            return None;
        }
        LOCAL
            .try_with(|local| {
                let mut driver = local.driver.borrow_mut();
                driver.as_mut().filter(|driver| driver.run == self.run.get()).map(act)
            })
            .ok()
            .flatten()
    }
}

/// A wait for a direction of a source; dropping it ends the wait.
///
/// One task at a time may wait for a direction: a second one replaces the first, which then sleeps
/// until its deadline.
#[derive(Debug)]
#[must_use = "a wait does nothing unless awaited"]
pub struct Wait<'a> {
    source: &'a Source,
    fd: BorrowedFd<'a>,
    direction: Direction,
    /// The flags that end the wait.
    wanted: u8,
    is_watching: bool,
    deadline_ms: u64,
}

impl<'a> Wait<'a> {
    pub(super) fn new(
        source: &'a Source,
        fd: &'a impl AsFd,
        direction: Direction,
        deadline_ms: u64,
    ) -> Self {
        let wanted = direction as u8;
        Self { source, fd: fd.as_fd(), direction, wanted, is_watching: false, deadline_ms }
    }

    /// Waits for the other side to close its direction, or the connection to break, in the place of
    /// a reader.
    pub(super) fn for_the_close(source: &'a Source, fd: &'a impl AsFd) -> Self {
        Self { wanted: CLOSED | BROKEN, ..Self::new(source, fd, Direction::Read, 0) }
    }

    /// Waits for the connection to break, in the place of a reader.
    pub(super) fn for_the_end(source: &'a Source, fd: &'a impl AsFd) -> Self {
        Self { wanted: BROKEN, ..Self::new(source, fd, Direction::Read, 0) }
    }
}

impl Future for Wait<'_> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { source, fd, direction, wanted, deadline_ms, .. } = *self;
        let polled = source.poll(fd, direction, wanted, deadline_ms, context);
        self.get_mut().is_watching |= polled.is_pending();
        polled
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.is_watching {
            self.source.unwatch(self.direction);
        }
    }
}

fn no_reactor() -> io::Error {
    io::Error::other("no reactor runs on this thread")
}

const _: () = assert!(size_of::<Source>() <= 12, "a handle and its descriptor fit 16 bytes");
const _: () = assert!(size_of::<Wait<'_>>() <= 32, "an idle wait stays small");
