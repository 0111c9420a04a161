//! The buffer for encrypted bytes that all sessions on this thread share.
//!
//! It is another one than that of `reactor/scratch.rs`, because bytes are decrypted from this into
//! that one.

use std::cell::RefCell;
use std::io::{self, IoSlice, Write};

use crate::reactor::stream::Stream;

/// Its size in bytes, and so the most that is received at once.
pub(super) const CIPHERTEXT_BYTES: usize = 64 << 10;

thread_local! {
    static CIPHERTEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the buffer to `use_it`, which does not call this again. Its content is undefined.
pub(super) fn with_ciphertext<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    CIPHERTEXT.with_borrow_mut(|buffer| {
        buffer.resize(CIPHERTEXT_BYTES, 0);
        use_it(buffer)
    })
}

/// A socket as rustls writes to it.
pub(super) struct Out<'s>(pub(super) &'s Stream);

impl Write for Out<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match bufs {
            [buf] => self.0.try_write(buf),
            _ => self.0.try_writev(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
