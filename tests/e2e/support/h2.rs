//! Clients that speak HTTP/2 by prior knowledge: one that keeps the rules, by the `h2` crate, and one
//! that writes whatever frames a test wants.
//!
//! The first has no runtime: its connection is driven while the test waits for something.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::{Answer, Ask};
use super::message::{Broken, Head};
use super::socket::{Address, Socket};
use super::wait;

/// A connection of the `h2` crate's client.
pub struct H2 {
    connection: Connection<Wire, Bytes>,
    send: SendRequest<Bytes>,
    socket: Arc<TcpStream>,
    is_blocked: Arc<AtomicBool>,
    asked: VecDeque<Stream>,
    host: String,
}

/// A request that was sent.
pub struct Stream {
    pub response: ResponseFuture,
    pub body: SendStream<Bytes>,
}

impl H2 {
    pub fn connect(address: &Address) -> Self {
        Self::with(address, &h2::client::Builder::new())
    }

    pub fn with(address: &Address, builder: &h2::client::Builder) -> Self {
        let Address::Ip(ip) = address else { panic!("{address:?} is no IP address") };
        let socket = TcpStream::connect(ip).expect("connect to ktrix");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        socket.set_nonblocking(true).expect("a non-blocking socket");
        let socket = Arc::new(socket);
        let is_blocked = Arc::default();
        let wire = Wire { socket: Arc::clone(&socket), is_blocked: Arc::clone(&is_blocked) };
        let handshake = builder.handshake(wire);
        let (send, connection) = run(&socket, &is_blocked, handshake).expect("a handshake");
        Self { connection, send, socket, is_blocked, asked: VecDeque::new(), host: ip.to_string() }
    }

    /// Drives the connection until the future is ready.
    #[track_caller]
    pub fn run<F: Future>(&mut self, future: F) -> F::Output {
        let connection = &mut self.connection;
        let mut future = pin!(future);
        let both = poll_fn(|task| {
            // Its end shows in the future.
            let _ = Pin::new(&mut *connection).poll(task);
            future.as_mut().poll(task)
        });
        run(&self.socket, &self.is_blocked, both)
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.ask(&Ask::get(target))
    }

    #[track_caller]
    pub fn ask(&mut self, ask: &Ask) -> Answer {
        self.send(ask);
        self.answer()
    }

    /// Sends a request; its answer is read later, in the order of the requests.
    #[track_caller]
    pub fn send(&mut self, ask: &Ask) {
        let host = self.host.clone();
        self.try_send(ask, &host).expect("send a request");
    }

    /// As [`H2::send`], to this host, where ktrix may have said that it takes no more requests.
    pub fn try_send(&mut self, ask: &Ask, host: &str) -> Result<(), h2::Error> {
        let (request, body) = ask.http2(host);
        let mut stream = self.try_open(request, body.is_none())?;
        if let Some(body) = body {
            self.upload(&mut stream.body, body);
        }
        self.asked.push_back(stream);
        let connection = &mut self.connection;
        let write = poll_fn(|task| {
            let _ = Pin::new(&mut *connection).poll(task);
            Poll::Ready(())
        });
        run(&self.socket, &self.is_blocked, write);
        Ok(())
    }

    /// Sends the head of a request.
    #[track_caller]
    pub fn open(&mut self, request: Request<()>, is_end: bool) -> Stream {
        self.try_open(request, is_end).expect("send a request")
    }

    /// As [`H2::open`], where ktrix may have said that it takes no more requests.
    pub fn try_open(&mut self, request: Request<()>, is_end: bool) -> Result<Stream, h2::Error> {
        let mut send = self.send.clone();
        self.run(poll_fn(|task| send.poll_ready(task)))?;
        let (response, body) = send.send_request(request, is_end)?;
        Ok(Stream { response, body })
    }

    /// Sends a body within the windows, and its end.
    pub fn upload(&mut self, body: &mut SendStream<Bytes>, bytes: Vec<u8>) {
        let mut bytes = Bytes::from(bytes);
        while !bytes.is_empty() {
            body.reserve_capacity(bytes.len());
            let free = self.run(poll_fn(|task| match body.capacity() {
                0 => body.poll_capacity(task).map(|free| free.map_or(0, |free| free.unwrap_or(0))),
                free => Poll::Ready(free),
            }));
            if free == 0 {
                return;
            }
            let part = bytes.split_to(free.min(bytes.len()));
            if body.send_data(part, false).is_err() {
                return;
            }
        }
        let _ = body.send_data(Bytes::new(), true);
    }

    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer().unwrap_or_else(|broken| panic!("waited for an answer, got {broken:?}"))
    }

    pub fn try_answer(&mut self) -> Result<Answer, Broken> {
        let stream = self.asked.pop_front().expect("a request was sent");
        self.answer_to(stream)
    }

    pub fn answer_to(&mut self, stream: Stream) -> Result<Answer, Broken> {
        let Stream { mut response, body: _body } = stream;
        let mut interim = Vec::new();
        while let Some(Ok(head)) = self.run(poll_fn(|task| response.poll_informational(task))) {
            interim.push(head.status().as_u16());
        }
        let response = self.run(response).map_err(|_| Broken::Closed)?;
        let (head, mut body) = response.into_parts();
        let status = head.status.as_u16();
        let (body, trailers) = self.body(&mut body, status)?;
        let head = head_of(&format!("HTTP/2 {status}"), &head.headers);
        Ok(Answer { status, head, body, trailers, interim })
    }

    /// Reads a body to its end, and opens the windows as it comes.
    pub fn body(&mut self, from: &mut RecvStream, status: u16) -> Result<(Vec<u8>, Head), Broken> {
        let mut body = Vec::new();
        while let Some(part) = self.run(poll_fn(|task| from.poll_data(task))) {
            let part =
                part.map_err(|_| Broken::CutBody { status, got: body.len(), is_reset: true })?;
            body.extend_from_slice(&part);
            from.flow_control().release_capacity(part.len()).expect("what was received");
        }
        let trailers = self.run(poll_fn(|task| from.poll_trailers(task))).ok().flatten();
        Ok((body, head_of("", &trailers.unwrap_or_default())))
    }
}

fn head_of(start: &str, fields: &HeaderMap) -> Head {
    let text =
        |value: &http::HeaderValue| value.as_bytes().iter().map(|&b| char::from(b)).collect();
    let fields = fields.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Head { start: start.into(), fields, raw: Vec::new() }
}

/// Polls a future until it is ready. It is polled again when it was woken, or when the socket can be
/// read from (or written to, if a write waits for that).
#[track_caller]
fn run<F: Future>(socket: &TcpStream, is_blocked: &AtomicBool, future: F) -> F::Output {
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = pin!(future);
    loop {
        is_blocked.store(false, Ordering::SeqCst);
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        if woken.0.swap(false, Ordering::SeqCst) {
            continue;
        }
        let wanted = match is_blocked.load(Ordering::SeqCst) {
            true => PollFlags::POLLIN | PollFlags::POLLOUT,
            false => PollFlags::POLLIN,
        };
        let patience = PollTimeout::try_from(wait::PATIENCE).expect("a timeout");
        let n_ready = nix::poll::poll(&mut [PollFd::new(socket.as_fd(), wanted)], patience);
        assert!(n_ready != Ok(0), "waited {:?} for HTTP/2 frames", wait::PATIENCE);
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A socket with the traits that the `h2` crate wants.
struct Wire {
    socket: Arc<TcpStream>,
    is_blocked: Arc<AtomicBool>,
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match (&*self.socket).read(buf.initialize_unfilled()) {
            Ok(n_read) => {
                buf.advance(n_read);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match (&*self.socket).write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_blocked.store(true, Ordering::SeqCst);
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A frame, as it came or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Self {
        Self { kind, flags, stream, payload: payload.as_ref().to_vec() }
    }

    /// A HEADERS frame with all of the fields, and without a body.
    pub fn head(stream: u32, fields: &[(&str, &str)]) -> Self {
        Self::new(HEADERS, END_HEADERS | END_STREAM, stream, literals(fields))
    }

    pub fn get(stream: u32, path: &str) -> Self {
        Self::head(stream, &of_get(path))
    }

    pub fn reset(stream: u32) -> Self {
        Self::new(RST_STREAM, 0, stream, 8u32.to_be_bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let len = (self.payload.len() as u32).to_be_bytes();
        let head = [len[1], len[2], len[3], self.kind, self.flags];
        [&head, &self.stream.to_be_bytes()[..], &self.payload].concat()
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let code = self.payload.get(at..at + 4).expect("an error code");
        u32::from_be_bytes(code.try_into().expect("four bytes"))
    }

    /// The status in the head of a response, which is its first field: of the static table of HPACK,
    /// or a literal with its name from there.
    pub fn status(&self) -> u16 {
        match *self.payload {
            [0x88, ..] => 200,
            [0x89, ..] => 204,
            [0x8a, ..] => 206,
            [0x8b, ..] => 304,
            [0x8c, ..] => 400,
            [0x8d, ..] => 404,
            [0x8e, ..] => 500,
            _ => 0,
        }
    }
}

/// The pseudo-fields of a GET.
pub fn of_get(path: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", path)]
}

/// Fields as literals without indexing and without Huffman coding (RFC 7541 section 6.2.2): any bytes
/// can be sent.
pub fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let mut left = text.len();
            if left < 127 {
                block.push(left as u8);
            } else {
                block.push(127);
                left -= 127;
                while left >= 128 {
                    block.push(left as u8 | 128);
                    left >>= 7;
                }
                block.push(left as u8);
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A connection on which a test writes and reads frames.
pub struct Raw {
    socket: Socket,
    buf: Vec<u8>,
}

impl Raw {
    /// Connects, and sends the preface and empty SETTINGS.
    pub fn connect(address: &Address) -> Self {
        Self::without_preface(address).begin()
    }

    /// As [`Raw::connect`], on a connection that exists.
    pub fn on(socket: Socket) -> Self {
        Self { socket, buf: Vec::new() }.begin()
    }

    fn begin(mut self) -> Self {
        self.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        self.send(&Frame::new(SETTINGS, 0, 0, b""));
        self
    }

    pub fn without_preface(address: &Address) -> Self {
        let socket = Socket::connect(address, wait::PATIENCE).expect("connect to ktrix");
        Self { socket, buf: Vec::new() }
    }

    #[track_caller]
    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("write to ktrix");
    }

    #[track_caller]
    pub fn send(&mut self, frame: &Frame) {
        self.write(&frame.bytes());
    }

    /// Sends many frames; `false` if ktrix closed meanwhile.
    pub fn try_send(&mut self, frames: &[Frame]) -> bool {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.socket.write_all(&bytes).is_ok()
    }

    /// The next frame; `None` at the end of the connection.
    #[track_caller]
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.buf.get(..9) {
                let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8;
                let len = len | usize::from(head[2]);
                if self.buf.len() >= 9 + len {
                    let all: Vec<u8> = self.buf.drain(..9 + len).collect();
                    let stream = u32::from_be_bytes([all[5], all[6], all[7], all[8]]);
                    return Some(Frame::new(all[3], all[4], stream, &all[9..]));
                }
            }
            let mut part = [0; 16 << 10];
            match self.socket.read(&mut part) {
                Ok(0) => return None,
                Ok(n_read) => self.buf.extend_from_slice(&part[..n_read]),
                Err(error) if super::message::is_timeout(&error) => {
                    panic!("waited {:?} for a frame", wait::PATIENCE)
                }
                Err(_) => return None,
            }
        }
    }

    /// The next frame of this type on this stream; others before it are dropped.
    #[track_caller]
    pub fn expect(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            match self.next() {
                Some(frame) if frame.kind == kind && frame.stream == stream => return frame,
                Some(_) => {}
                None => panic!("the connection ended before a frame of type {kind}"),
            }
        }
    }

    /// Whether the stream ends by a reset or an answer: the frame that says so; `None` if the connection
    /// ends without one.
    #[track_caller]
    pub fn outcome(&mut self, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            let is_of_stream =
                frame.stream == stream && [HEADERS, RST_STREAM].contains(&frame.kind);
            if frame.kind == GOAWAY || is_of_stream {
                return Some(frame);
            }
        }
    }

    /// Reads until ktrix ends the connection; the last GOAWAY.
    #[track_caller]
    pub fn ended(&mut self) -> Option<Frame> {
        let mut last = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                last = Some(frame);
            }
        }
        last
    }
}
