//! Receiving a PROXY header: exactly its bytes are taken from the socket, and what follows stays
//! there for TLS or HTTP.

use std::io::{self, ErrorKind};

use crate::http::proxy_protocol::{ProxyHeader, parse};
use crate::policy::reason::close::CloseReason;
use crate::reactor::scratch::with_scratch;
use crate::reactor::stream::Stream;

/// The most that is looked at at once.
const PART_BYTES: usize = 4 << 10;

/// Takes the PROXY header at the beginning of a connection, until `deadline_ms` of the monotonic
/// clock.
///
/// # Errors
/// Why the connection is to be closed. A peer that closes it before the header is whole, as the check
/// of a load balancer does, is `ClientClosed`.
pub(super) async fn receive(stream: &Stream, deadline_ms: u64) -> Result<ProxyHeader, CloseReason> {
    let mut header = Vec::new();
    loop {
        match take(stream, &mut header) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stream.readable(deadline_ms).await.map_err(|error| reason_of(&error))?;
            }
            Err(error) => return Err(reason_of(&error)),
        }
    }
}

/// Takes what has come of the header; `None` if that is not all of it. Bytes that begin a header and
/// do not end it can all be taken.
fn take(stream: &Stream, header: &mut Vec<u8>) -> io::Result<Option<ProxyHeader>> {
    with_scratch(|scratch| {
        let part = scratch.get_mut(..PART_BYTES).unwrap_or_default();
        let n_peeked = stream.try_peek(part)?;
        if n_peeked == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let n_before = header.len();
        header.extend_from_slice(part.get(..n_peeked).unwrap_or_default());
        let parsed = parse(header).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        let n_of_header = parsed.map_or(n_peeked, |(_, len)| len - n_before);
        stream.try_read(part.get_mut(..n_of_header).unwrap_or_default())?;
        Ok(parsed.map(|(found, _)| found))
    })
}

fn reason_of(error: &io::Error) -> CloseReason {
    match error.kind() {
        ErrorKind::TimedOut => CloseReason::ProxyTimeout,
        ErrorKind::InvalidData => CloseReason::ProxyHeader,
        _ => CloseReason::ClientClosed,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::reactor;
    use crate::reactor::timer::{deadline, sleep};

    const HEADERS: [&[u8]; 3] = [
        b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb\x01\0\x02h2",
    ];

    /// What is received of these parts, sent one after the other, and the bytes that are left.
    async fn received(parts: &[&[u8]], ms: u64) -> (Result<ProxyHeader, CloseReason>, Vec<u8>) {
        let (mut peer, own) = UnixStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        let stream = Stream::from_fd(own.into());
        let deadline_ms = deadline(Duration::from_millis(ms));
        let receiving = async { (receive(&stream, deadline_ms).await, stream) };
        let mut receiving = std::pin::pin!(receiving);
        for part in parts {
            peer.write_all(part).unwrap();
            // It has taken all that was sent before the next part comes.
            let step = std::future::poll_fn(|context| {
                std::task::Poll::Ready(receiving.as_mut().poll(context))
            });
            if let std::task::Poll::Ready((found, stream)) = step.await {
                return (found, rest_of(&stream));
            }
            reactor::yield_now().await;
            sleep(Duration::ZERO).await;
        }
        let (found, stream) = receiving.await;
        (found, rest_of(&stream))
    }

    fn rest_of(stream: &Stream) -> Vec<u8> {
        let mut rest = [0; 64];
        let n_read = stream.try_read(&mut rest).unwrap_or(0);
        rest[..n_read].to_vec()
    }

    #[test]
    fn a_header_is_taken_alone_wherever_it_is_split() {
        let run = reactor::run(async {
            for header in HEADERS {
                let expected = parse(header).unwrap().unwrap().0;
                let all = [header, b"GET /"].concat();
                for at in 1..header.len() {
                    let (found, rest) = received(&[&all[..at], &all[at..]], 5_000).await;
                    assert_eq!((found, &*rest), (Ok(expected), &b"GET /"[..]), "split at {at}");
                }
                let octets: Vec<_> = header.chunks(1).collect();
                assert_eq!(received(&octets, 5_000).await, (Ok(expected), Vec::new()));
            }
        });
        run.unwrap();
    }

    #[test]
    fn what_is_no_header_or_comes_too_late_has_a_reason() {
        let run = reactor::run(async {
            let reason = async |bytes: &[u8]| received(&[bytes], 20).await.0.unwrap_err();
            assert_eq!(reason(b"GET / HTTP/1.1\r\n").await, CloseReason::ProxyHeader);
            assert_eq!(reason(b"PROXY TCP4 x\r\n").await, CloseReason::ProxyHeader);
            assert_eq!(reason(&[b'P'; 1]).await, CloseReason::ProxyTimeout);
            for header in HEADERS {
                let cut = &header[..header.len() - 1];
                assert_eq!(reason(cut).await, CloseReason::ProxyTimeout);
            }
        });
        run.unwrap();
    }
}
