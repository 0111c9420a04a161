//! The TLS of one connection after its handshake: plain bytes on one side, the socket on the other.
//!
//! A session of either role does what a socket does, with the same results: what [`Session::try_write`]
//! reports as written is in the kernel, so nothing has to be flushed later. If the kernel takes only a
//! part of a sealed piece, the session keeps the rest, reports the piece as not written, and
//! reports it as written when a later call, with the same bytes in front, has sent the rest.
//!
//! # Memory
//!
//! Idle, a session is some 2 KiB of state and keys and the 4 KiB into which rustls reads. While a peer
//! does not read, a session keeps the rest of one sealed piece, at most 16 KiB.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;

use rustls::Connection;

use crate::reactor;
use crate::reactor::driver::Direction;
use crate::reactor::stream::Stream;
use crate::tls::ciphertext::{CIPHERTEXT_BYTES, Out, with_ciphertext};
use crate::tls::framing::Framing;

/// The TLS of a connection.
pub struct Session {
    state: RefCell<State>,
}

struct State {
    tls: Connection,
    /// The rest of a sealed piece, and how much of it is sent.
    sealed: Vec<u8>,
    n_sent: usize,
    /// The plain bytes that the sealed rest stands for. They are not reported as written yet.
    n_owed: usize,
    /// Plain bytes that have arrived and were not read.
    n_plain: usize,
    /// The records of a server. What a client sends at any time begins its next request.
    framing: Option<Framing>,
    /// The peer has sent close_notify, or has closed the connection.
    is_ended: bool,
    /// The peer has broken the protocol.
    is_broken: bool,
    /// rustls has a larger buffer than it needs for an idle connection.
    is_wide: bool,
    /// Bytes that are still to be sealed as small records.
    n_small: usize,
    /// When something was written last, in milliseconds of the monotonic clock.
    written_ms: u64,
}

impl Session {
    /// The session of a connection that has shaken hands over `stream`.
    pub(super) fn new(mut tls: Connection, framing: Framing, stream: &Stream) -> Self {
        // Plain bytes may have come with the last record of the handshake. A mistake in them is found
        // again.
        let n_plain = tls.process_new_packets().map_or(0, |it| it.plaintext_bytes_to_read());
        let framing = matches!(tls, Connection::Client(_)).then_some(framing);
        let state = State {
            framing,
            tls,
            sealed: Vec::new(),
            n_sent: 0,
            n_owed: 0,
            n_plain,
            is_ended: false,
            is_broken: false,
            is_wide: false,
            n_small: 0,
            written_ms: 0,
        };
        // Nothing that the kernel reports tells of bytes that are here already.
        stream.raise(Direction::Read);
        Self { state: RefCell::new(state) }
    }

    /// Reads the plain bytes that have arrived; 0 is a close_notify.
    ///
    /// # Errors
    /// `WouldBlock` when there are none; `UnexpectedEof` when the connection ended without a
    /// close_notify, so that bytes may be missing; `InvalidData` when the peer breaks the protocol;
    /// else the error of recv(2).
    pub(crate) fn try_read(&self, stream: &Stream, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        if buf.is_empty() {
            return Ok(0);
        }
        let mut result = state.take(buf);
        for _ in 0..RECEIVES_MAX {
            match result {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => break,
            }
            result = match state.receive(stream, buf.len(), buf)? {
                0 => state.take(buf),
                n_read => Ok(n_read),
            };
        }
        if state.n_plain > 0 || state.is_ended || state.is_broken {
            stream.raise(Direction::Read);
        }
        result
    }

    /// Writes as much of several slices, one after the other, as the kernel accepts.
    ///
    /// # Errors
    /// `WouldBlock` when it accepts nothing; else the error of the connection.
    pub(crate) fn try_write(&self, stream: &Stream, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let len = bufs.iter().map(|buf| buf.len()).sum();
        debug_assert!(state.n_owed <= len, "a write is repeated with the same bytes");
        let n_written = state.settle(stream)?;
        state.write(stream, bufs, n_written, len)
    }

    /// Writes up to `len` bytes of a file from `offset` on, and moves `offset` past them. 0 means
    /// that the file ends there.
    ///
    /// # Errors
    /// As [`Self::try_write`], and what reading the file says.
    pub(crate) fn send_file(
        &self,
        stream: &Stream,
        file: &File,
        offset: &mut u64,
        len: usize,
    ) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let n_settled = state.settle(stream)?;
        *offset += n_settled as u64;
        let n_written = with_ciphertext(|part| {
            let room = len.saturating_sub(n_settled).min(CIPHERTEXT_BYTES);
            let n_read = file.read_at(&mut part[..room], *offset)?;
            match n_read {
                0 => Ok(0),
                _ => state.write(stream, &[IoSlice::new(&part[..n_read])], 0, n_read),
            }
        });
        match n_written {
            Ok(n_written) => {
                *offset += n_written as u64;
                Ok(n_settled + n_written)
            }
            Err(_) if n_settled > 0 => Ok(n_settled),
            Err(error) => Err(error),
        }
    }

    /// Whether an idle connection can carry another message. Session tickets and key updates that
    /// have arrived do not count; plain bytes do wherever they lie, and so does a part of a record.
    pub(crate) fn is_reusable(&self, stream: &Stream) -> bool {
        let mut state = self.state.borrow_mut();
        let is_clean = |state: &State| {
            let is_between = state.framing.is_none_or(|framing| framing.is_between());
            state.n_plain == 0 && is_between && !state.is_ended && !state.is_broken
        };
        if is_clean(&state) && !stream.is_quiet() {
            stream.raise(Direction::Read);
            for _ in 0..RECEIVES_MAX {
                match state.receive(stream, CIPHERTEXT_BYTES, &mut []) {
                    Ok(_) => {}
                    Err(error) => {
                        return error.kind() == ErrorKind::WouldBlock && is_clean(&state);
                    }
                }
            }
            return false;
        }
        is_clean(&state)
    }

    /// Tells the peer that nothing more will be written; `false` if the kernel has no room for that yet.
    pub(crate) fn close_notify(&self, stream: &Stream) -> bool {
        let mut state = self.state.borrow_mut();
        state.tls.send_close_notify();
        // A connection that is broken takes nothing more.
        state.flush(stream).unwrap_or(true)
    }
}

impl State {
    /// The plain bytes that are here.
    fn take(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.tls.reader().read(buf) {
            Ok(n_read) => {
                self.n_plain = self.n_plain.saturating_sub(n_read);
                Ok(n_read)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && self.is_broken => {
                Err(ErrorKind::InvalidData.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Receives at most `room` encrypted bytes, and gives the plain ones that fit to `buf`; returns
    /// their number. With `buf.len()` of room, no more plain bytes are left over than a record has,
    /// which is what rustls keeps.
    fn receive(&mut self, stream: &Stream, room: usize, buf: &mut [u8]) -> io::Result<usize> {
        with_ciphertext(|bytes| {
            let room = room.min(bytes.len());
            match stream.try_read(&mut bytes[..room]) {
                Ok(n_read) => self.open(stream, &bytes[..n_read], buf),
                Err(error) => {
                    self.narrow();
                    Err(error)
                }
            }
        })
    }

    /// Decrypts `sealed`, which is empty at the end of the connection.
    fn open(&mut self, stream: &Stream, mut sealed: &[u8], buf: &mut [u8]) -> io::Result<usize> {
        let mut n_taken = 0;
        if let Some(framing) = &mut self.framing {
            framing.pass(sealed);
        }
        self.is_ended |= sealed.is_empty();
        self.is_wide |= sealed.len() > NARROW_BYTES;
        loop {
            let n_fed = self.tls.read_tls(&mut sealed)?;
            match self.tls.process_new_packets() {
                Ok(state) => {
                    self.n_plain = state.plaintext_bytes_to_read();
                    self.is_ended |= state.peer_has_closed();
                }
                Err(_) => self.is_broken = true,
            }
            // Key updates are answered, and mistakes are reported by an alert.
            if self.tls.wants_write() {
                let _ = self.flush(stream);
            }
            let rest = buf.get_mut(n_taken..).unwrap_or_default();
            if self.n_plain > 0 && !rest.is_empty() {
                n_taken += self.take(rest)?;
            }
            if sealed.is_empty() || n_fed == 0 || self.is_broken {
                return Ok(n_taken);
            }
        }
    }

    /// Has rustls give back the room for a large record, once there is none.
    fn narrow(&mut self) {
        if std::mem::take(&mut self.is_wide) {
            // rustls shrinks its buffer before it reads.
            let _ = self.tls.read_tls(&mut Nothing);
        }
    }

    /// Sends what is sealed; returns how many plain bytes that completes.
    fn settle(&mut self, stream: &Stream) -> io::Result<usize> {
        match self.flush(stream)? {
            true => Ok(std::mem::take(&mut self.n_owed)),
            false => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Seals and sends `bufs` from `n_written` on, until the kernel takes no more. Returns how many of
    /// their bytes are sent.
    fn write(
        &mut self,
        stream: &Stream,
        bufs: &[IoSlice<'_>],
        mut n_written: usize,
        len: usize,
    ) -> io::Result<usize> {
        let now_ms = reactor::now().mono_ms();
        if now_ms.saturating_sub(self.written_ms) >= IDLE_MS {
            self.n_small = SMALL_BYTES;
        }
        self.written_ms = now_ms;
        let end = len.min(n_written + WRITE_BYTES_MAX);
        while n_written < end {
            let piece = (end - n_written).min(PIECE_BYTES);
            let n_sealed = self.seal(bufs, n_written, piece)?;
            if !self.flush(stream)? {
                self.n_owed = n_sealed;
                break;
            }
            n_written += n_sealed;
        }
        match n_written {
            0 if len > 0 => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(n_written),
        }
    }

    /// Seals `len` bytes behind the first `skipped` ones, in one record, or in small ones if the
    /// connection was idle: the peer can open the first before the others have arrived.
    fn seal(&mut self, bufs: &[IoSlice<'_>], skipped: usize, len: usize) -> io::Result<usize> {
        let record = match self.n_small > 0 && len > SMALL_ANSWER {
            true => SMALL_RECORD,
            false => PIECE_BYTES,
        };
        self.n_small = self.n_small.saturating_sub(len);
        let mut n_sealed = 0;
        while n_sealed < len {
            let (parts, n_parts) = part(bufs, skipped + n_sealed, record.min(len - n_sealed));
            let n_taken = self.tls.writer().write_vectored(parts.get(..n_parts).unwrap_or(&[]))?;
            if n_taken == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            n_sealed += n_taken;
        }
        Ok(n_sealed)
    }

    /// Sends what is sealed; `false` if the kernel did not take all of it.
    fn flush(&mut self, stream: &Stream) -> io::Result<bool> {
        while let Some(rest) = self.sealed.get(self.n_sent..).filter(|rest| !rest.is_empty()) {
            match stream.try_write(rest) {
                Ok(n_sent) => self.n_sent += n_sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if self.n_sent > 0 {
            (self.sealed, self.n_sent) = (Vec::new(), 0);
        }
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Out(stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.keep()?;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes the sealed rest out of rustls, which would keep the room of what is sent as well.
    fn keep(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut rest)?;
        }
        rest.shrink_to_fit();
        self.sealed = rest;
        Ok(())
    }
}

/// The slices of the `len` bytes behind the first `skipped` ones, if they are not too many.
fn part<'b>(
    bufs: &'b [IoSlice<'_>],
    mut skipped: usize,
    mut len: usize,
) -> ([IoSlice<'b>; PARTS_MAX], usize) {
    let mut parts = [IoSlice::new(b""); PARTS_MAX];
    let mut n_parts = 0;
    for buf in bufs {
        let rest = buf.get(skipped..).unwrap_or_default();
        skipped = skipped.saturating_sub(buf.len());
        let taken = rest.get(..len).unwrap_or(rest);
        if let (false, Some(part)) = (taken.is_empty(), parts.get_mut(n_parts)) {
            *part = IoSlice::new(taken);
            n_parts += 1;
            len -= taken.len();
        }
    }
    (parts, n_parts)
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// A reader without bytes, which has not ended.
struct Nothing;

impl io::Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

/// The most that is sealed before it is sent: a whole record.
const PIECE_BYTES: usize = 16 << 10;

/// The most that one call writes, so that other tasks have their turn.
const WRITE_BYTES_MAX: usize = 256 << 10;

/// A connection that has written nothing for this long begins with small records, because the
/// kernel begins with few segments in flight.
const IDLE_MS: u64 = 1_000;

/// The size of a small record: it fits a segment.
const SMALL_RECORD: usize = 1_400;

/// How many bytes go out in small records.
const SMALL_BYTES: usize = 64 << 10;

/// So many bytes arrive together in any case.
const SMALL_ANSWER: usize = 4 << 10;

/// How many slices a record may be made of; the others are left for the next one.
const PARTS_MAX: usize = 4;

/// How often one read asks the kernel while records without plain bytes arrive.
const RECEIVES_MAX: usize = 8;

/// The room that rustls always has for encrypted bytes.
const NARROW_BYTES: usize = 4 << 10;

#[cfg(test)]
#[path = "tests/session.rs"]
mod tests;
