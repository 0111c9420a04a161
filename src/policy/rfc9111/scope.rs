//! What `private` and `no-cache` apply to: the whole response, or the fields that they list.

use crate::base::chars::{eq_ignore_case, is_token, trim_ows};
use crate::policy::rfc9111::directive::{Argument, directives};

/// What `private` or `no-cache` applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Nothing: the directive is missing.
    #[default]
    Absent,
    /// The fields that it lists: the response is stored without them (RFC 9111 sections 5.2.2.4 and
    /// 5.2.2.7).
    Fields,
    /// The whole response: the directive has no list, a malformed one, or one with a field that the
    /// stored response needs.
    Whole,
}

impl Scope {
    /// The scope of a directive with this argument.
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
/// lines, without those of directives that apply to the whole response.
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

/// Fields that a stored response needs for its meaning or for the cache.
const INDISPENSABLE: [&str; 13] = [
    "age", "cache-control", "content-encoding", "content-language", "content-length",
    "content-location", "content-range", "content-type", "date", "etag", "expires",
    "last-modified", "vary",
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
    fn a_scope_is_whole_unless_its_list_is_valid_and_dispensable() {
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
    fn listed_fields_are_those_of_valid_lists() {
        let line = b"private=\"a, B\", no-cache=c, ext=\"d\", no-cache=\"etag, e\"".as_slice();
        let mut found = Vec::new();
        listed_fields([line].into_iter(), |name| found.push(name.to_vec()));
        assert_eq!(found, [b"a", b"B", b"c"]);
    }
}
