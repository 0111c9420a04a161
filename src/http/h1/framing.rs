//! The end of a message and the fate of its connection, from the fields of its head.
//!
//! RFC 9112 section 6.3 has rules for precedence where a head contradicts itself; here such a head
//! is refused instead, so that no rule is needed.

use crate::base::chars;
use crate::http::fields::Fields;
use crate::http::flaw::Flaw;
use crate::http::head::{BodyLength, Expectation, Persistence};
use crate::http::list;
use crate::http::method::Method;
use crate::http::status::Status;
use crate::http::version::Version;

/// The values of the fields that decide framing, found in one pass.
pub(super) struct Framing<'a> {
    version: Version,
    host: Occurrence<'a>,
    length: Occurrence<'a>,
    coding: Occurrence<'a>,
    expect: Occurrence<'a>,
    has_close: bool,
    has_keep_alive: bool,
}

impl<'a> Framing<'a> {
    pub(super) fn of(version: Version, fields: &'a Fields) -> Self {
        let mut found = Self {
            version,
            host: Occurrence::Never,
            length: Occurrence::Never,
            coding: Occurrence::Never,
            expect: Occurrence::Never,
            has_close: false,
            has_keep_alive: false,
        };
        for (name, value) in fields.iter() {
            found.note(name, value);
        }
        found
    }

    fn note(&mut self, name: &[u8], value: &'a [u8]) {
        // The length of the name decides nearly always, and costs nothing.
        match name.len() {
            4 if chars::eq_ignore_case(name, b"host") => self.host.note(value),
            6 if chars::eq_ignore_case(name, b"expect") => self.expect.note(value),
            10 if chars::eq_ignore_case(name, b"connection") => {
                for option in list::members(value) {
                    self.has_close |= chars::eq_ignore_case(option, b"close");
                    self.has_keep_alive |= chars::eq_ignore_case(option, b"keep-alive");
                }
            }
            14 if chars::eq_ignore_case(name, b"content-length") => self.length.note(value),
            17 if chars::eq_ignore_case(name, b"transfer-encoding") => self.coding.note(value),
            _ => {}
        }
    }

    pub(super) fn host(&self) -> Result<Option<&'a [u8]>, Flaw> {
        self.host.once(Flaw::HostDoubled)
    }

    pub(super) fn request_length(&self) -> Result<BodyLength, Flaw> {
        Ok(match self.declared()? {
            Declared::Nothing => BodyLength::None,
            Declared::Length(length) => BodyLength::Known(length),
            Declared::Chunked => BodyLength::Chunked,
        })
    }

    /// The length of the body after a response's head, and the declared length of its content.
    pub(super) fn response_length(
        &self,
        status: Status,
        request_method: Method,
    ) -> Result<(BodyLength, Option<u64>), Flaw> {
        let declared = self.declared()?;
        let content_length = match declared {
            Declared::Length(length) => Some(length),
            _ => None,
        };
        if status.is_interim() || status == Status::NO_CONTENT {
            // RFC 9112 section 6.1 and RFC 9110 section 8.6: neither field may be sent here. A
            // length of 0 does no harm and is often seen.
            return match declared {
                Declared::Nothing | Declared::Length(0) => Ok((BodyLength::None, None)),
                _ => Err(Flaw::BodyNotAllowed),
            };
        }
        if status.has_no_body(request_method) {
            return Ok((BodyLength::None, content_length));
        }
        let length = match declared {
            Declared::Nothing => BodyLength::UntilClose,
            Declared::Length(length) => BodyLength::Known(length),
            Declared::Chunked => BodyLength::Chunked,
        };
        Ok((length, content_length))
    }

    /// RFC 9112 section 9.3; `close` wins.
    pub(super) fn persistence(&self) -> Persistence {
        let persists = match self.version {
            Version::Http11 | Version::Http2 => !self.has_close,
            Version::Http10 => self.has_keep_alive && !self.has_close,
        };
        if persists { Persistence::KeepAlive } else { Persistence::Close }
    }

    /// RFC 9110 section 10.1.1; an expectation in HTTP/1.0 is ignored.
    pub(super) fn expectation(&self, length: BodyLength) -> Result<Expectation, Flaw> {
        let Some(value) = self.expect.once(Flaw::UnknownExpectation)? else {
            return Ok(Expectation::Nothing);
        };
        if self.version < Version::Http11 {
            return Ok(Expectation::Nothing);
        }
        if !chars::eq_ignore_case(value, b"100-continue") {
            return Err(Flaw::UnknownExpectation);
        }
        Ok(match length {
            BodyLength::None | BodyLength::Known(0) => Expectation::Nothing,
            _ => Expectation::Continue,
        })
    }

    fn declared(&self) -> Result<Declared, Flaw> {
        match (self.length, self.coding) {
            (Occurrence::Never, Occurrence::Never) => Ok(Declared::Nothing),
            (Occurrence::Never, _) if self.version < Version::Http11 => Err(Flaw::CodingTooOld),
            (Occurrence::Never, Occurrence::Once(value)) => check_coding(value),
            (Occurrence::Never, Occurrence::Often) => Err(Flaw::CodingDoubled),
            (Occurrence::Once(value), Occurrence::Never) => {
                chars::parse_decimal(value).map(Declared::Length).ok_or(Flaw::BadLength)
            }
            (Occurrence::Often, Occurrence::Never) => Err(Flaw::LengthDoubled),
            (_, Occurrence::Once(_) | Occurrence::Often) => Err(Flaw::LengthAndCoding),
        }
    }
}

/// The declaration in a head, whether or not a body follows.
#[derive(Clone, Copy)]
enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

/// The occurrences of a field.
#[derive(Clone, Copy)]
enum Occurrence<'a> {
    Never,
    Once(&'a [u8]),
    Often,
}

impl<'a> Occurrence<'a> {
    fn note(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Never => Self::Once(value),
            _ => Self::Often,
        };
    }

    fn once(self, flaw: Flaw) -> Result<Option<&'a [u8]>, Flaw> {
        match self {
            Self::Never => Ok(None),
            Self::Once(value) => Ok(Some(value)),
            Self::Often => Err(flaw),
        }
    }
}

/// The only acceptable list of codings is `chunked`; finds the flaw of any other.
fn check_coding(value: &[u8]) -> Result<Declared, Flaw> {
    if chars::eq_ignore_case(value, b"chunked") {
        return Ok(Declared::Chunked);
    }
    let codings = || value.split(|octet| *octet == b',').map(chars::trim_ows);
    let is_chunked = |coding: &&[u8]| chars::eq_ignore_case(coding, b"chunked");
    if !codings().all(chars::is_token) {
        return Err(Flaw::BadCoding);
    }
    if codings().filter(is_chunked).count() > 1 {
        return Err(Flaw::CodingDoubled);
    }
    let ends_chunked = codings().next_back().is_some_and(|coding| is_chunked(&coding));
    Err(if ends_chunked { Flaw::UnknownCoding } else { Flaw::CodingNotLast })
}
