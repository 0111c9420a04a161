//! A filter of requests, as `status >= 500 and host = www.example.com`.
//!
//! ```text
//! filter      and-part { "or" and-part }
//! and-part    part { "and" part }
//! part        "not" part | "(" filter ")" | field operator value
//! operator    = != < <= > >= ~
//! ```
//!
//! A value ends at a space, or at a parenthesis that it did not open, or is in quotes. `~` searches for a
//! regular expression.

use std::cmp::Ordering;

use crate::base::units::{parse_duration, parse_size};
use crate::cli::log::field::{FIELDS, Field, Get};
use crate::config::matching;
use crate::config::network::{Network, parse_network};
use crate::log::format::Record;

/// A condition on a request.
#[derive(Debug)]
pub(in crate::cli) enum Filter {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Is(Test),
}

/// A field, and what it must be.
#[derive(Debug)]
pub(in crate::cli) enum Test {
    Number(fn(&Record<'_>) -> Option<u64>, Operator, u64),
    /// The first digit of a status.
    Class(bool, u16),
    Text(Get, bool, Vec<u8>),
    Pattern(Get, regex::bytes::Regex),
    Client(bool, Vec<Network>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Operator {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
    Matches,
}

/// Why a text is no filter, and at which of its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Flaw {
    pub(super) at: usize,
    pub(super) message: String,
}

impl Filter {
    /// Reads a filter; an empty text is one that all requests pass.
    ///
    /// # Errors
    /// The first flaw.
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, Flaw> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Flaw { at: 0, message: "the filter is too long".to_owned() });
        }
        let mut parser = Parser { text, at: 0, depth: 0 };
        parser.skip_spaces();
        if parser.rest().is_empty() {
            return Ok(Self::All(Vec::new()));
        }
        let filter = parser.any()?;
        match parser.rest() {
            "" => Ok(filter),
            rest if rest.starts_with(')') => parser.flaw("no parenthesis is open here"),
            _ => parser.flaw("expected \"and\", \"or\" or the end"),
        }
    }

    pub(in crate::cli) fn passes(&self, record: &Record<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.passes(record)),
            Self::Any(parts) => parts.iter().any(|part| part.passes(record)),
            Self::Not(part) => !part.passes(record),
            Self::Is(test) => test.passes(record),
        }
    }
}

impl Test {
    fn passes(&self, record: &Record<'_>) -> bool {
        match self {
            Self::Number(get, operator, value) => match get(record) {
                Some(number) => operator.holds(number.cmp(value)),
                None => *operator == Operator::NotEqual,
            },
            Self::Class(is_equal, class) => (record.status / 100 == *class) == *is_equal,
            Self::Text(get, is_equal, value) => {
                get(record).eq_ignore_ascii_case(value) == *is_equal
            }
            Self::Pattern(get, pattern) => pattern.is_match(&get(record)),
            Self::Client(is_equal, networks) => {
                let is_in = networks.iter().any(|it| it.contains(record.client, false));
                is_in == *is_equal
            }
        }
    }

    /// The condition that a field, an operator and a value make.
    fn of(field: &Field, operator: Operator, value: &str) -> Result<Self, Wrong> {
        let equality = match operator {
            Operator::Equal => Some(true),
            Operator::NotEqual => Some(false),
            _ => None,
        };
        let no_order = || Wrong::Operator(format!("{} has no order (use = or !=)", field.name()));
        let no_pattern = || Wrong::Operator(format!("{} is a number, not a text", field.name()));
        match (field, operator) {
            (Field::Status, _) if value.len() == 3 && value.ends_with("xx") => {
                let class = value[..1].parse().map_err(|_| Wrong::Value(NO_STATUS.to_owned()))?;
                Ok(Self::Class(equality.ok_or_else(no_order)?, class))
            }
            (Field::Text(_, get), Operator::Matches) => {
                let pattern = matching::compile(value).map_err(Wrong::Value)?;
                Ok(Self::Pattern(*get, pattern))
            }
            (Field::Text(_, get), _) => {
                let no_order =
                    || Wrong::Operator(format!("{} is a text (use =, != or ~)", field.name()));
                let is_equal = equality.ok_or_else(no_order)?;
                Ok(Self::Text(*get, is_equal, value.as_bytes().to_vec()))
            }
            (Field::Client, _) => {
                let is_equal = equality.ok_or_else(no_order)?;
                Ok(Self::Client(is_equal, parse_network(value).map_err(Wrong::Value)?))
            }
            (_, Operator::Matches) => Err(no_pattern()),
            (Field::Status, _) => {
                let status = value.parse().map_err(|_| Wrong::Value(NO_STATUS.to_owned()))?;
                Ok(Self::Number(|record| Some(u64::from(record.status)), operator, status))
            }
            (Field::Bytes(_, get), _) => {
                let bytes = value.parse().or_else(|_| parse_size(value));
                let bytes = bytes.map_err(|error| Wrong::Value(error.to_string()))?;
                Ok(Self::Number(*get, operator, bytes))
            }
            (Field::Time(_, get), _) => {
                let time =
                    parse_duration(value).map_err(|error| Wrong::Value(error.to_string()))?;
                let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                Ok(Self::Number(*get, operator, time_us))
            }
        }
    }
}

/// The mistake in a condition.
enum Wrong {
    Operator(String),
    Value(String),
}

impl Operator {
    /// The longer ones first.
    const ALL: [(&str, Self); 8] = [
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("=", Self::Equal),
        ("<", Self::Less),
        (">", Self::More),
        ("~", Self::Matches),
    ];

    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::More => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
            Self::Matches => false,
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn any(&mut self) -> Result<Filter, Flaw> {
        let mut parts = vec![self.all()?];
        while self.takes_word("or") {
            parts.push(self.all()?);
        }
        Ok(Filter::Any(parts))
    }

    fn all(&mut self) -> Result<Filter, Flaw> {
        let mut parts = vec![self.part()?];
        while self.takes_word("and") {
            parts.push(self.part()?);
        }
        Ok(Filter::All(parts))
    }

    fn part(&mut self) -> Result<Filter, Flaw> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.flaw("too many parentheses");
        }
        let part = if self.takes_word("not") {
            Filter::Not(Box::new(self.part()?))
        } else if self.rest().starts_with('(') {
            self.take(1);
            let inner = self.any()?;
            if !self.rest().starts_with(')') {
                return self.flaw("expected \"and\", \"or\" or \")\"");
            }
            self.take(1);
            inner
        } else {
            self.condition()?
        };
        self.depth -= 1;
        Ok(part)
    }

    fn condition(&mut self) -> Result<Filter, Flaw> {
        let field_at = self.at;
        let word = self.word();
        if word.is_empty() {
            return self.flaw("expected a field");
        }
        let Some(field) = FIELDS.iter().find(|field| field.name() == word) else {
            let names: Vec<_> = FIELDS.iter().map(Field::name).collect();
            let message = format!("unknown field {word:?} (known are {})", names.join(", "));
            return Err(Flaw { at: field_at, message });
        };
        self.take(word.len());
        let operator_at = self.at;
        let operators = Operator::ALL.iter();
        let found = operators.copied().find(|(text, _)| self.rest().starts_with(text));
        let Some((text, operator)) = found else {
            return self.flaw("expected one of = != < <= > >= ~");
        };
        self.take(text.len());
        let value_at = self.at;
        let value = self.value()?;
        Test::of(field, operator, value).map(Filter::Is).map_err(|wrong| match wrong {
            Wrong::Operator(message) => Flaw { at: operator_at, message },
            Wrong::Value(message) => Flaw { at: value_at, message },
        })
    }

    fn value(&mut self) -> Result<&'t str, Flaw> {
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|it| matches!(it, '"' | '\'')) {
            let Some(len) = rest[1..].find(quote) else {
                return self.flaw("the quote is not closed");
            };
            self.take(len + 2);
            return Ok(&rest[1..=len]);
        }
        let mut n_open = 0_usize;
        let ends = |char: char| {
            match char {
                '(' => n_open += 1,
                ')' if n_open == 0 => return true,
                ')' => n_open -= 1,
                _ => {}
            }
            char.is_whitespace()
        };
        let len = rest.find(ends).unwrap_or(rest.len());
        if len == 0 || Operator::ALL.iter().any(|(text, _)| rest.starts_with(text)) {
            return self.flaw("expected a value (in quotes if it has a space)");
        }
        self.take(len);
        Ok(&rest[..len])
    }

    fn word(&self) -> &'t str {
        let rest = self.rest();
        let len = rest.find(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        &rest[..len.unwrap_or(rest.len())]
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_it = self.word() == word;
        if is_it {
            self.take(word.len());
        }
        is_it
    }

    fn take(&mut self, len: usize) {
        self.at += len;
        self.skip_spaces();
    }

    fn skip_spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn flaw<T>(&self, message: &str) -> Result<T, Flaw> {
        Err(Flaw { at: self.at, message: message.to_owned() })
    }
}

impl Flaw {
    /// The mistake, with its column.
    pub(in crate::cli) fn brief(&self, text: &str) -> String {
        format!("column {}: {}", self.n_before(text) + 1, self.message)
    }

    /// The filter with a mark below the place, and what is wrong there.
    pub(super) fn explain(&self, text: &str) -> String {
        format!("  {text}\n  {:width$}^ {}", "", self.brief(text), width = self.n_before(text))
    }

    fn n_before(&self, text: &str) -> usize {
        text.get(..self.at).unwrap_or_default().chars().count()
    }
}

const NO_STATUS: &str = "is no status (try 404, or 5xx for all from 500 to 599)";
const TEXT_BYTES_MAX: usize = 4_096;
const DEPTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::format::Times;

    fn sample() -> Record<'static> {
        Record {
            client: Some("192.0.2.7".parse().unwrap()),
            method: b"GET",
            host: b"WWW.example.com:8080",
            target: b"/img/a?b=c",
            status: 503,
            body_bytes: 2048,
            verdict: "miss",
            upstream: "app",
            server: "10.0.0.1:80",
            times: Times { total_us: Some(250_000), ..Times::default() },
            user_agent: b"a \"quoted\" bot",
            ..Record::default()
        }
    }

    #[test]
    fn a_request_passes_by_each_of_its_facts() {
        for text in [
            "",
            "  ",
            "status = 503",
            "status==503",
            "status>=500",
            "status = 5xx",
            "not status = 4xx",
            "status >= 500 and host = www.example.com",
            "host != example.com",
            "host ~ example",
            "path = /img/a",
            "target = /img/a?b=c",
            "query = b=c",
            "path ~ ^/(img|css)/",
            "(path ~ ^/(img|css)/)",
            "method = get",
            "client = 192.0.2.7",
            "client = 192.0.2.0/24",
            "client != loopback",
            "verdict = miss",
            "reason = \"\"",
            "upstream = app",
            "server = 10.0.0.1:80",
            "total > 100ms",
            "total<=250ms",
            "bytes = 2048",
            "bytes = 2KiB",
            "bytes < \"1 MiB\"",
            "queue != 1s",
            "agent ~ 'd\" bot'",
            "status = 404 or status = 503",
            "status = 1 and status = 2 or status = 503",
            "not (status = 1 or not status = 503)",
            "not not status=503",
            "id = 00000000000000000000000000000000",
        ] {
            let filter = Filter::parse(text).unwrap_or_else(|flaw| panic!("{text}: {flaw:?}"));
            assert!(filter.passes(&sample()), "{text}");
        }
        for text in [
            "status = 200",
            "status < 503",
            "not status = 503",
            "host = example.com",
            "host = www.example.com and status = 200",
            "client = 10.0.0.0/8",
            "queue = 1s",
            "queue > 0s",
            "status = 404 or status = 1 and status = 503",
            "path ~ ^img",
        ] {
            assert!(!Filter::parse(text).unwrap().passes(&sample()), "{text}");
        }
    }

    #[test]
    fn a_flaw_names_its_column() {
        for (text, column, part) in [
            ("stat = 1", 1, "unknown field \"stat\""),
            ("status", 7, "expected one of ="),
            ("status 500", 8, "expected one of ="),
            ("status > = 500", 10, "expected a value"),
            ("status = 500 and", 17, "expected a field"),
            ("status = 500 host = a", 14, "expected \"and\""),
            ("(status = 500", 14, "\")\""),
            ("status = 500)", 13, "no parenthesis is open"),
            ("status = abc", 10, "is no status"),
            ("status ~ 5", 8, "not a text"),
            ("host > a", 6, "is a text"),
            ("host ~ (", 8, "regular expression"),
            ("host = \"a", 8, "the quote is not closed"),
            ("total > 5", 9, "has no unit"),
            ("client = moon", 10, "is not a network"),
            ("client > 10.0.0.1", 8, "has no order"),
            ("verdict = é and x", 17, "unknown field"),
        ] {
            let flaw = Filter::parse(text).unwrap_err();
            let explained = flaw.explain(text);
            assert!(explained.contains(&format!("^ column {column}: ")), "{explained}");
            assert!(explained.contains(part), "{explained}");
        }
        let deep = "(".repeat(1_000);
        assert_eq!(Filter::parse(&deep).unwrap_err().message, "too many parentheses");
        assert!(Filter::parse(&"not ".repeat(2_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(
            text in "[a-z0-9 ()=!<>~\"'/é]{0,60}",
            words in proptest::collection::vec(
                prop::sample::select(vec![
                    "status", "host", "total", "client", "path", "=", "!=", "<", "~", ">=", "and", "or",
                    "not", "(", ")", "500", "5xx", "xxx", "100ms", "\"a b\"", "'", "[a", "10.0.0.0/8", "é",
                ]),
                0..20,
            ),
        ) {
            for text in [text, words.join(" "), words.concat()] {
                match Filter::parse(&text) {
                    Ok(filter) => _ = filter.passes(&sample()),
                    Err(flaw) => prop_assert!(flaw.explain(&text).contains('^')),
                }
            }
        }
    }
}
