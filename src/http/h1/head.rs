//! Heads from bytes, and back: httparse finds the parts, the rules here decide what they may say.
//!
//! Nothing is kept between two calls: a caller that does not have the whole head yet calls again
//! with more of it, best after [`find_end`] found its end. Everything that another parser on the
//! way might read differently is a [`Flaw`]: line ends other than CRLF, white space around names,
//! folded lines, and everything that the module `framing` refuses.
//!
//! ktrix always sends HTTP/1.1 (RFC 9110 section 2.5); the caller of a writer prepares the fields.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::base::chars;
use crate::http::fields::Fields;
use crate::http::flaw::Flaw;
use crate::http::h1::diagnosis;
use crate::http::h1::framing::Framing;
use crate::http::head::{BodyLength, Persistence, RequestHead, RequestParts, ResponseHead};
use crate::http::method::Method;
use crate::http::status::Status;
use crate::http::target::Target;
use crate::http::version::Version;

/// The limits of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, the empty line at its end included.
    pub head_bytes: usize,
    /// Number of fields; up to 128 are parsed without an allocation.
    pub fields: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { head_bytes: 32 << 10, fields: 100, target_bytes: 8 << 10 }
    }
}

/// The index after the first empty line, searched from `from` on.
///
/// `from` is the number of bytes searched before; it may be 0. A found end does not mean that a
/// request is complete: up to two empty lines may precede it, which [`parse_request`] skips. A
/// missing end does not mean that the caller must wait for more: only the parse finds flaws.
pub fn find_end(buf: &[u8], from: usize) -> Option<usize> {
    let from = from.saturating_sub(END.len() - 1);
    let at = END_FINDER.find(buf.get(from..)?)?;
    Some(from + at + END.len())
}

/// The request head at the start of `buf` and its length in bytes; `None` means that more bytes are
/// needed. Bytes after the head are not read.
///
/// # Errors
/// The first flaw found. A head that has reached a limit without an end is one, so a buffer of
/// `limits.head_bytes` and a few never fills up.
pub fn parse_request(
    buf: &[u8],
    limits: &HeadLimits,
) -> Result<Option<(RequestHead, usize)>, Flaw> {
    let n_skipped = leading_empty_lines(buf);
    let text = buf.get(n_skipped..).unwrap_or_default();
    if has_long_method(text) {
        return Err(Flaw::MethodTooLong);
    }
    let Some(len) = extent(text, limits.head_bytes).map_err(|flaw| start_of(text, limits, flaw))?
    else {
        return check_partial_request(text, limits).map(|()| None);
    };
    let head = text.get(..len).unwrap_or_default();
    let known = later_version(head, line_of(head).len().saturating_sub(VERSION.len()));
    let known = known.as_deref().unwrap_or(head);
    let head = with_slots(limits.fields, |slots| read_request(head, known, slots, limits))?;
    Ok(Some((head, n_skipped + len)))
}

/// The response head at the start of `buf` and its length in bytes; `None` means that more bytes
/// are needed. An interim response is a head of its own, with no body; the next one follows it.
///
/// # Errors
/// The first flaw found, as in [`parse_request`].
pub fn parse_response(
    buf: &[u8],
    limits: &HeadLimits,
    request_method: Method,
) -> Result<Option<(ResponseHead, usize)>, Flaw> {
    let n_compared = buf.len().min(VERSION_START.len());
    if buf.get(..n_compared) != VERSION_START.get(..n_compared) {
        return Err(Flaw::BadStatusLine);
    }
    let Some(len) = extent(buf, limits.head_bytes)? else {
        return match memchr::memchr(0, buf) {
            Some(_) => Err(Flaw::Nul),
            None => Ok(None),
        };
    };
    let head = buf.get(..len).unwrap_or_default();
    let known = later_version(head, 0);
    let known = known.as_deref().unwrap_or(head);
    let head = with_slots(limits.fields, |slots| read_response(known, slots, request_method))?;
    Ok(Some((head, len)))
}

/// Fields as [`Fields::write_to`] wrote them: the lines of a stored head, without an empty line.
///
/// # Errors
/// The first flaw found, and more fields than `n_fields_max`.
pub fn parse_fields(block: &[u8], n_fields_max: usize) -> Result<Fields, Flaw> {
    if memchr::memchr_iter(b'\n', block)
        .any(|lf| lf.checked_sub(1).and_then(|cr| block.get(cr)) != Some(&b'\r'))
    {
        return Err(Flaw::BareLf);
    }
    let mut on_stack = [httparse::EMPTY_HEADER; FIELDS_ON_STACK];
    let mut on_heap;
    let slots = match on_stack.get_mut(..n_fields_max) {
        Some(slots) => slots,
        None => {
            on_heap = vec![httparse::EMPTY_HEADER; n_fields_max];
            &mut on_heap
        }
    };
    // httparse ends a section at an empty line; a stored block has none, so one is appended.
    let section = [block, CRLF].concat();
    match httparse::parse_headers(&section, slots) {
        Ok(httparse::Status::Complete((len, parsed))) if len == section.len() => {
            let pairs = parsed.iter().map(|field| (field.name.as_bytes(), field.value));
            Ok(Fields::from_parsed(section.get(..block.len()).unwrap_or_default(), pairs))
        }
        Err(httparse::Error::TooManyHeaders) => Err(Flaw::TooManyFields),
        _ => Err(diagnosis::of_section(&section)),
    }
}

/// Reads a request head: `text`, which is what was `sent`, but for its version.
fn read_request<'a>(
    sent: &[u8],
    text: &'a [u8],
    slots: &mut [Slot<'a>],
    limits: &HeadLimits,
) -> Result<RequestHead, Flaw> {
    let mut parsed = httparse::Request::new(&mut []);
    check_parsed(parsed.parse_with_uninit_headers(text, slots), text, diagnosis::of_request)?;
    let (Some(method_text), Some(target), Some(version)) =
        (parsed.method, parsed.path, parsed.version.and_then(version_of))
    else {
        return Err(Flaw::BadRequestLine);
    };
    if target.len() > limits.target_bytes {
        return Err(Flaw::TargetTooLong);
    }
    let method = Method::from_bytes(method_text.as_bytes());
    let target = Target::parse(method, target.as_bytes())?;
    let fields = take_fields(text, parsed.headers);
    let framing = Framing::of(version, &fields);
    let length = framing.request_length()?;
    let (persistence, expectation) = (framing.persistence(), framing.expectation(length)?);
    // Taken from the parsed head, for the fields move into the new one.
    let has_host = framing.host()?.is_some();
    let host = has_host.then(|| value_of(parsed.headers, "host"));
    let parts = RequestParts {
        line: line_of(sent),
        method,
        method_text: method_text.as_bytes(),
        target,
        version,
        fields,
        length,
        persistence,
        expectation,
    };
    RequestHead::new(parts, host)
}

fn read_response<'a>(
    text: &'a [u8],
    slots: &mut [Slot<'a>],
    request_method: Method,
) -> Result<ResponseHead, Flaw> {
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let result = config.parse_response_with_uninit_headers(&mut parsed, text, slots);
    check_parsed(result, text, diagnosis::of_response)?;
    let (Some(version), Some(code @ 100..)) = (parsed.version.and_then(version_of), parsed.code)
    else {
        return Err(Flaw::BadStatusLine);
    };
    let status = Status(code);
    let reason = match parsed.reason.unwrap_or_default() {
        reason if reason == status.reason() => Cow::Borrowed(status.reason().as_bytes()),
        reason => Cow::Owned(reason.as_bytes().to_vec()),
    };
    let fields = take_fields(text, parsed.headers);
    let framing = Framing::of(version, &fields);
    let (length, content_length) = framing.response_length(status, request_method)?;
    let is_last = length == BodyLength::UntilClose
        || status == Status::SWITCHING_PROTOCOLS
        || (request_method == Method::Connect && status.is_success());
    let keeps_alive = !is_last && framing.persistence() == Persistence::KeepAlive;
    Ok(ResponseHead { version, status, reason, fields, length, content_length, keeps_alive })
}

/// The flaw of a failed parse.
fn check_parsed(
    result: httparse::Result<usize>,
    text: &[u8],
    diagnose: impl FnOnce(&[u8]) -> Flaw,
) -> Result<(), Flaw> {
    match result {
        Ok(httparse::Status::Complete(len)) if len == text.len() => Ok(()),
        Err(httparse::Error::TooManyHeaders) => Err(Flaw::TooManyFields),
        _ => Err(diagnose(text)),
    }
}

/// The start line without its end.
fn line_of(text: &[u8]) -> &[u8] {
    text.get(..memchr::memchr(b'\r', text).unwrap_or(text.len())).unwrap_or_default()
}

/// The fields that were parsed out of what is behind the start line.
fn take_fields<'a>(text: &'a [u8], parsed: &[httparse::Header<'a>]) -> Fields {
    let start = line_of(text).len() + CRLF.len();
    let block = text.get(start..text.len().saturating_sub(CRLF.len())).unwrap_or_default();
    let pairs = parsed.iter().map(|field| (field.name.as_bytes(), field.value));
    Fields::from_parsed(block, pairs)
}

/// A head of a later minor version of HTTP/1, the version being at this place, as one of HTTP/1.1
/// (RFC 9110 section 2.5); `None` for any other.
fn later_version(text: &[u8], at: usize) -> Option<Vec<u8>> {
    let version = text.get(at..at + VERSION.len())?;
    if !matches!(version, [start @ .., b'2'..=b'9'] if VERSION.starts_with(start)) {
        return None;
    }
    let mut known = text.to_vec();
    known.get_mut(at..at + VERSION.len())?.copy_from_slice(VERSION);
    Some(known)
}

/// Whether a request begins with a method that is too long (RFC 9112 section 3).
fn has_long_method(text: &[u8]) -> bool {
    let start = text.get(..=METHOD_BYTES_MAX);
    start.is_some_and(|start| start.iter().all(|octet| chars::is_token_char(*octet)))
}

fn value_of<'a>(parsed: &[httparse::Header<'a>], name: &str) -> &'a [u8] {
    let field = parsed.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    field.map_or(&b""[..], |field| field.value)
}

/// Length of the head, or `None` where its end is not there yet.
///
/// # Errors
/// A line that ends with LF alone, and a head that is over its limit.
fn extent(text: &[u8], n_bytes_max: usize) -> Result<Option<usize>, Flaw> {
    let window = text.get(..n_bytes_max).unwrap_or(text);
    let mut line_at = 0;
    for lf in memchr::memchr_iter(b'\n', window) {
        match lf.checked_sub(1).filter(|cr| *cr >= line_at) {
            Some(cr) if window.get(cr) != Some(&b'\r') => return Err(Flaw::BareLf),
            Some(cr) if cr == line_at => return Ok(Some(lf + 1)),
            Some(_) => line_at = lf + 1,
            None => return Err(Flaw::BareLf),
        }
    }
    if text.len() >= n_bytes_max { Err(Flaw::HeadTooLarge) } else { Ok(None) }
}

/// The limit that a head broke: the target's if the first line alone is too long.
fn start_of(text: &[u8], limits: &HeadLimits, flaw: Flaw) -> Flaw {
    let is_long = first_line_len(text) > limits.target_bytes.saturating_add(LINE_SPARE_BYTES);
    if flaw == Flaw::HeadTooLarge && is_long { Flaw::TargetTooLong } else { flaw }
}

/// Refuses early a head that no further byte can make valid.
fn check_partial_request(text: &[u8], limits: &HeadLimits) -> Result<(), Flaw> {
    let starts_well = match text {
        [] | b"\r" => true,
        [first, ..] => chars::is_token_char(*first),
    };
    if !starts_well {
        return Err(diagnosis::of_request(text));
    }
    if memchr::memchr(0, text).is_some() {
        return Err(Flaw::Nul);
    }
    if first_line_len(text) > limits.target_bytes.saturating_add(LINE_SPARE_BYTES) {
        return Err(Flaw::TargetTooLong);
    }
    Ok(())
}

fn first_line_len(text: &[u8]) -> usize {
    memchr::memchr(b'\n', text).unwrap_or(text.len())
}

/// Bytes of the empty lines before a request (RFC 9112 section 2.2), of which two are skipped.
fn leading_empty_lines(buf: &[u8]) -> usize {
    let mut rest = buf;
    for _ in 0..EMPTY_LINES_MAX {
        rest = rest.strip_prefix(CRLF).unwrap_or(rest);
    }
    buf.len() - rest.len()
}

const fn version_of(minor: u8) -> Option<Version> {
    match minor {
        0 => Some(Version::Http10),
        1 => Some(Version::Http11),
        _ => None,
    }
}

type Slot<'a> = MaybeUninit<httparse::Header<'a>>;

/// Runs a parse with room for this many fields, on the stack unless a limit is unusually high.
fn with_slots<'a, T>(n_fields_max: usize, parse: impl FnOnce(&mut [Slot<'a>]) -> T) -> T {
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
    match slots.get_mut(..n_fields_max) {
        Some(slots) => parse(slots),
        None => parse(&mut vec![MaybeUninit::uninit(); n_fields_max]),
    }
}

const FIELDS_ON_STACK: usize = 128;
const EMPTY_LINES_MAX: usize = 2;

/// Bytes of the longest method.
pub(crate) const METHOD_BYTES_MAX: usize = 64;

/// Bytes of a request line beside its target: the longest method, two spaces, the version, CR.
const LINE_SPARE_BYTES: usize = METHOD_BYTES_MAX + 2 + VERSION.len() + 1;

const CRLF: &[u8] = b"\r\n";
const END: &[u8] = b"\r\n\r\n";
/// To prepare a search costs more than to search a head of usual length.
static END_FINDER: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(END));
const VERSION_START: &[u8] = b"HTTP/";
const VERSION: &[u8] = b"HTTP/1.1";

/// Appends a request head, the empty line included.
///
/// Method and target are written as they are: they come from a checked head, or from ktrix.
pub fn write_request(out: &mut Vec<u8>, method: &[u8], target: &[u8], fields: &Fields) {
    out.reserve(method.len() + target.len() + fields.wire_len() + START_LINE_SPARE);
    for part in [method, b" ", target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    fields.write_to(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a response head, the empty line included.
pub fn write_response(out: &mut Vec<u8>, status: Status, reason: &[u8], fields: &Fields) {
    out.reserve(reason.len() + fields.wire_len() + START_LINE_SPARE);
    write_status_line(out, status, reason);
    fields.write_to(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends only the status line, for a caller that has the fields as bytes.
pub fn write_status_line(out: &mut Vec<u8>, status: Status, reason: &[u8]) {
    let code = status.0.min(999);
    let digits = [code / 100, code / 10 % 10, code % 10].map(|digit| b'0' + digit as u8);
    for part in [b"HTTP/1.1 ", &digits[..], b" ", reason, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Room for all of a start line but its variable part, and for the empty line.
const START_LINE_SPARE: usize = 24;

#[cfg(test)]
#[path = "tests/head.rs"]
mod tests;
