//! Reads HTTP/1 messages in a simple way: enough for well-formed ones, with an error for others.
//!
//! This is a second implementation on purpose: it shares no code with the tested one.

use std::io::{self, Read};

/// The reason why no whole message came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The peer closed before the first byte.
    Closed,
    /// The peer closed or reset within the head.
    CutHead { got: usize },
    /// The peer closed or reset within the body: the receiver can see that it is incomplete.
    CutBody { status: u16, got: usize, is_reset: bool },
    /// No byte came for too long.
    Silent { got: usize },
    /// It is not HTTP.
    Malformed(String),
}

/// A start line and fields.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub raw: Vec<u8>,
}

impl Head {
    fn parse(raw: &[u8]) -> Result<Self, Broken> {
        let text: String = raw.iter().map(|&b| char::from(b)).collect();
        let mut lines = text.strip_suffix("\r\n\r\n").unwrap_or(&text).split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut fields = Vec::new();
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                return Err(Broken::Malformed(format!("field line {line:?}")));
            };
            if name.is_empty() || name.contains([' ', '\t']) || line.contains(['\r', '\n']) {
                return Err(Broken::Malformed(format!("field line {line:?}")));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Ok(Self { start, fields, raw: raw.to_vec() })
    }

    /// The first field of this name, in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let name = name.to_owned();
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(&name)).map(|(_, v)| &**v)
    }

    fn is_chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
    }

    fn content_length(&self) -> Result<Option<usize>, Broken> {
        match (self.field("content-length"), self.all("content-length").count()) {
            (None, _) => Ok(None),
            (Some(text), 1) => {
                text.parse().map(Some).map_err(|_| Broken::Malformed(format!("length {text:?}")))
            }
            (Some(_), n) => Err(Broken::Malformed(format!("{n} Content-Length fields"))),
        }
    }
}

/// The framing after a head.
enum Framing {
    Nothing,
    Length(usize),
    Chunked,
    UntilClose,
}

/// Bytes of a connection, read ahead as they come.
pub struct Reader<R> {
    pub inner: R,
    pub buf: Vec<u8>,
}

impl<R: Read> Reader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, buf: Vec::new() }
    }

    /// Reads some more bytes; 0 at the end.
    pub fn more(&mut self) -> io::Result<usize> {
        let mut part = [0; 65_536];
        loop {
            match self.inner.read(&mut part) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(n) => {
                    self.buf.extend_from_slice(&part[..n]);
                    return Ok(n);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The next head, bytes in wire order.
    pub fn head(&mut self) -> Result<Head, Broken> {
        loop {
            if let Some(end) = self.buf.windows(4).position(|w| w == b"\r\n\r\n") {
                let raw: Vec<u8> = self.buf.drain(..end + 4).collect();
                return Head::parse(&raw);
            }
            let got = self.buf.len();
            match self.more() {
                Ok(0) if got == 0 => return Err(Broken::Closed),
                Ok(0) => return Err(Broken::CutHead { got }),
                Ok(_) => {}
                Err(e) if is_timeout(&e) => return Err(Broken::Silent { got }),
                Err(_) if got == 0 => return Err(Broken::Closed),
                Err(_) => return Err(Broken::CutHead { got }),
            }
        }
    }

    /// The body of a request, and its trailers.
    pub fn request_body(&mut self, head: &Head) -> Result<(Vec<u8>, Head), Broken> {
        let framing = match head.content_length()? {
            _ if head.is_chunked() => Framing::Chunked,
            Some(n) => Framing::Length(n),
            None => Framing::Nothing,
        };
        self.body(&framing, 0)
    }

    /// The body of a response to `method`, and its trailers.
    pub fn response_body(
        &mut self,
        head: &Head,
        status: u16,
        method: &str,
    ) -> Result<(Vec<u8>, Head), Broken> {
        let framing = match head.content_length()? {
            _ if method == "HEAD" || status == 204 || status == 304 => Framing::Nothing,
            _ if head.is_chunked() => Framing::Chunked,
            Some(n) => Framing::Length(n),
            None => Framing::UntilClose,
        };
        self.body(&framing, status)
    }

    fn body(&mut self, framing: &Framing, status: u16) -> Result<(Vec<u8>, Head), Broken> {
        match framing {
            Framing::Nothing => Ok((Vec::new(), Head::default())),
            Framing::Length(n) => {
                self.fill(*n, status, 0)?;
                Ok((self.buf.drain(..*n).collect(), Head::default()))
            }
            Framing::Chunked => self.chunks(status),
            Framing::UntilClose => loop {
                let got = self.buf.len();
                match self.more() {
                    Ok(0) => return Ok((std::mem::take(&mut self.buf), Head::default())),
                    Ok(_) => {}
                    Err(e) if is_timeout(&e) => return Err(Broken::Silent { got }),
                    Err(_) => return Err(Broken::CutBody { status, got, is_reset: true }),
                }
            },
        }
    }

    fn chunks(&mut self, status: u16) -> Result<(Vec<u8>, Head), Broken> {
        let mut body = Vec::new();
        loop {
            let line = self.line(status, body.len())?;
            let digits = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(digits, 16)
                .map_err(|_| Broken::Malformed(format!("chunk size {line:?}")))?;
            if size == 0 {
                break;
            }
            self.fill(size + 2, status, body.len())?;
            body.extend(self.buf.drain(..size));
            if self.buf.drain(..2).collect::<Vec<_>>() != b"\r\n" {
                return Err(Broken::Malformed("no line end after a chunk".into()));
            }
        }
        let mut trailers = b"\r\n".to_vec();
        loop {
            let line = self.line(status, body.len())?;
            trailers.extend_from_slice(line.as_bytes());
            trailers.extend_from_slice(b"\r\n");
            if line.is_empty() {
                return Ok((body, Head::parse(&trailers)?));
            }
        }
    }

    fn line(&mut self, status: u16, got: usize) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.buf.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buf.drain(..end + 2).collect();
                return Ok(line[..end].iter().map(|&b| char::from(b)).collect());
            }
            self.fill(self.buf.len() + 1, status, got)?;
        }
    }

    /// Reads until `n` bytes are available.
    fn fill(&mut self, n: usize, status: u16, before: usize) -> Result<(), Broken> {
        while self.buf.len() < n {
            let got = before + self.buf.len();
            match self.more() {
                Ok(0) => return Err(Broken::CutBody { status, got, is_reset: false }),
                Ok(_) => {}
                Err(e) if is_timeout(&e) => return Err(Broken::Silent { got }),
                Err(_) => return Err(Broken::CutBody { status, got, is_reset: true }),
            }
        }
        Ok(())
    }
}

/// A read or write that ran into its time-out.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
