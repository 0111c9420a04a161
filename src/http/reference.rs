//! URI references within one origin, RFC 3986 section 5.2.

use crate::http::authority;
use crate::http::scheme::Scheme;

/// The path and query of a reference against the path `base`; `None` if it leads to another origin.
pub fn resolve(scheme: Scheme, authority: &[u8], base: &[u8], reference: &[u8]) -> Option<Vec<u8>> {
    let reference = reference.split(|&byte| byte == b'#').next().unwrap_or_default();
    let rest = match memchr::memmem::find(reference, b"://") {
        Some(at) if is_scheme(reference.get(..at)?) => {
            let (theirs, rest) = reference.split_at_checked(at)?;
            (Scheme::parse(theirs) == Some(scheme)).then_some(())?;
            rest.get(1..)?
        }
        _ => reference,
    };
    let path_and_query = match rest.strip_prefix(b"//") {
        Some(rest) => {
            let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
            let (theirs, path_and_query) = rest.split_at_checked(end)?;
            let ours = authority::normalised(scheme, authority);
            authority::normalised(scheme, theirs).eq(ours).then_some(())?;
            path_and_query
        }
        None => rest,
    };
    let at = memchr::memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
    let (path, query) = path_and_query.split_at_checked(at)?;
    let whole = match path {
        [b'/', ..] => path.to_vec(),
        [] if rest.starts_with(b"//") => b"/".to_vec(),
        [] => base.to_vec(),
        _ if has_scheme(path) => return None,
        _ => {
            let directory = memchr::memrchr(b'/', base).map_or(0, |slash| slash + 1);
            [base.get(..directory)?, path].concat()
        }
    };
    let mut resolved = without_dots(&whole);
    resolved.extend_from_slice(query);
    Some(resolved)
}

/// `ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )`, RFC 3986 section 3.1.
fn is_scheme(text: &[u8]) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    text.first().is_some_and(u8::is_ascii_alphabetic) && text.iter().all(is_inner)
}

/// Whether a path is a URI of another scheme, such as `mailto:x`.
fn has_scheme(path: &[u8]) -> bool {
    memchr::memchr(b':', path).and_then(|at| path.get(..at)).is_some_and(is_scheme)
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    out.truncate(memchr::memrchr(b'/', &out).unwrap_or(0));
                }
                if is_last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolved(reference: &str) -> Option<String> {
        resolve(Scheme::Http, b"a.example", b"/dir/page", reference.as_bytes())
            .map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn references_are_resolved_within_the_origin() {
        let cases = [
            ("/x?y#z", Some("/x?y")),
            ("x", Some("/dir/x")),
            ("../x", Some("/x")),
            ("../../x/./y/..", Some("/x/")),
            ("?q", Some("/dir/page?q")),
            ("", Some("/dir/page")),
            ("http://a.example/x", Some("/x")),
            ("HTTP://A.Example:80?q", Some("/?q")),
            ("//a.example/x/../y", Some("/y")),
            ("http://a.example", Some("/")),
            ("http://b.example/x", None),
            ("http://a.example:81/x", None),
            ("https://a.example/x", None),
            ("//b.example/x", None),
            ("mailto:x", None),
            ("/x?u=http://b.example/", Some("/x?u=http://b.example/")),
        ];
        for (reference, expected) in cases {
            assert_eq!(resolved(reference).as_deref(), expected, "{reference:?}");
        }
    }

    proptest! {
        #[test]
        fn no_reference_panics(reference in "[a/.:?#]{0,24}") {
            if let Some(path) = resolved(&reference) {
                prop_assert!(path.starts_with('/'), "{}", path);
            }
        }
    }
}
