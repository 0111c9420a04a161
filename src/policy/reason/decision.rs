//! What decided, for those who ask why: a sentence and a section for each reason that a decision
//! can have.

use crate::policy::reason::pass::PassReason;
use crate::policy::rfc9111::freshness::Source;

/// The rule that decided a [`crate::policy::rfc9111::reuse::Verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
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
    /// The operator wants it validated for this request: the route's `refresh-if`.
    RefreshIf,
}

impl Reason {
    /// Every ground.
    pub const ALL: [Self; 10] = [
        Self::StoredNoCache,
        Self::RequestNoCache,
        Self::TooOld,
        Self::TooShort,
        Self::IsFresh,
        Self::MustRevalidate,
        Self::WhileRevalidating,
        Self::Accepted,
        Self::IsStale,
        Self::RefreshIf,
    ];

    /// The word that `ktrix explain` says.
    pub const fn word(self) -> &'static str {
        match self {
            Self::StoredNoCache => "stored-no-cache",
            Self::RequestNoCache => "request-no-cache",
            Self::TooOld => "max-age",
            Self::TooShort => "min-fresh",
            Self::IsFresh => "fresh",
            Self::MustRevalidate => "must-revalidate",
            Self::WhileRevalidating => "stale-while-revalidate",
            Self::Accepted => "max-stale",
            Self::IsStale => "stale",
            Self::RefreshIf => "refresh-if",
        }
    }

    /// The sentence that it says.
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
            Self::RefreshIf => "a condition of the route's refresh-if holds",
        }
    }

    /// The section that says so, or that what the operator says is like.
    pub const fn section(self) -> &'static str {
        match self {
            Self::StoredNoCache => "RFC 9111 section 5.2.2.4",
            Self::RequestNoCache | Self::RefreshIf => "RFC 9111 section 5.2.1.4",
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

impl PassReason {
    /// The sentence for it.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Off => "the route does not cache",
            Self::PassIf => "a condition of the route's pass-if holds",
            Self::Rare => "it was not asked for often enough yet",
            Self::Method => "only what answers GET is stored, and only GET and HEAD are answered",
            Self::RequestBody => "the request has a body, which is no part of the key",
            Self::Precondition => "only the origin may judge the request's condition",
            Self::RequestNoStore => "the request says no-store",
            Self::NoStore => "the response says no-store",
            Self::Private => "the response is private",
            Self::NoCache => "the response says no-cache and has no validator",
            Self::Authorization => "the request is authorised, and the response allows no sharing",
            Self::SetCookie => "the response sets a cookie",
            Self::VaryStar => "the response varies by what no request can tell",
            Self::VaryOdd => "the response varies by more than is kept",
            Self::Status => "the status cannot be stored",
            Self::NoLifetime => "the response has no lifetime and no validator",
            Self::Expired => "the response would be stale at once, and has no validator",
            Self::Remembered => "it is remembered as not to be stored",
            Self::TooLarge => "the response is too large",
            Self::Part => "parts came that cannot be stored as such",
            Self::Store => "the store could not take it",
        }
    }

    /// The section that says so, where an RFC does.
    pub const fn section(self) -> Option<&'static str> {
        match self {
            Self::Off | Self::PassIf | Self::Rare => None,
            Self::Remembered | Self::TooLarge | Self::Store => None,
            Self::Method | Self::Status | Self::NoLifetime => Some("RFC 9111 section 3"),
            Self::RequestBody => Some("RFC 9111 section 2"),
            Self::Precondition => Some("RFC 9111 section 4.3.2"),
            Self::RequestNoStore => Some("RFC 9111 section 5.2.1.5"),
            Self::NoStore => Some("RFC 9111 section 5.2.2.5"),
            Self::Private => Some("RFC 9111 section 5.2.2.7"),
            Self::NoCache => Some("RFC 9111 section 5.2.2.4"),
            Self::Authorization => Some("RFC 9111 section 3.5"),
            Self::SetCookie => Some("RFC 9111 section 7.3"),
            Self::VaryStar | Self::VaryOdd => Some("RFC 9111 section 4.1"),
            Self::Expired => Some("RFC 9111 section 4.2"),
            Self::Part => Some("RFC 9110 section 14.4"),
        }
    }
}

impl Source {
    /// Where a lifetime comes from, in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::SMaxage => "by s-maxage",
            Self::MaxAge => "by max-age",
            Self::Expires => "by Expires",
            Self::Heuristic => "guessed from Last-Modified",
            Self::Rule => "by the route's ttl-status",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ground_has_a_sentence_of_its_own() {
        let sentences: std::collections::HashSet<&str> =
            Reason::ALL.iter().map(|why| why.sentence()).collect();
        assert_eq!(sentences.len(), Reason::ALL.len());
        let words: std::collections::HashSet<&str> =
            Reason::ALL.iter().map(|why| why.word()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        let sentences: std::collections::HashSet<&str> =
            PassReason::ALL.iter().map(|reason| reason.sentence()).collect();
        assert_eq!(sentences.len(), PassReason::ALL.len());
    }
}
