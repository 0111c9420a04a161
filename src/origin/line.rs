//! The line of the fetches that wait for a connection.
//!
//! A fetch that is called takes what is free, or keeps its place and lets the fetches behind it
//! look. So a connection is free while fetches wait only if none of them can use it.

use std::rc::Rc;

use crate::origin::upstream::Upstream;
use crate::policy::reason::fetch::FetchError;
use crate::reactor;
use crate::reactor::event::Event;
use crate::reactor::timer;
use crate::upstream::pending::Ticket;

/// A place in the line; given up when the wait is.
pub(super) struct Place<'u> {
    upstream: &'u Upstream,
    ticket: Ticket,
    event: Rc<Event>,
    until_ms: u64,
    is_choosy: bool,
    state: Waiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// In line, since this version of the event.
    InLine(u64),
    /// It has left the line and goes on to a connection.
    Served,
}

impl<'u> Place<'u> {
    /// The place at the end of the line. A connection may be free that no earlier fetch can use, so
    /// the line is called again. A fetch that has tried servers is choosy: it waits for another server
    /// than those that are chosen first.
    pub(super) fn last(upstream: &'u Upstream, is_choosy: bool) -> Result<Self, FetchError> {
        let until_ms = reactor::now().mono_ms() + upstream.pending_ms;
        let event = Rc::new(Event::default());
        let mut pending = upstream.pending.borrow_mut();
        let is_alone = pending.is_empty();
        let pushed = pending.push(Rc::clone(&event));
        drop(pending);
        let ticket = pushed.map_err(|_| FetchError::PendingFull)?;
        upstream.n_choosy.update(|n| n + usize::from(is_choosy));
        upstream.count_pending();
        upstream.crowded.notify();
        if !is_alone && upstream.has_room() {
            upstream.call_next();
        }
        Ok(Self { upstream, ticket, event, until_ms, is_choosy, state: Waiting::InLine(0) })
    }

    /// Waits until this fetch is called.
    pub(super) async fn called(&self) -> Result<(), FetchError> {
        let Waiting::InLine(since) = self.state else { return Ok(()) };
        let turn = timer::timeout_at(self.until_ms, self.event.after(since)).await;
        turn.map_err(|_| FetchError::PendingTimeout)
    }

    /// Goes on waiting. If something is free, the next fetch in line is called.
    pub(super) fn decline(&mut self) {
        self.state = Waiting::InLine(self.event.version());
        let event = Rc::clone(&self.event);
        let mut pending = self.upstream.pending.borrow_mut();
        pending.restore(self.ticket, event);
        let has_room = self.upstream.has_room();
        let next = if has_room { pending.pop_behind(self.ticket) } else { None };
        drop(pending);
        self.upstream.looked();
        self.upstream.call(next);
    }

    /// The fetch has what it waited for.
    pub(super) fn leave(mut self) {
        self.state = Waiting::Served;
        self.upstream.looked();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let is_waiting = self.upstream.pending.borrow_mut().cancel(self.ticket).is_some();
        self.upstream.n_choosy.update(|n| n - usize::from(self.is_choosy));
        self.upstream.count_pending();
        // The fetch was called and has gone: the next one is called instead.
        if !is_waiting && self.state != Waiting::Served {
            self.upstream.looked();
            self.upstream.call_next();
        }
    }
}

impl Upstream {
    /// A fetch that was called has taken what is free, or has gone, or waits again.
    fn looked(&self) {
        self.n_called.update(|n| n.saturating_sub(1));
    }
}
