//! The cost of the reactor: connections in one process that exchange one byte at a time.
//!
//! `cargo bench --bench reactor` prints the time of a round trip (two receives, two sends, two
//! wake-ups); `strace -c -f` shows that there are no other system calls but a share of epoll_wait.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ktrix::reactor::stream::Stream;
use ktrix::reactor::timer::deadline;
use ktrix::reactor::{run, spawn, spawn_task};

const N_PAIRS: usize = 64;
const N_ROUNDS: u32 = 5_000;

fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let took = run(async {
        let mut asking = Vec::new();
        for _ in 0..N_PAIRS {
            let (left, right) = pair(&listener)?;
            spawn(answer(right));
            asking.push(spawn_task(ask(left)));
        }
        let begun = Instant::now();
        for task in asking {
            task.await?;
        }
        std::io::Result::Ok(begun.elapsed())
    })??;
    let n_trips = N_ROUNDS * N_PAIRS as u32;
    println!("{n_trips} round trips, {:.2} us each", took.as_secs_f64() * 1e6 / f64::from(n_trips));
    Ok(())
}

fn pair(listener: &TcpListener) -> std::io::Result<(Stream, Stream)> {
    let left = TcpStream::connect(listener.local_addr()?)?;
    let (right, _) = listener.accept()?;
    for side in [&left, &right] {
        side.set_nonblocking(true)?;
        side.set_nodelay(true)?;
    }
    Ok((Stream::from_fd(left.into()), Stream::from_fd(right.into())))
}

async fn ask(stream: Stream) -> std::io::Result<()> {
    let mut buf = [0; 4096];
    for _ in 0..N_ROUNDS {
        stream.write_all(b"?", 0).await?;
        stream.read(&mut buf, deadline(Duration::from_secs(60))).await?;
    }
    Ok(())
}

async fn answer(stream: Stream) {
    let mut buf = [0; 4096];
    while let Ok(1..) = stream.read(&mut buf, deadline(Duration::from_secs(60))).await {
        if stream.write_all(b"!", 0).await.is_err() {
            return;
        }
    }
}
