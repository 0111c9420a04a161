//! Why a request or a response goes round the cache: one word for each reason.
//!
//! The word is what the access log, the Cache-Status detail, the counters and the manual say.

use crate::policy::reason::forward::Fwd;

/// Why something was not stored, or not answered from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PassReason {
    /// The route says `cache: off`, or there is no cache.
    Off,
    /// A condition of the route's `pass-if` holds for the request.
    PassIf,
    /// The method is not GET or HEAD (RFC 9111 section 3: only what is understood).
    Method,
    /// The request has a body, which is no part of the key.
    RequestBody,
    /// If-Match or If-Unmodified-Since, which only the origin may judge (RFC 9111 section 4.3.2).
    Precondition,
    /// The request says `no-store` (RFC 9111 section 5.2.1.5).
    RequestNoStore,
    /// The response says `no-store` (section 5.2.2.5).
    NoStore,
    /// The response is `private` (section 5.2.2.7).
    Private,
    /// The response says `no-cache` and has no validator to ask the origin with (section 5.2.2.4).
    NoCache,
    /// The request had Authorization and the response allows no sharing (section 3.5).
    Authorization,
    /// The response sets a cookie and the operator does not allow storing those.
    SetCookie,
    /// `Vary: *` (section 4.1).
    VaryStar,
    /// Vary names more fields than are kept, or something that is no field name.
    VaryOdd,
    /// A status that cannot be stored as a whole response, or that is not understood though it
    /// must be (section 3); or an error, where what is stored may serve in its place (RFC 5861
    /// section 4).
    Status,
    /// No lifetime is stated or may be guessed, and there is no validator (section 3).
    NoLifetime,
    /// It would be stale at once, and there is no validator (section 4.2).
    Expired,
    /// The key is remembered as one that cannot be stored.
    Remembered,
    /// The object is larger than may be stored.
    TooLarge,
    /// Parts came where one was asked for, or they do not say where they belong.
    Part,
    /// It is asked for too seldom for what the operator decided.
    Rare,
    /// The store could not take it: no space, or the disk refused.
    Store,
}

impl PassReason {
    /// Every reason, for tables, counters and the manual.
    pub const ALL: [Self; 21] = [
        Self::Off,
        Self::PassIf,
        Self::Method,
        Self::RequestBody,
        Self::Precondition,
        Self::RequestNoStore,
        Self::NoStore,
        Self::Private,
        Self::NoCache,
        Self::Authorization,
        Self::SetCookie,
        Self::VaryStar,
        Self::VaryOdd,
        Self::Status,
        Self::NoLifetime,
        Self::Expired,
        Self::Remembered,
        Self::TooLarge,
        Self::Part,
        Self::Rare,
        Self::Store,
    ];

    /// The word used in logs, counters and the manual.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::PassIf => "pass-if",
            Self::Method => "method",
            Self::RequestBody => "request-body",
            Self::Precondition => "precondition",
            Self::RequestNoStore => "request-no-store",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::NoCache => "no-cache",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary-star",
            Self::VaryOdd => "vary-odd",
            Self::Status => "status",
            Self::NoLifetime => "no-lifetime",
            Self::Expired => "expired",
            Self::Remembered => "remembered",
            Self::TooLarge => "too-large",
            Self::Part => "part",
            Self::Rare => "rare",
            Self::Store => "store",
        }
    }

    /// The nearest forward reason of RFC 9211 section 2.2 for a request that was passed.
    pub const fn fwd(self) -> Fwd {
        match self {
            Self::Off | Self::PassIf | Self::Remembered => Fwd::Bypass,
            Self::Method => Fwd::Method,
            Self::RequestBody | Self::Precondition | Self::RequestNoStore => Fwd::Request,
            _ => Fwd::Miss,
        }
    }

    /// Whether a key is worth remembering as not storable after a response was passed for this
    /// reason: the reason lies in the response and not in the one request that led to it, so
    /// that the next requests should not queue behind one another.
    pub const fn is_of_response(self) -> bool {
        match self {
            Self::Off
            | Self::PassIf
            | Self::Method
            | Self::RequestBody
            | Self::Precondition
            | Self::RequestNoStore
            | Self::Authorization
            | Self::Remembered
            | Self::Part
            | Self::Rare
            | Self::Store => false,
            Self::NoStore
            | Self::Private
            | Self::NoCache
            | Self::SetCookie
            | Self::VaryStar
            | Self::VaryOdd
            | Self::Status
            | Self::NoLifetime
            | Self::Expired
            | Self::TooLarge => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let words: HashSet<_> = PassReason::ALL.iter().map(|reason| reason.word()).collect();
        assert_eq!(words.len(), PassReason::ALL.len());
        let is_kebab = |word: &&str| word.bytes().all(|b| b == b'-' || b.is_ascii_lowercase());
        assert!(words.iter().all(is_kebab));
    }
}
