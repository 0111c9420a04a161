//! The request of a fill to the origin: for the whole response, a part of it, or on condition that it
//! has changed (RFC 9111 section 4.3.1). It has nothing of one client that could change the response
//! and is not in the key.

use crate::base::chars::{self, eq_ignore_case};
use crate::http::fields::Fields;
use crate::http::forward::{self, Peer};
use crate::http::head::{BodyLength, RequestHead};
use crate::http::method::Method;
use crate::http::range::Spec;
use crate::http::validator::EntityTag;
use crate::policy::key::KeyComponents;
use crate::policy::rfc9111::freshness::last_modified_s;

/// The fields of a request for the whole response.
pub fn fill_fields(request: &RequestHead, peer: &Peer<'_>, key: &KeyComponents) -> Fields {
    let mut fields = forward::request_fields(request, peer, BodyLength::None);
    ask_for_whole(&mut fields);
    fields.retain(|name, _| !is_unkeyed(name, key));
    if !is_chosen(b"forwarded", key) {
        forward::forget_claims(&mut fields);
    }
    fields
}

/// Makes a fetch ask for the whole response, without the ranges and conditions of the client: the
/// fetched response answers them (RFC 9111 section 4.3.1).
pub(crate) fn ask_for_whole(fetch: &mut Fields) {
    fetch.retain(|name, _| !is_condition(name));
}

/// Makes a fetch conditional (RFC 9111 section 4.3.1), without the conditions of the client:
/// If-None-Match with the ETag of the stored response and the tags of `others`, which are other
/// variants; If-Modified-Since with the stored Last-Modified. False without any validator: then the
/// fetch asks for the whole response.
pub(crate) fn condition(fetch: &mut Fields, stored: Option<&Fields>, others: &[&[u8]]) -> bool {
    ask_for_whole(fetch);
    let own = stored.filter(|stored| EntityTag::of(stored).is_some());
    let own = own.and_then(|stored| stored.get("etag"));
    let mut tags = own.unwrap_or_default().to_vec();
    for tag in others.iter().filter(|tag| own != Some(**tag)) {
        if !tags.is_empty() {
            tags.extend_from_slice(b", ");
        }
        tags.extend_from_slice(tag);
    }
    if !tags.is_empty() {
        fetch.push(b"If-None-Match", &tags);
    }
    let dated = stored.filter(|stored| last_modified_s(stored).is_some());
    let date = dated.and_then(|stored| stored.get("last-modified"));
    if let Some(date) = date {
        fetch.push(b"If-Modified-Since", date);
    }
    !tags.is_empty() || date.is_some()
}

/// Makes a fetch ask for a range, if the representation still has this validator.
pub fn ask_for_part(fields: &mut Fields, spec: Spec, if_range: Option<&[u8]>) {
    fields.push(b"Range", spec.text().as_bytes());
    if let Some(validator) = if_range {
        fields.push(b"If-Range", validator);
    }
}

/// Whether some origins make responses from this request field though it is not in the key, or not
/// in this spelling: CGI does not distinguish `X_Real_IP` from `X-Real-IP`. A response that is
/// stored for all clients must not depend on the field of one.
fn is_unkeyed(name: &[u8], key: &KeyComponents) -> bool {
    UNKEYED.iter().any(|other| chars::eq_as_variable(name, other.as_bytes()))
        && !is_chosen(name, key)
}

/// Fields of proxies for the host, scheme, port, path, method and client of a request, without
/// those that ktrix writes itself ([`forward::request_fields`]).
const UNKEYED: [&str; 48] = [
    "x-forwarded", "x-forwarded-base-url", "x-forwarded-by", "x-forwarded-client-ip",
    "x-forwarded-context", "x-forwarded-https", "x-forwarded-method", "x-forwarded-path",
    "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-protocol", "x-forwarded-scheme",
    "x-forwarded-server", "x-forwarded-ssl", "x-forwarded-uri", "x-forwarded-url", "forwarded-for",
    "x-host", "x-http-host-override", "x-original-host", "x-envoy-original-host", "x-scheme",
    "x-proto", "x-https", "x-url-scheme", "x-original-scheme", "x-original-proto",
    "front-end-https", "cloudfront-forwarded-proto", "x-original-url", "x-original-uri",
    "x-rewrite-url", "x-script-name", "x-envoy-original-path", "x-http-method",
    "x-http-method-override", "x-method-override", "x-original-method", "x-real-ip", "x-client-ip",
    "client-ip", "true-client-ip", "x-cluster-client-ip", "x-original-forwarded-for",
    "x-originating-ip", "x-remote-addr", "x-remote-ip", "cf-connecting-ip",
];

/// Whether a field selects a variant of the key, or the operator sets it.
fn is_chosen(name: &[u8], key: &KeyComponents) -> bool {
    key.chosen.as_ref().is_some_and(|chosen| chosen.contains(name))
        || key.set_fields.iter().any(|own| eq_ignore_case(name, own.as_bytes()))
}

/// Whether a request, if it is forwarded as it is, has something that could change the response and
/// is not in the key.
pub fn has_unkeyed(request: &RequestHead, key: &KeyComponents) -> bool {
    let target = request.target.path_and_query();
    request.fields.iter().any(|(name, _)| is_unkeyed(name, key))
        || (forward::has_claims(&request.fields) && !is_chosen(b"forwarded", key))
        || *key.origin_target(target) != *target
}

/// Whether the answer to this HEAD tells what a GET would get (RFC 9111 section 4.3.5): the origin
/// evaluates neither content nor a condition of the client.
pub(crate) fn is_as_get(request: &RequestHead) -> bool {
    request.method == Method::Head
        && matches!(request.length, BodyLength::None | BodyLength::Known(0))
        && !has_condition(request)
}

/// Whether a request has a condition, or asks for a range.
pub(crate) fn has_condition(request: &RequestHead) -> bool {
    request.fields.iter().any(|(name, _)| is_condition(name))
}

fn is_condition(name: &[u8]) -> bool {
    CONDITIONS.iter().any(|field| eq_ignore_case(name, field))
}

/// Request fields for ranges and conditions (RFC 9110 sections 13.1 and 14.2).
const CONDITIONS: [&[u8]; 6] = [
    b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range",
    b"range",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::key::vary::VaryNames;
    use crate::policy::sample::{NOW_S, date_text, fields, request};

    #[test]
    fn a_field_is_unkeyed_in_every_spelling_that_makes_one_variable() {
        let key = KeyComponents::default();
        for name in ["X-Original-URL", "X_Original_URL", "x_script-name", "TRUE_CLIENT_IP"] {
            assert!(is_unkeyed(name.as_bytes(), &key), "{name}");
        }
        for name in ["Accept", "X-Original-URLs", "X-Forwarded-For", "Accept_Language"] {
            assert!(!is_unkeyed(name.as_bytes(), &key), "{name}");
        }
    }

    #[test]
    fn a_field_is_in_the_key_by_its_own_name_only() {
        let chosen = VaryNames::chosen(["x-real-ip"].into_iter(), std::iter::empty());
        let key = KeyComponents { chosen, ..KeyComponents::default() };
        assert!(!is_unkeyed(b"X-Real-IP", &key));
        assert!(is_unkeyed(b"X_Real_IP", &key), "its value is not in the key");
    }

    #[test]
    fn a_fetch_has_the_stored_validators_and_no_condition_of_the_client() {
        let date = date_text(NOW_S);
        let client = fields(&[
            ("Host", "h"),
            ("If-None-Match", "\"old\""),
            ("if-modified-since", "x"),
            ("If-Range", "\"old\""),
            ("Range", "bytes=0-1"),
            ("If-Match", "*"),
            ("If-Unmodified-Since", "x"),
            ("X", "y"),
        ]);
        let ask = |stored: &[(&str, &str)]| {
            let mut fetch = client.clone();
            let is_conditional = condition(&mut fetch, Some(&fields(stored)), &[]);
            (fetch, is_conditional)
        };
        let plain = [("Host", "h"), ("X", "y")];
        assert_eq!(ask(&[]), (fields(&plain), false));
        assert_eq!(ask(&[("etag", ""), ("last-modified", "x")]), (fields(&plain), false));
        let both = [plain[0], plain[1], ("If-None-Match", "W/\"a\""), ("If-Modified-Since", &date)];
        assert_eq!(ask(&[("ETag", "W/\"a\""), ("Last-Modified", &date)]), (fields(&both), true));
        assert_eq!(ask(&[("etag", "W/\"a\"")]), (fields(&both[..3]), true));
        let mut fetch = fields(&[]);
        let others: [&[u8]; 2] = [b"\"b\"", b"\"a\""];
        assert!(condition(&mut fetch, Some(&fields(&[("etag", "\"a\"")])), &others));
        assert_eq!(fetch.get("if-none-match"), Some(&b"\"a\", \"b\""[..]));
        assert!(condition(&mut fetch, None, &others));
        assert_eq!(fetch.get("if-none-match"), Some(&b"\"b\", \"a\""[..]));
    }

    #[test]
    fn a_head_with_content_or_a_condition_is_not_as_a_get() {
        let head = |list: &[(&str, &str)]| request("HEAD", list);
        assert!(is_as_get(&head(&[("accept", "*/*")])));
        assert!(!is_as_get(&request("GET", &[])));
        for name in ["If-Match", "If-None-Match", "If-Modified-Since", "if-range", "Range"] {
            assert!(!is_as_get(&head(&[(name, "x")])), "{name}");
        }
        for (length, expected) in [
            (BodyLength::Known(0), true),
            (BodyLength::Known(1), false),
            (BodyLength::Chunked, false),
        ] {
            let mut head = head(&[]);
            head.length = length;
            assert_eq!(is_as_get(&head), expected, "{length:?}");
        }
    }
}
