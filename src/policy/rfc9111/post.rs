//! Answers to POST that a later GET may have, RFC 9110 section 9.3.3.

use crate::http::fields::Fields;
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::method::Method;
use crate::http::status::Status;
use crate::policy::rfc9111::control::ResponseControl;
use crate::policy::rfc9111::invalidate::resolve;
use crate::policy::rfc9111::rules::Rules;

/// Whether the answer to this POST is what a GET of the same URI would have: a 200 whose
/// Content-Location is the target itself (RFC 9110 section 8.7), and whose lifetime the origin
/// states. Whether it may be stored at all is asked of [`crate::policy::rfc9111::keep::judge`], with
/// [`Method::Get`], as of any other.
pub fn answers_get(
    scheme: &[u8],
    request: &RequestHead,
    response: &ResponseHead,
    rules: &Rules,
) -> bool {
    request.method == Method::Post
        && response.status == Status(200)
        && has_explicit_lifetime(&rules.heeded(&response.fields))
        && locates_target(scheme, request, &response.fields)
}

/// RFC 9111 section 4.2.1, without the heuristic.
fn has_explicit_lifetime(response: &Fields) -> bool {
    let control = ResponseControl::of(response);
    control.max_age.is_some() || control.s_maxage.is_some() || response.contains("expires")
}

/// Exactly one Content-Location, which leads to the target's own path and query.
fn locates_target(scheme: &[u8], request: &RequestHead, response: &Fields) -> bool {
    let mut locations = response.get_all("content-location");
    let (Some(location), None) = (locations.next(), locations.next()) else { return false };
    let found = resolve(scheme, request.authority(), request.target.path(), location);
    // A relative reference without a path and a query keeps the query of its base (RFC 3986
    // section 5.2.2), which was given without.
    let target = request.target.path_and_query();
    found.is_some_and(|found| found == target || location.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::{request, response};

    fn answers(method: &str, status: u16, list: &[(&str, &str)]) -> bool {
        answers_get(b"http", &request(method, &[]), &response(status, list), &Rules::default())
    }

    #[test]
    fn only_what_is_said_to_be_the_target_answers_for_it() {
        let fresh = ("cache-control", "max-age=60");
        let cases = [
            ("/x", true),
            ("x", true),
            ("", true),
            ("http://a.example/x", true),
            ("//A.Example:80/x", true),
            ("/x?", false),
            ("/x?y", false),
            ("/y", false),
            ("https://a.example/x", false),
            ("http://b.example/x", false),
        ];
        for (location, expected) in cases {
            let found = answers("POST", 200, &[fresh, ("Content-Location", location)]);
            assert_eq!(found, expected, "{location:?}");
        }
        let here = ("content-location", "/x");
        assert!(!answers("POST", 200, &[fresh]));
        assert!(!answers("POST", 200, &[fresh, here, here]), "one that is doubled says nothing");
        assert!(!answers("PUT", 200, &[fresh, here]));
        assert!(!answers("POST", 201, &[fresh, here]));
        assert!(!answers("POST", 303, &[fresh, here]));
    }

    #[test]
    fn its_lifetime_must_be_stated() {
        let here = ("content-location", "/x");
        let cases = [
            (("cache-control", "max-age=60"), true),
            (("cache-control", "s-maxage=60"), true),
            (("expires", "Fri, 01 Jan 2038 01:01:01 GMT"), true),
            (("cache-control", "public"), false),
            (("last-modified", "Fri, 01 Jan 2010 01:01:01 GMT"), false),
        ];
        for (field, expected) in cases {
            assert_eq!(answers("POST", 200, &[here, field]), expected, "{field:?}");
        }
    }
}
