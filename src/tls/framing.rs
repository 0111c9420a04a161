//! Where the records of TLS begin and end in the bytes that arrive, RFC 8446 section 5.1.
//!
//! rustls keeps the beginning of a record until the rest is there, and does not tell that it has one.

/// How far the record is that arrives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framing {
    /// The bytes of its header that are here, and the length that they say.
    n_header: usize,
    length: usize,
    /// The bytes of it that are still to come behind its header.
    n_left: usize,
}

impl Framing {
    /// Takes note of bytes that have arrived.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.n_left > 0 {
                let n_passed = self.n_left.min(bytes.len());
                self.n_left -= n_passed;
                bytes = bytes.get(n_passed..).unwrap_or_default();
                continue;
            }
            // Type and version come before the length.
            if self.n_header >= HEADER_BYTES - 2 {
                self.length = self.length << 8 | usize::from(first);
            }
            self.n_header += 1;
            if self.n_header == HEADER_BYTES {
                *self = Self { n_left: self.length, ..Self::default() };
            }
            bytes = rest;
        }
    }

    /// Whether no record has begun that has not ended.
    pub(super) fn is_between(&self) -> bool {
        self.n_header == 0 && self.n_left == 0
    }
}

const HEADER_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_where_they_say_however_they_are_split() {
        let bytes = b"\x17\x03\x03\x00\x03abc\x15\x03\x03\x00\x00\x17\x03\x03\x01\x00";
        let bytes = [&bytes[..], &[7; 256]].concat();
        for cut in 0..=bytes.len() {
            let mut framing = Framing::default();
            let (head, tail) = bytes.split_at(cut);
            framing.pass(head);
            assert_eq!(framing.is_between(), [0, 8, 13, bytes.len()].contains(&cut), "{cut}");
            framing.pass(tail);
            assert!(framing.is_between(), "cut at {cut}");
        }
        let mut framing = Framing::default();
        bytes.iter().for_each(|byte| framing.pass(&[*byte]));
        assert!(framing.is_between());
    }
}
