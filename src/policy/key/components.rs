//! The components that an operator makes the keys of a route of.
//!
//! The host is always one of them. A query goes to the origin as the key has it: otherwise a
//! parameter that one client adds could change the response that all clients get.

use std::borrow::Cow;

use crate::base::chars::percent_decoded;
use crate::policy::key::pattern::Pattern;
use crate::policy::key::vary::VaryNames;

/// The components of a key besides the host. The default is the whole URI (RFC 9111 section 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyComponents {
    /// Whether the scheme is in it.
    pub scheme: bool,
    /// The part of the path in the key.
    pub path: PathComponent,
    /// The part of the query in the key.
    pub query: QueryComponent,
    /// Request fields and cookies. They select one of the variants of a key, as the fields that
    /// Vary names do, so that one removal of the key removes all variants.
    pub chosen: Option<VaryNames>,
}

/// The part of the path in a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathComponent {
    /// All of it.
    Whole,
    /// The path of the route instead of its own.
    Route(Box<str>),
}

/// The part of the query in a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryComponent {
    /// False if the key has nothing of it.
    pub is_on: bool,
    /// Parameters are in the order of their names; those of one name stay in their order.
    pub is_sorted: bool,
    /// Only these parameters, if there are any patterns.
    pub kept: Vec<Pattern>,
    /// All of those but these.
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
    /// The path and query for the origin: the path as the client sent it, and the query as the key
    /// has it.
    pub fn origin_target<'t>(&self, path_and_query: &'t [u8]) -> Cow<'t, [u8]> {
        let (path, query) = split(path_and_query);
        match self.query.of(query) {
            Cow::Borrowed(same) if same.len() == query.len() => Cow::Borrowed(path_and_query),
            other => Cow::Owned([path, &other].concat()),
        }
    }

    /// Whether a key begins with this prefix if its URL does: not if the key leaves out, or puts in
    /// another order, what the prefix consists of.
    pub fn preserve_prefix(&self, path_and_query: &[u8]) -> bool {
        let (path, query) = split(path_and_query);
        let preserves_path = match &self.path {
            PathComponent::Whole => true,
            // The prefix names the whole route, and perhaps others below it.
            PathComponent::Route(prefix) => query.is_empty() && prefix.as_bytes().starts_with(path),
        };
        let is_as_sent = self.query.is_on && self.query.is_as_sent();
        preserves_path && (query.is_empty() || is_as_sent)
    }

    /// Whether what is stored under a primary key was stored by these components: its variants are
    /// selected by all fields and cookies of the operator. `names` are those that select them.
    pub fn accept(&self, names: Option<&VaryNames>) -> bool {
        let Some(chosen) = &self.chosen else { return true };
        names.is_some_and(|names| names.contains_all(chosen))
    }

    /// Appends the components of a path and query to a key text; an empty path is `/` (RFC 9110
    /// section 4.2.3).
    pub(crate) fn push(&self, path_and_query: &[u8], out: &mut Vec<u8>) {
        let (path, query) = split(path_and_query);
        match &self.path {
            PathComponent::Whole if path.is_empty() => out.push(b'/'),
            PathComponent::Whole => out.extend_from_slice(path),
            PathComponent::Route(prefix) => {
                out.extend_from_slice(prefix.as_bytes());
                // A path has no space, so this is not the key of another path.
                out.extend_from_slice(b" *");
            }
        }
        out.extend_from_slice(&self.query.of(query));
    }
}

impl QueryComponent {
    /// The part of a query in the key. The query is empty or begins with its question mark.
    fn of<'q>(&self, query: &'q [u8]) -> Cow<'q, [u8]> {
        if !self.is_on {
            return Cow::Borrowed(b"");
        }
        let Some(inside) = query.strip_prefix(b"?").filter(|_| !self.is_as_sent()) else {
            return Cow::Borrowed(query);
        };
        let mut parameters: Vec<&[u8]> = inside
            .split(|byte| *byte == b'&')
            .filter(|parameter| !parameter.is_empty() && self.has(&name_of(parameter)))
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

    fn has(&self, name: &[u8]) -> bool {
        let is_in = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        (self.kept.is_empty() || is_in(&self.kept)) && !is_in(&self.dropped)
    }
}

/// A path, and the query with its question mark.
fn split(path_and_query: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
    path_and_query.split_at(at)
}

/// The name of a parameter, decoded.
pub(crate) fn name_of(parameter: &[u8]) -> Cow<'_, [u8]> {
    let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
    decoded(name)
}

/// A name or a value in a query, without percent-encoding and with a space for each plus sign.
pub(crate) fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    percent_decoded(text, b' ')
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
    fn a_query_is_sorted_and_filtered() {
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
        for (component, given, expected) in cases {
            let found = component.of(given.as_bytes()).into_owned();
            assert_eq!(String::from_utf8(found).unwrap(), *expected, "{component:?} {given}");
        }
    }

    #[test]
    fn a_prefix_must_be_in_the_key() {
        let has =
            |components: &KeyComponents, text: &str| components.preserve_prefix(text.as_bytes());
        let whole = KeyComponents::default();
        assert!(has(&whole, "/a") && has(&whole, "/a?b=c"));
        let route = KeyComponents {
            path: PathComponent::Route("/img/".into()),
            ..KeyComponents::default()
        };
        assert!(has(&route, "/") && has(&route, "/im") && has(&route, "/img/"));
        assert!(!has(&route, "/img/a") && !has(&route, "/img/?a"));
        let off = QueryComponent { is_on: false, ..QueryComponent::default() };
        for query in
            [off, query(true, &[], &[]), query(false, &["a"], &[]), query(false, &[], &["a"])]
        {
            let components = KeyComponents { query, ..KeyComponents::default() };
            assert!(
                has(&components, "/a") && !has(&components, "/a?") && !has(&components, "/a?a=1")
            );
        }
    }

    #[test]
    fn a_key_without_the_path_has_that_of_the_route() {
        let mut components = KeyComponents::default();
        assert_eq!(text(&components, "/up/x?y"), "/up/x?y");
        assert_eq!(text(&components, "?y"), "/?y");
        components.path = PathComponent::Route("/up".into());
        assert_eq!(text(&components, "/up/x?y"), "/up *?y");
        assert_eq!(text(&components, "/upper?y"), text(&components, "/up/x?y"));
    }

    #[test]
    fn the_origin_gets_the_query_of_the_key() {
        let mut components =
            KeyComponents { path: PathComponent::Route("/".into()), ..KeyComponents::default() };
        assert!(matches!(components.origin_target(b"/x?b&a"), Cow::Borrowed(b"/x?b&a")));
        components.query = query(true, &[], &["b"]);
        assert_eq!(&*components.origin_target(b"/x?c&b&a"), b"/x?a&c");
        assert_eq!(&*components.origin_target(b"/x?b"), b"/x");
        assert_eq!(&*components.origin_target(b"/x"), b"/x");
        components.query.is_on = false;
        assert_eq!(&*components.origin_target(b"/x?c&b&a"), b"/x");
    }

    proptest! {
        #[test]
        fn filtering_twice_changes_nothing(
            given in "(\\?[a-c=&%2]{0,16})?", is_sorted: bool, kept: bool, dropped: bool,
        ) {
            let kept: &[&str] = if kept { &["a*", "c"] } else { &[] };
            let component = query(is_sorted, kept, if dropped { &["ab*"] } else { &[] });
            let once = component.of(given.as_bytes()).into_owned();
            prop_assert_eq!(&*component.of(&once), &*once);
        }

        #[test]
        fn sorting_ignores_the_order_of_different_names(mut names in
            proptest::collection::btree_map("[a-d]{1,2}", "[0-9]", 0..5).prop_map(
                |map| map.into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>())) {
            let component = query(true, &[], &[]);
            let forward = component.of(format!("?{}", names.join("&")).as_bytes()).into_owned();
            names.reverse();
            let backward = component.of(format!("?{}", names.join("&")).as_bytes()).into_owned();
            prop_assert_eq!(forward, backward);
        }
    }
}
