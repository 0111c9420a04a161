//! A client that sends exactly the bytes of a test, on one connection, and waits with a deadline.
//!
//! With `KTRIX_E2E_HTTP2` set, a client of a ktrix speaks HTTP/2, so that a conversation about what
//! HTTP means runs over both. A client that begins by writing bytes itself speaks HTTP/1.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::h2::H2;
use super::message::{Broken, Head, Reader, is_timeout};
use super::socket::{Address, Socket};
use super::tls::{self, Secured};
use super::wait;

/// One connection to ktrix.
pub struct Client {
    wire: Wire,
    host: String,
    /// Methods of the requests that have no answer yet.
    asked: VecDeque<String>,
}

enum Wire {
    /// It connects by the protocol that its first use needs.
    Unused(Address),
    Http1(Reader<Socket>),
    Http2(Box<H2>),
}

impl Client {
    pub fn connect(address: &Address) -> Self {
        Self::try_connect(address).unwrap_or_else(|e| panic!("connect to {address:?}: {e}"))
    }

    /// A connection to a ktrix, by the protocol that the environment names.
    pub fn of_ktrix(address: &Address) -> Self {
        match (std::env::var_os("KTRIX_E2E_HTTP2"), address) {
            (Some(_), Address::Ip(ip)) if !tls::is_secured(ip) => Self {
                wire: Wire::Unused(address.clone()),
                host: ip.to_string(),
                asked: VecDeque::new(),
            },
            _ => Self::connect(address),
        }
    }

    pub fn try_connect(address: &Address) -> io::Result<Self> {
        Ok(Self::on(Socket::connect(address, wait::PATIENCE)?, address))
    }

    /// A client with a TLS of its own.
    pub fn secured(address: &Address, config: ClientConfig, name: &str) -> Self {
        Self::try_secured(address, config, name)
            .unwrap_or_else(|e| panic!("TLS to {address:?}: {e}"))
    }

    pub fn try_secured(address: &Address, config: ClientConfig, name: &str) -> io::Result<Self> {
        let Address::Ip(to) = address else { panic!("{address:?} is no IP address") };
        let stream = TcpStream::connect_timeout(to, wait::PATIENCE)?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("a client");
        let socket = Socket::Tls(Box::new(Secured::shake(stream, tls)?));
        socket.set_patience(wait::PATIENCE)?;
        Ok(Self::on(socket, address))
    }

    /// The TLS of the connection.
    pub fn tls(&self) -> &ClientConnection {
        match self.socket() {
            Socket::Tls(secured) => secured.connection(),
            Socket::Tcp(_) | Socket::Unix(_) => panic!("a connection without TLS"),
        }
    }

    /// A client with another address than the others: all of 127.0.0.0/8 is local.
    pub fn connect_from(from: [u8; 4], address: &Address) -> Self {
        let Address::Ip(to) = *address else { panic!("{address:?} is no IP address") };
        let socket = Socket::connect_from(from.into(), to, wait::PATIENCE);
        Self::on(socket.unwrap_or_else(|e| panic!("connect from {from:?}: {e}")), address)
    }

    fn on(socket: Socket, address: &Address) -> Self {
        let host = match address {
            Address::Ip(ip) => ip.to_string(),
            Address::Unix(_) => "localhost".into(),
        };
        Self { wire: Wire::Http1(Reader::new(socket)), host, asked: VecDeque::new() }
    }

    /// The `Host` of the requests that follow.
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// A small receive buffer, for a reader that is meant to be slow.
    pub fn receive_buffer(self, bytes: usize) -> Self {
        let mut client = self;
        client.reader().inner.set_receive_buffer(bytes);
        client
    }

    #[track_caller]
    fn reader(&mut self) -> &mut Reader<Socket> {
        if let Wire::Unused(address) = &self.wire {
            self.wire = Self::connect(address).wire;
        }
        match &mut self.wire {
            Wire::Http1(reader) => reader,
            _ => panic!("this conversation is about HTTP/1"),
        }
    }

    #[track_caller]
    fn socket(&self) -> &Socket {
        match &self.wire {
            Wire::Http1(reader) => &reader.inner,
            _ => panic!("this conversation is about HTTP/1"),
        }
    }

    /// The client of HTTP/2, if it speaks that.
    fn http2(&mut self) -> Option<&mut H2> {
        if let Wire::Unused(address) = &self.wire {
            self.wire = Wire::Http2(Box::new(H2::connect(address)));
        }
        match &mut self.wire {
            Wire::Http2(client) => Some(client),
            _ => None,
        }
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.ask(&Ask::get(target))
    }

    pub fn head(&mut self, target: &str) -> Answer {
        self.ask(&Ask::new("HEAD", target))
    }

    /// Sends a request and waits for the whole answer.
    #[track_caller]
    pub fn ask(&mut self, ask: &Ask) -> Answer {
        self.send(ask);
        self.answer()
    }

    /// As [`Client::ask`], where the answer may be broken.
    pub fn try_ask(&mut self, ask: &Ask) -> Result<Answer, Broken> {
        let host = self.host.clone();
        if let Some(client) = self.http2() {
            client.try_send(ask, &host).map_err(|_| Broken::Closed)?;
            return client.try_answer();
        }
        self.asked.push_back(ask.method.clone());
        let bytes = ask.bytes(&self.host);
        self.reader().inner.write_all(&bytes).map_err(|_| Broken::Closed)?;
        self.try_answer()
    }

    /// Sends a request; its answer is read later.
    #[track_caller]
    pub fn send(&mut self, ask: &Ask) {
        let host = self.host.clone();
        if let Some(client) = self.http2() {
            return client.try_send(ask, &host).expect("send a request");
        }
        self.asked.push_back(ask.method.clone());
        let bytes = ask.bytes(&self.host);
        if let Err(e) = self.reader().inner.write_all(&bytes) {
            panic!("send {} {}: {e}", ask.method, ask.target);
        }
    }

    /// Sends bytes that need not be HTTP.
    #[track_caller]
    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).expect("write to ktrix");
    }

    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader().inner.write_all(bytes)
    }

    /// The next answer, whole.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        match self.try_answer() {
            Ok(answer) => answer,
            Err(broken) => panic!("waited for an answer, got {broken:?}"),
        }
    }

    /// The next answer; interim ones before it are kept with it.
    pub fn try_answer(&mut self) -> Result<Answer, Broken> {
        if let Wire::Http2(client) = &mut self.wire {
            return client.try_answer();
        }
        let method = self.asked.pop_front().unwrap_or_else(|| "GET".into());
        let mut interim = Vec::new();
        loop {
            let head = self.reader().head()?;
            let status = status_of(&head)?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            let (body, trailers) = self.reader().response_body(&head, status, &method)?;
            return Ok(Answer { status, head, body, trailers, interim });
        }
    }

    /// The next head alone (of an interim answer, or of one with a body for [`Client::read`]).
    #[track_caller]
    pub fn answer_head(&mut self) -> (u16, Head) {
        let head = self.reader().head().unwrap_or_else(|b| panic!("waited for a head, got {b:?}"));
        (status_of(&head).expect("a status line"), head)
    }

    /// Takes the received bytes, waiting for the first of them; empty at the end.
    #[track_caller]
    pub fn read(&mut self) -> Vec<u8> {
        if self.reader().buf.is_empty() {
            self.reader().more().unwrap_or_else(|e| panic!("waited for bytes: {e}"));
        }
        std::mem::take(&mut self.reader().buf)
    }

    /// Everything until ktrix closes, and whether it ended with a reset.
    #[track_caller]
    pub fn read_to_end(&mut self, what: &str) -> (Vec<u8>, bool) {
        loop {
            match self.reader().more() {
                Ok(0) => return (std::mem::take(&mut self.reader().buf), false),
                Ok(_) => {}
                Err(e) if is_timeout(&e) => {
                    let buf = &self.reader().buf;
                    panic!(
                        "{what}: waited for the end of the connection, after {} bytes: {}",
                        buf.len(),
                        String::from_utf8_lossy(&buf[..buf.len().min(400)])
                    )
                }
                Err(_) => return (std::mem::take(&mut self.reader().buf), true),
            }
        }
    }

    /// Waits until ktrix has read everything that was sent.
    pub fn wait_taken(&self) {
        wait::until_true("the request to be read", || self.socket().is_taken());
    }

    /// Ends the sending side, and goes on reading.
    pub fn shutdown_write(&self) {
        self.socket().shutdown(Shutdown::Write);
    }

    /// Makes the close a reset.
    pub fn reset(self) {
        self.socket().reset_on_close();
    }

    /// Waits for ktrix to close, with nothing more to read.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let (rest, _) = self.read_to_end("a close");
        assert!(rest.is_empty(), "bytes before the close: {}", String::from_utf8_lossy(&rest));
    }
}

fn status_of(head: &Head) -> Result<u16, Broken> {
    let malformed = || Broken::Malformed(head.start.clone());
    let rest = head.start.strip_prefix("HTTP/1.1 ").ok_or_else(malformed)?;
    rest.get(..3).and_then(|digits| digits.parse().ok()).ok_or_else(malformed)
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Ask {
    method: String,
    target: String,
    version: &'static str,
    fields: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    is_chunked: bool,
}

impl Ask {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            version: "HTTP/1.1",
            fields: Vec::new(),
            body: None,
            is_chunked: false,
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str, body: impl AsRef<[u8]>) -> Self {
        Self { body: Some(body.as_ref().to_vec()), ..Self::new("POST", target) }
    }

    /// The same, by another method.
    pub fn by(self, method: &str) -> Self {
        Self { method: method.into(), ..self }
    }

    pub fn field(mut self, name: &str, value: impl ToString) -> Self {
        self.fields.push((name.to_owned(), value.to_string()));
        self
    }

    /// Sends the body in chunks of 1000 bytes.
    pub fn chunked(mut self) -> Self {
        self.is_chunked = true;
        self
    }

    pub fn http10(mut self) -> Self {
        self.version = "HTTP/1.0";
        self
    }

    pub fn target(&self) -> &str {
        &self.target
    }

    /// The request's `User-Agent`, if it has one.
    pub fn agent(&self) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == "User-Agent").map(|(_, value)| &**value)
    }

    /// The request for the `h2` crate's client, and its body. A field of a connection is left out.
    pub fn http2(&self, host: &str) -> (http::Request<()>, Option<Vec<u8>>) {
        let named = self.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = named.map_or(host, |(_, value)| value);
        let uri = match self.target.as_str() {
            target if target.starts_with('/') => format!("http://{host}{target}"),
            target => target.to_owned(),
        };
        let mut request = http::Request::builder().method(&*self.method).uri(uri);
        let is_left_out = |name: &str| {
            ["host", "connection", "transfer-encoding"]
                .iter()
                .any(|it| name.eq_ignore_ascii_case(it))
        };
        for (name, value) in self.fields.iter().filter(|(name, _)| !is_left_out(name)) {
            request = request.header(name, value);
        }
        if let Some(body) = self.body.as_ref().filter(|_| !self.is_chunked) {
            request = request.header("content-length", body.len());
        }
        (request.body(()).expect("a request"), self.body.clone())
    }

    /// The request as it goes over the wire. A `Host` field is added unless the request has one.
    pub fn bytes(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} {}\r\n", self.method, self.target, self.version);
        if !self.fields.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let Some(body) = &self.body else { return (head + "\r\n").into_bytes() };
        if !self.is_chunked {
            let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
            return [head.as_bytes(), body].concat();
        }
        let mut wire = (head + "Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        for chunk in body.chunks(1000) {
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        wire
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Head,
    /// Statuses of the interim answers before it.
    pub interim: Vec<u16>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// ktrix's own member of `Cache-Status`.
    pub fn cache_status(&self) -> String {
        let all: Vec<&str> = self.head.all("cache-status").collect();
        all.join(", ")
    }

    pub fn is_hit(&self) -> bool {
        self.cache_status().split(';').any(|p| p.trim() == "hit")
    }

    /// The answer was stored (a hit of RFC 9211).
    #[track_caller]
    pub fn expect_hit(self) -> Self {
        assert!(self.is_hit(), "expected a hit, Cache-Status is {:?}", self.cache_status());
        self
    }

    /// A stale stored answer, because the origin was asked and failed.
    #[track_caller]
    pub fn expect_stale(self) -> Self {
        let status = self.cache_status();
        let is_stale = status.contains("; fwd=stale") && status.contains("; ttl=");
        assert!(is_stale, "expected a stale answer, Cache-Status is {status:?}");
        self
    }

    /// The request went forward.
    #[track_caller]
    pub fn expect_miss(self) -> Self {
        assert!(!self.is_hit(), "expected no hit, Cache-Status is {:?}", self.cache_status());
        self
    }

    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head.start, self.text());
        self
    }

    #[track_caller]
    pub fn expect_body(self, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        if self.body != body {
            let (got, want) = (self.body.len(), body.len());
            let at = self.body.iter().zip(body).position(|(a, b)| a != b);
            let text: String = self.text().chars().take(200).collect();
            panic!("another body: {got} bytes, not {want}; differs at {at:?}: {text:?}");
        }
        self
    }

    #[track_caller]
    pub fn expect_field(self, name: &str, value: &str) -> Self {
        assert_eq!(self.field(name), Some(value), "{name} in {:?}", self.head.fields);
        self
    }

    #[track_caller]
    pub fn expect_no_field(self, name: &str) -> Self {
        assert_eq!(self.field(name), None, "{name} in {:?}", self.head.fields);
        self
    }
}
