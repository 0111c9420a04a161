//! The normalised path of a request, for choosing a route.
//!
//! `/up/../admin`, `/%61dmin` and `//admin` all lead an origin to `/admin`. A route that is chosen
//! by the path as sent could be bypassed, so the normalised path chooses it. The origin gets, and
//! the key holds, the path as sent.

use std::borrow::Cow;

use crate::base::chars::percent_decoded;

/// A path with its percent-encoding undone, its dot segments resolved (RFC 3986 section 5.2.4)
/// and empty segments left out. Most paths are that already and are given back as they are.
pub fn normalise(path: &[u8]) -> Cow<'_, [u8]> {
    if is_plain(path) {
        return Cow::Borrowed(path);
    }
    let decoded = percent_decoded(path, b'+');
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len());
    let mut segments = decoded.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"" | b"." => {}
            b".." => out.truncate(memchr::memrchr(b'/', &out).unwrap_or(0)),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
        if is_last && matches!(segment, b"" | b"." | b"..") {
            out.push(b'/');
        }
    }
    Cow::Owned(out)
}

fn is_plain(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
        && memchr::memchr(b'%', path).is_none()
        && memchr::memmem::find(path, b"//").is_none()
        && memchr::memmem::find(path, b"/.").is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_spellings_have_the_same_normal_form() {
        for (sent, means) in [
            ("/up/../admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("//admin", "/admin"),
            ("/up/%2e%2e/admin", "/admin"),
            ("/up%2f..%2fadmin", "/admin"),
            ("/./admin/.", "/admin/"),
            ("/admin/x/..", "/admin/"),
            ("/../../admin", "/admin"),
            ("/a/b/", "/a/b/"),
            ("/", "/"),
            ("/..", "/"),
            ("/a.b/.c", "/a.b/.c"),
            ("/%zz%", "/%zz%"),
            ("*", "*"),
        ] {
            let path =
                if sent == "*" { Cow::Borrowed(&b"*"[..]) } else { normalise(sent.as_bytes()) };
            assert_eq!(String::from_utf8_lossy(&path), means, "{sent}");
        }
    }

    proptest! {
        #[test]
        fn a_normalised_path_has_no_dot_segments_and_no_empty_ones(path in "/[a-b./%2e]{0,24}") {
            let path = normalise(path.as_bytes()).into_owned();
            prop_assert_eq!(path.first(), Some(&b'/'));
            prop_assert!(!path.split(|&byte| byte == b'/').any(|part| part == b".."));
            prop_assert!(memchr::memmem::find(&path, b"//").is_none());
        }
    }
}
