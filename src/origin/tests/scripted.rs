//! An origin that does what a test says, as tasks of the test's own reactor.
//!
//! It listens on a Unix socket, so that it works under
//! [`run_by_test_clock`](crate::reactor::clock::run_by_test_clock): bytes that one side writes are
//! there for the other at once, and time passes by deadlines alone.

use std::cell::Cell;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;

use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use crate::config::ServerAddress;
use crate::reactor;
use crate::reactor::listener::Listener;
use crate::reactor::stream::Stream;

/// The answer where a test needs no other.
pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A listening origin; no more connections are accepted when it is dropped.
pub(crate) struct ScriptedOrigin {
    place: Place,
    counts: Rc<Counts>,
    _acceptor: reactor::Task<()>,
}

#[derive(Default)]
struct Counts {
    n_connections: Cell<usize>,
    n_requests: Cell<usize>,
}

impl ScriptedOrigin {
    /// Serves each connection by `script`, and closes it when that returns.
    pub(crate) fn serving(script: impl AsyncFn(Peer) + 'static) -> Self {
        Self::at(Place::new(), script)
    }

    /// Answers each request by what `answer` gives for its number, which counts from 1; without an
    /// answer it closes the connection.
    pub(crate) fn answering(answer: impl Fn(usize) -> Option<Vec<u8>> + 'static) -> Self {
        Self::serving(async move |mut peer| {
            while let Some(number) = peer.request().await {
                let Some(answer) = answer(number) else { return };
                peer.say(&answer).await;
            }
        })
    }

    /// As [`Self::serving`], at this place.
    pub(crate) fn at(place: Place, script: impl AsyncFn(Peer) + 'static) -> Self {
        let _ = std::fs::remove_file(place.path());
        let listener = Listener::from_fd(UnixListener::bind(place.path()).unwrap().into()).unwrap();
        let counts = Rc::<Counts>::default();
        let seen = Rc::clone(&counts);
        let script = Rc::new(script);
        let acceptor = reactor::spawn_task(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.n_connections.set(seen.n_connections.get() + 1);
                let (inbox, head) = (Vec::new(), String::new());
                let peer = Peer { stream, inbox, head, counts: Rc::clone(&seen) };
                let script = Rc::clone(&script);
                reactor::spawn(async move { script(peer).await });
            }
        });
        Self { place, counts, _acceptor: acceptor }
    }

    pub(crate) fn address(&self) -> ServerAddress {
        self.place.address()
    }

    /// Refuses connections from now on.
    pub(crate) fn refuse(&self) {
        std::fs::remove_file(self.place.path()).unwrap();
    }

    pub(crate) fn n_connections(&self) -> usize {
        self.counts.n_connections.get()
    }

    pub(crate) fn n_requests(&self) -> usize {
        self.counts.n_requests.get()
    }
}

/// Where an origin will be. Connections are refused until then.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        drop(UnixListener::bind(place.path()).unwrap());
        place
    }

    pub(crate) fn address(&self) -> ServerAddress {
        ServerAddress::Unix(self.path())
    }

    /// A listening socket that accepts nothing, and a client that fills its queue: while both live,
    /// every other client waits.
    pub(crate) fn full(&self) -> [Socket; 2] {
        std::fs::remove_file(self.path()).unwrap();
        let [listener, client] = [(); 2].map(|()| Socket::new(Domain::UNIX, Type::STREAM, None));
        let (listener, client) = (listener.unwrap(), client.unwrap());
        let address = SockAddr::unix(self.path()).unwrap();
        listener.bind(&address).unwrap();
        listener.listen(0).unwrap();
        client.connect(&address).unwrap();
        [listener, client]
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("origin")
    }
}

/// One connection, as the origin has it.
pub(crate) struct Peer {
    /// The head of the last request.
    pub(crate) head: String,
    stream: Stream,
    inbox: Vec<u8>,
    counts: Rc<Counts>,
}

impl Peer {
    /// Reads the head of the next request and gives the number of the request; `None` at the end.
    pub(crate) async fn request(&mut self) -> Option<usize> {
        let end = loop {
            match self.inbox.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more().await?,
            }
        };
        self.head = String::from_utf8(self.inbox.drain(..end).collect()).unwrap();
        self.counts.n_requests.set(self.counts.n_requests.get() + 1);
        Some(self.counts.n_requests.get())
    }

    /// Reads `n_bytes`; `None` if the connection ends before.
    pub(crate) async fn take(&mut self, n_bytes: usize) -> Option<Vec<u8>> {
        while self.inbox.len() < n_bytes {
            self.more().await?;
        }
        Some(self.inbox.drain(..n_bytes).collect())
    }

    /// Waits until the other side has closed the connection.
    pub(crate) async fn end(&mut self) {
        while self.more().await.is_some() {}
    }

    /// Writes bytes. Those that the other side does not read are lost.
    pub(crate) async fn say(&self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes, 0).await;
    }

    async fn more(&mut self) -> Option<()> {
        let mut buf = [0; 4 << 10];
        let n_read = self.stream.read(&mut buf, 0).await.ok().filter(|n_read| *n_read > 0)?;
        self.inbox.extend_from_slice(&buf[..n_read]);
        Some(())
    }
}
