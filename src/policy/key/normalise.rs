//! The normal form of field values, so that requests with the same meaning select one variant.
//!
//! The lines of any field are joined by a comma and a space (RFC 9110 section 5.3), and nothing else
//! is changed: RFC 9111 section 4.1 lets a cache change white space, empty members, case or order
//! only if the field's definition says that they have no meaning. That is so for the fields of
//! proactive negotiation (RFC 9110 section 12.5). They lose the empty members and the white space
//! around commas, and get one case and one order, by weight and then by name. Languages of one
//! weight stay in their order, since an origin may take the first for the preferred one (section
//! 12.5.4). A malformed list keeps its order.

use std::cmp::Ordering;

use crate::base::chars::{eq_ignore_case, trim_ows};
use crate::http::list::members;

/// Appends the normal form of the field `name` (lower-case) with these lines to `out`, without any
/// other allocation.
pub fn normalise<'a>(name: &str, lines: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    let negotiation = match name {
        "accept" => Negotiation::Media,
        "accept-language" => Negotiation::Languages,
        "accept-encoding" | "accept-charset" => Negotiation::Names,
        _ => return push_joined(lines, b", ", out),
    };
    let start = out.len();
    push_joined(lines.flat_map(members), b",", out);
    let mut sorted = Sorted::new(negotiation);
    let list = out.get(start..).unwrap_or_default();
    let is_sound = members(list).all(|member| {
        Weighted::parse(member, negotiation).is_some_and(|weighted| sorted.insert(weighted))
    });
    if is_sound {
        // The members are slices of `out`, so the normal form is written elsewhere first.
        let mut form = [0; FORM_BYTES_MAX];
        if let Some(len) = sorted.write(&mut form) {
            out.truncate(start);
            out.extend_from_slice(form.get(..len).unwrap_or_default());
        }
    }
}

/// The syntax of a negotiation field, and the meaning of its order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Negotiation {
    /// Accept: media ranges with parameters, whose values keep their case.
    Media,
    /// Accept-Encoding, Accept-Charset: names with at most a weight.
    Names,
    /// Accept-Language: names with at most a weight, whose order may count.
    Languages,
}

/// One member of a field of negotiation.
#[derive(Clone, Copy)]
struct Weighted<'a> {
    /// The media range, coding or language range, in any case.
    name: &'a [u8],
    /// The media type's parameters as sent, without the first `;`.
    parameters: &'a [u8],
    /// The weight in thousandths (RFC 9110 section 12.4.2).
    weight: u16,
}

impl<'a> Weighted<'a> {
    /// Reads `name *( ";" parameter ) [ ";" "q=" weight ]`; anything else is `None`.
    fn parse(member: &'a [u8], negotiation: Negotiation) -> Option<Self> {
        if memchr::memchr(b'"', member).is_some() {
            return None;
        }
        let (name, rest) = match memchr::memchr(b';', member) {
            Some(at) => (member.get(..at)?, member.get(at + 1..)?),
            None => (member, &[][..]),
        };
        let name = trim_ows(name);
        let (parameters, last) = match memchr::memrchr(b';', rest) {
            Some(at) => (rest.get(..at)?, rest.get(at + 1..)?),
            None => (&[][..], rest),
        };
        let last = trim_ows(last);
        let (parameters, weight) = match last {
            [] if rest.is_empty() => (parameters, 1000),
            [b'q' | b'Q', b'=', weight @ ..] => (parameters, thousandths(weight)?),
            _ => (rest, 1000),
        };
        let parameters = trim_ows(parameters);
        // A weight before the last parameter has extensions after it, or is one of two.
        let is_weight = |text: &[u8]| matches!(trim_ows(text), [b'q' | b'Q', b'=', ..]);
        let is_sound = match negotiation {
            Negotiation::Media => !parameters.split(|&byte| byte == b';').any(is_weight),
            Negotiation::Names | Negotiation::Languages => parameters.is_empty(),
        };
        let is_sound = is_sound && !name.is_empty();
        is_sound.then_some(Self { name, parameters, weight })
    }

    /// Heaviest first, then by name and parameters; languages of one weight are equal.
    fn order(&self, other: &Self, negotiation: Negotiation) -> Ordering {
        let lower = |text: &'a [u8]| text.iter().map(u8::to_ascii_lowercase);
        let by_weight = other.weight.cmp(&self.weight);
        if negotiation == Negotiation::Languages {
            return by_weight;
        }
        by_weight
            .then_with(|| lower(self.name).cmp(lower(other.name)))
            .then_with(|| self.parameters.cmp(other.parameters))
    }

    fn is_same(&self, other: &Self) -> bool {
        self.weight == other.weight
            && eq_ignore_case(self.name, other.name)
            && self.parameters == other.parameters
    }
}

/// The members in order, each once.
struct Sorted<'a> {
    negotiation: Negotiation,
    members: [Weighted<'a>; MEMBERS_MAX],
    n_members: usize,
}

impl<'a> Sorted<'a> {
    fn new(negotiation: Negotiation) -> Self {
        let nothing = Weighted { name: &[], parameters: &[], weight: 0 };
        Self { negotiation, members: [nothing; MEMBERS_MAX], n_members: 0 }
    }

    /// False when there is no room.
    fn insert(&mut self, member: Weighted<'a>) -> bool {
        let sorted = self.members.get(..self.n_members).unwrap_or_default();
        if sorted.iter().any(|same| same.is_same(&member)) {
            return true;
        }
        let at = sorted
            .partition_point(|other| other.order(&member, self.negotiation) != Ordering::Greater);
        let Some(tail) = self.members.get_mut(at..=self.n_members) else {
            return false;
        };
        tail.rotate_right(1);
        if let Some(first) = tail.first_mut() {
            *first = member;
        }
        self.n_members += 1;
        true
    }

    /// Writes the members to `room` and gives their length; `None` when they do not fit.
    fn write(&self, room: &mut [u8]) -> Option<usize> {
        let mut len = 0;
        let mut push = |bytes: &[u8], lower: bool| {
            let place = room.get_mut(len..len + bytes.len())?;
            place.copy_from_slice(bytes);
            if lower {
                place.make_ascii_lowercase();
            }
            len += bytes.len();
            Some(())
        };
        for (at, member) in self.members.get(..self.n_members)?.iter().enumerate() {
            if at > 0 {
                push(b",", false)?;
            }
            push(member.name, true)?;
            if !member.parameters.is_empty() {
                push(b";", false)?;
                push(member.parameters, false)?;
            }
            if member.weight < 1000 {
                let digit = |unit: u16| b'0' + (member.weight / unit % 10) as u8;
                push(&[b';', b'q', b'=', b'0', b'.', digit(100), digit(10), digit(1)], false)?;
            }
        }
        Some(len)
    }
}

/// A weight in thousandths, RFC 9110 section 12.4.2: `0` to `1` with at most three digits after
/// the point.
fn thousandths(text: &[u8]) -> Option<u16> {
    let (&whole, rest) = text.split_first()?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut value = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    for (digit, unit) in digits.iter().zip([100, 10, 1]) {
        if !digit.is_ascii_digit() {
            return None;
        }
        value += u16::from(digit - b'0') * unit;
    }
    (value <= 1000).then_some(value)
}

/// Appends these parts with a separator between each two.
fn push_joined<'a>(parts: impl Iterator<Item = &'a [u8]>, separator: &[u8], out: &mut Vec<u8>) {
    let mut is_first = true;
    for part in parts {
        if !is_first {
            out.extend_from_slice(separator);
        }
        is_first = false;
        out.extend_from_slice(part);
    }
}

/// Members of a field of negotiation that are sorted; longer lists stay as sent.
const MEMBERS_MAX: usize = 32;

/// Bytes of a sorted list; longer ones stay as sent.
const FORM_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(name: &str, lines: &[&str]) -> String {
        let mut out = Vec::new();
        normalise(name, lines.iter().map(|line| line.as_bytes()), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_with_the_same_meaning_have_one_form() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("foo", &["a", "b"], "a, b"),
            ("foo", &["a, b"], "a, b"),
            ("accept-encoding", &["\"a , b\" , c"], "\"a , b\",c"),
            ("accept-encoding", &["\"open , c"], "\"open , c"),
            ("accept-encoding", &["gzip, br"], "br,gzip"),
            ("accept-encoding", &["BR;q=1.0", "GZip"], "br,gzip"),
            (
                "accept-encoding",
                &["gzip;q=0.5, br;Q=0.8, *;q=0"],
                "br;q=0.800,gzip;q=0.500,*;q=0.000",
            ),
            ("accept-encoding", &["gzip, gzip"], "gzip"),
            ("accept-encoding", &["gzip;x=1, br"], "gzip;x=1,br"),
            ("accept-encoding", &["gzip;q=2, br"], "gzip;q=2,br"),
            ("accept-encoding", &["gzip;q=0.1234, br"], "gzip;q=0.1234,br"),
            ("accept-encoding", &["gzip;, br"], "br,gzip"),
            ("accept-language", &["en-GB, de;q=0.7 , EN;q=0.9"], "en-gb,en;q=0.900,de;q=0.700"),
            ("accept-language", &["fr,, DE , fr"], "fr,de"),
            ("accept-language", &["de, fr"], "de,fr"),
            ("accept-language", &["a;q=0.5, c, b;q=0.5"], "c,a;q=0.500,b;q=0.500"),
            ("accept", &["text/*;q=.3, Text/HTML"], "text/*;q=.3,Text/HTML"),
            ("accept", &["text/*; q=0.3, Text/HTML;Level=1"], "text/html;Level=1,text/*;q=0.300"),
            ("accept", &["b;q=0.5;q=1, a"], "b;q=0.5;q=1,a"),
            ("accept", &["b;q=0.5;x, a"], "b;q=0.5;x,a"),
            ("accept", &[""], ""),
        ];
        for (name, lines, expected) in cases {
            assert_eq!(normal(name, lines), *expected, "{name}: {lines:?}");
        }
    }

    #[test]
    fn a_field_of_another_definition_is_compared_byte_for_byte() {
        for name in ["origin", "cookie", "foo", "accept-patch"] {
            for value in ["a,", ",a", "a,,b", " a , b", "a,b", "A, b", "b, a", "", ","] {
                assert_eq!(normal(name, &[value]), value, "{name}");
            }
            assert_eq!(normal(name, &["a,", "", "b"]), "a,, , b", "{name}");
        }
    }

    #[test]
    fn long_lists_stay_as_sent() {
        let list: Vec<String> = (0..=MEMBERS_MAX).rev().map(|n| format!("x{n}")).collect();
        assert_eq!(normal("accept-encoding", &[&list.join(" , ")]), list.join(","));
        let long = format!("z,{}", "y".repeat(FORM_BYTES_MAX));
        assert_eq!(normal("accept-encoding", &[&long]), long);
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(
            name in prop_oneof![
                Just("accept"), Just("accept-encoding"), Just("accept-language"), Just("foo")
            ],
            value in "[a-c;,=q01.\" /*]{0,40}",
        ) {
            let once = normal(name, &[&value]);
            prop_assert_eq!(normal(name, &[&once]), once);
        }

        #[test]
        fn negotiation_of_codings_ignores_the_order(
            mut members in proptest::collection::vec("[a-d]{1,2}(;q=0\\.[0-9])?", 0..6),
        ) {
            let forward = normal("accept-encoding", &[&members.join(", ")]);
            members.reverse();
            prop_assert_eq!(normal("accept-encoding", &[&members.join(",")]), forward);
        }
    }
}
