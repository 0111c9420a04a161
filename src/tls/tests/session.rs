use std::io::Write as _;
use std::time::Duration;

use super::*;
use crate::reactor::timer::{deadline, timeout};
use crate::tls::handshake::Secured;
use crate::tls::sample;

fn with_pair<F: Future<Output = ()>>(test: impl FnOnce(Secured, Secured) -> F) {
    let within = async {
        let (client, server) = sample::pair().await;
        timeout(Duration::from_secs(20), test(client, server)).await
    };
    reactor::run(within).unwrap().expect("the test hangs");
}

fn soon() -> u64 {
    deadline(Duration::from_secs(5))
}

impl Secured {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.session.try_write(&self.stream, &[IoSlice::new(bytes)])
    }

    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.session.try_read(&self.stream, buf)
    }

    /// Waits for bytes and reads them.
    async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.try_read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stream.readable(soon()).await?;
                }
                other => return other,
            }
        }
    }

    async fn read_exact(&self, len: usize, part: usize) -> Vec<u8> {
        let (mut bytes, mut buf) = (Vec::new(), vec![0; part]);
        while bytes.len() < len {
            let n_read = self.read(&mut buf).await.unwrap();
            assert!(n_read > 0, "the end, after {} bytes", bytes.len());
            bytes.extend_from_slice(&buf[..n_read]);
        }
        bytes
    }

    fn is_reusable(&self) -> bool {
        self.session.is_reusable(&self.stream)
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn a_large_body_arrives_whole_in_parts_of_any_size() {
    for part in [1_000, 17_000, 1 << 18] {
        with_pair(async |client, server| {
            let body = pattern(1 << 20);
            let expected = body.clone();
            let reads = reactor::spawn_task(async move {
                let bytes = client.read_exact(1 << 20, part).await;
                (client, bytes)
            });
            let mut n_written = 0;
            while n_written < body.len() {
                match server.write(&body[n_written..]) {
                    Ok(n) => n_written += n,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        server.stream.writable(soon()).await.unwrap();
                    }
                }
                reactor::yield_now().await;
            }
            assert!(reads.await.1 == expected);
        });
    }
}

#[test]
fn what_is_reported_as_written_arrives_without_another_call() {
    with_pair(async |client, server| {
        let body = pattern(64 << 20);
        let mut n_written = 0;
        while let Ok(n) = server.write(&body[n_written..]) {
            n_written += n;
        }
        let rest = server.session.state.borrow().sealed.capacity();
        assert!(rest > 0 && rest <= PIECE_BYTES + 512, "{rest} bytes");
        assert!(client.read_exact(n_written, 1 << 16).await == body[..n_written]);
        // The rest is not sent twice, and more bytes may follow it.
        server.stream.writable(soon()).await.unwrap();
        let n_more = server.write(&body[n_written..n_written + (40 << 10)]).unwrap();
        assert!(client.read_exact(n_more, 1 << 16).await == body[n_written..n_written + n_more]);
        assert_eq!(server.session.state.borrow().sealed.capacity(), 0);
    });
}

#[test]
fn a_file_and_slices_arrive_in_order() {
    with_pair(async |client, server| {
        let mut file = tempfile::tempfile().unwrap();
        let body = pattern(3 << 20);
        file.write_all(&body).unwrap();
        let slices = [b"a", b"b", b"c", b"d", b"e"].map(|it| IoSlice::new(&it[..]));
        let n_written = server.session.try_write(&server.stream, &slices).unwrap();
        assert_eq!(n_written, 5);
        let reads = reactor::spawn_task(async move {
            let bytes = client.read_exact(5 + (3 << 20), 1 << 16).await;
            (client, bytes)
        });
        let mut offset = 0;
        loop {
            match server.session.send_file(&server.stream, &file, &mut offset, 4 << 20) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    server.stream.writable(soon()).await.unwrap();
                }
            }
            reactor::yield_now().await;
        }
        assert_eq!(offset, 3 << 20);
        let (_client, bytes) = reads.await;
        assert!(bytes[..5] == *b"abcde" && bytes[5..] == body);
    });
}

#[test]
fn bytes_that_lie_in_the_session_are_readable_at_once() {
    with_pair(async |client, server| {
        server.write(b"0123456789").unwrap();
        let mut buf = [0; 4];
        assert_eq!(client.read(&mut buf).await.unwrap(), 4);
        for (n_left, expected) in [(4, &b"4567"[..]), (2, b"89")] {
            client.stream.readable(soon()).await.unwrap();
            assert_eq!(client.try_read(&mut buf).unwrap(), n_left);
            assert_eq!(&buf[..n_left], expected);
        }
        assert_eq!(client.try_read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn an_end_with_close_notify_is_whole_and_one_without_is_cut() {
    with_pair(async |client, server| {
        server.write(b"x").unwrap();
        server.session.close_notify(&server.stream);
        let mut buf = [0; 8];
        assert_eq!(client.read(&mut buf).await.unwrap(), 1);
        client.stream.readable(soon()).await.unwrap();
        assert_eq!(client.try_read(&mut buf).unwrap(), 0);
        assert_eq!(client.try_read(&mut buf).unwrap(), 0);
        // The other direction goes on.
        client.write(b"y").unwrap();
        assert_eq!(server.read(&mut buf).await.unwrap(), 1);
        client.stream.shutdown_write().unwrap();
        for _ in 0..2 {
            let error = server.read(&mut buf).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        }
    });
}

#[test]
fn key_updates_are_expected_and_bytes_are_not() {
    with_pair(async |client, server| {
        assert!(client.is_reusable());
        for _ in 0..3 {
            server.session.state.borrow_mut().tls.refresh_traffic_keys().unwrap();
            assert!(server.session.state.borrow_mut().flush(&server.stream).unwrap());
            let _ = timeout(Duration::from_millis(200), client.stream.readable(0)).await;
            assert!(client.is_reusable(), "a key update is no message");
        }
        client.write(b"ask").unwrap();
        assert_eq!(server.read_exact(3, 8).await, b"ask");
        server.write(b"answer").unwrap();
        assert_eq!(client.read_exact(6, 8).await, b"answer");
        assert!(client.is_reusable());
        server.write(b"unasked").unwrap();
        client.stream.readable(soon()).await.unwrap();
        assert!(!client.is_reusable() && !client.is_reusable());
        server.session.close_notify(&server.stream);
        assert!(!server.is_reusable() || !client.is_reusable());
    });
    with_pair(async |client, server| {
        assert!(client.is_reusable());
        server.session.close_notify(&server.stream);
        while client.is_reusable() {
            client.stream.readable(soon()).await.unwrap();
        }
    });
}

#[test]
fn a_part_of_a_record_is_no_clean_end() {
    with_pair(async |client, server| {
        let sealed = |change: &dyn Fn(&mut Connection)| {
            let mut state = server.session.state.borrow_mut();
            change(&mut state.tls);
            let mut bytes = Vec::new();
            while state.tls.wants_write() {
                state.tls.write_tls(&mut bytes).unwrap();
            }
            bytes
        };
        let update = sealed(&|tls| tls.refresh_traffic_keys().unwrap());
        let data = sealed(&|tls| tls.writer().write_all(b"unasked").unwrap());
        assert!(client.is_reusable());
        server.stream.try_write(&update).unwrap();
        client.stream.readable(soon()).await.unwrap();
        assert!(client.is_reusable(), "a key update that is whole");
        server.stream.try_write(&data[..10]).unwrap();
        client.stream.readable(soon()).await.unwrap();
        assert!(!client.is_reusable() && !client.is_reusable());
    });
    with_pair(async |client, server| {
        assert!(client.is_reusable());
        server.stream.try_write(b"\x17\x03\x03").unwrap();
        client.stream.readable(soon()).await.unwrap();
        assert!(!client.is_reusable(), "not even its length has come");
    });
}

#[test]
fn a_close_notify_that_finds_no_room_is_sent_later() {
    with_pair(async |client, server| {
        let body = pattern(16 << 10);
        let mut n_written = 0;
        while let Ok(n) = server.write(&body) {
            n_written += n;
        }
        assert!(!server.session.close_notify(&server.stream));
        let reads = reactor::spawn_task(async move {
            let mut buf = vec![0; 1 << 16];
            let mut n_read = 0;
            loop {
                match client.read(&mut buf).await {
                    Ok(0) => return Ok(n_read),
                    Ok(n) => n_read += n,
                    Err(error) => return Err(error.kind()),
                }
            }
        });
        while !server.session.close_notify(&server.stream) {
            server.stream.writable(soon()).await.unwrap();
        }
        // What was not reported as written is there too: it was sealed.
        assert!(reads.await.unwrap() >= n_written);
    });
}

#[test]
fn a_damaged_record_is_an_error_behind_the_bytes_before_it() {
    with_pair(async |client, server| {
        server.write(b"good").unwrap();
        server.stream.try_write(b"\x17\x03\x03\x00\x20damaged damaged damaged damaged.").unwrap();
        let mut buf = [0; 64];
        assert_eq!(client.read(&mut buf).await.unwrap(), 4);
        for _ in 0..2 {
            let error = client.read(&mut buf).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
        assert!(!client.is_reusable());
        // The peer is told.
        let error = server.read(&mut buf).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    });
}

#[test]
fn an_idle_session_has_given_back_its_room() {
    with_pair(async |client, server| {
        let body = pattern(200 << 10);
        let mut n_written = 0;
        while n_written < body.len() {
            n_written += server.write(&body[n_written..]).unwrap();
        }
        client.read_exact(body.len(), 1 << 16).await;
        assert!(client.try_read(&mut [0; 8]).is_err());
        assert!(!client.session.state.borrow().is_wide);
    });
}
