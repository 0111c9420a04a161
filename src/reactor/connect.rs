//! Connecting a stream.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::reactor::address::Address;
use crate::reactor::stream::Stream;
use crate::reactor::timer;

/// Connects to `address`.
///
/// # Errors
///
/// `TimedOut` when the monotonic clock shows `deadline_ms` (0: never) before it is connected;
/// `ConnectionRefused` and the other errors of connect(2).
pub async fn connect(address: &Address, deadline_ms: u64) -> io::Result<Stream> {
    match address {
        Address::Ip(address) => {
            connect_ip(Domain::for_address(*address), &SockAddr::from(*address), deadline_ms).await
        }
        Address::Unix(path) => connect_unix(&SockAddr::unix(path)?, deadline_ms).await,
    }
}

/// Connects to the first of the addresses of a name that accepts, RFC 8305 section 5. Each is tried when
/// the one before has failed, or has not answered for [`ATTEMPT_DELAY`].
///
/// # Errors
///
/// As [`connect`], for the attempt that failed last; `NotFound` without an address.
pub async fn connect_first(addresses: &[Address], deadline_ms: u64) -> io::Result<Stream> {
    if let [only] = addresses {
        return connect(only, deadline_ms).await;
    }
    let mut rest = addresses.iter();
    let mut attempts = Vec::new();
    let mut failure = io::ErrorKind::NotFound.into();
    loop {
        attempts.extend(rest.next().map(|address| Box::pin(connect(address, deadline_ms))));
        if attempts.is_empty() {
            return Err(failure);
        }
        let mut delay = pin!(timer::sleep(ATTEMPT_DELAY));
        let ended = poll_fn(|context| {
            for (n, attempt) in attempts.iter_mut().enumerate() {
                if let Poll::Ready(connected) = attempt.as_mut().poll(context) {
                    return Poll::Ready(Some((n, connected)));
                }
            }
            if rest.len() > 0 { delay.as_mut().poll(context).map(|()| None) } else { Poll::Pending }
        });
        match ended.await {
            Some((_, Ok(stream))) => return Ok(stream),
            Some((n, Err(error))) => {
                drop(attempts.swap_remove(n));
                failure = error;
            }
            None => {}
        }
    }
}

/// The pause before the next address of a name is tried beside the others.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

async fn connect_ip(domain: Domain, address: &SockAddr, deadline_ms: u64) -> io::Result<Stream> {
    let socket = new_socket(domain)?;
    let begun = socket.connect(address);
    let stream = match begun {
        Ok(()) => return Ok(Stream::from_fd(socket.into())),
        Err(error) if is(&error, Errno::EINPROGRESS) || is(&error, Errno::EINTR) => {
            Stream::connecting(socket.into())
        }
        Err(error) => return Err(error),
    };
    loop {
        stream.writable(deadline_ms).await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => return Ok(stream),
            Err(error) if is(&error, Errno::ENOTCONN) => stream.expect_edge(),
            Err(error) => return Err(error),
        }
    }
}

/// A Unix socket is connected at once or not at all; when the listener's queue is full, the kernel
/// reports that, but not when there is room again.
async fn connect_unix(address: &SockAddr, deadline_ms: u64) -> io::Result<Stream> {
    let mut pause = PAUSE_MIN;
    loop {
        let socket = new_socket(Domain::UNIX)?;
        match socket.connect(address) {
            Ok(()) => return Ok(Stream::from_fd(socket.into())),
            Err(error) if is(&error, Errno::EINTR) => {}
            Err(error) if is(&error, Errno::EAGAIN) => {
                drop(socket);
                if deadline_ms != 0 && super::now().mono_ms() >= deadline_ms {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                let at_ms = timer::deadline(pause);
                let is_last = deadline_ms != 0 && deadline_ms < at_ms;
                timer::sleep_until(if is_last { deadline_ms } else { at_ms }).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Err(error) => return Err(error),
        }
    }
}

fn new_socket(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);
