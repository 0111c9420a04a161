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

/// The values of all cookies with this name, in their order: one server takes the first, another the
/// last. `None` stands for a pair that is only the name, which some servers take for an empty value.
/// Names are case-sensitive.
pub fn values<'r>(request: &'r Fields, name: &'r [u8]) -> impl Iterator<Item = Option<&'r [u8]>> {
    pairs(request).filter_map(move |(own, value)| match own.is_empty() {
        true => (value == name).then_some(None),
        false => (own == name).then_some(Some(value)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(lines: &[&str]) -> Fields {
        lines.iter().map(|line| ("Cookie", *line)).collect()
    }

    #[test]
    fn all_cookies_of_a_name_are_found() {
        let request = request(&["a=1; b = 2 ;c", "a=3; d=x=y; e=; c=4"]);
        let found = |name: &str| {
            let values = values(&request, name.as_bytes());
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
            values.map(|value| value.map_or("-".to_owned(), text)).collect::<Vec<_>>().join(" ")
        };
        for (name, expected) in
            [("a", "1 3"), ("b", "2"), ("d", "x=y"), ("e", ""), ("c", "- 4"), ("A", ""), ("2", "")]
        {
            assert_eq!(found(name), expected, "{name}");
        }
        assert_eq!(values(&request, b"e").count(), 1);
        assert_eq!(values(&request, b"A").count(), 0);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "[a-c=; \t]{0,24}") {
            let request = request(&[&line]);
            prop_assert!(pairs(&request).count() >= 1);
        }
    }
}
