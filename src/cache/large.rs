//! Bodies of the hot tier that are too large to stand behind their heads, and what they take
//! together: one that was thrown out still takes its bytes while a slow client receives it.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

/// A body in memory. Counted from its making until the last who sends it is done.
#[derive(Debug)]
pub struct LargeBody {
    bytes: Box<[u8]>,
    all: LargeBytes,
}

/// The bytes of all large bodies of a tier.
#[derive(Clone, Debug, Default)]
pub struct LargeBytes(Rc<Cell<usize>>);

impl LargeBytes {
    /// A body that is counted here.
    pub fn body(&self, bytes: Vec<u8>) -> LargeBody {
        let bytes = bytes.into_boxed_slice();
        self.0.set(self.0.get() + bytes.len());
        LargeBody { bytes, all: self.clone() }
    }

    /// How many bytes there are.
    pub fn get(&self) -> usize {
        self.0.get()
    }
}

impl Deref for LargeBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for LargeBody {
    fn drop(&mut self) {
        self.all.0.set(self.all.0.get() - self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_count_as_long_as_they_live() {
        let all = LargeBytes::default();
        let (one, other) = (all.body(vec![1; 10]), all.body(vec![2; 5]));
        assert_eq!((all.get(), &*other), (15, &[2; 5][..]));
        drop(one);
        assert_eq!(all.get(), 5);
        drop(other);
        assert_eq!(all.get(), 0);
    }
}
