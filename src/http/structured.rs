//! Dictionaries of structured fields, RFC 8941 section 3.2, parsed strictly: a value with any flaw
//! is no dictionary.

use crate::base::chars::is_token_char;

/// The limit of members in a dictionary; one with more is refused.
const MEMBERS_MAX: usize = 64;

/// The limit of parameters and inner-list members in a whole dictionary.
const INNER_MAX: usize = 256;

/// A member: its key and value, without parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The key: lower-case letters, digits and `_-.*`.
    pub key: String,
    /// The value.
    pub value: Value,
}

/// The value of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// At most 15 digits.
    Integer(i64),
    /// A token.
    Token(String),
    /// A string, with its escapes resolved.
    Text(String),
    /// True, also where only the key stands, or false.
    Boolean(bool),
    /// A decimal, a byte sequence or an inner list.
    Other,
}

/// The members of the dictionary that these field lines make, in order, with the last value of each
/// key; `None` if they are no dictionary. A dictionary without members is empty.
pub fn dictionary<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Member>> {
    let text = lines.collect::<Vec<_>>().join(&b", "[..]);
    let mut parser = Parser { rest: &text, n_inner: 0 };
    let mut members: Vec<Member> = Vec::new();
    parser.skip(b" ");
    while !parser.rest.is_empty() {
        let key = parser.key()?;
        let value = match parser.eat(b'=') {
            true => parser.value()?,
            false => Value::Boolean(true),
        };
        parser.parameters()?;
        members.retain(|member| member.key != key);
        members.push(Member { key, value });
        if members.len() > MEMBERS_MAX {
            return None;
        }
        parser.skip(b" \t");
        if parser.rest.is_empty() {
            break;
        }
        parser.eat(b',').then_some(())?;
        parser.skip(b" \t");
        (!parser.rest.is_empty()).then_some(())?;
    }
    Some(members)
}

struct Parser<'a> {
    rest: &'a [u8],
    n_inner: usize,
}

impl<'a> Parser<'a> {
    fn skip(&mut self, blanks: &[u8]) {
        while self.rest.first().is_some_and(|byte| blanks.contains(byte)) {
            self.take();
        }
    }

    fn take(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.rest.first() == Some(&byte);
        if is_next {
            self.take();
        }
        is_next
    }

    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let n = self.rest.iter().take_while(|byte| belongs(**byte)).count();
        let (taken, rest) = self.rest.split_at(n);
        self.rest = rest;
        taken
    }

    /// Section 4.2.3.3.
    fn key(&mut self) -> Option<String> {
        let begins = self.rest.first().is_some_and(|b| b.is_ascii_lowercase() || *b == b'*');
        begins.then_some(())?;
        let key = self.take_while(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
        });
        Some(String::from_utf8_lossy(key).into_owned())
    }

    /// An item or an inner list, without the parameters behind it.
    fn value(&mut self) -> Option<Value> {
        if !self.eat(b'(') {
            return self.bare_item();
        }
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Value::Other);
            }
            self.count()?;
            self.bare_item()?;
            self.parameters()?;
            matches!(self.rest.first(), Some(b' ' | b')')).then_some(())?;
        }
    }

    fn count(&mut self) -> Option<()> {
        self.n_inner += 1;
        (self.n_inner <= INNER_MAX).then_some(())
    }

    /// Section 4.2.3.2.
    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.count()?;
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    /// Section 4.2.3.1.
    fn bare_item(&mut self) -> Option<Value> {
        match *self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.text(),
            b'?' => {
                self.take();
                match self.take()? {
                    b'0' => Some(Value::Boolean(false)),
                    b'1' => Some(Value::Boolean(true)),
                    _ => None,
                }
            }
            b':' => {
                self.take();
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
                self.eat(b':').then_some(Value::Other)
            }
            byte if byte.is_ascii_alphabetic() || byte == b'*' => {
                let token = self.take_while(|byte| is_token_char(byte) || b":/".contains(&byte));
                Some(Value::Token(String::from_utf8_lossy(token).into_owned()))
            }
            _ => None,
        }
    }

    /// Section 4.2.4.
    fn number(&mut self) -> Option<Value> {
        let is_negative = self.eat(b'-');
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        if self.eat(b'.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit());
            let is_sound = (1..=12).contains(&digits.len()) && (1..=3).contains(&fraction.len());
            return is_sound.then_some(Value::Other);
        }
        (1..=15).contains(&digits.len()).then_some(())?;
        let number: i64 = str::from_utf8(digits).ok()?.parse().ok()?;
        Some(Value::Integer(if is_negative { -number } else { number }))
    }

    /// Section 4.2.5.
    fn text(&mut self) -> Option<Value> {
        self.take();
        let mut text = String::new();
        loop {
            match self.take()? {
                b'"' => return Some(Value::Text(text)),
                b'\\' => match self.take()? {
                    byte @ (b'"' | b'\\') => text.push(char::from(byte)),
                    _ => return None,
                },
                byte @ 0x20..=0x7e => text.push(char::from(byte)),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(lines: &[&str]) -> Option<Vec<(String, Value)>> {
        let members = dictionary(lines.iter().map(|line| line.as_bytes()))?;
        Some(members.into_iter().map(|member| (member.key, member.value)).collect())
    }

    #[test]
    fn a_dictionary_is_its_members() {
        let text = |text: &str| Value::Text(text.to_owned());
        type Case<'a> = (&'a [&'a str], &'a [(&'a str, Value)]);
        let cases: &[Case<'_>] = &[
            (&[""], &[]),
            (&["  "], &[]),
            (&["a"], &[("a", Value::Boolean(true))]),
            (&["a;x;y=1 , b=?0"], &[("a", Value::Boolean(true)), ("b", Value::Boolean(false))]),
            (
                &["max-age=600,\tb=-7"],
                &[("max-age", Value::Integer(600)), ("b", Value::Integer(-7))],
            ),
            (&["a=1", "b=2, a=3"], &[("b", Value::Integer(2)), ("a", Value::Integer(3))]),
            (&["a=\"x, \\\"y\\\\\""], &[("a", text("x, \"y\\"))]),
            (&["a=b/c:*, *d=1.5"], &[("a", Value::Token("b/c:*".into())), ("*d", Value::Other)]),
            (&["a=(1 \"b\";c d);e, f=:YQ==:"], &[("a", Value::Other), ("f", Value::Other)]),
            (&["a=999999999999999"], &[("a", Value::Integer(999_999_999_999_999))]),
        ];
        for (lines, expected) in cases {
            let expected: Vec<_> =
                expected.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
            assert_eq!(parsed(lines), Some(expected), "{lines:?}");
        }
    }

    #[test]
    fn an_invalid_dictionary_is_refused_as_a_whole() {
        for line in [
            "a=1, &&&&", "MaX=1", "a =1", "a= 1", "a=", "a,", "a,,b", ",a", "a b", "a=\"x",
            "a=\"\\n\"", "a=\"\u{e9}\"", "a=1000000000000000", "a=1.", "a=1.2345", "a=-", "a=?2",
            "a=(1", "a=(1,2)", "a=:!:", "a=@1", "a;B", "a;b=", "=1", "\ta", "1",
        ] {
            assert_eq!(parsed(&[line]), None, "{line:?}");
        }
        let many = |n: usize| (0..n).map(|n| format!("a{n}")).collect::<Vec<_>>().join(",");
        assert!(parsed(&[&many(MEMBERS_MAX)]).is_some());
        assert_eq!(parsed(&[&many(MEMBERS_MAX + 1)]), None);
        assert_eq!(parsed(&[&format!("a{}", ";b".repeat(INNER_MAX + 1))]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            dictionary(std::iter::once(line.as_slice()));
        }

        #[test]
        fn every_split_into_lines_at_a_comma_means_the_same(
            members in proptest::collection::vec("[a-c]{1,2}(=[0-9]{1,3}|=\"[a-z ]{0,3}\"|;q)?", 1..6),
        ) {
            let lines: Vec<&str> = members.iter().map(String::as_str).collect();
            prop_assert_eq!(parsed(&lines), parsed(&[&members.join(",")]));
        }
    }
}
