//! Invalidation by unsafe requests, RFC 9111 section 4.4.

use std::iter;

use crate::http::fields::Fields;
use crate::http::method::Method;
use crate::http::reference;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::http::target::Target;
use crate::policy::key::{KeyComponents, key_text};

/// Whether a response with this status to this method makes stored responses invalid: the method is
/// unsafe, or not known to be safe, and it succeeded (2xx or 3xx).
pub(crate) const fn invalidates(method: Method, status: Status) -> bool {
    !method.is_safe() && status.0 >= 200 && status.0 < 400
}

/// The primary key texts of the URIs that such a response makes invalid: the target, and the URIs
/// in Location and Content-Location with the same scheme, host and port, each for every route that may
/// take it. A response cannot
/// invalidate what another origin has (RFC 9111 section 4.4). A text may occur twice.
/// `components_of` gives the components of the keys of a path, by each of its routes.
pub(crate) fn key_texts<'p, I: IntoIterator<Item = &'p KeyComponents>>(
    scheme: Scheme,
    authority: &[u8],
    target: &Target,
    response: &Fields,
    components_of: impl Fn(&[u8]) -> I,
) -> impl Iterator<Item = Vec<u8>> {
    let locations = ["location", "content-location"]
        .into_iter()
        .flat_map(|name| response.get_all(name).take(LOCATIONS_MAX))
        .filter_map(move |it| reference::resolve(scheme, authority, target.path(), it));
    let urls = iter::once(target.path_and_query().to_vec()).chain(locations);
    urls.flat_map(move |path_and_query| {
        let path = path_and_query.split(|byte| *byte == b'?').next().unwrap_or_default();
        let texts = components_of(path).into_iter().map(|components| {
            let mut text = Vec::new();
            key_text(components, scheme, authority, &path_and_query, &mut text);
            text
        });
        texts.collect::<Vec<_>>()
    })
}

/// Most lines of Location, and of Content-Location, that are read.
const LOCATIONS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::fields;

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
    fn the_target_and_its_locations_are_named() {
        let target = Target::parse(Method::Post, b"/dir/form?x").unwrap();
        let response = fields(&[
            ("Location", "done"),
            ("Content-Location", "http://a.example/dir/now"),
            ("Content-Location", "http://b.example/dir/now"),
        ]);
        let components = KeyComponents::default();
        let texts = key_texts(Scheme::Http, b"A.example:80", &target, &response, |_| [&components]);
        let texts: Vec<_> = texts.map(|text| String::from_utf8(text).unwrap()).collect();
        let expected = ["/dir/form?x", "/dir/done", "/dir/now"];
        assert_eq!(texts, expected.map(|path| format!("GET http://a.example{path}")));
    }
}
