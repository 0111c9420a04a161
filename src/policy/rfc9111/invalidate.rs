//! What a change at the origin makes unusable, RFC 9111 section 4.4.

use crate::http::fields::Fields;
use crate::http::method::Method;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::http::target::Target;
use crate::policy::key::components::KeyComponents;
use crate::policy::key::{key_text, uri_text, without_default_port};

/// Whether a response with this status to this method makes stored responses unusable: the
/// method is unsafe, or not known to be safe, and it succeeded (2xx or 3xx).
pub const fn invalidates(method: Method, status: Status) -> bool {
    !method.is_safe() && status.0 >= 200 && status.0 < 400
}

/// Calls `take` with the primary key text of each URI that such a response makes unusable: the
/// target itself, and what Location and Content-Location name, as far as that has the target's
/// scheme, host and port. Other origins are left alone, lest one spoil another's cache (RFC 9111
/// section 4.4). A text may come more than once. `components_of` gives what the keys of a path's
/// route are made of.
pub fn for_each_key_text<'p>(
    scheme: Scheme,
    authority: &[u8],
    target: &Target,
    response: &Fields,
    components_of: impl Fn(&[u8]) -> &'p KeyComponents,
    mut take: impl FnMut(&[u8]),
) {
    let mut text = Vec::new();
    key_text(components_of(target.path()), scheme, authority, target, &mut text);
    take(&text);
    for name in ["location", "content-location"] {
        for reference in response.get_all(name).take(LOCATIONS_MAX) {
            let Some(path_and_query) = resolve(scheme, authority, target.path(), reference) else {
                continue;
            };
            text.clear();
            let path = path_and_query.split(|byte| *byte == b'?').next().unwrap_or_default();
            uri_text(components_of(path), scheme, authority, &path_and_query, &mut text);
            take(&text);
        }
    }
}

/// Path and query of a URI reference (RFC 3986 section 5.2) against a base; `None` when it leads
/// to another origin.
pub(crate) fn resolve(
    scheme: Scheme,
    authority: &[u8],
    base: &[u8],
    reference: &[u8],
) -> Option<Vec<u8>> {
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
            let same = without_default_port(scheme, theirs)
                .eq_ignore_ascii_case(without_default_port(scheme, authority));
            same.then_some(())?;
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

/// Whether a path is in truth a URI of another kind, such as `mailto:x`.
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

/// Lines of Location, and of Content-Location, that are looked at.
const LOCATIONS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::fields;
    use proptest::prelude::*;

    fn resolved(reference: &str) -> Option<String> {
        resolve(Scheme::Http, b"a.example", b"/dir/page", reference.as_bytes())
            .map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn unsafe_methods_that_succeed_invalidate() {
        for method in [Method::Post, Method::Put, Method::Delete, Method::Patch, Method::Other] {
            assert!(invalidates(method, Status(200)) && invalidates(method, Status(303)));
            assert!(!invalidates(method, Status(404)) && !invalidates(method, Status(500)));
        }
        for method in [Method::Get, Method::Head, Method::Options, Method::Trace] {
            assert!(!invalidates(method, Status(200)));
        }
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

    #[test]
    fn the_target_and_its_locations_are_named() {
        let target = Target::parse(Method::Post, b"/dir/form?x").unwrap();
        let response = fields(&[
            ("Location", "done"),
            ("Content-Location", "http://a.example/dir/now"),
            ("Content-Location", "http://b.example/dir/now"),
        ]);
        let mut texts = Vec::new();
        let components = KeyComponents::default();
        for_each_key_text(
            Scheme::Http,
            b"A.example:80",
            &target,
            &response,
            |_| &components,
            |text| {
                texts.push(String::from_utf8(text.to_vec()).unwrap());
            },
        );
        let expected = ["/dir/form?x", "/dir/done", "/dir/now"];
        assert_eq!(texts, expected.map(|path| format!("GET http://a.example{path}")));
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
