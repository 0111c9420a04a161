//! Two futures pinned side by side.
//!
//! An `async fn` that takes a future and pins it keeps room for it twice: once as an argument and
//! once as the pinned local. A connection's future is memory per connection, so time-outs and
//! races hold their futures in this pair, whose size is the sum of its two.

use std::pin::Pin;

/// Two values that are pinned when the pair is.
#[derive(Debug)]
pub struct Pinned<A, B> {
    first: A,
    second: B,
}

impl<A, B> Pinned<A, B> {
    /// A pair that is not pinned yet.
    pub const fn new(first: A, second: B) -> Self {
        Self { first, second }
    }

    /// Both values, pinned as the pair is.
    pub fn split(self: Pin<&mut Self>) -> (Pin<&mut A>, Pin<&mut B>) {
        // SAFETY: nothing is moved out of the reference. Both fields are structurally pinned: the
        // pair has no `Drop`, is not packed, hands out no unpinned reference to a field, and is
        // `Unpin` only if both fields are (the automatic rule).
        unsafe {
            let pair = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut pair.first), Pin::new_unchecked(&mut pair.second))
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
    fn both_halves_can_be_reached() {
        let mut pair = std::pin::pin!(Pinned::new(1, 2));
        let (first, second) = pair.as_mut().split();
        assert_eq!(*first + *second, 3);
    }
}
