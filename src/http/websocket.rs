//! The two fields by which a WebSocket's ends recognise each other (RFC 6455 section 1.3). Over HTTP/2 a
//! client has none, so that the request of a proxy over HTTP/1 has its own.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// `Sec-WebSocket-Key` of these random bytes.
pub fn key(nonce: u128) -> String {
    base64(&nonce.to_be_bytes())
}

/// The `Sec-WebSocket-Accept` that answers a key.
pub fn accept(key: &str) -> String {
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()).as_ref())
}

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// RFC 4648 section 4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let octet = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            let letter = ALPHABET.get(index).copied().unwrap_or(b'=');
            text.push(char::from(if digit <= three.len() { letter } else { b'=' }));
        }
    }
    text
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_holds() {
        let nonce = u128::from_be_bytes(*b"the sample nonce");
        assert_eq!(key(nonce), "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key(nonce)), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
