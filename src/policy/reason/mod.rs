//! The reasons that ktrix gives. Each has one word, which the access log, `Cache-Status`, the
//! metrics and the manual use, and one sentence, for `ktrix explain` and for clients.

/// A table of reasons: the enum, the list of its values, and an accessor for each column. A row
/// begins with the word and the sentence.
macro_rules! reasons {
    (
        $(#[$about:meta])*
        $reason:ident { $($(#[$doc:meta])* $column:ident: $type:ty,)* }
        $($variant:ident: $word:literal, $sentence:literal $(, $value:expr)*;)*
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $reason {
            $(#[doc = $sentence] $variant,)*
        }

        impl $reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word in logs, metrics and the manual.
            pub const fn word(self) -> &'static str {
                self.row().word
            }

            /// The sentence for people.
            pub const fn sentence(self) -> &'static str {
                self.row().sentence
            }

            $(
                $(#[$doc])*
                pub const fn $column(self) -> $type {
                    self.row().$column
                }
            )*

            const fn row(self) -> Row {
                match self {
                    $(Self::$variant => row($word, $sentence $(, $value)*),)*
                }
            }
        }

        struct Row {
            word: &'static str,
            sentence: &'static str,
            $($column: $type,)*
        }

        const fn row(word: &'static str, sentence: &'static str $(, $column: $type)*) -> Row {
            Row { word, sentence $(, $column)* }
        }
    };
}

pub mod fetch;
pub mod close;
pub mod forward;
pub mod refusal;
pub mod pass;
pub mod own;
pub(crate) mod reuse;
pub mod server;
pub mod handshake;
pub mod eviction;
pub mod validation;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::close::CloseReason;
    use super::eviction::EvictionReason;
    use super::fetch::FetchError;
    use super::forward::Fwd;
    use super::handshake::HandshakeEnd;
    use super::own::OwnReason;
    use super::pass::PassReason;
    use super::refusal::ForwardRefusal;
    use super::reuse::ReuseReason;
    use super::server::ServerReason;
    use super::validation::ValidationEnd;

    const MANUAL: &str = include_str!("../../../man/ktrix.yaml.5");

    fn words_of<R: Copy>(all: &[R], word: fn(R) -> &'static str) -> Vec<&'static str> {
        all.iter().map(|reason| word(*reason)).collect()
    }

    #[test]
    fn words_are_unique_in_kebab_case_and_in_the_manual() {
        for (words, is_in_manual) in [
            (words_of(PassReason::ALL, PassReason::word), true),
            (words_of(ForwardRefusal::ALL, ForwardRefusal::word), true),
            (words_of(FetchError::ALL, FetchError::word), true),
            (words_of(CloseReason::ALL, CloseReason::word), true),
            (words_of(ReuseReason::ALL, ReuseReason::word), false),
            (words_of(OwnReason::ALL, OwnReason::word), false),
            (words_of(Fwd::ALL, Fwd::word), false),
            (words_of(ServerReason::ALL, ServerReason::word), false),
            (words_of(HandshakeEnd::ALL, HandshakeEnd::word), false),
            (words_of(EvictionReason::ALL, EvictionReason::word), false),
            (words_of(ValidationEnd::ALL, ValidationEnd::word), false),
        ] {
            assert_eq!(words.iter().collect::<HashSet<_>>().len(), words.len(), "{words:?}");
            for word in words {
                let is_lower = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase());
                let is_kebab = word.split('-').all(|word| !word.is_empty() && is_lower(word));
                assert!(is_kebab, "{word}");
                let item = format!("\n.It Cm {word}\n");
                assert!(!is_in_manual || MANUAL.contains(&item), "{word} is not in the manual");
            }
        }
    }
}
