//! Wake-ups of streams are never lost.

use std::io::{ErrorKind, IoSlice, Write as _};
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::reactor::timer::{deadline, timeout};
use crate::reactor::{counts, spawn_task, yield_now};

fn is_blocked(result: std::io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn a_short_read_means_drained_without_a_system_call() {
    run(async {
        let (ours, theirs) = pair();
        send(&theirs, b"one");
        let mut buf = [0; 64];
        assert_eq!(ours.read(&mut buf, 0).await.unwrap(), 3);
        // The bytes are there by now (loopback), but no event has reported them yet.
        send(&theirs, b"two");
        assert!(is_blocked(ours.try_read(&mut buf)));
        assert_eq!(ours.read(&mut buf, 0).await.unwrap(), 3);
        assert_eq!(&buf[..3], b"two");
    });
}

#[test]
fn data_between_the_try_and_the_first_wait_wakes() {
    run(async {
        let (ours, theirs) = pair();
        assert!(is_blocked(ours.try_read(&mut [0; 8])));
        send(&theirs, b"x");
        ours.readable(deadline(Duration::from_secs(2))).await.unwrap();
        assert_eq!(ours.try_read(&mut [0; 8]).unwrap(), 1);
    });
}

#[test]
fn data_between_the_try_and_a_later_wait_wakes() {
    run(async {
        let (ours, theirs) = pair();
        let mut buf = [0; 8];
        for round in 0..200_u32 {
            send(&theirs, &[1; 3]);
            assert_eq!(ours.read(&mut buf, 0).await.unwrap(), 3);
            if round % 3 == 0 {
                yield_now().await;
            }
            assert!(is_blocked(ours.try_read(&mut buf)));
            send(&theirs, &[2; 2]);
            ours.readable(deadline(Duration::from_secs(2))).await.unwrap();
            assert_eq!(ours.try_read(&mut buf).unwrap(), 2);
        }
    });
}

#[test]
fn a_full_read_is_followed_by_the_rest() {
    run(async {
        let (ours, theirs) = pair();
        send(&theirs, &[7; 10]);
        let mut n_read = 0;
        while n_read < 10 {
            n_read += ours.read(&mut [0; 5], deadline(Duration::from_secs(2))).await.unwrap();
        }
        assert!(is_blocked(ours.try_read(&mut [0; 5])));
    });
}

#[test]
fn a_short_read_followed_by_the_end_finds_the_end() {
    run(async {
        for is_settled in [false, true] {
            for is_registered in [false, true] {
                let (ours, theirs) = pair();
                if is_registered {
                    assert!(is_blocked(ours.try_read(&mut [0; 8])));
                    let soon = deadline(Duration::from_millis(1));
                    assert!(ours.readable(soon).await.is_err());
                }
                send(&theirs, b"last");
                finish(&theirs);
                if is_settled {
                    settle().await;
                }
                let until = deadline(Duration::from_secs(2));
                assert_eq!(ours.read(&mut [0; 8], until).await.unwrap(), 4);
                assert_eq!(ours.read(&mut [0; 8], until).await.unwrap(), 0);
                assert_eq!(ours.read(&mut [0; 8], until).await.unwrap(), 0);
                assert!(ours.peer_closed());
            }
        }
    });
}

#[test]
fn an_end_that_comes_after_a_short_read_wakes() {
    run(async {
        let (ours, theirs) = pair();
        send(&theirs, b"last");
        let until = deadline(Duration::from_secs(2));
        assert_eq!(ours.read(&mut [0; 8], until).await.unwrap(), 4);
        assert!(is_blocked(ours.try_read(&mut [0; 8])));
        finish(&theirs);
        assert_eq!(ours.read(&mut [0; 8], until).await.unwrap(), 0);
    });
}

#[test]
fn a_half_closed_peer_still_gets_all_bytes() {
    run(async {
        let (ours, theirs) = pair();
        send(&theirs, b"question");
        finish(&theirs);
        let reader = std::thread::spawn(move || read_to_end(theirs));
        let mut buf = [0; 64];
        assert_eq!(ours.read(&mut buf, 0).await.unwrap(), 8);
        assert_eq!(ours.read(&mut buf, 0).await.unwrap(), 0);
        let answer = vec![5; 3_000_000];
        ours.write_all(&answer, deadline(Duration::from_secs(10))).await.unwrap();
        ours.shutdown_write().unwrap();
        drop(ours);
        assert_eq!(reader.join().unwrap(), answer);
    });
}

#[test]
fn a_reset_wakes_both_directions() {
    run(async {
        let (ours, theirs) = pair();
        let ours = Rc::new(ours);
        while ours.try_write(&[0; 65536]).is_ok() {}
        assert!(is_blocked(ours.try_read(&mut [0; 8])));
        let (reader, writer) = (Rc::clone(&ours), Rc::clone(&ours));
        let reading = spawn_task(async move { reader.readable(0).await });
        let writing = spawn_task(async move { writer.writable(0).await });
        settle().await;
        // Unread bytes make this close a reset.
        drop(theirs);
        reading.await.unwrap();
        writing.await.unwrap();
        assert!(ours.peer_closed());
        assert!(ours.try_read(&mut [0; 8]).is_err());
        assert!(!ours.is_reusable());
    });
}

#[test]
fn both_directions_move_at_once() {
    run(async {
        const N_BYTES: usize = 4_000_000;
        async fn pump(out: Rc<Stream>, seed: u8) {
            let bytes: Vec<u8> = (0..N_BYTES).map(|i| (i as u8).wrapping_mul(seed)).collect();
            out.write_all(&bytes, 0).await.unwrap();
            out.shutdown_write().unwrap();
        }
        async fn take(from: Rc<Stream>, seed: u8) -> usize {
            let (mut buf, mut n_read) = (vec![0; 10_000], 0);
            loop {
                let n = from.read(&mut buf, 0).await.unwrap();
                for byte in &buf[..n] {
                    assert_eq!(*byte, (n_read as u8).wrapping_mul(seed));
                    n_read += 1;
                }
                if n == 0 {
                    return n_read;
                }
            }
        }
        let (left, right) = pair_of_ours();
        let (left, right) = (Rc::new(left), Rc::new(right));
        let tasks = [spawn_task(pump(Rc::clone(&left), 3)), spawn_task(pump(Rc::clone(&right), 7))];
        let at_left = spawn_task(take(left, 7));
        let at_right = spawn_task(take(right, 3));
        assert_eq!((at_left.await, at_right.await), (N_BYTES, N_BYTES));
        for task in tasks {
            task.await;
        }
    });
}

#[test]
fn a_full_socket_wakes_when_the_peer_reads() {
    run(async {
        let (ours, theirs) = pair();
        let slices = [IoSlice::new(&[1; 30_000]), IoSlice::new(&[2; 30_000])];
        let mut n_written = 0;
        while let Ok(n) = ours.try_writev(&slices) {
            n_written += n;
        }
        assert!(n_written > 0);
        let soon = deadline(Duration::from_millis(5));
        assert_eq!(ours.writable(soon).await.unwrap_err().kind(), ErrorKind::TimedOut);
        let reader = std::thread::spawn(move || read_to_end(theirs));
        ours.writable(deadline(Duration::from_secs(5))).await.unwrap();
        drop(ours);
        assert_eq!(reader.join().unwrap().len(), n_written);
    });
}

#[test]
fn a_file_is_sent_whole() {
    run(async {
        let (ours, theirs) = pair();
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..2_000_000_u32).map(|i| (i / 7) as u8).collect();
        file.write_all(&bytes).unwrap();
        let reader = std::thread::spawn(move || read_to_end(theirs));
        let mut offset = 1_000;
        loop {
            let len = bytes.len() - offset as usize;
            match ours.try_sendfile(&file, &mut offset, len) {
                Ok(_) if offset == bytes.len() as u64 => break,
                Ok(n) => assert!(n > 0),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    ours.writable(0).await.unwrap();
                }
            }
        }
        assert_eq!(ours.try_sendfile(&file, &mut offset, 10).unwrap(), 0, "the file's end");
        drop(ours);
        assert_eq!(reader.join().unwrap(), &bytes[1_000..]);
    });
}

#[test]
fn an_idle_connection_shows_whether_it_is_reusable() {
    run(async {
        let (fresh, theirs) = pair();
        assert!(fresh.is_reusable());
        finish(&theirs);
        settle().await;
        // It was never waited for, so no event has reported it; a look at the socket does, and
        // lowering the direction cost nothing.
        assert!(fresh.readable(deadline(Duration::from_millis(500))).await.is_ok());
        assert!(!fresh.is_reusable());

        let (used, theirs) = pair();
        assert!(timeout(Duration::from_millis(2), used.read(&mut [0; 8], 0)).await.is_err());
        assert!(used.is_reusable());
        send(&theirs, b"unasked");
        settle().await;
        assert!(!used.is_reusable(), "unexpected bytes");
        assert!(!used.peer_closed());
    });
}

#[test]
fn a_dropped_stream_frees_its_slot_and_timer() {
    run(async {
        let before = counts();
        let (ours, _theirs) = pair();
        let later = deadline(Duration::from_secs(9));
        assert!(timeout(Duration::from_millis(2), ours.read(&mut [0; 8], later)).await.is_err());
        assert_eq!(counts().n_sources, before.n_sources + 1);
        assert_eq!(counts().n_timers, before.n_timers + 1);
        drop(ours);
        assert_eq!(counts(), before);
    });
}

#[test]
fn an_event_for_a_stream_that_is_gone_is_ignored() {
    run(async {
        let (old, theirs_old) = pair();
        let copy = old.as_fd().try_clone_to_owned().unwrap();
        let soon = deadline(Duration::from_millis(1));
        assert!(old.read(&mut [0; 8], soon).await.is_err());
        drop(old);
        let (new, _theirs_new) = pair();
        assert!(new.read(&mut [0; 8], deadline(Duration::from_millis(1))).await.is_err());
        send(&theirs_old, b"for the copy");
        let waited = new.readable(deadline(Duration::from_millis(30))).await;
        assert_eq!(waited.unwrap_err().kind(), ErrorKind::TimedOut);
        drop(copy);
    });
}

#[test]
fn only_the_end_of_both_sides_breaks_a_connection() {
    run(async {
        let soon = Duration::from_millis(50);
        for is_registered in [false, true] {
            let (ours, theirs) = pair();
            if is_registered {
                assert!(timeout(soon, ours.broken()).await.is_err());
            }
            // Bytes and the end of their side wake the waiting task and end no wait.
            send(&theirs, b"x");
            assert!(timeout(soon, ours.broken()).await.is_err());
            theirs.shutdown(Shutdown::Write).unwrap();
            assert!(timeout(soon, ours.broken()).await.is_err());
            socket2::SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
            drop(theirs);
            let long = Duration::from_secs(2);
            timeout(long, ours.broken()).await.expect("the reset was not noticed").unwrap();
            timeout(long, ours.broken()).await.expect("it is remembered").unwrap();
        }
    });
}
