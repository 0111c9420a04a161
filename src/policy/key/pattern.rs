//! Patterns of names in the configuration: one name, or a prefix with a star at its end.

/// One name, or all names with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    is_prefix: bool,
}

impl Pattern {
    /// Reads `name` or `prefix*`; `*` alone matches every name. `None` for an empty text and for a
    /// star elsewhere.
    pub fn parse(text: &str) -> Option<Self> {
        let (bare, is_prefix) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        let is_sound = !bare.contains('*') && (is_prefix || !bare.is_empty());
        is_sound.then(|| Self { text: bare.into(), is_prefix })
    }

    /// Whether it matches this name, byte by byte.
    pub fn matches(&self, name: &[u8]) -> bool {
        match self.is_prefix {
            true => name.starts_with(self.text.as_bytes()),
            false => name == self.text.as_bytes(),
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let star = if self.is_prefix { "*" } else { "" };
        write!(f, "{}{star}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_at_the_end_matches_the_rest() {
        for (pattern, name, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a", "A", false),
            ("a*", "a", true),
            ("a*", "ab", true),
            ("a*", "ba", false),
            ("*", "", true),
            ("*", "x", true),
        ] {
            let found = Pattern::parse(pattern).unwrap().matches(name.as_bytes());
            assert_eq!(found, fits, "{pattern} {name}");
        }
        for text in ["", "*a", "a*b", "a**"] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
    }
}
