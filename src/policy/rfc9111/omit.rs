//! The fields of a response that are not stored.
//!
//! A `private` or `no-cache` with a list of fields applies to these alone: they are not stored, and
//! the rest of the response is stored and reused as without the directive.

use crate::base::chars::eq_ignore_case;
use crate::http::fields::Fields;
use crate::policy::rfc9111::scope::listed_fields;

/// The fields that `private` and `no-cache` list (RFC 9111 sections 5.2.2.4 and 5.2.2.7), and
/// Set-Cookie with `set-cookie: strip`. Only the client of the fetch gets them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Omit {
    names: Vec<Box<[u8]>>,
}

impl Omit {
    /// The fields listed by the Cache-Control of a response.
    pub(crate) fn of(response: &Fields) -> Self {
        let mut names = Vec::new();
        listed_fields(response.get_all("cache-control"), |name| names.push(name.into()));
        Self { names }
    }

    pub(crate) fn add(&mut self, name: &[u8]) {
        self.names.push(name.into());
    }

    /// Removes them from fields that are to be stored.
    pub(crate) fn apply(&self, fields: &mut Fields) {
        if !self.is_empty() {
            fields.retain(|name, _| !self.contains(name));
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.names.iter().any(|listed| eq_ignore_case(listed, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::fields;

    #[test]
    fn listed_fields_are_left_out() {
        let list = [
            ("Cache-Control", "max-age=60, private=\"A, x-b\", no-cache=d"),
            ("a", "1"),
            ("X-B", "2"),
            ("c", "3"),
            ("D", "4"),
        ];
        let omit = Omit::of(&fields(&list));
        let mut left = fields(&list);
        omit.apply(&mut left);
        assert_eq!(left, fields(&[list[0], list[3]]));
    }

    #[test]
    fn without_a_list_all_fields_are_stored() {
        let list = [("cache-control", "max-age=60, no-cache"), ("a", "1")];
        let omit = Omit::of(&fields(&list));
        assert!(omit.is_empty());
        let mut left = fields(&list);
        omit.apply(&mut left);
        assert_eq!(left, fields(&list));
    }
}
