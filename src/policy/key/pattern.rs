//! Names that an operator lists: one, or with a star at its end all that begin so.

/// What names are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    is_prefix: bool,
}

impl Pattern {
    /// Reads `name` or `prefix*`; `*` alone means every name. `None` for an empty text and for a
    /// star elsewhere.
    pub fn parse(text: &str) -> Option<Self> {
        let (bare, is_prefix) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        let is_sound = !bare.contains('*') && (is_prefix || !bare.is_empty());
        is_sound.then(|| Self { text: bare.into(), is_prefix })
    }

    /// Whether it means this name, byte by byte.
    pub fn fits(&self, name: &[u8]) -> bool {
        match self.is_prefix {
            true => name.starts_with(self.text.as_bytes()),
            false => name == self.text.as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_at_the_end_means_the_rest() {
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
            let found = Pattern::parse(pattern).unwrap().fits(name.as_bytes());
            assert_eq!(found, fits, "{pattern} {name}");
        }
        for text in ["", "*a", "a*b", "a**"] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
    }
}
