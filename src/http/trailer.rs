//! The fields that may come after a body (RFC 9110 section 6.5.1).
//!
//! A trailer arrives after all decisions were made from the head. A field that would have changed
//! one of them is dropped: framing, routing, controls, authentication, content.

use crate::base::chars;

/// Whether a trailer of this name, or of one that many origins cannot tell from it, may be passed on.
pub fn is_allowed(name: &[u8]) -> bool {
    !FORBIDDEN.iter().any(|forbidden| chars::eq_as_variable(name, forbidden.as_bytes()))
}

const FORBIDDEN: [&str; 45] = [
    "accept-ranges", "age", "allow", "authorization", "cache-control", "cdn-cache-control",
    "client-cert", "client-cert-chain", "connection", "content-encoding", "content-length",
    "content-location", "content-range", "content-type", "cookie", "date", "expect", "expires",
    "forwarded", "host", "if-match", "if-modified-since", "if-none-match", "if-range",
    "if-unmodified-since", "keep-alive", "location", "max-forwards", "pragma",
    "proxy-authenticate", "proxy-authorization", "proxy-connection", "range", "retry-after",
    "set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "vary", "via",
    "www-authenticate", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_that_change_no_decision_are_allowed() {
        assert!(FORBIDDEN.is_sorted());
        for name in ["Content-Length", "TRANSFER-ENCODING", "Host", "Set-Cookie", "client_cert"] {
            assert!(!is_allowed(name.as_bytes()), "{name}");
        }
        for name in ["Digest", "Server-Timing", "ETag", "X-Checksum", "grpc-status"] {
            assert!(is_allowed(name.as_bytes()), "{name}");
        }
    }
}
