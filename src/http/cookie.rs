//! The Cookie field of a request, RFC 6265 section 4.2, as far as rules need it.

use crate::base::chars::{eq_ignore_case, trim_ows};
use crate::http::fields::Fields;

/// The cookies of a request, name and value as sent. Servers that accept a pair without an equals
/// sign take it as a value without a name.
pub fn pairs(request: &Fields) -> impl Iterator<Item = (&[u8], &[u8])> {
    request.get_all("cookie").flat_map(|line| line.split(|byte| *byte == b';')).map(pair)
}

fn pair(text: &[u8]) -> (&[u8], &[u8]) {
    let text = trim_ows(text);
    match memchr::memchr(b'=', text).and_then(|at| text.split_at_checked(at)) {
        Some((name, value)) => (trim_ows(name), trim_ows(value.get(1..).unwrap_or_default())),
        None => (&b""[..], text),
    }
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

/// Takes all cookies of this name out of a request, and gives the value of the first.
pub fn take(request: &mut Fields, name: &[u8]) -> Option<Vec<u8>> {
    let first = values(request, name).next()?.unwrap_or_default().to_vec();
    let mut rest = Fields::with_capacity(request.len(), request.wire_len());
    for (field, line) in request.iter() {
        if !eq_ignore_case(field, b"cookie") {
            rest.push(field, line);
            continue;
        }
        let is_other = |text: &&[u8]| match pair(text) {
            (b"", value) => value != name,
            (own, _) => own != name,
        };
        let pairs = line.split(|byte| *byte == b';').map(trim_ows).filter(is_other);
        let others = pairs.collect::<Vec<_>>().join(&b"; "[..]);
        if !others.is_empty() {
            rest.push(field, &others);
        }
    }
    *request = rest;
    Some(first)
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

    #[test]
    fn a_cookie_is_taken_out() {
        for (lines, value, rest) in [
            (&["a=1"][..], Some("1"), &[][..]),
            (&["b=2; a=1 ;c=3"], Some("1"), &["b=2; c=3"]),
            (&["a=1; a=2", "b=3", "a=4"], Some("1"), &["b=3"]),
            (&["a ; b=1"], Some(""), &["b=1"]),
            (&["A=1; b=a=1;"], None, &["A=1; b=a=1;"]),
            (&[], None, &[]),
        ] {
            let mut fields = request(lines);
            fields.push(b"X", b"a=1");
            let taken = take(&mut fields, b"a");
            assert_eq!(taken.as_deref(), value.map(str::as_bytes), "{lines:?}");
            let left: Vec<_> = fields.get_all("cookie").map(String::from_utf8_lossy).collect();
            assert_eq!(
                (&left[..], fields.get("x")),
                (&rest.iter().map(|it| (*it).into()).collect::<Vec<_>>()[..], Some(&b"a=1"[..]))
            );
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "[a-c=; \t]{0,24}") {
            let mut request = request(&[&line]);
            prop_assert!(pairs(&request).count() >= 1);
            take(&mut request, b"a");
            prop_assert_eq!(values(&request, b"a").count(), 0);
        }
    }
}
