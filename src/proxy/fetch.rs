//! A fetch: one question to an upstream, asked of as many servers as are needed and allowed.
//!
//! What may be asked again is decided by [`may_ask_again`], RFC 9110 section 9.2.2: what reached
//! nobody, and what is idempotent and was not answered with a single byte.

use crate::base::time::Now;
use crate::http::head::ResponseHead;
use crate::http::method::Method;
use crate::proxy::client::ClientError;
use crate::proxy::failure::FetchError;
use crate::proxy::origin::{self, Origin, OriginBody, OriginLimits, SendError};
use crate::proxy::pools::{Pools, Tried};
use crate::proxy::upload::Upload;
use crate::reactor;

/// What is asked, ready for the wire.
#[derive(Clone, Debug)]
pub struct Question {
    /// The upstream, as the configuration counts them.
    pub upstream: usize,
    /// The method, which decides about asking again and about the answer's framing.
    pub method: Method,
    /// The request line and fields, with the blank line.
    pub head: Vec<u8>,
}

/// An origin's answer, whose body is still to be read.
#[derive(Debug)]
pub struct Response {
    /// Its head.
    pub head: ResponseHead,
    /// Its body.
    pub body: OriginBody,
    /// Who gave it: upstream and server.
    pub server: (usize, usize),
    /// When the question was sent and the head was complete.
    pub times: FetchTimes,
}

/// The phases of a fetch.
#[derive(Clone, Copy, Debug, Default)]
pub struct FetchTimes {
    /// When a connection was at hand and the question began to be sent.
    pub requested: Now,
    /// When the final head was complete.
    pub received: Now,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFailure {
    /// The origins' doing, or ours.
    Fetch(FetchError),
    /// The client's.
    Client(ClientError),
}

/// Asks an upstream, and again where that is safe and useful.
pub async fn fetch<U: Upload>(
    pools: &Pools,
    limits: OriginLimits,
    question: &Question,
    upload: &mut U,
) -> Result<Response, FetchFailure> {
    let mut tried = Tried::default();
    let mut n_left = pools.retries(question.upstream);
    loop {
        let connection = match pools.checkout(question.upstream, &tried).await {
            Ok(connection) => connection,
            Err((error, server)) => {
                if let Some(server) = server {
                    tried.add(server);
                }
                if n_left == 0 || error != FetchError::Connect || !pools.has_other(question, &tried)
                {
                    return Err(FetchFailure::Fetch(error));
                }
                n_left -= 1;
                continue;
            }
        };
        let mut origin = Origin::new(connection, question.method, limits);
        let requested = reactor::now();
        let error = match ask(&mut origin, question, upload).await {
            Ok(head) => return Ok(answered(origin, head, requested)),
            Err(FetchFailure::Fetch(error)) => error,
            Err(failure) => return Err(failure),
        };
        let (_, server) = origin.server();
        let again = Again {
            method: question.method,
            error,
            is_reused: origin.is_reused(),
            has_sent: origin.has_sent(),
            has_answered: origin.has_answered(),
        };
        drop(origin);
        if error.blames_server() || (error == FetchError::Closed && !again.is_reused) {
            pools.skip(question.upstream, server);
        }
        if n_left == 0 || !may_ask_again(again) || !upload.rewind() {
            return Err(FetchFailure::Fetch(error));
        }
        n_left -= 1;
        if again.is_reused {
            tried.only_new_connections();
        } else {
            tried.add(server);
            if !pools.has_other(question, &tried) {
                return Err(FetchFailure::Fetch(error));
            }
        }
    }
}

async fn ask<U: Upload>(
    origin: &mut Origin,
    question: &Question,
    upload: &mut U,
) -> Result<ResponseHead, FetchFailure> {
    origin.send(&question.head, upload).await.map_err(|error| match error {
        SendError::Origin(error) => FetchFailure::Fetch(error),
        SendError::Client(error) => FetchFailure::Client(error),
    })?;
    loop {
        let head = origin.head().await.map_err(FetchFailure::Fetch)?;
        if !head.status.is_interim() {
            return Ok(head);
        }
        origin::pass_on(&head, upload).await.map_err(FetchFailure::Client)?;
    }
}

fn answered(origin: Origin, head: ResponseHead, requested: Now) -> Response {
    let server = origin.server();
    let body = origin.body(&head);
    let times = FetchTimes { requested, received: reactor::now() };
    Response { head, body, server, times }
}

/// What is known when a question failed.
#[derive(Clone, Copy, Debug)]
struct Again {
    method: Method,
    error: FetchError,
    is_reused: bool,
    has_sent: bool,
    has_answered: bool,
}

/// Whether a question that failed may be asked once more, RFC 9110 section 9.2.2.
fn may_ask_again(again: Again) -> bool {
    !again.has_answered
        && (again.method.is_idempotent() || !again.has_sent)
        && (again.error == FetchError::Closed
            || (again.error == FetchError::FirstByteTimeout && !again.is_reused))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(method: Method, error: FetchError) -> Again {
        Again { method, error, is_reused: true, has_sent: true, has_answered: false }
    }

    #[test]
    fn only_idempotent_questions_are_asked_again() {
        assert!(may_ask_again(again(Method::Get, FetchError::Closed)));
        assert!(may_ask_again(again(Method::Put, FetchError::Closed)));
        assert!(!may_ask_again(again(Method::Post, FetchError::Closed)));
        let unsent = Again { has_sent: false, ..again(Method::Post, FetchError::Closed) };
        assert!(may_ask_again(unsent));
    }

    #[test]
    fn what_was_answered_is_not_asked_again() {
        let answered = Again { has_answered: true, ..again(Method::Get, FetchError::Closed) };
        assert!(!may_ask_again(answered));
        assert!(!may_ask_again(again(Method::Get, FetchError::Truncated)));
    }
}
