//! The request of a fill to the origin. It has nothing of one client that could change the response
//! and is not in the key.

use crate::base::chars;
use crate::http::fields::Fields;
use crate::http::forward::{self, Peer};
use crate::http::head::{BodyLength, RequestHead};
use crate::http::range::Spec;
use crate::policy::key::components::KeyComponents;
use crate::policy::rfc9111::revalidate;

/// The fields of a request for the whole response.
pub fn fill_fields(request: &RequestHead, peer: &Peer<'_>, key: &KeyComponents) -> Fields {
    let mut fields = forward::request_fields(request, peer, BodyLength::None);
    revalidate::ask_for_whole(&mut fields);
    fields.retain(|name, _| !is_unkeyed(name, key));
    if !is_chosen(b"forwarded", key) {
        forward::forget_claims(&mut fields);
    }
    fields
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

/// Whether a field selects a variant of the key.
fn is_chosen(name: &[u8], key: &KeyComponents) -> bool {
    key.chosen.as_ref().is_some_and(|chosen| chosen.contains(name))
}

/// Whether a request, if it is forwarded as it is, has something that could change the response and
/// is not in the key.
pub fn has_unkeyed(request: &RequestHead, key: &KeyComponents) -> bool {
    let target = request.target.path_and_query();
    request.fields.iter().any(|(name, _)| is_unkeyed(name, key))
        || (forward::has_claims(&request.fields) && !is_chosen(b"forwarded", key))
        || *key.origin_target(target) != *target
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::key::vary::VaryNames;

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
}
