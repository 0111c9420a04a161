//! For how long a stored response is good for what.

use crate::policy::key::vary::VaryNames;
use crate::policy::purge::surrogate::SurrogateKeys;

/// When a fetch took place, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When its request was sent.
    pub requested_s: u64,
    /// When the head of its response arrived.
    pub received_s: u64,
}

/// For how long a stored response is good for what. Unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// When it was received or last confirmed.
    pub received_s: u64,
    /// How old it was then, in seconds (RFC 9111 section 4.2.3).
    pub age_s: u32,
    /// It is fresh before this moment, which lies in the past when it never was.
    pub fresh_until_s: u64,
    /// Before this moment it may be served while it is revalidated (RFC 5861 section 3); never
    /// before `fresh_until_s`.
    pub swr_until_s: u64,
    /// Before this moment it may be served when the origin fails (RFC 5861 section 4); never
    /// before `fresh_until_s`.
    pub sie_until_s: u64,
    /// It must not be served stale, whoever asks for it (RFC 9111 section 5.2.2.2).
    pub must_revalidate: bool,
    /// It must be validated each time (section 5.2.2.4); it is never fresh.
    pub no_cache: bool,
    /// While it is fresh, a client's wish for a younger one is not heard (RFC 8246).
    pub immutable: bool,
    /// The request fields that chose it.
    pub vary: Option<VaryNames>,
    /// What purges can name it by.
    pub surrogates: SurrogateKeys,
}

impl Lifetimes {
    /// Makes it stale from this moment on, as a soft purge does: the windows in which it may be
    /// served stale begin then, as long as they were (RFC 5861).
    pub fn end_freshness(&mut self, since_s: u64) {
        if since_s < self.fresh_until_s {
            for until_s in [&mut self.swr_until_s, &mut self.sie_until_s] {
                let window_s = until_s.saturating_sub(self.fresh_until_s);
                *until_s = since_s.saturating_add(window_s);
            }
            self.fresh_until_s = since_s;
        }
    }
}
