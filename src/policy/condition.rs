//! The conditions of `pass-if` and `refresh-if`.

use crate::base::chars::{is_token, trim_ows};
use crate::http::cookie;
use crate::http::head::RequestHead;
use crate::policy::key::pattern::Pattern;
use crate::policy::key::{decoded, name_of};

/// Whether a request has a field, a cookie or a query parameter, with a certain value if one is
/// given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    subject: Subject,
    value: Option<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Header(Box<str>),
    Cookie(Pattern),
    Query(Pattern),
}

impl Condition {
    /// Reads `header NAME`, `cookie NAME` or `query NAME`, each perhaps with `=VALUE` after it. A
    /// star at the end of a cookie, a parameter or a value matches the rest of it.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.trim().split_once(' ')?;
        let (name, value) = match rest.trim().split_once('=') {
            Some((name, value)) => (name.trim(), Some(Pattern::parse(value.trim())?)),
            None => (rest.trim(), None),
        };
        let subject = match kind {
            "header" => is_token(name.as_bytes()).then(|| Subject::Header(name.into()))?,
            "cookie" => Subject::Cookie(Pattern::parse(name)?),
            "query" => Subject::Query(Pattern::parse(name)?),
            _ => return None,
        };
        Some(Self { subject, value })
    }

    /// The condition that a field has a value that matches a pattern.
    pub fn header(name: &str, value: &str) -> Option<Self> {
        let is_name = is_token(name.as_bytes());
        let subject = is_name.then(|| Subject::Header(name.to_ascii_lowercase().into()))?;
        Some(Self { subject, value: Some(Pattern::parse(value)?) })
    }

    /// The condition that a parameter of the query has a value that matches a pattern.
    pub fn query(name: &str, value: &str) -> Option<Self> {
        let subject = Subject::Query(Pattern::parse(name)?);
        Some(Self { subject, value: Some(Pattern::parse(value)?) })
    }

    /// Whether the request meets the condition.
    pub fn holds(&self, request: &RequestHead) -> bool {
        let has_value =
            |value: &[u8]| self.value.as_ref().is_none_or(|pattern| pattern.matches(value));
        match &self.subject {
            Subject::Header(name) => {
                request.fields.get_all(name).any(|value| has_value(trim_ows(value)))
            }
            Subject::Cookie(name) => cookie::pairs(&request.fields)
                .any(|(own, value)| !own.is_empty() && name.matches(own) && has_value(value)),
            Subject::Query(name) => parameters(request.target.path_and_query()).any(|parameter| {
                name.matches(&name_of(parameter)) && has_value(&value_of(parameter))
            }),
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.subject {
            Subject::Header(name) => write!(f, "header {name}")?,
            Subject::Cookie(name) => write!(f, "cookie {name}")?,
            Subject::Query(name) => write!(f, "query {name}")?,
        }
        self.value.as_ref().map_or(Ok(()), |value| write!(f, "={value}"))
    }
}

/// The parameters of a query, without empty ones.
fn parameters(path_and_query: &[u8]) -> impl Iterator<Item = &[u8]> {
    let at = memchr::memchr(b'?', path_and_query).map_or(path_and_query.len(), |at| at + 1);
    let query = path_and_query.get(at..).unwrap_or_default();
    query.split(|byte| *byte == b'&').filter(|parameter| !parameter.is_empty())
}

/// The value of a parameter, decoded.
fn value_of(parameter: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let at = memchr::memchr(b'=', parameter).map_or(parameter.len(), |at| at + 1);
    decoded(parameter.get(at..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::method::Method;
    use crate::http::target::Target;
    use crate::policy::sample::request;
    use proptest::prelude::*;

    fn holds(condition: &str, target: &str, list: &[(&str, &str)]) -> bool {
        let mut request = request("GET", list);
        request.target = Target::parse(Method::Get, target.as_bytes()).unwrap();
        Condition::parse(condition).unwrap_or_else(|| panic!("{condition}")).holds(&request)
    }

    #[test]
    fn conditions_match_fields_cookies_and_parameters() {
        let fields: &[(&str, &str)] =
            &[("X-Preview", " yes "), ("cookie", "a=1; wp_in_7=x"), ("Cookie", "b=; c")];
        for (condition, expected) in [
            ("header x-preview", true),
            ("header X-Preview=yes", true),
            ("header X-Preview=y*", true),
            ("header X-Preview=no", false),
            ("header X-Other", false),
            ("cookie a", true),
            ("cookie A", false),
            ("cookie a = 1", true),
            ("cookie a=2", false),
            ("cookie wp_in_*", true),
            ("cookie b", true),
            ("cookie c", false),
            ("cookie *", true),
            ("query q", true),
            ("query q=a b", true),
            ("query q=a*", true),
            ("query r=2", false),
            ("query e*", true),
            ("query x", false),
        ] {
            assert_eq!(
                holds(condition, "/p?%71=a%20b&&r=1&empty=", fields),
                expected,
                "{condition}"
            );
        }
        assert!(!holds("query *", "/q", &[]), "a path is not a query");
    }

    #[test]
    fn malformed_conditions_are_refused() {
        for text in
            ["", "header", "header ", "header a b", "path /x", "Header x", "cookie a*b", "query r="]
        {
            assert_eq!(Condition::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_request_panics(query in "[a%=&0-9]{0,20}", cookies in "[a=; ]{0,12}") {
            for condition in ["query a*=a", "cookie a=a*"] {
                holds(condition, &format!("/?{query}"), &[("cookie", &cookies)]);
            }
        }
    }
}
