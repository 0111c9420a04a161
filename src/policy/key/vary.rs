//! The request fields that select a variant, RFC 9110 section 12.5.5 and RFC 9111 section 4.1.

use crate::base::chars::{eq_ignore_case, is_token};
use crate::http::fields::Fields;
use crate::policy::reason::pass::PassReason;

/// The names that select one of the variants of a key: the field names of Vary, in lower case, and
/// the fields and single cookies of the operator (`cookie=NAME`, which is not a field name). They
/// are sorted and unique, at least one and at most [`VaryNames::COUNT_MAX`], of
/// [`VaryNames::BYTES_MAX`] bytes in all.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VaryNames {
    /// The names, separated by line feeds.
    text: Box<str>,
}

impl VaryNames {
    /// Most names that are kept.
    pub const COUNT_MAX: usize = 16;

    /// Most bytes of all names with their separators.
    pub const BYTES_MAX: usize = 512;

    /// The names of all Vary lines of a response; `None` when there are none.
    ///
    /// # Errors
    ///
    /// [`PassReason::VaryStar`] if one is `*`, which no later request matches;
    /// [`PassReason::VaryOdd`] if one is not a field name, or they are too many.
    pub fn parse(response: &Fields) -> Result<Option<Self>, PassReason> {
        Self::of(response, &[], None)
    }

    /// As [`VaryNames::parse`], without the names that the operator ignores (lower-case, perhaps
    /// `*`), and with those that always select (`chosen`).
    ///
    /// # Errors
    ///
    /// As [`VaryNames::parse`].
    pub fn of(
        response: &Fields,
        ignored: &[Box<str>],
        chosen: Option<&Self>,
    ) -> Result<Option<Self>, PassReason> {
        if !response.contains("vary") {
            return Ok(chosen.cloned());
        }
        let mut names: Vec<String> =
            chosen.iter().flat_map(|chosen| chosen.names()).map(str::to_owned).collect();
        let mut is_odd = false;
        for member in response.list("vary") {
            if ignored.iter().any(|name| eq_ignore_case(member, name.as_bytes())) {
                continue;
            }
            if member == b"*" {
                return Err(PassReason::VaryStar);
            }
            if names.len() > Self::COUNT_MAX || !is_token(member) {
                is_odd = true;
                continue;
            }
            let name = String::from_utf8_lossy(member).to_ascii_lowercase();
            // ktrix wrote the value that the origin used, so no field of a client says it.
            is_odd |= REWRITTEN.contains(&name.as_str());
            if let Err(at) = names.binary_search(&name) {
                names.insert(at, name);
            }
        }
        if is_odd {
            return Err(PassReason::VaryOdd);
        }
        if names.is_empty() {
            return Ok(None);
        }
        Self::from_sorted(names.iter().map(String::as_str)).map(Some).ok_or(PassReason::VaryOdd)
    }

    /// The fields and cookies of the operator; `None` unless they are names of such, within the
    /// bounds, and forwarded as the client sent them.
    pub fn chosen<'a>(
        fields: impl Iterator<Item = &'a str>,
        cookies: impl Iterator<Item = &'a str>,
    ) -> Option<Self> {
        let fields = fields.map(str::to_ascii_lowercase);
        let mut names: Vec<String> =
            fields.chain(cookies.map(|name| format!("{COOKIE}{name}"))).collect();
        names.sort_unstable();
        names.dedup();
        let is_sound = !names.iter().any(|name| REWRITTEN.contains(&name.as_str()));
        is_sound.then(|| Self::from_sorted(names.iter().map(String::as_str))).flatten()
    }

    /// Whether they contain this name of a field, in any case.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.names().any(|own| eq_ignore_case(name, own.as_bytes()))
    }

    /// Whether they contain all of these names.
    pub fn contains_all(&self, others: &Self) -> bool {
        others.names().all(|other| self.names().any(|name| name == other))
    }

    /// Reads what [`VaryNames::names`] gave; `None` unless they are sorted field names in lower
    /// case, or cookies, within the bounds.
    pub fn from_sorted<'a>(names: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut text = String::new();
        let mut last = "";
        for (at, name) in names.enumerate() {
            let has_room = at < Self::COUNT_MAX && text.len() + name.len() < Self::BYTES_MAX;
            if !has_room || !is_name(name) || name <= last {
                return None;
            }
            if at > 0 {
                text.push('\n');
            }
            text.push_str(name);
            last = name;
        }
        (!text.is_empty()).then(|| Self { text: text.into_boxed_str() })
    }

    /// The names, sorted; those of fields in lower case, see [`cookie_of`] for the others.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.text.split('\n')
    }
}

impl std::fmt::Debug for VaryNames {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.names()).finish()
    }
}

/// The cookie that one of [`VaryNames::names`] stands for; `None` if it is a field.
pub fn cookie_of(name: &str) -> Option<&str> {
    name.strip_prefix(COOKIE)
}

fn is_name(name: &str) -> bool {
    match cookie_of(name) {
        Some(cookie) => is_token(cookie.as_bytes()),
        None => {
            let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
            is_lower && is_token(name.as_bytes())
        }
    }
}

/// The prefix of cookies. A token has no equals sign, so a field name never begins with it.
const COOKIE: &str = "cookie=";

/// Request fields that ktrix rewrites, so that the origin does not see what the client sent.
const REWRITTEN: [&str; 6] =
    ["connection", "forwarded", "te", "via", "x-forwarded-for", "x-forwarded-proto"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(lines: &[&str]) -> Result<Option<Vec<String>>, PassReason> {
        let mut fields = Fields::new();
        for line in lines {
            fields.push(b"Vary", line.as_bytes());
        }
        let names = VaryNames::parse(&fields)?;
        Ok(names.map(|names| names.names().map(str::to_owned).collect()))
    }

    #[test]
    fn names_are_lower_case_sorted_and_unique() {
        let names = |list: &[&str]| Ok(Some(list.iter().map(|n| (*n).to_owned()).collect()));
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&["", " , "]), Ok(None));
        assert_eq!(parse(&["Foo"]), names(&["foo"]));
        assert_eq!(parse(&["foo, Bar", "FOO"]), names(&["bar", "foo"]));
        assert_eq!(parse(&["*"]), Err(PassReason::VaryStar));
        assert_eq!(parse(&["foo", "bar, *"]), Err(PassReason::VaryStar));
        assert_eq!(parse(&["foo bar, *"]), Err(PassReason::VaryStar));
        assert_eq!(parse(&["foo bar"]), Err(PassReason::VaryOdd));
        assert_eq!(parse(&["foo; bar"]), Err(PassReason::VaryOdd));
    }

    #[test]
    fn the_operator_adds_and_ignores_names() {
        let chosen = VaryNames::chosen(["X-Country"].into_iter(), ["Tier", "a"].into_iter());
        let chosen = chosen.unwrap();
        assert_eq!(chosen.names().collect::<Vec<_>>(), ["cookie=Tier", "cookie=a", "x-country"]);
        let of = |line: &str, ignored: &[&str]| {
            let mut fields = Fields::new();
            fields.push(b"Vary", line.as_bytes());
            let ignored: Vec<Box<str>> = ignored.iter().map(|name| (*name).into()).collect();
            let names = VaryNames::of(&fields, &ignored, Some(&chosen))?;
            Ok(names.unwrap().names().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(of("b, X-Country", &[]), Ok("b cookie=Tier cookie=a x-country".to_owned()));
        assert_eq!(of("User-Agent", &["user-agent"]), Ok("cookie=Tier cookie=a x-country".into()));
        assert_eq!(of("*, b", &["*"]), Ok("b cookie=Tier cookie=a x-country".into()));
        assert_eq!(of("*", &[]), Err(PassReason::VaryStar));
        assert_eq!(of("cookie=a", &[]), Err(PassReason::VaryOdd));
        let none = VaryNames::of(&Fields::new(), &[], Some(&chosen)).unwrap();
        assert_eq!(none.as_ref(), Some(&chosen));
        assert!(chosen.contains_all(&chosen));
        assert!(!chosen.contains_all(&VaryNames::from_sorted(["b"].into_iter()).unwrap()));
        for (field, cookie) in [("a b", "c"), ("b", "c;d"), ("X-Forwarded-For", "c")] {
            let chosen = VaryNames::chosen([field].into_iter(), [cookie].into_iter());
            assert_eq!(chosen, None, "{field} {cookie}");
        }
    }

    #[test]
    fn names_are_bounded() {
        let list = |n: usize| (0..n).map(|n| format!("x{n:02}")).collect::<Vec<_>>().join(",");
        assert!(parse(&[&list(VaryNames::COUNT_MAX)]).is_ok());
        assert_eq!(parse(&[&list(VaryNames::COUNT_MAX + 1)]), Err(PassReason::VaryOdd));
        assert_eq!(parse(&[&list(500)]), Err(PassReason::VaryOdd));
        assert_eq!(parse(&[&"x".repeat(VaryNames::BYTES_MAX)]), Err(PassReason::VaryOdd));
    }

    proptest! {
        #[test]
        fn parsed_names_can_be_rebuilt(line in "[a-cA-C, -]{0,40}") {
            let mut fields = Fields::new();
            fields.push(b"vary", line.as_bytes());
            if let Ok(Some(names)) = VaryNames::parse(&fields) {
                prop_assert_eq!(VaryNames::from_sorted(names.names()), Some(names));
            }
        }
    }
}
