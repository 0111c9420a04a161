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

            /// What people are told.
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
pub mod pass;
pub mod reuse;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_are_unique_and_in_kebab_case() {
        for words in [
            fetch::FetchError::ALL.iter().map(|reason| reason.word()).collect::<Vec<_>>(),
            close::CloseReason::ALL.iter().map(|reason| reason.word()).collect(),
            pass::PassReason::ALL.iter().map(|reason| reason.word()).collect(),
            reuse::ReuseReason::ALL.iter().map(|reason| reason.word()).collect(),
        ] {
            assert_eq!(words.iter().collect::<HashSet<_>>().len(), words.len(), "{words:?}");
            for word in words {
                let is_kebab = |part: &str| {
                    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase())
                };
                assert!(word.split('-').all(is_kebab), "{word}");
            }
        }
    }
}
