//! The buffer that all reads on this thread share.
//!
//! A connection owns bytes only while it holds an incomplete message; all others pass through this
//! buffer. The buffer is lent for the length of a call, never across an await.

use std::cell::RefCell;

/// Its size in bytes.
pub const SCRATCH_BYTES: usize = 256 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the buffer to `use_it`. Its content is undefined.
///
/// A use within a use gets a buffer of its own, which costs an allocation and nothing else.
pub fn with_scratch<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut buffer) => {
            if buffer.is_empty() {
                buffer.resize(SCRATCH_BYTES, 0);
            }
            use_it(&mut buffer)
        }
        Err(_) => use_it(&mut vec![0; SCRATCH_BYTES]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_within_a_use_has_its_own_bytes() {
        with_scratch(|outer| {
            outer[0] = 1;
            with_scratch(|inner| inner[0] = 2);
            assert_eq!(outer[0], 1);
        });
    }
}
