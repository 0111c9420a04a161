//! Several parts in one body: `multipart/byteranges` (RFC 9110 section 14.6).

use std::ops::Range;

use crate::http::content_range::ContentRange;

/// The bytes around the parts of a body.
#[derive(Clone, Debug)]
pub struct ByteRanges {
    /// The value of `Content-Type`.
    pub content_type: String,
    /// The bytes before each part, in the order of the parts.
    pub heads: Vec<Vec<u8>>,
    /// The bytes after the last part.
    pub end: Vec<u8>,
    /// The length of the body: parts, heads and end.
    pub length: u64,
}

impl ByteRanges {
    /// Around these parts of `complete` bytes of the type `kind`, which may be left out.
    ///
    /// `mark` must be unpredictable for anyone who can choose the octets of a part, since the mark
    /// ends a part wherever it occurs.
    pub fn new(ranges: &[Range<u64>], complete: u64, kind: Option<&[u8]>, mark: u64) -> Self {
        let heads: Vec<Vec<u8>> = ranges
            .iter()
            .map(|range| {
                let mut head = format!("\r\n--{mark:016x}\r\n").into_bytes();
                if let Some(kind) = kind {
                    head.extend_from_slice(b"Content-Type: ");
                    head.extend_from_slice(kind);
                    head.extend_from_slice(b"\r\n");
                }
                let place = ContentRange { range: range.clone(), complete: Some(complete) };
                let place = format!("Content-Range: {}\r\n\r\n", place.text());
                head.extend_from_slice(place.as_bytes());
                head
            })
            .collect();
        let end = format!("\r\n--{mark:016x}--\r\n").into_bytes();
        let parts: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let around: usize = heads.iter().map(Vec::len).sum::<usize>() + end.len();
        let content_type = format!("multipart/byteranges; boundary={mark:016x}");
        Self { content_type, heads, end, length: parts + around as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_between_marks() {
        let around = ByteRanges::new(&[0..2, 9..10], 10, Some(b"text/plain"), 0xab);
        assert_eq!(around.content_type, "multipart/byteranges; boundary=00000000000000ab");
        let mut body = Vec::new();
        for (head, part) in around.heads.iter().zip(["01", "9"]) {
            body.extend_from_slice(head);
            body.extend_from_slice(part.as_bytes());
        }
        body.extend_from_slice(&around.end);
        assert_eq!(body.len() as u64, around.length);
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "\r\n--00000000000000ab\r\nContent-Type: text/plain\r\n\
             Content-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--00000000000000ab\r\nContent-Type: text/plain\r\n\
             Content-Range: bytes 9-9/10\r\n\r\n9\
             \r\n--00000000000000ab--\r\n"
        );
    }

    #[test]
    fn an_unknown_type_is_left_out() {
        let around = ByteRanges::new(&[0..2, 9..10], 10, None, 1);
        assert!(around.heads[0].starts_with(b"\r\n--0000000000000001\r\nContent-Range: "));
    }
}
