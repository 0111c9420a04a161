//! The fields of an answer that led to another route, which the client gets with that route's answer.
//!
//! They are those that nginx passes on with `X-Accel-Redirect`. They reach one client, and are never
//! stored with the answer of the other route.

use crate::http::fields::Fields;
use crate::http::status::Status;

/// Each takes the place of those of the last answer, unless that is an error.
const REPLACING: [&str; 5] =
    ["content-type", "content-disposition", "cache-control", "expires", "accept-ranges"];

/// The fields of the answers before the last one.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    replacing: Fields,
    cookies: Fields,
}

impl Carried {
    /// An answer with these fields has led on.
    pub(super) fn add(&mut self, sent: &Fields) {
        for name in REPLACING.into_iter().filter(|name| sent.contains(name)) {
            self.replacing.remove(name);
        }
        self.replacing.append_from(sent, |name, _| is_one_of(name, &REPLACING));
        self.cookies.append_from(sent, |name, _| is_one_of(name, &["set-cookie"]));
    }

    /// Adds them to the last answer.
    pub(super) fn apply(&self, status: Status, fields: &mut Fields) {
        if status.0 < 400 {
            // The type of several ranges names their boundary, and a 304 has no content.
            let is_own = |value: &[u8]| value.starts_with(b"multipart/byteranges");
            let has_own_type = status.0 == 304 || fields.get("content-type").is_some_and(is_own);
            let names = REPLACING.get(usize::from(has_own_type)..).unwrap_or_default();
            for name in names.iter().filter(|name| self.replacing.contains(name)) {
                fields.remove(name);
            }
            fields.append_from(&self.replacing, |name, _| is_one_of(name, names));
        }
        fields.append_from(&self.cookies, |_, _| true);
    }
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        list.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        fields
    }

    fn text(fields: &Fields) -> String {
        let mut text = Vec::new();
        fields.write_to(&mut text);
        String::from_utf8(text).unwrap().replace("\r\n", "|")
    }

    #[test]
    fn the_last_answer_keeps_what_is_its_own() {
        let mut carried = Carried::default();
        carried.add(&fields(&[("Content-Type", "a/a"), ("Set-Cookie", "x=1"), ("ETag", "e")]));
        carried.add(&fields(&[("content-type", "b/b"), ("Set-Cookie", "y=2"), ("Expires", "0")]));
        let given = |status, kind| {
            let mut last = fields(&[("Content-Type", kind), ("ETag", "f"), ("Set-Cookie", "z=3")]);
            carried.apply(Status(status), &mut last);
            text(&last)
        };
        let cookies = "Set-Cookie: x=1|Set-Cookie: y=2|";
        let start = "ETag: f|Set-Cookie: z=3|";
        assert_eq!(given(200, "c/c"), format!("{start}content-type: b/b|Expires: 0|{cookies}"));
        assert_eq!(
            given(206, "multipart/byteranges; boundary=x"),
            format!("Content-Type: multipart/byteranges; boundary=x|{start}Expires: 0|{cookies}")
        );
        assert_eq!(given(404, "c/c"), format!("Content-Type: c/c|{start}{cookies}"));
    }
}
