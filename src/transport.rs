//! A connection's bytes, whatever carries them between this process and the peer.
//!
//! The modules below this one in `lib.rs` read and write a connection through a [`Transport`] and
//! do not know its socket. Each `try_` function does what is possible at once, and returns
//! `WouldBlock` if that is nothing; the caller then waits with `readable` or `writable`, or polls,
//! and tries again. A wait may end although the next try returns `WouldBlock` once more.

use std::fs::File;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use crate::reactor;
use crate::reactor::driver::Direction;
use crate::reactor::pipe::Pipe;
use crate::reactor::source::Wait;
use crate::reactor::stream::Stream;
use crate::tls::session::Session;

/// A connection as bytes in both directions. Dropping it closes it.
#[derive(Debug)]
pub struct Transport {
    stream: Stream,
    session: Option<Box<Session>>,
}

impl Transport {
    /// Bytes as they are on the socket.
    pub const fn plain(stream: Stream) -> Self {
        Self { stream, session: None }
    }

    /// Bytes that TLS secures.
    pub fn secured(stream: Stream, session: Session) -> Self {
        Self { stream, session: Some(Box::new(session)) }
    }

    /// Reads the bytes that have arrived; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` when no bytes have arrived; `UnexpectedEof` when a connection with TLS ended
    /// without a close_notify, so that bytes may be missing; else the error of the connection.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.session {
            None => self.stream.try_read(buf),
            Some(session) => session.try_read(&self.stream, buf),
        }
    }

    /// Writes as much of `buf` as the kernel accepts. After `WouldBlock`, or a part, the next write
    /// begins with the bytes that were not written: TLS may have sealed some of them.
    ///
    /// # Errors
    /// `WouldBlock` when the kernel accepts nothing; else the error of the connection.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        match &self.session {
            None => self.stream.try_write(buf),
            Some(session) => session.try_write(&self.stream, &[IoSlice::new(buf)]),
        }
    }

    /// As [`Self::try_write`], but more follows at once: a small head is no packet of its own.
    ///
    /// # Errors
    /// As [`Self::try_write`].
    pub fn try_write_ahead(&self, buf: &[u8]) -> io::Result<usize> {
        match &self.session {
            None => self.stream.try_write_ahead(buf),
            Some(session) => session.try_write(&self.stream, &[IoSlice::new(buf)]),
        }
    }

    /// As [`Self::try_write`], of several slices one after the other.
    ///
    /// # Errors
    /// As [`Self::try_write`].
    pub fn try_writev(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.session {
            None => self.stream.try_writev(bufs),
            Some(session) => session.try_write(&self.stream, bufs),
        }
    }

    /// Writes up to `len` bytes of a file from `offset` on, and moves `offset` past them. 0 means
    /// that the file ends there.
    ///
    /// # Errors
    /// As [`Self::try_write`], and what reading the file says.
    pub fn send_file(&self, file: &File, offset: &mut u64, len: usize) -> io::Result<usize> {
        match &self.session {
            None => self.stream.try_sendfile(file, offset, len),
            Some(session) => session.send_file(&self.stream, file, offset, len),
        }
    }

    /// Whether the bytes are on the socket as they are, so that pipes can be filled and written.
    pub const fn has_pipes(&self) -> bool {
        self.session.is_none()
    }

    /// Moves up to `len` of the bytes that have arrived into an empty pipe; 0 is the end.
    ///
    /// # Errors
    /// As [`Self::try_read`]; `Unsupported` with TLS.
    pub fn fill_pipe(&self, pipe: &mut Pipe, len: usize) -> io::Result<usize> {
        match self.has_pipes() {
            true => self.stream.try_fill(pipe, len),
            false => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Writes as many of the bytes of a pipe as the kernel accepts.
    ///
    /// # Errors
    /// As [`Self::try_write`]; `Unsupported` with TLS.
    pub fn write_pipe(&self, pipe: &mut Pipe) -> io::Result<usize> {
        match self.has_pipes() {
            true => self.stream.try_drain(pipe),
            false => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Waits until a read may succeed: bytes, the end or an error may have arrived.
    ///
    /// # Errors
    /// `TimedOut` when the monotonic clock shows `deadline_ms` (0: never).
    pub fn readable(&self, deadline_ms: u64) -> Wait<'_> {
        self.stream.readable(deadline_ms)
    }

    /// Waits until a write may succeed.
    ///
    /// # Errors
    /// `TimedOut` when the monotonic clock shows `deadline_ms` (0: never).
    pub fn writable(&self, deadline_ms: u64) -> Wait<'_> {
        self.stream.writable(deadline_ms)
    }

    /// Reads the available bytes, and waits if there are none; 0 is the end.
    ///
    /// # Errors
    /// `TimedOut` as [`Self::readable`]; else as [`Self::try_read`].
    pub(crate) async fn read(&self, buf: &mut [u8], deadline_ms: u64) -> io::Result<usize> {
        loop {
            reactor::breathe().await;
            match self.try_read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable(deadline_ms).await?;
                }
                other => return other,
            }
        }
    }

    /// Writes all of `buf`. When dropped before its end, a part of it is written.
    ///
    /// # Errors
    /// `TimedOut` as [`Self::writable`]; else as [`Self::try_write`].
    pub(crate) async fn write_all(&self, mut buf: &[u8], deadline_ms: u64) -> io::Result<()> {
        while !buf.is_empty() {
            reactor::breathe().await;
            match self.try_write(buf) {
                Ok(n_written) => buf = buf.get(n_written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable(deadline_ms).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ready when a read may succeed. Otherwise the task is woken when it may: its waker stays
    /// registered after this returns, until a wake-up or a later wait for reading takes its place.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_ready(Direction::Read, context)
    }

    /// As [`Self::poll_read_ready`], for writing.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_ready(Direction::Write, context)
    }

    /// Waits until the connection is broken, so that nothing sent would arrive. A peer that has
    /// ended its own direction may still be reading. This takes the place of a wait for reading.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub fn broken(&self) -> Wait<'_> {
        self.stream.broken()
    }

    /// Waits until the peer has ended its own side, or the connection is broken.
    ///
    /// # Errors
    /// The error of epoll_ctl(2).
    pub fn closed(&self) -> Wait<'_> {
        self.stream.closed()
    }

    /// Whether an idle connection can carry another message: the peer has not closed it and has
    /// sent no unexpected bytes. Tickets and key updates of TLS are expected.
    pub fn is_reusable(&self) -> bool {
        match &self.session {
            None => self.stream.is_reusable(),
            Some(session) => session.is_reusable(&self.stream),
        }
    }

    /// Makes the kernel send small writes at once (TCP_NODELAY). Without effect on a Unix socket.
    ///
    /// # Errors
    /// An error of setsockopt(2).
    pub fn set_nodelay(&self) -> io::Result<()> {
        self.stream.set_nodelay()
    }

    /// The descriptor, to be given to another process.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Another process has the connection: a task that waits for it is woken, and closing it here does
    /// not end it.
    pub fn leave(&self) {
        self.stream.leave();
    }

    /// The address of the peer, `None` for a Unix socket.
    ///
    /// # Errors
    /// An error of getpeername(2), as when the connection is broken.
    pub fn peer_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.stream.peer_addr()
    }

    /// The address of this side, `None` for a Unix socket.
    ///
    /// # Errors
    /// An error of getsockname(2).
    pub fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.stream.local_addr()
    }

    /// Tells the peer of a connection with TLS that all has been written, by a close_notify. An answer
    /// that lasts until the connection closes is complete only with it, so that it is not sent by the
    /// close alone. `false` if the kernel has no room for it yet.
    pub fn finish(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.close_notify(&self.stream))
    }

    /// As [`Self::finish`], as soon as the kernel has room, or not at all if that is after `deadline_ms` of
    /// the monotonic clock (0: never).
    pub(crate) async fn finished(&self, deadline_ms: u64) {
        while !self.finish() {
            reactor::breathe().await;
            if self.writable(deadline_ms).await.is_err() {
                return;
            }
        }
    }

    /// Tells the peer that nothing more will be written; it can still be read from. With TLS,
    /// [`Self::finished`] comes before.
    ///
    /// # Errors
    /// When the peer is gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.finish();
        self.stream.shutdown_write()
    }

    /// As [`Self::shutdown_write`], but over TLS the peer does not take what it got for the whole.
    ///
    /// # Errors
    /// When the peer is gone.
    pub(crate) fn cut_write(&self) -> io::Result<()> {
        self.stream.shutdown_write()
    }

    /// Ends both directions at once. A task that waits for this connection sees its end.
    pub fn shutdown_both(&self) {
        self.stream.shutdown_both();
    }

    /// Makes the close send a reset, so that the peer does not take what was sent for complete.
    pub fn reset(&self) {
        self.stream.reset();
    }
}

const _: () = assert!(size_of::<Transport>() <= 24, "a plain connection is its socket and a word");

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    use super::*;
    use crate::reactor::timer::{deadline, timeout};
    use crate::reactor::{self, yield_now};
    use crate::tls::sample;

    /// Both ends of a TCP connection and of a Unix one.
    fn pairs() -> [(Transport, Transport); 2] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let left = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (right, _) = listener.accept().unwrap();
        left.set_nonblocking(true).unwrap();
        right.set_nonblocking(true).unwrap();
        let tcp = (transport(left), transport(right));
        let (left, right) = UnixStream::pair().unwrap();
        left.set_nonblocking(true).unwrap();
        right.set_nonblocking(true).unwrap();
        [tcp, (transport(left), transport(right))]
    }

    fn transport(socket: impl Into<OwnedFd>) -> Transport {
        Transport::plain(Stream::from_fd(socket.into()))
    }

    /// Runs a test with each kind of connection without TLS.
    fn with_plain_pairs<F: Future<Output = ()>>(test: impl Fn(Transport, Transport) -> F) {
        for (left, right) in pairs() {
            let within = async { timeout(Duration::from_secs(20), test(left, right)).await };
            reactor::run(within).unwrap().expect("the test hangs");
        }
    }

    /// Runs a test with each kind of connection.
    fn with_pairs<F: Future<Output = ()>>(test: impl Fn(Transport, Transport) -> F) {
        with_plain_pairs(&test);
        let secured = async {
            let (left, right) = sample::pair().await;
            let [left, right] = [left, right].map(|it| Transport::secured(it.stream, it.session));
            timeout(Duration::from_secs(20), test(left, right)).await
        };
        reactor::run(secured).unwrap().expect("the test hangs");
    }

    fn soon() -> u64 {
        deadline(Duration::from_secs(5))
    }

    /// Waits for as many bytes as are expected, and reads them.
    async fn read(from: &Transport, len: usize) -> Vec<u8> {
        let (mut bytes, mut buf) = (Vec::new(), [0; 4096]);
        while bytes.len() < len {
            match from.try_read(&mut buf) {
                Ok(0) => break,
                Ok(n_read) => bytes.extend_from_slice(&buf[..n_read]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    from.readable(soon()).await.unwrap();
                }
            }
        }
        bytes
    }

    /// Writes until nothing more is taken.
    fn fill(transport: &Transport) -> usize {
        let mut n_written = 0;
        while let Ok(n) = transport.try_write(&[0; 16 << 10]) {
            n_written += n;
        }
        n_written
    }

    #[test]
    fn bytes_arrive_in_order_whichever_way_they_are_written() {
        with_pairs(async |left, right| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"0123456789").unwrap();
            left.set_nodelay().unwrap();
            assert_eq!(left.try_write_ahead(b"a").unwrap(), 1);
            assert_eq!(left.try_write(b"b").unwrap(), 1);
            assert_eq!(left.try_writev(&[IoSlice::new(b"c"), IoSlice::new(b"d")]).unwrap(), 2);
            let mut offset = 2;
            assert_eq!(left.send_file(&file, &mut offset, 5).unwrap(), 5);
            assert_eq!(offset, 7);
            assert_eq!(read(&right, 9).await, b"abcd23456");
            offset = 10;
            assert_eq!(left.send_file(&file, &mut offset, 5).unwrap(), 0, "the file ends");
            left.shutdown_write().unwrap();
            assert_eq!(read(&right, 1).await, b"");
            assert_eq!(right.try_write(b"answer").unwrap(), 6);
            assert_eq!(read(&left, 6).await, b"answer");
        });
    }

    #[test]
    fn waits_end_at_their_deadline_and_when_something_happens() {
        with_pairs(async |left, right| {
            assert_eq!(left.try_read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
            let past = deadline(Duration::from_millis(1));
            assert_eq!(left.readable(past).await.unwrap_err().kind(), ErrorKind::TimedOut);
            let n_written = fill(&left);
            assert_eq!(left.writable(past).await.unwrap_err().kind(), ErrorKind::TimedOut);
            read(&right, n_written).await;
            left.writable(soon()).await.unwrap();
            right.try_write(b"x").unwrap();
            left.readable(soon()).await.unwrap();
        });
    }

    #[test]
    fn an_idle_connection_is_reusable_until_something_comes() {
        with_plain_pairs(async |left, right| {
            assert!(left.is_reusable());
            right.try_write(b"unsolicited").unwrap();
            left.readable(soon()).await.unwrap();
            assert!(!left.is_reusable());
            drop(left);
            right.broken().await.unwrap();
            assert!(!right.is_reusable());
        });
    }

    #[test]
    fn a_shutdown_of_both_directions_ends_every_wait() {
        with_plain_pairs(async |left, right| {
            left.shutdown_both();
            assert_eq!(left.try_read(&mut [0; 8]).unwrap(), 0);
            assert!(left.try_write(b"x").is_err());
            assert_eq!(read(&right, 1).await, b"");
        });
    }

    #[test]
    fn a_reset_is_seen_by_the_peer() {
        let [(left, right), _] = pairs();
        let reset = async move {
            left.reset();
            drop(left);
            right.broken().await.unwrap();
            right.try_read(&mut [0; 8]).unwrap_err().kind()
        };
        assert_eq!(reactor::run(reset).unwrap(), ErrorKind::ConnectionReset);
    }

    /// A waker that counts.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_poll_keeps_its_waker_until_the_edge() {
        with_pairs(async |left, right| {
            let counts = [Arc::<Count>::default(), Arc::default()];
            let n_wakes = || counts.each_ref().map(|count| count.0.load(Ordering::Relaxed));
            let [reads, writes] = counts.clone().map(Waker::from);
            let (mut reads, mut writes) =
                (Context::from_waker(&reads), Context::from_waker(&writes));
            assert!(left.poll_read_ready(&mut reads).is_ready(), "a first try is worth it");
            assert!(left.try_read(&mut [0; 8]).is_err());
            let n_written = fill(&left);
            assert!(left.poll_read_ready(&mut reads).is_pending());
            assert!(left.poll_write_ready(&mut writes).is_pending());
            yield_now().await;
            assert_eq!(n_wakes(), [0, 0]);
            right.try_write(b"x").unwrap();
            while n_wakes() == [0, 0] {
                yield_now().await;
            }
            assert_eq!(n_wakes(), [1, 0]);
            read(&right, n_written).await;
            while n_wakes() == [1, 0] {
                yield_now().await;
            }
            assert_eq!(n_wakes(), [1, 1]);
            assert!(left.try_read(&mut [0; 8]).is_ok());
            assert!(left.try_write(&[0; 16 << 10]).is_ok());
        });
    }
}
