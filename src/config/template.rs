//! Texts with variables in braces (`{host}`) and captures of a regular expression (`$1`).
//!
//! No value can end a line or name another host: a field gets no control characters, and what stands
//! in a URL is percent-encoded and begins with a slash behind an authority.

use crate::config::nearest::nearest;
use crate::config::variables::{Phase, VARIABLES, Variable};

/// A text with variables and captures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
    Capture(usize),
}

/// The values of a template.
pub trait Values {
    /// Appends the value of a variable.
    fn variable(&self, variable: Variable, out: &mut Vec<u8>);

    /// Appends a capture.
    fn capture(&self, number: usize, out: &mut Vec<u8>);

    /// Whether captures are percent-encoded as the client sent them.
    fn are_encoded(&self) -> bool {
        false
    }
}

impl Template {
    /// Reads a text that may name captures up to `n_captures` and the variables known by `phase`.
    /// Braces and dollar signs are written twice to stand for themselves.
    ///
    /// # Errors
    /// The fault, in one line.
    pub fn parse(text: &str, n_captures: usize, phase: Phase) -> Result<Self, String> {
        if text.contains(char::is_control) {
            return Err("contains a control character".to_owned());
        }
        Self::parse_text(text, n_captures, phase)
    }

    /// As [`Self::parse`], for a body, which may have several lines.
    ///
    /// # Errors
    /// The fault, in one line.
    pub fn parse_text(text: &str, n_captures: usize, phase: Phase) -> Result<Self, String> {
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}', '$']) {
            let (before, after) = rest.split_at(at);
            literal.push_str(before);
            let sign = after.get(..1).unwrap_or_default();
            let tail = after.get(1..).unwrap_or_default();
            if tail.starts_with(sign) {
                literal.push_str(sign);
                rest = tail.get(1..).unwrap_or_default();
                continue;
            }
            let (part, len) = match sign {
                "{" => {
                    let end = tail.find('}').ok_or("has a brace that is not closed")?;
                    (Part::Variable(variable(tail.get(..end).unwrap_or_default(), phase)?), end + 1)
                }
                "$" => (Part::Capture(capture(tail, n_captures)?), 1),
                _ => return Err("has a brace that is not opened (write it twice)".to_owned()),
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(part);
            rest = tail.get(len..).unwrap_or_default();
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self { parts })
    }

    /// Whether it has neither variables nor captures.
    pub fn is_constant(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// Whether a value of the client, other than the host that it asked for, begins the authority
    /// of the URL: it would name the host.
    pub fn leaves_host_to_clients(&self) -> bool {
        let mut parts = self.parts.iter().peekable();
        let has_scheme = parts.next_if_eq(&&Part::Variable(Variable::Scheme)).is_some();
        let text = match parts.next_if(|part| matches!(part, Part::Text(_))) {
            Some(Part::Text(text)) => text,
            _ => "",
        };
        let scheme_len = text.find([':', '/', '?', '#']).filter(|at| text[*at..].starts_with(':'));
        let rest = text.get(scheme_len.map_or(0, |at| at + 1)..).unwrap_or_default();
        let begins_authority = has_scheme || scheme_len.is_some() || text.starts_with("//");
        begins_authority
            && rest.trim_start_matches(['/', '\\']).is_empty()
            && parts.next().is_some_and(|part| *part != Part::Variable(Variable::Host))
    }

    /// The bytes that are not of values.
    pub fn literal(&self) -> impl Iterator<Item = u8> + '_ {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text),
            _ => None,
        });
        texts.flat_map(|text| text.bytes())
    }

    /// Whether it names a variable that is one of these.
    pub fn names_any(&self, is_one: impl Fn(Variable) -> bool) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable(it) if is_one(*it)))
    }

    /// Whether it names variables, none but these, and no capture.
    pub fn names_only(&self, is_one: impl Fn(Variable) -> bool) -> bool {
        !self.is_constant()
            && self.parts.iter().all(|part| match part {
                Part::Text(_) => true,
                Part::Variable(variable) => is_one(*variable),
                Part::Capture(_) => false,
            })
    }

    /// The text as the value of a field, without control characters.
    pub fn field_value(&self, values: &impl Values) -> Vec<u8> {
        let mut out = self.rendered(values, |_, value, out| out.extend_from_slice(value));
        out.retain(|byte| !byte.is_ascii_control() || *byte == b'\t');
        let end = out.trim_ascii_end().len();
        out.truncate(end);
        out.drain(..out.len() - out.trim_ascii_start().len());
        out
    }

    /// The text as a body.
    pub fn body(&self, values: &impl Values) -> Vec<u8> {
        self.rendered(values, |_, value, out| out.extend_from_slice(value))
    }

    /// The text as a URL or a part of one. A capture is percent-encoded. No value becomes a part of
    /// the authority but that of `{host}`.
    pub fn url(&self, values: &impl Values) -> Vec<u8> {
        let mut out = self.rendered(values, |part, value, out| {
            let is_host = matches!(part, Part::Variable(Variable::Host | Variable::Scheme));
            if !is_host && ends_in_authority(out) && !value.starts_with(b"/") {
                match (part, value.first()) {
                    (_, None) => return,
                    (Part::Variable(Variable::Query), Some(b'?')) => {}
                    _ => out.push(b'/'),
                }
            }
            // Else it could be a scheme and a host.
            if matches!(part, Part::Capture(_)) && out.is_empty() && !value.starts_with(b"/") {
                out.push(b'/');
            }
            match part {
                Part::Capture(_) if !values.are_encoded() => encode(value, b"-._~/!$'()*,:@+", out),
                // As the client sent it, which has only what a target can have.
                _ => encode(value, b"-._~/!$'()*,:@+%?&=;[]", out),
            }
        });
        let names_authority =
            matches!(self.parts.first(), Some(Part::Text(text)) if {
                text.contains("://") || text.starts_with("//")
            }) || matches!(self.parts.first(), Some(Part::Variable(Variable::Scheme)));
        // Two slashes, or a backslash for one, would begin another authority.
        if !names_authority && out.starts_with(b"/") {
            let after = out.iter().skip(1);
            let n_more = after.take_while(|byte| matches!(byte, b'/' | b'\\')).count();
            out.drain(1..=n_more);
        }
        out
    }

    fn rendered(
        &self,
        values: &impl Values,
        mut push: impl FnMut(&Part, &[u8], &mut Vec<u8>),
    ) -> Vec<u8> {
        let (mut out, mut value) = (Vec::with_capacity(64), Vec::new());
        for part in &self.parts {
            value.clear();
            match part {
                Part::Text(text) => {
                    out.extend_from_slice(text.as_bytes());
                    continue;
                }
                Part::Variable(variable) => values.variable(*variable, &mut value),
                Part::Capture(number) => values.capture(*number, &mut value),
            }
            push(part, &value, &mut out);
        }
        out
    }
}

/// Whether what follows would belong to the authority of a URL.
fn ends_in_authority(url: &[u8]) -> bool {
    let authority = match memchr::memmem::find(url, b"://") {
        Some(at) => url.get(at + 3..),
        None => url.strip_prefix(b"//"),
    };
    authority.is_some_and(|rest| !rest.iter().any(|byte| b"/?#".contains(byte)))
}

/// Appends a text with all bytes percent-encoded that are neither alphanumeric nor in `kept`.
fn encode(text: &[u8], kept: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte.is_ascii_alphanumeric() || kept.contains(byte) {
            true => out.push(*byte),
            false => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
}

fn variable(name: &str, phase: Phase) -> Result<Variable, String> {
    let known = VARIABLES.iter().filter(|row| row.phase <= phase).map(|row| row.name);
    match Variable::named(name) {
        Some((variable, row)) if row.phase <= phase => Ok(variable),
        Some(_) => Err(format!("names {{{name}}}, which is not known before the answer")),
        None => Err(match nearest(name, known.clone()) {
            Some(near) => {
                format!("names an unknown variable (did you mean \"{{{near}}}\"?)")
            }
            None => {
                let known = known.collect::<Vec<_>>().join(", ");
                format!("names an unknown variable (known here: {known})")
            }
        }),
    }
}

fn capture(tail: &str, n_captures: usize) -> Result<usize, String> {
    let digit = tail.chars().next().and_then(|digit| digit.to_digit(10));
    let number = digit.map_or(0, |digit| digit as usize);
    match number {
        0 => Err("has a dollar sign without a number from 1 to 9 (write it twice)".to_owned()),
        number if number > n_captures => {
            Err(format!("names ${number}, but the expression has {n_captures} captures"))
        }
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Fixed<'a>(&'a [u8], &'a [u8]);

    impl Values for Fixed<'_> {
        fn variable(&self, variable: Variable, out: &mut Vec<u8>) {
            match variable {
                Variable::Host => out.extend_from_slice(b"www.example.com"),
                Variable::Scheme => out.extend_from_slice(b"http"),
                Variable::Query => out.extend_from_slice(b"?a=b"),
                _ => out.extend_from_slice(self.0),
            }
        }

        fn capture(&self, _number: usize, out: &mut Vec<u8>) {
            out.extend_from_slice(self.1);
        }
    }

    fn url(template: &str, path: &str, capture: &str) -> String {
        let template = Template::parse(template, 9, Phase::Request).unwrap();
        let url = template.url(&Fixed(path.as_bytes(), capture.as_bytes()));
        String::from_utf8(url).unwrap()
    }

    #[test]
    fn no_value_names_another_host() {
        for (template, path, capture, expected) in [
            ("https://{host}{path}{query}", "/a", "", "https://www.example.com/a?a=b"),
            ("{path}", "//evil.example/x", "", "/evil.example/x"),
            ("{path}", "///////", "", "/"),
            ("/$1", "", "/evil.example", "/evil.example"),
            ("/$1", "", "\\evil.example", "/%5Cevil.example"),
            ("$1", "", "//evil.example", "/evil.example"),
            ("$1", "", "https://evil.example", "/https://evil.example"),
            ("$1", "", "javascript:x", "/javascript:x"),
            ("$1", "", "a", "/a"),
            ("https://a.example$1", "", ".evil.example", "https://a.example/.evil.example"),
            ("https://a.example$1", "", "@evil.example", "https://a.example/@evil.example"),
            ("https://a.example$1", "", ":80@evil", "https://a.example/:80@evil"),
            ("https://a.example{query}", "", "", "https://a.example?a=b"),
            ("{scheme}://{host}$1", "", "x", "http://www.example.com/x"),
            ("/x/$1", "", "a\r\nb: c", "/x/a%0D%0Ab%3A%20c"),
            ("/x/$1", "", "a?b#c", "/x/a%3Fb%23c"),
        ] {
            let expected = expected.replace("%3A", ":");
            assert_eq!(url(template, path, capture), expected, "{template} {path} {capture}");
        }
    }

    #[test]
    fn a_host_is_written_or_the_one_that_was_asked_for() {
        for (text, expected) in [
            ("https://$1.example.com/", true),
            ("https://{path}", true),
            ("https:$1", true),
            ("https:/$1", true),
            ("//$1", true),
            ("{scheme}://$1", true),
            ("{scheme}$1", true),
            ("https://{host}$1", false),
            ("{scheme}://{host}$1", false),
            ("//{host}$1", false),
            ("https://a.example$1", false),
            ("/a:$1", false),
            ("/$1", false),
            ("$1", false),
            ("{path}", false),
            ("https://a.example", false),
        ] {
            let template = Template::parse(text, 9, Phase::Request).unwrap();
            assert_eq!(template.leaves_host_to_clients(), expected, "{text}");
        }
    }

    #[test]
    fn a_field_has_one_line() {
        let template = Template::parse("a $1 $$ {{x}} ", 1, Phase::Request).unwrap();
        assert_eq!(template.field_value(&Fixed(b"", b"1\r\nb\0")), b"a 1b $ {x}");
        assert!(!template.is_constant());
        assert!(Template::parse("a", 0, Phase::Request).unwrap().is_constant());
    }

    #[test]
    fn malformed_templates_are_refused() {
        for (text, error) in [
            ("{hots}", "did you mean \"{host}\"?"),
            ("{", "is not closed"),
            ("a}", "is not opened"),
            ("$2", "names $2, but the expression has 1 captures"),
            ("$x", "without a number"),
            ("{cache}", "is not known before the answer"),
            ("{tls-client-oid:1.x}", "did you mean \"{tls-client-oid:OID}\"?"),
            ("{tls-client-oid:OID}", "did you mean \"{tls-client-oid:OID}\"?"),
            ("a\nb", "control character"),
        ] {
            let found = Template::parse(text, 1, Phase::Request).unwrap_err();
            assert!(found.contains(error), "{text}: {found}");
        }
    }

    proptest! {
        #[test]
        fn no_capture_escapes(capture in proptest::collection::vec(any::<u8>(), 0..20)) {
            for text in ["https://a.example$1/x", "/$1", "$1", "https://{host}/$1?a=$1"] {
                let template = Template::parse(text, 1, Phase::Request).unwrap();
                let url = template.url(&Fixed(b"/", &capture));
                prop_assert!(url.iter().all(u8::is_ascii_graphic));
                prop_assert!(!url.starts_with(b"//"));
                if text.starts_with("https://a.example") {
                    prop_assert!(url.starts_with(b"https://a.example/"));
                }
            }
            let template = Template::parse("v $1", 1, Phase::Request).unwrap();
            let value = template.field_value(&Fixed(b"/", &capture));
            prop_assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
        }
    }
}
