//! Heads as the rest of ktrix sees them: checked and unambiguous, of any protocol version.

use std::borrow::Cow;
use std::rc::Rc;

use crate::http::authority::Authority;
use crate::http::fields::Fields;
use crate::http::flaw::Flaw;
use crate::http::method::Method;
use crate::http::status::Status;
use crate::http::target::Target;
use crate::http::tls::TlsFacts;
use crate::http::version::Version;

/// How the end of a message's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// This many bytes.
    Known(u64),
    /// By chunks.
    Chunked,
    /// Everything until the connection is closed; never of a request.
    UntilClose,
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method, as far as it is known.
    pub method: Method,
    /// The method as sent.
    pub method_text: Cow<'static, [u8]>,
    /// The target.
    pub target: Target,
    /// The version that the client speaks.
    pub version: Version,
    /// Every field as sent, those of the connection and the framing included.
    pub fields: Fields,
    /// How long the body is; never [`BodyLength::UntilClose`].
    pub length: BodyLength,
    /// The `Host` for the origin, if it is not the one that the client asked for.
    pub origin_host: Option<Box<str>>,
    /// The TLS of the client, if the origin is told of its certificate in Client-Cert.
    pub told_tls: Option<Rc<TlsFacts>>,
    persistence: Persistence,
    expectation: Expectation,
    /// The request line without its end, then the authority in lower case.
    text: Box<[u8]>,
    line_len: usize,
    host_len: usize,
}

/// The contents of a request's start line and fields.
pub(crate) struct RequestParts<'a> {
    pub(crate) line: &'a [u8],
    pub(crate) method: Method,
    pub(crate) method_text: &'a [u8],
    pub(crate) target: Target,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
    pub(crate) length: BodyLength,
    pub(crate) persistence: Persistence,
    pub(crate) expectation: Expectation,
}

impl RequestHead {
    /// The HEAD, if this is one, or else the GET of another target of the same host, with the same fields but those about the body.
    pub(crate) fn redirected(&self, target: Target) -> Self {
        let (method, method_text): (_, &[u8]) = match self.method {
            Method::Head => (Method::Head, b"HEAD"),
            _ => (Method::Get, b"GET"),
        };
        let mut head = Self {
            method,
            method_text: Cow::Borrowed(method_text),
            target,
            length: BodyLength::None,
            expectation: Expectation::Nothing,
            ..self.clone()
        };
        for name in ["content-length", "transfer-encoding", "content-type", "trailer", "expect"] {
            head.fields.remove(name);
        }
        head
    }

    /// Sets the host and port that the client asked for, which a proxy before this one told.
    pub(crate) fn set_authority(&mut self, authority: &Authority<'_>) {
        let mut text = self.request_line().to_vec();
        text.extend(authority.text.iter().map(u8::to_ascii_lowercase));
        self.text = text.into_boxed_slice();
        self.host_len = authority.host.len();
    }

    /// Puts a head together from parts that were checked one by one.
    ///
    /// # Errors
    /// The flaw of the host: of an absolute target, or else of `Host`, which an HTTP/1.1 request
    /// must have (RFC 9112 sections 3.2.2 and 3.3).
    pub(crate) fn new(parts: RequestParts<'_>, host_field: Option<&[u8]>) -> Result<Self, Flaw> {
        let named = host_field.map(Authority::parse).transpose()?;
        if named.is_none() && parts.version >= Version::Http11 {
            return Err(Flaw::HostMissing);
        }
        let asked = parts.target.authority().map(Authority::parse).transpose()?;
        let authority = asked.or(named);
        let (host, authority) = authority.map_or((&b""[..], &b""[..]), |it| (it.host, it.text));
        let line_len = parts.line.len();
        let mut text = Vec::with_capacity(line_len + authority.len());
        text.extend_from_slice(parts.line);
        text.extend(authority.iter().map(u8::to_ascii_lowercase));
        let method_text = match parts.method.as_str() {
            Some(name) => Cow::Borrowed(name.as_bytes()),
            None => Cow::Owned(parts.method_text.to_vec()),
        };
        Ok(Self {
            method: parts.method,
            method_text,
            version: parts.version,
            length: parts.length,
            origin_host: None,
            told_tls: None,
            persistence: parts.persistence,
            expectation: parts.expectation,
            text: text.into_boxed_slice(),
            line_len,
            host_len: host.len(),
            target: parts.target,
            fields: parts.fields,
        })
    }

    /// The requested host, in lower case, without port and without the dot that may end a name; an
    /// IPv6 address keeps its brackets. Empty for HTTP/1.0 without `Host`.
    pub fn host(&self) -> &[u8] {
        let host = self.authority().get(..self.host_len).unwrap_or_default();
        host.strip_suffix(b".").unwrap_or(host)
    }

    /// Host and port (if one was sent), in lower case.
    pub fn authority(&self) -> &[u8] {
        self.text.get(self.line_len..).unwrap_or_default()
    }

    /// The request line as sent, without its end.
    pub fn request_line(&self) -> &[u8] {
        self.text.get(..self.line_len).unwrap_or_default()
    }

    /// Whether the client would use its connection again (RFC 9112 section 9.3). Behind a CONNECT that is
    /// refused there may be bytes that were meant for the tunnel, and that are no requests.
    pub fn wants_keep_alive(&self) -> bool {
        self.persistence == Persistence::KeepAlive && self.method != Method::Connect
    }

    /// Whether the client waits for an interim 100 before it sends its body (RFC 9110 section
    /// 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.expectation == Expectation::Continue
    }
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The version that the origin speaks.
    pub version: Version,
    /// The status code.
    pub status: Status,
    /// The phrase as sent; often empty.
    pub reason: Cow<'static, [u8]>,
    /// Every field as sent, those of the connection and the framing included.
    pub fields: Fields,
    /// How the body that follows ends; [`BodyLength::None`] for interim responses, for 204 and 304,
    /// and for answers to HEAD.
    pub length: BodyLength,
    /// The value of `Content-Length`, also where no body follows (HEAD, 304).
    pub content_length: Option<u64>,
    /// Whether the connection may be used again after this message.
    pub keeps_alive: bool,
}

/// The fate of the connection after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    KeepAlive,
    Close,
}

/// The interim answer that a client waits for before it sends its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    Nothing,
    Continue,
}
