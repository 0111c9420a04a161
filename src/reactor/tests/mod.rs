//! Tests of the reactor as a whole: real sockets, and no sleep but by its own timers.

mod clock;
mod deadlines;
mod sockets;
mod streams;
mod tasks;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use crate::reactor::stream::Stream;

/// Runs a test's main future, and fails it if it hangs.
fn run<F: Future>(main: F) -> F::Output {
    // Pausing first arms the test's own timer, so that counts do not change by it later.
    let main = async {
        super::yield_now().await;
        main.await
    };
    super::run(async { super::timer::timeout(Duration::from_secs(20), main).await })
        .expect("a reactor")
        .expect("the test hangs")
}

/// A stream of the reactor and a blocking socket at its other end.
fn pair() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nodelay(true).unwrap();
    (Stream::from_fd(ours.into()), theirs)
}

/// Two streams of the reactor, joined.
fn pair_of_ours() -> (Stream, Stream) {
    let (ours, theirs) = pair();
    theirs.set_nonblocking(true).unwrap();
    (ours, Stream::from_fd(theirs.into()))
}

/// Lets the loop look at the kernel until the bytes in flight have surely arrived.
async fn settle() {
    super::timer::sleep(Duration::from_millis(15)).await;
}

/// Everything up to the end, as the blocking side sees it.
fn read_to_end(mut theirs: TcpStream) -> Vec<u8> {
    theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bytes = Vec::new();
    theirs.read_to_end(&mut bytes).unwrap();
    bytes
}

fn send(mut theirs: &TcpStream, bytes: &[u8]) {
    theirs.write_all(bytes).unwrap();
}

fn finish(theirs: &TcpStream) {
    theirs.shutdown(Shutdown::Write).unwrap();
}
