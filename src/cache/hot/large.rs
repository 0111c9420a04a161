//! Bodies of the hot tier that are too large to be kept behind their heads, and the bytes that all
//! of them use. A body that was evicted still uses its bytes while a slow client receives it.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

/// The bytes of all large bodies of a tier.
#[derive(Clone, Debug, Default)]
pub struct LargeBytes(Rc<Cell<usize>>);

/// Room for a body, taken before it is read: several may be read at once.
#[derive(Debug)]
pub struct LargeRoom {
    len: usize,
    all: LargeBytes,
}

/// A body in memory. Its room is taken before it is read, until its last sender is done.
#[derive(Debug)]
pub struct LargeBody {
    bytes: Box<[u8]>,
    _room: LargeRoom,
}

impl LargeBytes {
    /// Takes room for a body of `len` bytes.
    pub fn take(&self, len: usize) -> LargeRoom {
        self.0.set(self.0.get() + len);
        LargeRoom { len, all: self.clone() }
    }

    /// How many bytes are taken.
    pub fn get(&self) -> usize {
        self.0.get()
    }
}

impl LargeRoom {
    /// The body that it was taken for.
    pub fn body(self, bytes: Vec<u8>) -> LargeBody {
        LargeBody { bytes: bytes.into_boxed_slice(), _room: self }
    }
}

impl Drop for LargeRoom {
    fn drop(&mut self) {
        self.all.0.set(self.all.0.get() - self.len);
    }
}

impl Deref for LargeBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_count_from_before_they_are_read_until_they_are_dropped() {
        let all = LargeBytes::default();
        let (one, other) = (all.take(10), all.take(5));
        assert_eq!(all.get(), 15);
        let body = one.body(vec![1; 10]);
        assert_eq!((all.get(), &*body), (15, &[1; 10][..]));
        drop(other);
        assert_eq!(all.get(), 10);
        drop(body);
        assert_eq!(all.get(), 0);
    }
}
