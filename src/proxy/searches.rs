//! What this worker has learned of queries that do not matter: by path, what the last response
//! with a No-Vary-Search field said.
//!
//! A response with the field is stored under the name of what counts of its query. Whoever asks
//! for its path is looked for there first, and then under the name of all that was asked. Each
//! worker learns by itself, from what it fetches: what it does not know yet costs it one fetch.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::cache::hot::HotObject;
use crate::http::fields::Fields;
use crate::http::head::RequestHead;
use crate::policy::key::components::{KeyParts, QueryPart};
use crate::policy::key::search::no_vary_search;
use crate::proxy::lookup::{Found, Name};

/// Paths that are known at once; with one more all are forgotten, and learned anew.
const PATHS_MAX: usize = 4096;

/// What was learned.
#[derive(Debug, Default)]
pub struct Searches {
    by_path: HashMap<Box<[u8]>, QueryPart, RandomState>,
}

impl Searches {
    /// The name of what counts of a name's query, if less than all of it does.
    pub fn counting(&self, exact: &Name) -> Option<Name> {
        if self.by_path.is_empty() {
            return None;
        }
        let text = self.by_path.get(path_of(&exact.text))?.asked(&exact.text).into_owned();
        (*text != *exact.text).then(|| Name::of(&text))
    }

    /// Whether a stored response says of its path what is known of it: only then may it answer
    /// for another query.
    pub fn agrees(&self, exact: &Name, object: &HotObject) -> bool {
        no_vary_search(&object.fields).as_ref() == self.by_path.get(path_of(&exact.text))
    }

    /// Takes note of what a response says, and gives where it belongs: where it was looked for,
    /// unless that has more, or less, of the query than counts.
    pub fn learn(
        &mut self,
        parts: &KeyParts,
        request: &RequestHead,
        response: &Fields,
        found: &Found,
    ) -> Found {
        let is_secure = found.primary.text.starts_with(b"GET https:");
        let scheme = if is_secure { "https" } else { "http" };
        let exact = Name::of_request(parts, scheme, request);
        let path = path_of(&exact.text);
        match no_vary_search(response) {
            None => {
                self.by_path.remove(path);
            }
            Some(part) => {
                if self.by_path.len() >= PATHS_MAX && !self.by_path.contains_key(path) {
                    self.by_path.clear();
                }
                self.by_path.insert(path.into(), part);
            }
        }
        let primary = self.counting(&exact).unwrap_or(exact);
        if primary.key == found.primary.key {
            return found.clone();
        }
        Found { name: primary.clone(), primary, marker: None, ..found.clone() }
    }
}

/// The text of a key up to its query.
fn path_of(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b'?').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::lookup::What;

    fn name(query: &str) -> Name {
        Name::of(format!("GET http://h/p{query}").as_bytes())
    }

    fn request(target: &str) -> RequestHead {
        let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let limits = crate::http::h1::head::HeadLimits::default();
        crate::http::h1::head::parse_request(text.as_bytes(), &limits).unwrap().unwrap().0
    }

    fn found(query: &str) -> Found {
        let primary = name(query);
        Found { name: primary.clone(), primary, marker: None, what: What::Nothing, purged: None }
    }

    #[test]
    fn what_a_response_says_is_known_until_another_says_otherwise() {
        let mut searches = Searches::default();
        let parts = KeyParts::default();
        let says =
            |field: &'static str| [("No-Vary-Search", field)].into_iter().collect::<Fields>();
        assert!(searches.counting(&name("?a=1&b=2")).is_none());
        let asked = request("/p?a=1&b=2");
        let place = searches.learn(&parts, &asked, &says("params=(\"a\")"), &found("?a=1&b=2"));
        assert_eq!(*place.primary.text, *name("?b=2").text);
        assert_eq!(searches.counting(&name("?b=2&a=9")).unwrap().key, name("?b=2").key);
        assert!(searches.counting(&name("?b=2")).is_none(), "all of it counts");
        assert!(searches.counting(&Name::of(b"GET http://h/q?a=1")).is_none());
        // Looked for under what counted, and all of it does after all.
        let place = searches.learn(&parts, &asked, &Fields::new(), &found("?b=2"));
        assert_eq!(*place.primary.text, *name("?a=1&b=2").text);
        assert!(searches.counting(&name("?b=2&a=9")).is_none());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut searches = Searches::default();
        let response: Fields = [("No-Vary-Search", "params")].into_iter().collect();
        for n in 0..2 * PATHS_MAX + 2 {
            let asked = request(&format!("/{n}?a"));
            searches.learn(&KeyParts::default(), &asked, &response, &found("?a"));
            assert!(searches.by_path.len() <= PATHS_MAX);
        }
    }
}
