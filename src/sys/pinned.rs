//! Two futures pinned side by side.
//!
//! An `async fn` that takes a future and pins it keeps room for it twice: once as an argument and
//! once as the pinned local. A connection's future is memory per connection, so time-outs and
//! races hold their futures in this pair, whose size is the sum of its two.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Two values that are pinned when the pair is.
#[derive(Debug)]
pub struct Pinned<A, B> {
    first: A,
    second: B,
}

impl<A, B> Pinned<A, B> {
    /// A pair that is not pinned yet.
    pub(crate) const fn new(first: A, second: B) -> Self {
        Self { first, second }
    }

    /// Both values, pinned as the pair is.
    pub(crate) fn split(self: Pin<&mut Self>) -> (Pin<&mut A>, Pin<&mut B>) {
        // SAFETY: nothing is moved out of the reference. Both fields are structurally pinned: the
        // pair has no `Drop`, is not packed, hands out no unpinned reference to a field, and is
        // `Unpin` only if both fields are (the automatic rule).
        unsafe {
            let pair = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut pair.first), Pin::new_unchecked(&mut pair.second))
        }
    }
}

/// Work that is done unless something else comes first: `None` if it did.
///
/// The work is polled first, so what is done is never lost. Dropping the race drops both.
#[derive(Debug)]
#[must_use = "a race does nothing unless awaited"]
pub(crate) struct Race<A, B>(Pinned<A, B>);

impl<A, B> Race<A, B> {
    /// Does `work` unless `end` comes first.
    pub(crate) const fn new(work: A, end: B) -> Self {
        Self(Pinned::new(work, end))
    }
}

impl<A: Future, B: Future> Future for Race<A, B> {
    type Output = Option<A::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the only field is structurally pinned, for the reasons given in `split`.
        let pair = unsafe { self.map_unchecked_mut(|race| &mut race.0) };
        let (work, end) = pair.split();
        match work.poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => end.poll(context).map(|_| None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_as_large_as_its_parts() {
        assert_eq!(size_of::<Pinned<[u64; 10], u64>>(), 88);
    }

    #[test]
    fn the_work_wins_if_both_are_ready() {
        use std::future::{pending, ready};
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut both = std::pin::pin!(Race::new(ready(1), ready(2)));
        assert_eq!(both.as_mut().poll(&mut context), Poll::Ready(Some(1)));
        let mut end = std::pin::pin!(Race::new(pending::<u8>(), ready(2)));
        assert_eq!(end.as_mut().poll(&mut context), Poll::Ready(None));
        let mut none = std::pin::pin!(Race::new(pending::<u8>(), pending::<u8>()));
        assert_eq!(none.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(size_of::<Race<[u64; 10], u64>>(), 88);
    }

    #[test]
    fn both_halves_can_be_reached() {
        let mut pair = std::pin::pin!(Pinned::new(1, 2));
        let (first, second) = pair.as_mut().split();
        assert_eq!(*first + *second, 3);
    }
}
