//! The Cookie field of a request, RFC 6265 section 4.2, as far as rules need it.

use crate::base::chars::trim_ows;
use crate::http::fields::Fields;

/// The cookies of a request, name and value as sent. Servers that accept a pair without an equals
/// sign take it as a value without a name.
pub fn pairs(request: &Fields) -> impl Iterator<Item = (&[u8], &[u8])> {
    request.get_all("cookie").flat_map(|line| line.split(|byte| *byte == b';')).map(|pair| {
        let pair = trim_ows(pair);
        match memchr::memchr(b'=', pair).and_then(|at| pair.split_at_checked(at)) {
            Some((name, value)) => (trim_ows(name), trim_ows(value.get(1..).unwrap_or_default())),
            None => (&b""[..], pair),
        }
    })
}

/// The value of the first cookie with this name, which is the one most servers take. Names are
/// case-sensitive.
pub fn value<'r>(request: &'r Fields, name: &[u8]) -> Option<&'r [u8]> {
    pairs(request).find(|(own, _)| *own == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(lines: &[&str]) -> Fields {
        lines.iter().map(|line| ("Cookie", *line)).collect()
    }

    #[test]
    fn a_cookie_is_found_by_its_name() {
        let request = request(&["a=1; b = 2 ;c", "a=3; d=x=y; e="]);
        let found = |name: &str| value(&request, name.as_bytes()).map(<[u8]>::to_vec);
        for (name, expected) in
            [("a", Some("1")), ("b", Some("2")), ("d", Some("x=y")), ("e", Some("")), ("c", None)]
        {
            assert_eq!(found(name), expected.map(|text| text.as_bytes().to_vec()), "{name}");
        }
        assert_eq!(found("A"), None);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "[a-c=; \t]{0,24}") {
            let request = request(&[&line]);
            prop_assert!(pairs(&request).count() >= 1);
        }
    }
}
