//! Invalidation by unsafe requests, RFC 9111 section 4.4.

use std::iter;

use crate::http::fields::Fields;
use crate::http::method::Method;
use crate::http::reference;
use crate::http::scheme::Scheme;
use crate::http::status::Status;
use crate::http::target::Target;

/// Whether a response with this status to this method makes stored responses invalid: the method is
/// unsafe, or not known to be safe, and it succeeded (2xx or 3xx).
pub(crate) const fn invalidates(method: Method, status: Status) -> bool {
    !method.is_safe() && status.0 >= 200 && status.0 < 400
}

/// The paths and queries of the URIs that such a response makes invalid: the target, and the URIs in
/// Location and Content-Location with the same scheme, host and port. A response cannot invalidate
/// what another origin has (RFC 9111 section 4.4). One may occur twice.
pub(crate) fn targets(
    scheme: Scheme,
    authority: &[u8],
    target: &Target,
    response: &Fields,
) -> impl Iterator<Item = Vec<u8>> {
    let locations = ["location", "content-location"]
        .into_iter()
        .flat_map(|name| response.get_all(name).take(LOCATIONS_MAX))
        .filter_map(move |it| reference::resolve(scheme, authority, target.path(), it));
    iter::once(target.path_and_query().to_vec()).chain(locations)
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
        let targets = targets(Scheme::Http, b"A.example:80", &target, &response);
        let targets: Vec<_> = targets.map(|text| String::from_utf8(text).unwrap()).collect();
        assert_eq!(targets, ["/dir/form?x", "/dir/done", "/dir/now"]);
    }
}
