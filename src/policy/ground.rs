//! What decided how a stored response stands to a request, for those who ask why.

/// The rule that decided a [`crate::policy::reuse::Verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ground {
    /// The stored response says `no-cache`.
    StoredNoCache,
    /// The request says `no-cache` (or `Pragma: no-cache` and no Cache-Control).
    RequestNoCache,
    /// The request wants a younger one than is stored: its `max-age`.
    TooOld,
    /// The request wants one that stays fresh for longer: its `min-fresh`.
    TooShort,
    /// It is fresh, and the request takes it.
    IsFresh,
    /// It is stale, and the origin forbids using it so.
    MustRevalidate,
    /// It is stale, but the origin allows using it while it is validated.
    WhileRevalidating,
    /// It is stale, but the request takes it: its `max-stale`.
    Accepted,
    /// It is stale.
    IsStale,
}

impl Ground {
    /// Every ground.
    pub const ALL: [Self; 9] = [
        Self::StoredNoCache,
        Self::RequestNoCache,
        Self::TooOld,
        Self::TooShort,
        Self::IsFresh,
        Self::MustRevalidate,
        Self::WhileRevalidating,
        Self::Accepted,
        Self::IsStale,
    ];

    /// The sentence that `ktrix explain` says.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::StoredNoCache => "the stored response says no-cache",
            Self::RequestNoCache => "the request says no-cache",
            Self::TooOld => "it is older than the request's max-age",
            Self::TooShort => "it does not stay fresh for the request's min-fresh",
            Self::IsFresh => "it is fresh",
            Self::MustRevalidate => "it is stale, and the origin forbids serving it stale",
            Self::WhileRevalidating => "it is stale, within stale-while-revalidate",
            Self::Accepted => "it is stale, within the request's max-stale",
            Self::IsStale => "it is stale",
        }
    }

    /// The section that says so.
    pub const fn section(self) -> &'static str {
        match self {
            Self::StoredNoCache => "RFC 9111 section 5.2.2.4",
            Self::RequestNoCache => "RFC 9111 section 5.2.1.4",
            Self::TooOld => "RFC 9111 section 5.2.1.1",
            Self::TooShort => "RFC 9111 section 5.2.1.3",
            Self::IsFresh => "RFC 9111 section 4.2",
            Self::MustRevalidate => "RFC 9111 section 5.2.2.2",
            Self::WhileRevalidating => "RFC 5861 section 3",
            Self::Accepted => "RFC 9111 section 5.2.1.2",
            Self::IsStale => "RFC 9111 section 4.2.4",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ground_has_a_sentence_of_its_own() {
        let sentences: std::collections::HashSet<&str> =
            Ground::ALL.iter().map(|ground| ground.sentence()).collect();
        assert_eq!(sentences.len(), Ground::ALL.len());
    }
}
