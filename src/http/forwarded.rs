//! The client, scheme and host of a request as the proxies before this one say, in
//! `X-Forwarded-For`, `-Proto` and `-Host`, or else in `Forwarded` (RFC 7239).
//!
//! Only a proxy that the operator trusts is believed, so the caller asks this for no other peer.

use std::net::IpAddr;

use crate::base::chars;
use crate::http::fields::Fields;
use crate::http::scheme::Scheme;

/// The address of the client, by a chain of proxies of which the last one is the peer: the rightmost
/// address that is not trusted, or the leftmost of all. A member that is no address ends the chain.
pub fn client(
    fields: &Fields,
    peer: Option<IpAddr>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut members: Vec<Vec<u8>> = match fields.contains("x-forwarded-for") {
        true => fields.list("x-forwarded-for").map(<[u8]>::to_vec).collect(),
        false => fields.list("forwarded").map(|it| pair(it, b"for").unwrap_or_default()).collect(),
    };
    let mut client = peer;
    while let Some(address) = members.pop().and_then(|member| address(&member)) {
        client = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    client
}

/// The scheme that the client used.
pub fn scheme(fields: &Fields) -> Option<Scheme> {
    let said = last(fields, "x-forwarded-proto", b"proto")?;
    Scheme::parse(&said)
}

/// The host with its port that the client asked for.
pub fn host(fields: &Fields) -> Option<Vec<u8>> {
    last(fields, "x-forwarded-host", b"host").filter(|host| !host.is_empty())
}

/// The last member of a field, or else the pair in the last element of `Forwarded`: what the nearest
/// proxy says. A proxy that writes `X-Forwarded-For` may pass on the `Forwarded` of its client.
fn last(fields: &Fields, name: &str, pair_name: &[u8]) -> Option<Vec<u8>> {
    match fields.list(name).last() {
        Some(said) => Some(said.to_vec()),
        None if fields.contains("x-forwarded-for") => None,
        None => pair(fields.list("forwarded").last()?, pair_name),
    }
}

/// The value of a pair of an element of `Forwarded`, unquoted.
fn pair(element: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let mut pairs = element.split(|&byte| {
        let is_end = byte == b';' && !is_quoted;
        is_quoted ^= byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && is_quoted && !is_escaped;
        is_end
    });
    let value = pairs.find_map(|pair| {
        let pair = chars::trim_ows(pair);
        let (own, value) = pair.split_at_checked(memchr::memchr(b'=', pair)?)?;
        chars::eq_ignore_case(own, name).then(|| value.get(1..)).flatten()
    })?;
    let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    let Some(bare) = bare else { return Some(value.to_vec()) };
    let mut out = Vec::with_capacity(bare.len());
    let mut rest = bare.iter();
    while let Some(byte) = rest.next() {
        out.extend(if *byte == b'\\' { rest.next() } else { Some(byte) });
    }
    Some(out)
}

/// An address, perhaps in brackets or with a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(chars::trim_ows(text)).ok()?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => text.rsplit_once(':')?.0,
    };
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(list: &[(&str, &str)]) -> Fields {
        list.iter().copied().collect()
    }

    fn found(list: &[(&str, &str)]) -> String {
        let is_trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let client = client(&of(list), "10.0.0.1".parse().ok(), is_trusted);
        client.map(|it| it.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_counts() {
        for (list, expected) in [
            (&[][..], "10.0.0.1"),
            (&[("X-Forwarded-For", "1.1.1.1")], "1.1.1.1"),
            (&[("X-Forwarded-For", "6.6.6.6, 1.1.1.1, 10.0.0.2")], "1.1.1.1"),
            (&[("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "1.1.1.1,10.0.0.2")], "1.1.1.1"),
            (&[("X-Forwarded-For", "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            (&[("X-Forwarded-For", "6.6.6.6, evil, 10.0.0.2")], "10.0.0.2"),
            (&[("X-Forwarded-For", "1.1.1.1:80")], "1.1.1.1"),
            (&[("X-Forwarded-For", "[2001:db8::1]:80")], "2001:db8::1"),
            (&[("X-Forwarded-For", "1.1.1.1"), ("Forwarded", "for=6.6.6.6")], "1.1.1.1"),
            (&[("Forwarded", "for=6.6.6.6, For=\"[2001:db8::1]:4\";proto=https")], "2001:db8::1"),
            (&[("Forwarded", "for=6.6.6.6, for=unknown")], "10.0.0.1"),
        ] {
            assert_eq!(found(list), expected, "{list:?}");
        }
    }

    #[test]
    fn the_nearest_proxy_says_scheme_and_host() {
        let fields = of(&[("X-Forwarded-Proto", "http, https"), ("X-Forwarded-Host", "a, b:81")]);
        assert_eq!((scheme(&fields), host(&fields)), (Some(Scheme::Https), Some(b"b:81".to_vec())));
        let fields = of(&[("Forwarded", "proto=http, for=a;PROTO=https;host=\"a\\b;c\"")]);
        let expected = (Some(Scheme::Https), Some(b"ab;c".to_vec()));
        assert_eq!((scheme(&fields), host(&fields)), expected);
        let fields = of(&[("Forwarded", "proto=https;host=c"), ("X-Forwarded-For", "1.1.1.1")]);
        assert_eq!((scheme(&fields), host(&fields)), (None, None));
        let fields = of(&[("X-Forwarded-Proto", "ws")]);
        assert_eq!((scheme(&fields), host(&fields)), (None, None));
    }

    proptest! {
        #[test]
        fn no_field_panics(value in "[ -~]{0,40}") {
            let fields = of(&[("Forwarded", &value), ("X-Forwarded-For", &value)]);
            let _ = (client(&fields, None, |_| true), scheme(&fields), host(&fields));
            let fields = of(&[("Forwarded", &value)]);
            let _ = (client(&fields, None, |_| true), scheme(&fields), host(&fields));
        }
    }
}
