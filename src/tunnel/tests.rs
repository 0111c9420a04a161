//! Tunnels between real sockets, plain and with TLS.

use std::rc::Rc;

use super::*;
use crate::reactor::clock::run_by_test_clock;
use crate::reactor::pipe::Pipe;
use crate::reactor::stream::Stream;
use crate::reactor::timer::timeout;
use crate::reactor::{Task, spawn_task};
use crate::tls::sample;

/// A peer, and the connection to it that a tunnel has.
type Pair = (Transport, Transport);

fn plain() -> Pair {
    let (left, right) = sample::tcp_pair();
    (Transport::plain(left), Transport::plain(right))
}

/// Two Unix sockets: their buffers have a known size.
fn unix() -> Pair {
    let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
    left.set_nonblocking(true).unwrap();
    right.set_nonblocking(true).unwrap();
    let transport =
        |socket: std::os::unix::net::UnixStream| Transport::plain(Stream::from_fd(socket.into()));
    (transport(left), transport(right))
}

async fn secured() -> Pair {
    let (left, right) = sample::pair().await;
    let [left, right] = [left, right].map(|it| Transport::secured(it.stream, it.session));
    (left, right)
}

/// A tunnel that runs as a task, and its two peers.
struct Joined {
    client: Rc<Transport>,
    origin: Rc<Transport>,
    moved: Rc<Moved>,
    tunnel: Task<End>,
}

impl Joined {
    fn new(client: Pair, origin: Pair, ahead: [&[u8]; 2]) -> Self {
        let moved = Rc::<Moved>::default();
        let ahead = ahead.map(<[u8]>::to_vec);
        let ((client, ours), (origin, theirs)) = (client, origin);
        let tunnel = spawn_task({
            let moved = Rc::clone(&moved);
            async move {
                let [of_client, of_origin] = ahead;
                let client = Side { transport: &ours, ahead: of_client };
                let origin = Side { transport: &theirs, ahead: of_origin };
                join(client, origin, IDLE, &moved).await
            }
        });
        Self { client: Rc::new(client), origin: Rc::new(origin), moved, tunnel }
    }

    fn n_moved(&self) -> (u64, u64) {
        (self.moved.n_to_origin(), self.moved.n_to_client())
    }
}

const IDLE: Duration = Duration::from_secs(3_600);

/// Bytes of which no two places look the same.
fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

/// Everything up to the end of the peer's side.
async fn read_all(from: &Transport) -> Vec<u8> {
    let (mut bytes, mut buf) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(n_read @ 1..) = from.read(&mut buf, 0).await {
        bytes.extend_from_slice(&buf[..n_read]);
    }
    bytes
}

async fn read(from: &Transport, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut n_read = 0;
    while n_read < len {
        n_read += from.read(&mut bytes[n_read..], 0).await.unwrap();
    }
    bytes
}

/// Writes until nothing has been taken for many turns; returns how much was.
async fn fill(to: &Transport) -> usize {
    let (mut n_written, mut n_refused) = (0, 0);
    while n_refused < 200 {
        match to.try_write(&[7; 16 << 10]) {
            Ok(n) => (n_written, n_refused) = (n_written + n, 0),
            Err(_) => n_refused += 1,
        }
        reactor::yield_now().await;
    }
    n_written
}

/// Runs a test, and fails it if it hangs.
fn run<F: Future>(test: F) -> F::Output {
    let within = async { timeout(Duration::from_secs(30), test).await };
    reactor::run(within).unwrap().expect("the test hangs")
}

/// Runs a test with tunnels of every mixture of plain connections and TLS.
fn with_tunnels<F: Future<Output = ()>>(ahead: [&[u8]; 2], test: impl Fn(Joined) -> F) {
    run(async {
        test(Joined::new(plain(), plain(), ahead)).await;
        test(Joined::new(unix(), plain(), ahead)).await;
        test(Joined::new(secured().await, plain(), ahead)).await;
        test(Joined::new(plain(), secured().await, ahead)).await;
        test(Joined::new(secured().await, secured().await, ahead)).await;
    });
}

#[test]
fn bytes_read_ahead_come_first_and_either_side_may_end_first() {
    with_tunnels([b"from the ", b"of the "], async |joined| {
        joined.client.write_all(b"client", 0).await.unwrap();
        joined.client.shutdown_write().unwrap();
        assert_eq!(read_all(&joined.origin).await, b"from the client");
        joined.origin.write_all(b"origin, later", 0).await.unwrap();
        assert_eq!(read(&joined.client, 20).await, b"of the origin, later");
        assert!(!joined.tunnel.is_finished(), "the origin has not ended its side");
        joined.origin.shutdown_write().unwrap();
        assert_eq!(read_all(&joined.client).await, b"");
        assert_eq!(joined.n_moved(), (15, 20));
        assert_eq!(joined.tunnel.await, End::Finished);
    });
    with_tunnels([b"", b""], async |joined| {
        joined.origin.write_all(b"all", 0).await.unwrap();
        joined.origin.shutdown_write().unwrap();
        assert_eq!(read_all(&joined.client).await, b"all");
        joined.client.write_all(b"answer", 0).await.unwrap();
        joined.client.shutdown_write().unwrap();
        assert_eq!(read_all(&joined.origin).await, b"answer");
        assert_eq!(joined.tunnel.await, End::Finished);
    });
}

#[test]
fn much_goes_both_ways_at_once() {
    const BYTES: usize = 6 << 20;
    let (up, down) = (pattern(BYTES, 1), pattern(BYTES + 4_321, 2));
    let send = |to: &Rc<Transport>, bytes: &[u8]| {
        let (to, bytes) = (Rc::clone(to), bytes.to_vec());
        reactor::spawn(async move {
            to.write_all(&bytes, 0).await.unwrap();
            to.shutdown_write().unwrap();
        });
    };
    let test = async |joined: Joined| {
        send(&joined.client, &up);
        send(&joined.origin, &down);
        let at_origin = spawn_task({
            let origin = Rc::clone(&joined.origin);
            async move { read_all(&origin).await }
        });
        assert!(read_all(&joined.client).await == down);
        assert!(at_origin.await == up);
        assert_eq!(joined.n_moved(), (BYTES as u64, BYTES as u64 + 4_321));
        assert_eq!(joined.tunnel.await, End::Finished);
    };
    with_tunnels([b"", b""], test);
    // Without a free pipe the bytes are copied.
    let held: Vec<_> = std::iter::from_fn(|| Pipe::take().ok()).collect();
    run(async { test(Joined::new(plain(), plain(), [b"", b""])).await });
    held.into_iter().for_each(Pipe::give_back);
}

#[test]
fn a_reader_that_stops_holds_its_own_tunnel_and_a_bounded_number_of_bytes() {
    run(async {
        for stalled in [
            Joined::new(unix(), unix(), [b"", b""]),
            Joined::new(secured().await, unix(), [b"", b""]),
        ] {
            let other = Joined::new(plain(), plain(), [b"", b""]);
            // What the kernel holds of both connections, a pipe, and a record.
            let n_taken = fill(&stalled.client).await;
            assert!(n_taken < 8 << 20, "{n_taken}");
            other.client.write_all(b"ping", 0).await.unwrap();
            assert_eq!(read(&other.origin, 4).await, b"ping");
            stalled.origin.write_all(b"the other way is open", 0).await.unwrap();
            assert_eq!(read(&stalled.client, 21).await, b"the other way is open");
            assert_eq!(read(&stalled.origin, n_taken).await, vec![7; n_taken]);
            // The write that was refused last is repeated, as TLS wants it.
            stalled.client.write_all(&[7; 16 << 10], 0).await.unwrap();
            assert_eq!(read(&stalled.origin, 16 << 10).await, [7; 16 << 10]);
        }
    });
}

#[test]
fn the_last_bytes_of_an_origin_that_closes_or_breaks_arrive() {
    run(async {
        for is_reset in [true, false] {
            let joined = Joined::new(plain(), plain(), [b"", b""]);
            joined.client.write_all(b"unread", 0).await.unwrap();
            // Bytes that were not read make the close a reset.
            while is_reset && joined.n_moved() != (6, 0) {
                reactor::yield_now().await;
            }
            joined.origin.write_all(b"last", 0).await.unwrap();
            let Joined { client, origin, tunnel, .. } = joined;
            drop(origin);
            assert_eq!(read_all(&client).await, b"last");
            // The client has not ended its side, but its bytes would reach no peer.
            assert_eq!(tunnel.await, End::OriginGone);
        }
    });
}

#[test]
fn a_client_that_breaks_ends_the_tunnel_also_while_the_origin_does_not_read() {
    run(async {
        for is_blocked in [false, true] {
            let joined = Joined::new(plain(), plain(), [b"", b""]);
            if is_blocked {
                fill(&joined.client).await;
            }
            let Joined { client, tunnel, origin, .. } = joined;
            client.reset();
            drop(client);
            assert_eq!(tunnel.await, End::ClientGone, "blocked: {is_blocked}");
            drop(origin);
        }
    });
}

#[test]
fn all_arrives_at_a_slow_reader_after_both_sides_have_ended() {
    run(async {
        let joined = Joined::new(plain(), plain(), [b"", b""]);
        let n_taken = fill(&joined.client).await;
        joined.client.shutdown_write().unwrap();
        joined.origin.shutdown_write().unwrap();
        assert_eq!(read_all(&joined.client).await, b"");
        assert_eq!(read_all(&joined.origin).await.len(), n_taken);
        assert_eq!(joined.tunnel.await, End::Finished);
    });
}

#[test]
fn a_tunnel_without_a_byte_ends_and_a_byte_of_either_side_keeps_it() {
    run_by_test_clock(async {
        let joined = Joined::new(unix(), unix(), [b"", b""]);
        let began_ms = reactor::now().mono_ms();
        for n in 0..4 {
            timer::sleep(IDLE - Duration::from_secs(1)).await;
            let (from, to) = match n % 2 {
                0 => (&joined.client, &joined.origin),
                _ => (&joined.origin, &joined.client),
            };
            from.write_all(b"x", 0).await.unwrap();
            assert_eq!(read(to, 1).await, b"x");
        }
        assert!(!joined.tunnel.is_finished());
        let Joined { client, tunnel, .. } = joined;
        assert_eq!(tunnel.await, End::Idle);
        let elapsed_ms = reactor::now().mono_ms() - began_ms;
        assert_eq!(elapsed_ms, 5 * 3_600_000 - 4_000);
        assert_eq!(client.try_read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn a_tunnel_that_waits_is_a_small_task() {
    let (ours, theirs) = (plain(), plain());
    let moved = Moved::default();
    let side = |transport| Side { transport, ahead: Vec::new() };
    let tunnel = join(side(&ours.0), side(&theirs.0), IDLE, &moved);
    assert!(size_of_val(&tunnel) <= 1_400, "{}", size_of_val(&tunnel));
}
