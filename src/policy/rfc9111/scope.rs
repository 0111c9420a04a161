//! What `private` and `no-cache` are about: the whole response, or fields that they list.

use crate::base::chars::{eq_ignore_case, is_token, trim_ows};
use crate::policy::rfc9111::directive::{Argument, directives};

/// How much of a response `private` or `no-cache` is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The directive was not there.
    #[default]
    Absent,
    /// Only the fields that it lists: the response is stored without them (RFC 9111 sections
    /// 5.2.2.4 and 5.2.2.7 allow that, and it keeps the rest useful).
    Fields,
    /// The response as a whole: the directive listed nothing, something malformed, or a field
    /// that the stored response cannot do without.
    Whole,
}

impl Scope {
    /// What a directive with this argument is about.
    pub fn of(argument: Argument<'_>) -> Self {
        let Argument::Text(list) = argument else {
            return Self::Whole;
        };
        let mut n_names = 0;
        for name in names(list) {
            n_names += 1;
            if !is_token(name)
                || INDISPENSABLE.iter().any(|field| eq_ignore_case(name, field.as_bytes()))
            {
                return Self::Whole;
            }
        }
        if n_names == 0 { Self::Whole } else { Self::Fields }
    }
}

/// Calls `take` with each field name that `private` and `no-cache` list in these Cache-Control
/// lines, so that the response can be stored without them (RFC 9111 sections 5.2.2.4, 5.2.2.7).
/// Lists that count for the whole response ([`Scope::Whole`]) name nothing here.
pub fn listed_fields<'a>(lines: impl Iterator<Item = &'a [u8]>, mut take: impl FnMut(&'a [u8])) {
    for directive in lines.flat_map(directives) {
        if !directive.is("private") && !directive.is("no-cache") {
            continue;
        }
        if Scope::of(directive.argument) == Scope::Fields
            && let Argument::Text(list) = directive.argument
        {
            names(list).for_each(&mut take);
        }
    }
}

/// The members of a comma-separated list of field names.
fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(trim_ows).filter(|name| !name.is_empty())
}

/// Fields without which a stored response would say something else, or could not be handled.
const INDISPENSABLE: [&str; 13] = [
    "age",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expires",
    "last-modified",
    "vary",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rfc9111::control::ResponseControl;

    fn scopes(line: &str) -> (Scope, Scope) {
        let control = ResponseControl::parse([line.as_bytes()].into_iter());
        (control.private, control.no_cache)
    }

    #[test]
    fn a_scope_is_whole_unless_its_list_is_sound_and_dispensable() {
        let cases: &[(&str, Scope)] = &[
            ("", Scope::Absent),
            ("private", Scope::Whole),
            ("private=\"\"", Scope::Whole),
            ("private=", Scope::Whole),
            ("private=\" , \"", Scope::Whole),
            ("private=\"x-user\"", Scope::Fields),
            ("private=x-user", Scope::Fields),
            ("private=\"x-user, Set-Cookie\"", Scope::Fields),
            ("private=\"x user\"", Scope::Whole),
            ("private=\"a\\\"b\"", Scope::Whole),
            ("private=\"x-user, Content-Encoding\"", Scope::Whole),
            ("private=\"x-user\", private", Scope::Whole),
            ("private, private=\"x-user\"", Scope::Whole),
            ("private=\"x-user", Scope::Whole),
        ];
        for (line, expected) in cases {
            assert_eq!(scopes(line).0, *expected, "{line:?}");
            let line = line.replace("private", "no-cache");
            assert_eq!(scopes(&line).1, *expected, "{line:?}");
        }
    }

    #[test]
    fn listed_fields_are_those_of_sound_lists() {
        let line = b"private=\"a, B\", no-cache=c, ext=\"d\", no-cache=\"etag, e\"".as_slice();
        let mut found = Vec::new();
        listed_fields([line].into_iter(), |name| found.push(name.to_vec()));
        assert_eq!(found, [b"a", b"B", b"c"]);
    }
}
