//! Why an answer could not be had from an origin, or not be given to a client.
//!
//! Each reason has one word, which the access log and `Cache-Status` use, and one status, which
//! a client is told when nothing of an answer has been sent yet.

use std::io;

use nix::errno::Errno;

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

    /// What it means that a connection could not be made.
    pub(crate) fn of_connect(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(
                Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOMEM
                | Errno::ENOBUFS
                | Errno::EADDRNOTAVAIL,
            ) => Self::Resources,
            _ if error.kind() == io::ErrorKind::TimedOut => Self::ConnectTimeout,
            _ => Self::Connect,
        }
    }

    /// What a read or write error on an origin's connection means before any response byte.
    pub(crate) fn from_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::FirstByteTimeout,
            _ => Self::Closed,
        }
    }
}

/// Why a client's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed it, or it broke, between requests.
    ClientClosed,
    /// The client closed it, or it broke, in the middle of an exchange.
    ClientGone,
    /// Nothing was asked for `timeouts.client-idle`.
    IdleTimeout,
    /// A request's head took longer than `timeouts.client-head`.
    HeadTimeout,
    /// A request's body paused for longer than `timeouts.client-body`.
    BodyTimeout,
    /// The client took nothing of its answer for `timeouts.client-send`.
    SendTimeout,
    /// The request broke the protocol.
    BadRequest,
    /// The client or the answer asked for the end of the connection.
    Finished,
    /// The answer could not be completed.
    Incomplete,
    /// The worker is being drained.
    Drain,
}

impl CloseReason {
    /// Every reason, for tests and documentation.
    pub const ALL: [Self; 10] = [
        Self::ClientClosed,
        Self::ClientGone,
        Self::IdleTimeout,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::SendTimeout,
        Self::BadRequest,
        Self::Finished,
        Self::Incomplete,
        Self::Drain,
    ];

    /// The word used in logs, metrics and the manual.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ClientClosed => "client-closed",
            Self::ClientGone => "client-gone",
            Self::IdleTimeout => "idle-timeout",
            Self::HeadTimeout => "head-timeout",
            Self::BodyTimeout => "body-timeout",
            Self::SendTimeout => "send-timeout",
            Self::BadRequest => "bad-request",
            Self::Finished => "finished",
            Self::Incomplete => "incomplete",
            Self::Drain => "drain",
        }
    }

    /// What a failed write to a client means.
    pub(crate) fn of_write(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::SendTimeout,
            _ => Self::ClientGone,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn close_reasons_have_words_of_their_own() {
        let words: HashSet<_> = CloseReason::ALL.iter().map(|reason| reason.word()).collect();
        assert_eq!(words.len(), CloseReason::ALL.len());
    }

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
    }

    #[test]
    fn what_we_lack_ourselves_is_not_the_servers_fault() {
        let of = |errno: Errno| FetchError::of_connect(&io::Error::from(errno));
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EADDRNOTAVAIL] {
            assert_eq!(of(errno), FetchError::Resources, "{errno}");
        }
        assert!(!FetchError::Resources.blames_server());
        assert_eq!(FetchError::Resources.status(), Status(503));
        assert_eq!(of(Errno::ECONNREFUSED), FetchError::Connect);
        assert_eq!(of(Errno::ETIMEDOUT), FetchError::ConnectTimeout);
        let late = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(FetchError::of_connect(&late), FetchError::ConnectTimeout);
    }

    #[test]
    fn a_time_out_is_a_gateway_timeout() {
        assert_eq!(FetchError::FirstByteTimeout.status(), Status(504));
        assert_eq!(FetchError::Closed.status(), Status(502));
        assert_eq!(FetchError::PendingFull.status(), Status(503));
    }
}
