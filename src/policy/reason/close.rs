//! Why a client's connection ended: one word for each reason, which the access log uses.

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
}
