//! Which parameters of a query do not matter, as the origin says: the No-Vary-Search field.
//!
//! The field is a dictionary of structured fields: `key-order` says that the order of parameters
//! means nothing, `params` that they all do, or those that it lists, and `except` which do matter
//! all the same. What is none, or says anything else of these, counts as if it were not there:
//! then every difference counts.

use crate::http::fields::Fields;
use crate::http::structured::{Member, Value, dictionary};
use crate::policy::key::components::QueryPart;
use crate::policy::key::pattern::Pattern;

/// What counts of the queries of a response's path; `None` if all of it does.
pub fn no_vary_search(response: &Fields) -> Option<QueryPart> {
    if !response.contains("no-vary-search") {
        return None;
    }
    let members = dictionary(response.get_all("no-vary-search"))?;
    let find = |key: &str| members.iter().find(|member| member.key == key);
    let is_sorted = match find("key-order").map(|member| &member.value) {
        None | Some(Value::Boolean(false)) => false,
        Some(Value::Boolean(true)) => true,
        Some(_) => return None,
    };
    let mut part = QueryPart { is_sorted, ..QueryPart::default() };
    let except = find("except");
    match find("params").map(|member| &member.value) {
        None | Some(Value::Boolean(false)) if except.is_none() => {}
        Some(Value::List(names)) if except.is_none() => part.dropped = patterns(names)?,
        Some(Value::Boolean(true)) => match except {
            Some(Member { value: Value::List(names), .. }) if !names.is_empty() => {
                part.kept = patterns(names)?;
            }
            Some(Member { value: Value::List(_), .. }) | None => part.is_on = false,
            Some(_) => return None,
        },
        _ => return None,
    }
    (part != QueryPart::default()).then_some(part)
}

/// The path of a key's URL, if it has a query: the key text before Vary up to there. What is stored
/// of it for more than one query may be under any name with the same path.
pub fn path_of_query(key_text: &[u8]) -> Option<&[u8]> {
    let at = memchr::memchr2(b'?', b'\n', key_text)?;
    key_text.split_at_checked(at).filter(|(_, rest)| rest.starts_with(b"?")).map(|(path, _)| path)
}

/// The names of a list; `None` if one is no string.
fn patterns(names: &[Value]) -> Option<Vec<Pattern>> {
    let name = |value: &Value| match value {
        Value::Text(name) => Some(Pattern::exact(name)),
        _ => None,
    };
    names.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::fields;
    use proptest::prelude::*;

    /// What counts of a query for a response with this field.
    fn counts(field: &str, query: &str) -> String {
        let part = no_vary_search(&fields(&[("No-Vary-Search", field)])).unwrap_or_default();
        let target = format!("/p{query}");
        String::from_utf8(part.asked(target.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn what_the_origin_says_decides() {
        for (field, query, expected) in [
            ("params=(\"a\" \"c\")", "?a=1&b=2&c=3", "/p?b=2"),
            ("params=(\"a b\")", "?a+b=1&a%20b=2&b=3", "/p?b=3"),
            ("params=(\"*\")", "?a=1&*=2", "/p?a=1"),
            ("params=()", "?a=1", "/p?a=1"),
            ("params", "?a=1", "/p"),
            ("params=?1, except=(\"b\")", "?a=1&b=2", "/p?b=2"),
            ("params, except=()", "?a=1", "/p"),
            ("key-order", "?b=1&a=2&b=0", "/p?a=2&b=1&b=0"),
            ("key-order, params=(\"a\"), x=1", "?c&b&a", "/p?b&c"),
            ("params=?0", "?a=1", "/p?a=1"),
            ("params=\"a\"", "?a=1", "/p?a=1"),
            ("params=(a)", "?a=1", "/p?a=1"),
            ("params=(\"a\"), except=(\"b\")", "?a=1", "/p?a=1"),
            ("except=(\"b\")", "?a=1", "/p?a=1"),
            ("key-order=1, params", "?a=1", "/p?a=1"),
            ("params, ", "?a=1", "/p?a=1"),
            ("", "?a=1", "/p?a=1"),
        ] {
            assert_eq!(counts(field, query), expected, "{field} {query}");
        }
        assert_eq!(no_vary_search(&fields(&[])), None);
    }

    #[test]
    fn a_path_ends_where_its_query_begins() {
        assert_eq!(path_of_query(b"GET http://h/p?a=1?b"), Some(&b"GET http://h/p"[..]));
        assert_eq!(path_of_query(b"GET http://h/p"), None);
        assert_eq!(path_of_query(b"GET http://h/p\nreferer:?"), None);
    }

    proptest! {
        #[test]
        fn what_counts_counts_again(query in "(\\?[a-c=&+%2]{0,16})?", all: bool, order: bool) {
            let params = if all { "params, except=(\"a\")" } else { "params=(\"a\" \"b\")" };
            let field = if order { format!("key-order, {params}") } else { params.to_owned() };
            let once = counts(&field, &query);
            let part = no_vary_search(&fields(&[("no-vary-search", &field)])).unwrap();
            prop_assert_eq!(part.asked(once.as_bytes()).into_owned(), once.as_bytes());
        }
    }
}
