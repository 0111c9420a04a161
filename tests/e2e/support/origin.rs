//! A web server that does what a test needs: well, slowly, wrongly or not at all.
//!
//! Real threads on real sockets, one per connection. The script is a closure from a request to a
//! [`Response`], which is a list of the bytes to send; or, for a behaviour that no response can
//! express, a closure over the bare connection.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::message::{Broken, Head, Reader};
use super::quiet;
use super::socket::{Address, Socket};
use super::wait::{self, Gate};

/// A request as the origin saw it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Head,
    /// The number of requests before it, on all connections.
    pub number: usize,
}

impl Request {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }
}

type Script = dyn Fn(&mut Connection, &Shared) + Send + Sync;

/// A running origin; stops when dropped.
pub struct Origin {
    pub address: Address,
    shared: Arc<Shared>,
    script: Arc<Script>,
    acceptor: Option<JoinHandle<()>>,
}

/// The data that the threads of an origin share.
#[derive(Default)]
pub struct Shared {
    is_stopped: AtomicBool,
    n_connections: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    n_requests: AtomicUsize,
    open: Mutex<HashMap<usize, Socket>>,
}

impl Origin {
    /// Answers each request by `script`.
    pub fn answering(script: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::listening(("127.0.0.1", 0), script)
    }

    /// As [`Origin::answering`], at a given address.
    pub fn listening(
        address: impl std::net::ToSocketAddrs,
        script: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("bind the origin's port");
        Self::serve(Listener::Tcp(listener), answering(script))
    }

    /// As [`Origin::answering`], on a Unix socket.
    pub fn on_unix(
        path: &Path,
        script: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).expect("bind the origin's unix socket");
        Self::serve(Listener::Unix(listener, path.into()), answering(script))
    }

    /// Hands each connection to `script`; it is closed when that returns.
    pub fn wired(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind the origin's port");
        Self::serve(Listener::Tcp(listener), Arc::new(move |c: &mut Connection, _: &_| script(c)))
    }

    fn serve(listener: Listener, script: Arc<Script>) -> Self {
        quiet::share();
        let address = listener.address();
        let shared = Arc::new(Shared::default());
        let acceptor = spawn_acceptor(listener, Arc::clone(&shared), Arc::clone(&script));
        Self { address, shared, script, acceptor: Some(acceptor) }
    }

    /// The address as a configuration names it.
    pub fn name(&self) -> String {
        match &self.address {
            Address::Ip(ip) => ip.to_string(),
            Address::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    pub fn ip(&self) -> SocketAddr {
        match &self.address {
            Address::Ip(ip) => *ip,
            Address::Unix(_) => panic!("this origin is on a unix socket"),
        }
    }

    /// Closes the listener and every connection: the port refuses from now on.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        // The acceptor waits in accept(2); a connection of the test's own wakes it.
        let _ = Socket::connect(&self.address, wait::PATIENCE);
        let _ = acceptor.join();
        self.drop_connections();
    }

    /// Listens again on the same port.
    pub fn start(&mut self) {
        assert!(self.acceptor.is_none(), "the origin is running");
        let listener = wait::until("the origin's port to be free again", wait::PATIENCE, || {
            TcpListener::bind(self.ip()).ok()
        });
        self.shared.is_stopped.store(false, Ordering::SeqCst);
        let (shared, script) = (Arc::clone(&self.shared), Arc::clone(&self.script));
        self.acceptor = Some(spawn_acceptor(Listener::Tcp(listener), shared, script));
    }

    /// Closes every open connection, and goes on listening.
    pub fn drop_connections(&self) {
        for (_, socket) in lock(&self.shared.open).drain() {
            socket.shutdown(Shutdown::Both);
        }
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    pub fn n_requests(&self) -> usize {
        self.shared.n_requests.load(Ordering::SeqCst)
    }

    pub fn n_connections(&self) -> usize {
        self.shared.n_connections.load(Ordering::SeqCst)
    }

    /// The newest request.
    pub fn last(&self) -> Request {
        lock(&self.shared.requests).last().cloned().expect("the origin saw no request")
    }

    /// The number of requests for this target.
    pub fn count(&self, target: &str) -> usize {
        lock(&self.shared.requests).iter().filter(|r| r.target == target).count()
    }

    #[track_caller]
    pub fn expect_requests(&self, n: usize) {
        let seen: Vec<String> =
            self.requests().iter().map(|r| format!("{} {}", r.method, r.target)).collect();
        assert_eq!(seen.len(), n, "requests the origin saw: {seen:?}");
    }

    /// Waits until this origin has closed all connections.
    pub fn wait_none_open(&self) {
        wait::until_true("closed connections", || lock(&self.shared.open).is_empty());
    }

    /// Waits until the origin has seen `n` requests.
    pub fn wait_requests(&self, n: usize) {
        wait::until_true(&format!("{n} requests at the origin"), || self.n_requests() >= n);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, std::path::PathBuf),
}

impl Listener {
    fn address(&self) -> Address {
        match self {
            Self::Tcp(l) => Address::Ip(l.local_addr().expect("local address")),
            Self::Unix(_, path) => Address::Unix(path.clone()),
        }
    }

    fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(l) => {
                let stream = l.accept()?.0;
                stream.set_nodelay(true)?;
                Socket::Tcp(stream)
            }
            Self::Unix(l, _) => Socket::Unix(l.accept()?.0),
        })
    }
}

fn spawn_acceptor(listener: Listener, shared: Arc<Shared>, script: Arc<Script>) -> JoinHandle<()> {
    thread::spawn(move || {
        loop {
            let Ok(socket) = listener.accept() else { continue };
            if shared.is_stopped.load(Ordering::SeqCst) {
                return;
            }
            let number = shared.n_connections.fetch_add(1, Ordering::SeqCst);
            let _ = socket.set_patience(Duration::from_secs(60));
            if let Ok(clone) = socket.try_clone() {
                lock(&shared.open).insert(number, clone);
            }
            let (shared, script) = (Arc::clone(&shared), Arc::clone(&script));
            thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn(move || {
                    let mut connection = Connection { reader: Reader::new(socket) };
                    script(&mut connection, &shared);
                    drop(connection);
                    // This closes the socket.
                    lock(&shared.open).remove(&number);
                })
                .expect("a thread for an origin's connection");
        }
    })
}

/// The script that reads requests one after another and answers them by a closure.
fn answering(script: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Arc<Script> {
    Arc::new(move |connection: &mut Connection, shared: &Shared| {
        while let Ok(mut request) = connection.request() {
            request.number = shared.n_requests.fetch_add(1, Ordering::SeqCst);
            lock(&shared.requests).push(request.clone());
            let response = script(&request);
            if connection.respond(&request, &response).is_err() || response.ends_connection() {
                return;
            }
        }
    })
}

/// One connection of the origin.
pub struct Connection {
    reader: Reader<Socket>,
}

impl Connection {
    /// The next request's head alone.
    pub fn head(&mut self) -> Result<Head, Broken> {
        self.reader.head()
    }

    /// The next whole request. If it is expected, `100 Continue` is sent between head and body.
    pub fn request(&mut self) -> Result<Request, Broken> {
        let head = self.reader.head()?;
        if head.field("expect").is_some() {
            let _ = self.write(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let (body, trailers) = self.reader.request_body(&head)?;
        let words: Vec<String> = head.start.split(' ').map(str::to_owned).collect();
        let [method, target, version]: [String; 3] =
            words.try_into().map_err(|_| Broken::Malformed(head.start.clone()))?;
        Ok(Request { method, target, version, head, body, trailers, number: 0 })
    }

    /// Reads some more bytes; 0 at the end.
    pub fn read(&mut self) -> io::Result<usize> {
        self.reader.more()
    }

    /// The bytes that were read and not used.
    pub fn unread(&self) -> &[u8] {
        &self.reader.buf
    }

    /// Takes the bytes that were read and not used.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.reader.buf)
    }

    /// Ends the sending side, and goes on reading.
    pub fn shutdown_write(&self) {
        self.reader.inner.shutdown(Shutdown::Write);
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.inner.write_all(bytes)
    }

    /// Makes the close of this connection a reset.
    pub fn reset(&mut self) {
        self.reader.inner.reset_on_close();
    }

    /// Waits for the peer to close.
    pub fn wait_closed(&mut self) {
        while matches!(self.read(), Ok(n) if n > 0) {}
    }

    fn respond(&mut self, request: &Request, response: &Response) -> io::Result<()> {
        if let Some(gate) = &response.before_head {
            gate.wait();
        }
        thread::sleep(response.delay);
        for interim in &response.interim {
            self.write(interim)?;
        }
        self.write(&response.head_bytes())?;
        if request.method != "HEAD" {
            self.write_body(response)?;
        }
        if response.end == End::Reset {
            self.reset();
        }
        Ok(())
    }

    fn write_body(&mut self, response: &Response) -> io::Result<()> {
        let wire = response.body_bytes();
        let end = response.cut.unwrap_or(wire.len()).min(wire.len());
        let mut at = 0;
        while at < end {
            let mut to = response.piece.map_or(end, |piece| (at + piece).min(end));
            if let Some((place, gate)) = &response.gate_at {
                if at == *place {
                    gate.wait();
                } else if at < *place {
                    to = to.min(*place);
                }
            }
            self.write(&wire[at..to])?;
            at = to;
            if at < end {
                thread::sleep(response.pause);
            }
        }
        Ok(())
    }
}

/// The state of a connection after a response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Keep,
    Close,
    Reset,
}

#[derive(Clone)]
enum Body {
    /// No body, and no field about one.
    None,
    Sized(Arc<[u8]>),
    Chunked(Vec<Vec<u8>>, String),
    UntilClose(Arc<[u8]>),
    /// Bytes that go out as they are, without a framing field.
    Bare(Arc<[u8]>),
}

/// The bytes of the answer to a request.
#[derive(Clone)]
pub struct Response {
    start: String,
    fields: Vec<(String, String)>,
    body: Body,
    interim: Vec<Vec<u8>>,
    delay: Duration,
    before_head: Option<Gate>,
    gate_at: Option<(usize, Gate)>,
    piece: Option<usize>,
    pause: Duration,
    cut: Option<usize>,
    end: End,
}

impl Response {
    /// A status without a body.
    pub fn status(status: u16) -> Self {
        let body = if matches!(status, 204 | 304) { Body::None } else { sized(b"") };
        Self::new(format!("HTTP/1.1 {status} {}", reason(status)), body)
    }

    /// 200 with this body and its length.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new("HTTP/1.1 200 OK".into(), sized(body.as_ref()))
    }

    /// 200 with a body shared between answers.
    pub fn shared(body: &Arc<[u8]>) -> Self {
        Self::new("HTTP/1.1 200 OK".into(), Body::Sized(Arc::clone(body)))
    }

    /// 200 in chunks.
    pub fn chunked(chunks: &[&[u8]]) -> Self {
        let chunks = chunks.iter().map(|c| c.to_vec()).collect();
        Self::new("HTTP/1.1 200 OK".into(), Body::Chunked(chunks, String::new()))
    }

    /// 200 with a body that ends with the connection.
    pub fn until_close(body: impl AsRef<[u8]>) -> Self {
        Self::new("HTTP/1.1 200 OK".into(), Body::UntilClose(body.as_ref().into()))
    }

    /// Bytes that are the whole answer, head included; then the connection ends.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self { end: End::Close, ..Self::new(String::new(), Body::Bare(bytes.as_ref().into())) }
    }

    fn new(start: String, body: Body) -> Self {
        Self {
            start,
            fields: Vec::new(),
            body,
            interim: Vec::new(),
            delay: Duration::ZERO,
            before_head: None,
            gate_at: None,
            piece: None,
            pause: Duration::ZERO,
            cut: None,
            end: End::Keep,
        }
    }

    pub fn field(mut self, name: &str, value: impl ToString) -> Self {
        self.fields.push((name.to_owned(), value.to_string()));
        self
    }

    /// Shorthand for `Cache-Control`.
    pub fn cache(self, control: &str) -> Self {
        self.field("Cache-Control", control)
    }

    pub fn with_status(mut self, status: u16) -> Self {
        self.start = format!("HTTP/1.1 {status} {}", reason(status));
        self
    }

    /// Sends HTTP/1.0 in the status line.
    pub fn http10(mut self) -> Self {
        self.start = self.start.replace("HTTP/1.1", "HTTP/1.0");
        self
    }

    /// Lines after the last chunk, each with its line end.
    pub fn trailers(mut self, lines: &str) -> Self {
        let Body::Chunked(_, trailers) = &mut self.body else { panic!("trailers need chunks") };
        lines.clone_into(trailers);
        self
    }

    /// Bytes before the head, such as a 103.
    pub fn interim(mut self, bytes: &[u8]) -> Self {
        self.interim.push(bytes.to_vec());
        self
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// No byte is sent before this gate opens.
    pub fn gated(mut self, gate: &Gate) -> Self {
        self.before_head = Some(gate.clone());
        self
    }

    /// The body stops at this byte until the gate opens.
    pub fn gated_at(mut self, byte: usize, gate: &Gate) -> Self {
        self.gate_at = Some((byte, gate.clone()));
        self
    }

    /// The body is sent in pieces with a pause between them.
    pub fn slowly(mut self, piece: usize, pause: Duration) -> Self {
        self.piece = Some(piece);
        self.pause = pause;
        self
    }

    /// Only this many bytes of the body's wire form are sent, then the connection closes.
    pub fn cut_at(mut self, n: usize) -> Self {
        self.cut = Some(n);
        self.end = End::Close;
        self
    }

    /// As [`Response::cut_at`], with a reset instead of a close.
    pub fn reset_at(mut self, n: usize) -> Self {
        self.cut = Some(n);
        self.end = End::Reset;
        self
    }

    /// The connection closes after the answer, without an announcement.
    pub fn then_close(mut self) -> Self {
        self.end = End::Close;
        self
    }

    fn ends_connection(&self) -> bool {
        self.end != End::Keep || matches!(self.body, Body::UntilClose(_))
    }

    fn head_bytes(&self) -> Vec<u8> {
        if self.start.is_empty() {
            return Vec::new();
        }
        let mut head = format!("{}\r\n", self.start);
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &self.body {
            Body::Sized(body) => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
            Body::Chunked(..) => head.push_str("Transfer-Encoding: chunked\r\n"),
            Body::None | Body::UntilClose(_) | Body::Bare(_) => {}
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    fn body_bytes(&self) -> Arc<[u8]> {
        match &self.body {
            Body::None => Arc::new([]),
            Body::Sized(bytes) | Body::UntilClose(bytes) | Body::Bare(bytes) => Arc::clone(bytes),
            Body::Chunked(chunks, trailers) => {
                let mut wire = Vec::new();
                for chunk in chunks {
                    wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    wire.extend_from_slice(chunk);
                    wire.extend_from_slice(b"\r\n");
                }
                wire.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
                wire.into()
            }
        }
    }
}

fn sized(body: &[u8]) -> Body {
    Body::Sized(body.into())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        304 => "Not Modified",
        404 => "Not Found",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Whatever",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
