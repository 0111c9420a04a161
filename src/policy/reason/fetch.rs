//! Why an answer could not be had from an origin.
//!
//! Each reason has one word, which the access log and `Cache-Status` use, and one status, which a
//! client is told if no byte of an answer has been sent yet.

use crate::http::flaw::Flaw;
use crate::http::status::Status;

/// Why a fetch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The upstream has no server whose address is known.
    Unresolved,
    /// No connection could be made: refused or unreachable.
    Connect,
    /// No connection was made within `timeouts.connect`.
    ConnectTimeout,
    /// The pending queue of the upstream has no room.
    PendingFull,
    /// No connection came free within the upstream's `pending-timeout`.
    PendingTimeout,
    /// The origin closed the connection before any byte of a response.
    Closed,
    /// No response began within `timeouts.first-byte`.
    FirstByteTimeout,
    /// The origin sent nothing for `timeouts.idle` in the middle of a response.
    IdleTimeout,
    /// The response broke the protocol.
    Flaw(Flaw),
    /// The response ended before its end.
    Truncated,
    /// The client's request body ended before its end, so that there is nobody to answer.
    RequestBody,
    /// The origin answered with a 5xx status while what was stored was being validated.
    BadStatus,
    /// Another worker's fill, which this exchange followed, ended without a whole response.
    FillLost,
    /// Too little memory or disk for the request's body, or no descriptor or port to connect with.
    Resources,
}

impl FetchError {
    /// The word used in logs, metrics and the manual.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unresolved => "upstream-unresolved",
            Self::Connect => "connect-failed",
            Self::ConnectTimeout => "connect-timeout",
            Self::PendingFull => "pending-full",
            Self::PendingTimeout => "pending-timeout",
            Self::Closed => "origin-closed",
            Self::FirstByteTimeout => "first-byte-timeout",
            Self::IdleTimeout => "origin-idle-timeout",
            Self::Flaw(_) => "bad-response",
            Self::Truncated => "truncated-response",
            Self::RequestBody => "request-body-lost",
            Self::BadStatus => "bad-status",
            Self::FillLost => "fill-lost",
            Self::Resources => "no-resources",
        }
    }

    /// Whether no server could be reached.
    pub const fn is_unreachable(self) -> bool {
        matches!(self, Self::Unresolved | Self::Connect | Self::ConnectTimeout)
    }

    /// The status to answer with, RFC 9110 section 15.6.
    pub const fn status(self) -> Status {
        match self {
            Self::Unresolved | Self::PendingFull | Self::PendingTimeout | Self::Resources => {
                Status(503)
            }
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::IdleTimeout => Status(504),
            Self::RequestBody => Status(400),
            Self::Connect
            | Self::Closed
            | Self::Flaw(_)
            | Self::Truncated
            | Self::BadStatus
            | Self::FillLost => Status(502),
        }
    }

    /// The sentence a client is told.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Unresolved => "no server is known for this site",
            Self::Connect => "the origin could not be reached",
            Self::ConnectTimeout => "the origin did not accept a connection in time",
            Self::PendingFull | Self::PendingTimeout => "too many requests wait for the origin",
            Self::Closed => "the origin closed the connection without an answer",
            Self::FirstByteTimeout | Self::IdleTimeout => "the origin did not answer in time",
            Self::Flaw(_) | Self::Truncated => "the origin sent an invalid answer",
            Self::RequestBody => "the request ended early",
            Self::BadStatus => "the origin failed",
            Self::FillLost => "the answer was lost on its way",
            Self::Resources => "out of resources, try again later",
        }
    }

    /// A number for the shared table of fills; 0 tells followers to ask anew.
    pub const fn code(self) -> u32 {
        match self {
            Self::FillLost | Self::RequestBody => 0,
            Self::Unresolved => 1,
            Self::Connect => 2,
            Self::ConnectTimeout => 3,
            Self::PendingFull => 4,
            Self::PendingTimeout => 5,
            Self::Closed => 6,
            Self::FirstByteTimeout => 7,
            Self::IdleTimeout => 8,
            Self::Flaw(_) | Self::Truncated => 9,
            Self::BadStatus => 10,
            Self::Resources => 11,
        }
    }

    /// The failure behind such a number, as far as it matters to a follower.
    pub const fn of_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Unresolved,
            2 => Self::Connect,
            3 => Self::ConnectTimeout,
            4 => Self::PendingFull,
            5 => Self::PendingTimeout,
            6 => Self::Closed,
            7 => Self::FirstByteTimeout,
            8 => Self::IdleTimeout,
            9 => Self::Truncated,
            10 => Self::BadStatus,
            11 => Self::Resources,
            _ => return None,
        })
    }

    /// Whether it alone says something about the server's health: such a server is skipped for a
    /// while.
    pub const fn blames_server(self) -> bool {
        matches!(self, Self::Unresolved | Self::Connect | Self::ConnectTimeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lead_back_to_their_failures() {
        for code in 1..=11 {
            let failure = FetchError::of_code(code).expect("a failure for each code");
            assert_eq!(failure.code(), code);
        }
        assert_eq!(FetchError::of_code(FetchError::FillLost.code()), None);
    }

    #[test]
    fn only_a_server_that_cannot_be_reached_is_blamed_at_once() {
        assert!(FetchError::Connect.blames_server());
        assert!(!FetchError::FirstByteTimeout.blames_server());
        assert!(!FetchError::PendingFull.blames_server());
        assert!(!FetchError::Truncated.blames_server());
        assert!(!FetchError::Resources.blames_server());
    }

    #[test]
    fn a_time_out_is_a_gateway_timeout() {
        assert_eq!(FetchError::FirstByteTimeout.status(), Status(504));
        assert_eq!(FetchError::Closed.status(), Status(502));
        assert_eq!(FetchError::PendingFull.status(), Status(503));
        assert_eq!(FetchError::Resources.status(), Status(503));
    }
}
