//! The head of a request from what the HTTP/2 library made of it.

use ::h2::ext::Protocol;
use http::request::Parts;
use http::{HeaderMap, Method};

use crate::http::fields::Fields;
use crate::http::flaw::Flaw;
use crate::http::h1::body::TrailerLimits;
use crate::http::h1::head::HeadLimits;
use crate::http::h2::{self, Place, Pseudo};
use crate::http::head::RequestHead;

/// The head of a request.
///
/// # Errors
/// Its first flaw.
pub(super) fn head(parts: &Parts, place: Place, limits: &HeadLimits) -> Result<RequestHead, Flaw> {
    h2::request_head(&pseudo(parts), || pairs(&parts.headers), place, limits)
}

/// The trailers of a request.
///
/// # Errors
/// Their first flaw.
pub(super) fn trailers(fields: &HeaderMap) -> Result<Fields, Flaw> {
    h2::trailers(|| pairs(fields), &TrailerLimits::default())
}

/// The first lines of a refused request as HTTP/1 would write them, for the access log.
pub(super) fn refused(parts: &Parts) -> Vec<u8> {
    let Pseudo { method, path, authority, .. } = pseudo(parts);
    let target = path.or(authority).unwrap_or_default();
    let host = authority.unwrap_or_default();
    [method, b" ", target, b" HTTP/2.0\r\nHost: ", host, b"\r\n\r\n"].concat()
}

fn pseudo(parts: &Parts) -> Pseudo<'_> {
    let uri = &parts.uri;
    let path = uri.path_and_query().map(|path| path.as_str().as_bytes());
    let protocol = parts.extensions.get::<Protocol>().map(|protocol| protocol.as_str().as_bytes());
    Pseudo {
        method: parts.method.as_str().as_bytes(),
        scheme: uri.scheme_str().map(str::as_bytes),
        authority: uri.authority().map(|authority| authority.as_str().as_bytes()),
        path: path.filter(|_| parts.method != Method::CONNECT || protocol.is_some()),
        protocol,
    }
}

fn pairs(fields: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}
