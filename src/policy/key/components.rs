//! The named components that an operator makes the keys of a route of.
//!
//! The host is always one of them. What is left out of a key is not told to the origin either
//! where it could answer by it: a query is asked for as the key has it, so that what is stored for
//! everybody was never made from what one client added.

use std::borrow::Cow;

use crate::base::chars::hex_value;
use crate::policy::key::pattern::Pattern;
use crate::policy::key::vary::VaryNames;

/// What a key is made of, besides the host. The default is what RFC 9111 section 2 says: the
/// whole URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyComponents {
    /// The scheme.
    pub scheme: bool,
    /// The path.
    pub path: PathComponent,
    /// The query.
    pub query: QueryComponent,
    /// Request fields and cookies. They choose among the variants of a key, as those that Vary
    /// names do, so that whoever removes the key removes them all.
    pub chosen: Option<VaryNames>,
}

/// What of the path is in a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathComponent {
    /// All of it.
    Whole,
    /// That it belongs to this route, by the path of the route.
    Route(Box<str>),
}

/// What of the query is in a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryComponent {
    /// Whether anything is.
    pub is_on: bool,
    /// Parameters in the order of their names; those of one name stay as they stand.
    pub is_sorted: bool,
    /// Only these parameters, if there are any patterns.
    pub kept: Vec<Pattern>,
    /// Of those, all but these.
    pub dropped: Vec<Pattern>,
}

impl Default for KeyComponents {
    fn default() -> Self {
        Self {
            scheme: true,
            path: PathComponent::Whole,
            query: QueryComponent::default(),
            chosen: None,
        }
    }
}

impl Default for QueryComponent {
    fn default() -> Self {
        Self { is_on: true, is_sorted: false, kept: Vec::new(), dropped: Vec::new() }
    }
}

impl KeyComponents {
    /// The path and query that the origin is asked for: the path as sent, and what counts of the
    /// query.
    pub fn asked<'t>(&self, path_and_query: &'t [u8]) -> Cow<'t, [u8]> {
        let (path, query) = split(path_and_query);
        match self.query.of(query) {
            Cow::Borrowed(same) if same.len() == query.len() => Cow::Borrowed(path_and_query),
            other => Cow::Owned([path, &other].concat()),
        }
    }

    /// Whether a key tells that a URL begins so, path and query: not if it leaves out, or puts in
    /// another order, what the beginning consists of.
    pub fn tell_beginning(&self, path_and_query: &[u8]) -> bool {
        let (path, query) = split(path_and_query);
        let tells_path = match &self.path {
            PathComponent::Whole => true,
            // The whole route, and perhaps others below it.
            PathComponent::Route(prefix) => query.is_empty() && prefix.as_bytes().starts_with(path),
        };
        let is_as_sent = self.query.is_on && self.query.is_as_sent();
        tells_path && (query.is_empty() || is_as_sent)
    }

    /// Whether what is stored under a key before Vary was stored by these components: its variants are
    /// chosen by all that the operator names. `chosen_by` are the names that choose, if any do.
    pub fn suit(&self, chosen_by: Option<&VaryNames>) -> bool {
        let Some(chosen) = &self.chosen else { return true };
        chosen_by.is_some_and(|names| names.contains_all(chosen))
    }

    /// Appends what counts of a path and query to a key text; an empty path is `/` (RFC 9110
    /// section 4.2.3).
    pub(crate) fn push(&self, path_and_query: &[u8], out: &mut Vec<u8>) {
        let (path, query) = split(path_and_query);
        match &self.path {
            PathComponent::Whole if path.is_empty() => out.push(b'/'),
            PathComponent::Whole => out.extend_from_slice(path),
            PathComponent::Route(prefix) => {
                out.extend_from_slice(prefix.as_bytes());
                // No path has a space, so that this is no other route's.
                out.extend_from_slice(b" *");
            }
        }
        out.extend_from_slice(&self.query.of(query));
    }
}

impl QueryComponent {
    /// What counts of a query, which is empty or begins with its question mark.
    fn of<'q>(&self, query: &'q [u8]) -> Cow<'q, [u8]> {
        if !self.is_on {
            return Cow::Borrowed(b"");
        }
        let Some(inside) = query.strip_prefix(b"?").filter(|_| !self.is_as_sent()) else {
            return Cow::Borrowed(query);
        };
        let mut parameters: Vec<&[u8]> = inside
            .split(|byte| *byte == b'&')
            .filter(|parameter| !parameter.is_empty() && self.counts(&name_of(parameter)))
            .collect();
        if self.is_sorted {
            parameters.sort_by(|left, right| name_of(left).cmp(&name_of(right)));
        }
        let mut text = Vec::with_capacity(query.len());
        for (at, parameter) in parameters.into_iter().enumerate() {
            text.push(if at == 0 { b'?' } else { b'&' });
            text.extend_from_slice(parameter);
        }
        Cow::Owned(text)
    }

    fn is_as_sent(&self) -> bool {
        !self.is_sorted && self.kept.is_empty() && self.dropped.is_empty()
    }

    fn counts(&self, name: &[u8]) -> bool {
        let is_in = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.fits(name));
        (self.kept.is_empty() || is_in(&self.kept)) && !is_in(&self.dropped)
    }
}

/// A path, and the query with its question mark.
fn split(path_and_query: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
    path_and_query.split_at(at)
}

/// The name of a parameter, with its %-encoded bytes as what they stand for.
pub(crate) fn name_of(parameter: &[u8]) -> Cow<'_, [u8]> {
    let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
    decoded(name)
}

/// A text of a query with its %-encoded bytes and pluses as what they stand for; what is no such
/// code stays.
pub(crate) fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%'
            && let [high, low, after @ ..] = after
            && let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(if byte == b'+' { b' ' } else { byte });
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn patterns(names: &[&str]) -> Vec<Pattern> {
        names.iter().map(|name| Pattern::parse(name).unwrap()).collect()
    }

    fn query(is_sorted: bool, kept: &[&str], dropped: &[&str]) -> QueryComponent {
        QueryComponent { is_on: true, is_sorted, kept: patterns(kept), dropped: patterns(dropped) }
    }

    fn text(components: &KeyComponents, path_and_query: &str) -> String {
        let mut out = Vec::new();
        components.push(path_and_query.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_query_is_what_counts_of_it() {
        let off = QueryComponent { is_on: false, ..QueryComponent::default() };
        let cases: &[(QueryComponent, &str, &str)] = &[
            (query(false, &[], &[]), "?b=2&&a=1", "?b=2&&a=1"),
            (query(false, &[], &[]), "?", "?"),
            (off, "?b=2", ""),
            (query(true, &[], &[]), "?b=2&&a=1&", "?a=1&b=2"),
            (query(true, &[], &[]), "?b=2&a=2&b=1&a=1", "?a=2&a=1&b=2&b=1"),
            (query(true, &[], &[]), "?", ""),
            (query(false, &[], &["utm_*"]), "?utm_id=1&b=2&utm_x&a=1", "?b=2&a=1"),
            (query(false, &[], &["utm_*"]), "?%75tm_id=1", ""),
            (query(false, &["id", "p*"], &[]), "?x=1&page=2&id=3&identity=4", "?page=2&id=3"),
            (query(false, &["a[]"], &[]), "?a%5B%5d=1&a[]=2&a=3", "?a%5B%5d=1&a[]=2"),
            (query(true, &["p*"], &["pw"]), "?pw=1&q=2&p=3", "?p=3"),
            (query(true, &[], &[]), "?a&%", "?%&a"),
            (query(true, &[], &[]), "", ""),
        ];
        for (part, given, expected) in cases {
            let found = part.of(given.as_bytes()).into_owned();
            assert_eq!(String::from_utf8(found).unwrap(), *expected, "{part:?} {given}");
        }
    }

    #[test]
    fn a_key_tells_beginnings_of_what_it_has() {
        let told =
            |components: &KeyComponents, text: &str| components.tell_beginning(text.as_bytes());
        let whole = KeyComponents::default();
        assert!(told(&whole, "/a") && told(&whole, "/a?b=c"));
        let route = KeyComponents {
            path: PathComponent::Route("/img/".into()),
            ..KeyComponents::default()
        };
        assert!(told(&route, "/") && told(&route, "/im") && told(&route, "/img/"));
        assert!(!told(&route, "/img/a") && !told(&route, "/img/?a"));
        let off = QueryComponent { is_on: false, ..QueryComponent::default() };
        for query in
            [off, query(true, &[], &[]), query(false, &["a"], &[]), query(false, &[], &["a"])]
        {
            let components = KeyComponents { query, ..KeyComponents::default() };
            assert!(
                told(&components, "/a")
                    && !told(&components, "/a?")
                    && !told(&components, "/a?a=1")
            );
        }
    }

    #[test]
    fn a_path_that_is_left_out_is_still_its_routes() {
        let mut components = KeyComponents::default();
        assert_eq!(text(&components, "/up/x?y"), "/up/x?y");
        assert_eq!(text(&components, "?y"), "/?y");
        components.path = PathComponent::Route("/up".into());
        assert_eq!(text(&components, "/up/x?y"), "/up *?y");
        assert_eq!(text(&components, "/upper?y"), text(&components, "/up/x?y"));
    }

    #[test]
    fn the_origin_is_asked_for_what_the_key_holds() {
        let mut components =
            KeyComponents { path: PathComponent::Route("/".into()), ..KeyComponents::default() };
        assert!(matches!(components.asked(b"/x?b&a"), Cow::Borrowed(b"/x?b&a")));
        components.query = query(true, &[], &["b"]);
        assert_eq!(&*components.asked(b"/x?c&b&a"), b"/x?a&c");
        assert_eq!(&*components.asked(b"/x?b"), b"/x");
        assert_eq!(&*components.asked(b"/x"), b"/x");
        components.query.is_on = false;
        assert_eq!(&*components.asked(b"/x?c&b&a"), b"/x");
    }

    proptest! {
        #[test]
        fn what_counts_counts_again(
            given in "(\\?[a-c=&%2]{0,16})?", is_sorted: bool, kept: bool, dropped: bool,
        ) {
            let kept: &[&str] = if kept { &["a*", "c"] } else { &[] };
            let part = query(is_sorted, kept, if dropped { &["ab*"] } else { &[] });
            let once = part.of(given.as_bytes()).into_owned();
            prop_assert_eq!(&*part.of(&once), &*once);
        }

        #[test]
        fn the_order_of_different_names_means_nothing(mut names in
            proptest::collection::btree_map("[a-d]{1,2}", "[0-9]", 0..5).prop_map(
                |map| map.into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>())) {
            let part = query(true, &[], &[]);
            let forward = part.of(format!("?{}", names.join("&")).as_bytes()).into_owned();
            names.reverse();
            let backward = part.of(format!("?{}", names.join("&")).as_bytes()).into_owned();
            prop_assert_eq!(forward, backward);
        }
    }
}
