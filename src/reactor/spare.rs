//! Buffers for a message that is under way, used again by the next one on this thread.
//!
//! A connection that waits holds no buffer, so each message would allocate its own.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// The most buffers that wait for their next use.
const BUFFERS_MAX: usize = 64;

/// The least and the most bytes of a buffer that is kept.
const BYTES_MIN: usize = 256;
const BYTES_MAX: usize = 16 << 10;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer: one that was given back, if there is any.
pub fn take() -> Vec<u8> {
    SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten().unwrap_or_default()
}

/// Gives a buffer back. Its content is dropped.
pub fn give_back(mut buffer: Vec<u8>) {
    if !(BYTES_MIN..=BYTES_MAX).contains(&buffer.capacity()) {
        return;
    }
    buffer.clear();
    // While the thread ends, the buffer is freed.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < BUFFERS_MAX {
            spare.push(buffer);
        }
    });
}

/// A buffer that is given back when it is dropped.
#[derive(Debug)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// One without memory, which is given back all the same once it has some.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// An empty buffer.
    pub fn take() -> Self {
        Self(take())
    }
}

impl From<Vec<u8>> for Buffer {
    /// A buffer with these bytes.
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() { Self::take() } else { Self(bytes) }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_empty() {
        let mut first = Buffer::take();
        first.resize(1_000, 1);
        let place = first.as_ptr();
        drop(first);
        let again = Buffer::take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn tiny_and_large_buffers_are_freed_and_few_are_kept() {
        give_back(Vec::with_capacity(BYTES_MIN - 1));
        give_back(Vec::with_capacity(BYTES_MAX + 1));
        assert_eq!(take().capacity(), 0);
        (0..BUFFERS_MAX + 9).for_each(|_| give_back(Vec::with_capacity(BYTES_MIN)));
        assert_eq!(SPARE.with(|spare| spare.borrow().len()), BUFFERS_MAX);
    }
}
