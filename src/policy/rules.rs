//! What the operator decides about storing: the knobs of RFC 9111, with what it says as default.

/// What the operator decides. The default is what RFC 9111 says and allows, without serving
/// anything stale that the origin did not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Lifetime in seconds of what may be stored by its status but says nothing and gives
    /// nothing to guess from; `None` stores it only if it can be validated.
    pub default_ttl_s: Option<u32>,
    /// Stated and guessed lifetimes below this are raised to it, in seconds.
    pub ttl_min_s: u32,
    /// Lifetimes above this are cut to it, in seconds.
    pub ttl_max_s: u32,
    /// Part of the time since Last-Modified that is taken as lifetime, in percent.
    pub heuristic_percent: u32,
    /// Bound of such a guess, in seconds.
    pub heuristic_max_s: u32,
    /// `stale-while-revalidate` in seconds where the origin states none.
    pub stale_while_revalidate_s: u32,
    /// `stale-if-error` in seconds where the origin states none.
    pub stale_if_error_s: u32,
    /// Responses with Set-Cookie may be stored, with the cookie.
    pub allow_set_cookie: bool,
    /// `stale-while-revalidate` and `stale-if-error` mean something beside `s-maxage`. By the
    /// letter of RFC 9111 section 5.2.2.10 they do not.
    pub stale_beside_s_maxage: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            default_ttl_s: None,
            ttl_min_s: 0,
            ttl_max_s: u32::MAX,
            heuristic_percent: 10,
            heuristic_max_s: 86_400,
            stale_while_revalidate_s: 0,
            stale_if_error_s: 0,
            allow_set_cookie: false,
            stale_beside_s_maxage: false,
        }
    }
}
