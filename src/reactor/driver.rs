//! Sources, their readiness and deadlines, and the timer wheel: everything that waits for the
//! kernel.
//!
//! A source has a slot from its first wait to its end. The slot remembers the kernel's last report
//! (an edge comes once), the waker for each direction, and its deadline. Deadlines are lazy: a wait
//! stores its deadline, and the source's one timer is armed only if it would fire too late; when it
//! fires too early, it is armed again for the stored deadline.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::task::Waker;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::base::time::Now;
use crate::reactor::wheel::Wheel;

/// A direction of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// To read, to accept.
    Read = READ,
    /// To write, to be connected.
    Write = WRITE,
}

/// The kernel's side of one thread's reactor.
pub(super) struct Driver {
    /// Distinguishes the reactors of a process, so that a handle that outlives its own does no
    /// harm.
    pub(super) run: u32,
    poll: Poll,
    events: Events,
    slots: Slab<Slot>,
    wheel: Wheel<Timer>,
    next_generation: u32,
    /// The wakers to call once the driver is no longer borrowed.
    woken: Vec<Waker>,
}

/// A registered source.
struct Slot {
    read: Side,
    write: Side,
    /// The key of its timer, or `NO_TIMER`.
    timer: u32,
    /// Part of its token, so that an event for an earlier source in this slot is ignored.
    generation: u32,
    /// `READ`, `WRITE`: a try may succeed. `CLOSED`: the other side has closed or broken it.
    /// `BROKEN`: nothing can be written any more.
    flags: u8,
}

/// One direction of a source: its waker, and its deadline (0: none).
#[derive(Default)]
struct Side {
    waker: Option<Waker>,
    deadline_ms: u64,
}

/// The owner of a timer.
enum Timer {
    Source(u32),
    Sleep(Option<Waker>),
}

impl Driver {
    pub(super) fn new(run: u32, now: Now) -> io::Result<Self> {
        Ok(Self {
            run,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            slots: Slab::new(),
            wheel: Wheel::new(now.mono_ms()),
            next_generation: 1,
            woken: Vec::new(),
        })
    }

    /// Asks the kernel for events; waits for an event if `may_wait`, or for the next timer.
    pub(super) fn wait(&mut self, may_wait: bool, now_ms: u64) -> io::Result<()> {
        let timeout = if may_wait {
            self.next_timer_ms().map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)))
        } else {
            Some(Duration::ZERO)
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Err(_) => self.events.clear(),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Whether the last `wait` gave no event.
    pub(super) fn has_no_event(&self) -> bool {
        self.events.is_empty()
    }

    /// No timer is due before this; `None` if none is armed.
    pub(super) fn next_timer_ms(&self) -> Option<u64> {
        self.wheel.next_ms()
    }

    /// Notes the events of the last `wait` and the timers that are due; returns the wakers to call.
    pub(super) fn sort(&mut self, now_ms: u64) -> Vec<Waker> {
        let mut woken = mem::take(&mut self.woken);
        for event in &self.events {
            let token = event.token().0;
            let (key, generation) = (token & KEY_MASK, (token >> KEY_BITS) as u32);
            let Some(slot) = self.slots.get_mut(key) else { continue };
            if slot.generation != generation {
                continue;
            }
            let mut raised = 0;
            if event.is_readable() {
                raised |= READ;
            }
            if event.is_writable() {
                raised |= WRITE;
            }
            if event.is_read_closed() {
                raised |= READ | CLOSED;
            }
            if event.is_write_closed() || event.is_error() {
                raised |= READ | WRITE | CLOSED | BROKEN;
            }
            slot.raise(raised, &mut woken);
        }
        while let Some(timer) = self.wheel.pop_due(now_ms) {
            self.fire(timer, now_ms, &mut woken);
        }
        woken
    }

    /// Takes the emptied list of wakers back, for its allocation.
    pub(super) fn recycle(&mut self, woken: Vec<Waker>) {
        debug_assert!(woken.is_empty(), "all wakers were called");
        self.woken = woken;
    }

    /// Registers a source for both directions; `flags` is its state so far. At the next look the
    /// kernel reports a state that already holds.
    pub(super) fn register(&mut self, fd: BorrowedFd<'_>, flags: u8) -> io::Result<u32> {
        let entry = self.slots.vacant_entry();
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let token = Token(entry.key() | (generation as usize) << KEY_BITS);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), token, interest)?;
        let key = entry.key() as u32;
        entry.insert(Slot {
            read: Side::default(),
            write: Side::default(),
            timer: NO_TIMER,
            generation,
            flags,
        });
        Ok(key)
    }

    /// Removes a source and its timer. `fd` is given when closing it does not end its registration,
    /// because other descriptors share its open file.
    pub(super) fn deregister(
        &mut self,
        key: u32,
        fd: Option<BorrowedFd<'_>>,
    ) -> [Option<Waker>; 2] {
        if let Some(fd) = fd {
            // This fails only for a descriptor that is not registered.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
        }
        let Some(slot) = self.slots.try_remove(key as usize) else { return [None, None] };
        if slot.timer != NO_TIMER {
            self.wheel.remove(slot.timer);
        }
        [slot.read.waker, slot.write.waker]
    }

    /// The readiness of a source, as far as known.
    pub(super) fn flags(&self, key: u32) -> u8 {
        self.slots.get(key as usize).map_or(READ | WRITE, |slot| slot.flags)
    }

    pub(super) fn set_flags(&mut self, key: u32, flags: u8) {
        if let Some(slot) = self.slots.get_mut(key as usize) {
            slot.flags = flags;
        }
    }

    /// Stores the waker and the deadline of a direction; returns the waker that was there.
    pub(super) fn watch(
        &mut self,
        key: u32,
        direction: Direction,
        waker: &Waker,
        deadline_ms: u64,
    ) -> Option<Waker> {
        let slot = self.slots.get_mut(key as usize)?;
        let side = slot.side(direction);
        side.deadline_ms = deadline_ms;
        let replaced = match &side.waker {
            Some(present) if present.will_wake(waker) => None,
            _ => side.waker.replace(waker.clone()),
        };
        if deadline_ms != 0 {
            self.arm(key, deadline_ms);
        }
        replaced
    }

    /// Ends the wait for this direction. The timer stays as it is: the next wait is likely to need
    /// it, and if it fires without a wait it goes away.
    pub(super) fn unwatch(&mut self, key: u32, direction: Direction) -> Option<Waker> {
        let side = self.slots.get_mut(key as usize)?.side(direction);
        side.deadline_ms = 0;
        side.waker.take()
    }

    /// Arms a timer for a sleeping future.
    pub(super) fn sleep(&mut self, at_ms: u64, waker: &Waker) -> u32 {
        self.wheel.insert(at_ms, Timer::Sleep(Some(waker.clone())))
    }

    /// Another task may now poll the sleeping future.
    pub(super) fn sleep_again(&mut self, key: u32, at_ms: u64, waker: &Waker) -> Option<Waker> {
        if self.wheel.armed_ms(key) != Some(at_ms) {
            self.wheel.move_to(key, at_ms);
        }
        match self.wheel.value_mut(key) {
            Some(Timer::Sleep(Some(present))) if present.will_wake(waker) => None,
            Some(Timer::Sleep(place)) => place.replace(waker.clone()),
            _ => None,
        }
    }

    /// Ends the sleep of a future.
    pub(super) fn unsleep(&mut self, key: u32) -> Option<Waker> {
        match self.wheel.remove(key) {
            Some(Timer::Sleep(waker)) => waker,
            _ => None,
        }
    }

    /// How many sources and timers there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.slots.len(), self.wheel.len())
    }

    /// Ensures that the source's timer fires at `deadline_ms` or before.
    fn arm(&mut self, key: u32, deadline_ms: u64) {
        let timer = self.slots[key as usize].timer;
        if timer == NO_TIMER {
            let timer = self.wheel.insert(deadline_ms, Timer::Source(key));
            self.slots[key as usize].timer = timer;
        } else if self.wheel.armed_ms(timer).is_none_or(|armed_ms| deadline_ms < armed_ms) {
            self.wheel.move_to(timer, deadline_ms);
        }
    }

    fn fire(&mut self, timer: u32, now_ms: u64, woken: &mut Vec<Waker>) {
        let key = match self.wheel.value_mut(timer) {
            Some(Timer::Sleep(waker)) => {
                woken.extend(waker.take());
                return;
            }
            Some(Timer::Source(key)) => *key,
            None => return,
        };
        let next_ms = match self.slots.get_mut(key as usize) {
            Some(slot) => slot.expire(now_ms, woken),
            None => None,
        };
        if let Some(next_ms) = next_ms {
            self.wheel.move_to(timer, next_ms);
            return;
        }
        self.wheel.remove(timer);
        if let Some(slot) = self.slots.get_mut(key as usize) {
            slot.timer = NO_TIMER;
        }
    }
}

impl Slot {
    fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    fn raise(&mut self, raised: u8, woken: &mut Vec<Waker>) {
        self.flags |= raised;
        if raised & READ != 0 {
            woken.extend(self.read.waker.take());
        }
        if raised & WRITE != 0 {
            woken.extend(self.write.waker.take());
        }
    }

    /// Takes the wakers with a deadline that has passed; returns the nearest deadline to come.
    fn expire(&mut self, now_ms: u64, woken: &mut Vec<Waker>) -> Option<u64> {
        let mut next_ms: Option<u64> = None;
        for side in [&mut self.read, &mut self.write] {
            if side.waker.is_none() || side.deadline_ms == 0 {
                continue;
            }
            if side.deadline_ms <= now_ms {
                woken.extend(side.waker.take());
            } else {
                next_ms = Some(next_ms.map_or(side.deadline_ms, |ms| ms.min(side.deadline_ms)));
            }
        }
        next_ms
    }
}

/// A read may succeed.
pub(super) const READ: u8 = 1;
/// A write may succeed.
pub(super) const WRITE: u8 = 2;
/// The other side has closed its direction or all of it, or it is broken.
pub(super) const CLOSED: u8 = 4;
/// It was reset, or both sides have closed it: the peer is gone.
pub(super) const BROKEN: u8 = 8;

/// The most events of one epoll_wait(2).
const EVENTS_MAX: usize = 1024;

const NO_TIMER: u32 = u32::MAX;

const KEY_BITS: u32 = 32;
const KEY_MASK: usize = (1 << KEY_BITS) - 1;

const _: () = assert!(size_of::<usize>() == 8, "a token holds a key and a generation");
const _: () = assert!(size_of::<Slot>() <= 128, "a waiting connection stays small");
