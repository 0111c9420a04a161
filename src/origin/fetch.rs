//! A fetch: one question to an upstream, sent to as many servers as are needed and allowed.
//!
//! [`may_ask_again`] decides which questions are asked again, RFC 9110 section 9.2.2: those that
//! reached no server, and those that are idempotent and got no byte of an answer.

use crate::base::time::Now;
use crate::http::head::ResponseHead;
use crate::http::method::Method;
use crate::origin::body::OriginBody;
use crate::origin::checkout::Tried;
use crate::origin::pools::Pools;
use crate::origin::request::{self, FetchFailure, Request};
use crate::origin::upload::Upload;
use crate::policy::reason::fetch::FetchError;
use crate::reactor;
use crate::sys::pinned::Race;
use crate::upstream::ids::{Server, UpstreamId};

/// A request, ready for the wire.
#[derive(Clone, Debug)]
pub struct Question {
    /// The upstream that is asked.
    pub upstream: UpstreamId,
    /// The method, which decides about retries and about the framing of the answer.
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
    /// The server that gave it.
    pub server: Server,
    /// The phases of the fetch.
    pub times: FetchTimes,
}

/// The phases of a fetch.
#[derive(Clone, Copy, Debug, Default)]
pub struct FetchTimes {
    /// When a connection was ready and the first byte of the question was sent.
    pub requested: Now,
    /// When the final head was complete.
    pub received: Now,
}

/// Asks an upstream, with retries where they are safe and useful.
///
/// The fetch ends when all clients that wait for the answer are gone. A request that may have
/// changed something goes on, because its answer decides what is invalidated.
pub(crate) async fn fetch<U: Upload>(
    pools: &Pools,
    question: &Question,
    upload: &mut U,
) -> Result<Response, FetchFailure<U::Error>> {
    let mut tried = Tried::default();
    let upstream = pools.upstream(question.upstream);
    let mut n_left = upstream.retries;
    let mut may_go = true;
    loop {
        let checkout = upstream.checkout(&tried);
        let connection = match Race::new(checkout, departure(upload, may_go)).await {
            None => return Err(FetchFailure::Gone),
            Some(Ok(connection)) => connection,
            Some(Err((error, server))) => {
                if let Some(server) = server {
                    tried.add(server);
                }
                let left = n_left_after(n_left, error);
                match left.filter(|_| upstream.has_other(&tried, error)) {
                    Some(left) => n_left = left,
                    None => return Err(FetchFailure::Fetch(error)),
                }
                continue;
            }
        };
        let mut request = Request::new(connection, question.method);
        let requested = reactor::now();
        may_go = question.method.is_safe();
        let error = match ask(&mut request, question, upload).await {
            Ok(head) => return Ok(answered(request, head, requested)),
            Err(FetchFailure::Fetch(error)) => error,
            Err(failure) => return Err(failure),
        };
        let active = request.connection.active();
        let server = active.server().id;
        let again = Again {
            method: question.method,
            error,
            is_reused: request.connection.is_reused(),
            has_sent: request.has_sent(),
            has_answered: request.has_answered(),
        };
        match error {
            FetchError::Closed if !again.is_reused => active.failed(error),
            FetchError::FirstByteTimeout => active.doubtful(error),
            _ => {}
        }
        drop(request);
        if !may_ask_again(again) || !upload.rewind() {
            return Err(FetchFailure::Fetch(error));
        }
        // A closed idle connection does not count as a try. The next connection is new, so this
        // ends.
        if again.is_reused {
            tried.only_new_connections();
            continue;
        }
        tried.add(server);
        if n_left == 0 || !upstream.has_other(&tried, error) {
            return Err(FetchFailure::Fetch(error));
        }
        n_left -= 1;
    }
}

async fn ask<U: Upload>(
    request: &mut Request,
    question: &Question,
    upload: &mut U,
) -> Result<ResponseHead, FetchFailure<U::Error>> {
    request.send(&question.head, upload).await?;
    loop {
        let departure = departure(upload, question.method.is_safe());
        let head = Race::new(request.head(), departure).await.ok_or(FetchFailure::Gone)?;
        let head = head.map_err(FetchFailure::Fetch)?;
        if !head.status.is_interim() {
            return Ok(head);
        }
        request::pass_on(&head, upload).await?;
    }
}

/// Waits until all clients that wait for the answer are gone, if that ends the fetch.
async fn departure<U: Upload>(upload: &mut U, may_go: bool) {
    match may_go {
        true => upload.gone().await,
        false => std::future::pending().await,
    }
}

fn answered(request: Request, head: ResponseHead, requested: Now) -> Response {
    let active = request.connection.active();
    active.answered();
    let server = active.server();
    let body = OriginBody::new(request, &head);
    let times = FetchTimes { requested, received: reactor::now() };
    Response { head, body, server, times }
}

/// How many retries are left when another server is tried because there was no connection to
/// one; `None` if another may not be tried, or would not help.
const fn n_left_after(n_left: usize, error: FetchError) -> Option<usize> {
    match error {
        // No server was asked, and this one is skipped from now on.
        FetchError::Unresolved => Some(n_left),
        FetchError::Connect | FetchError::ConnectTimeout | FetchError::Resources => {
            n_left.checked_sub(1)
        }
        _ => None,
    }
}

/// The circumstances in which a question failed.
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
    use crate::origin::tests::sample::{LIMITS, get, name, pools_to};
    use crate::origin::tests::scripted::{OK, Place, ScriptedOrigin};
    use crate::reactor::clock::run_by_test_clock;
    use crate::upstream::ids::ServerId;

    fn again(method: Method, error: FetchError) -> Again {
        Again { method, error, is_reused: true, has_sent: true, has_answered: false }
    }

    /// An origin that answers as long as `more` says so, given the number of the request, and else
    /// closes the connection.
    fn origin(more: impl Fn(usize) -> bool + 'static) -> ScriptedOrigin {
        ScriptedOrigin::answering(move |number| more(number).then(|| OK.to_vec()))
    }

    #[test]
    fn a_name_without_an_address_costs_no_request() {
        run_by_test_clock(async {
            let good = origin(|_| true);
            let servers = [name(0), name(1), name(2), good.address()];
            let pools = pools_to(servers, |upstream| upstream.retries = 0);
            let begun = reactor::now();
            for _ in 0..10 {
                assert_eq!(get(&pools).await, Ok(ServerId(3)));
            }
            assert_eq!(reactor::now(), begun, "no fetch waited for a name");
            assert!((0..3).all(|server| pools.is_skipped(server)));
        });
    }

    #[test]
    fn a_name_is_waited_for_once_if_there_is_no_other_server() {
        run_by_test_clock(async {
            let pools = pools_to([name(0), name(1)], |_| {});
            let begun_ms = reactor::now().mono_ms();
            assert_eq!(get(&pools).await, Err(FetchFailure::Fetch(FetchError::Unresolved)));
            assert_eq!(reactor::now().mono_ms() - begun_ms, LIMITS.connect_ms);
        });
    }

    #[test]
    fn another_server_is_tried_when_no_connection_is_made() {
        run_by_test_clock(async {
            let good = origin(|_| true);
            let (refusing, full) = (Place::new(), Place::new());
            let _held = full.full();
            for (broken, after_ms) in [(refusing, 0), (full, LIMITS.connect_ms)] {
                let servers = [broken.address(), good.address()];
                let pools = pools_to(servers, |upstream| upstream.retries = 1);
                let begun_ms = reactor::now().mono_ms();
                for _ in 0..4 {
                    assert_eq!(get(&pools).await, Ok(ServerId(1)));
                }
                assert_eq!(reactor::now().mono_ms() - begun_ms, after_ms, "once");
                assert!(pools.is_skipped(0));
            }
        });
    }

    #[test]
    fn a_connection_that_closed_while_idle_costs_no_retry() {
        run_by_test_clock(async {
            // 1 is answered; 2 is not, on the same connection; 3 is, on a new one, and so is 4.
            let origin = origin(|number| number % 3 != 2);
            let pools = pools_to([origin.address()], |upstream| upstream.retries = 0);
            for _ in 0..10 {
                assert_eq!(get(&pools).await, Ok(ServerId(0)));
            }
            assert_eq!((origin.n_requests(), origin.n_connections()), (15, 6));
            assert!(!pools.is_skipped(0));
        });
    }

    #[test]
    fn a_new_connection_that_closes_is_a_failure_of_the_server() {
        run_by_test_clock(async {
            let origin = origin(|_| false);
            let pools = pools_to([origin.address()], |upstream| upstream.retries = 0);
            assert_eq!(get(&pools).await, Err(FetchFailure::Fetch(FetchError::Closed)));
            assert!(pools.is_skipped(0));
        });
    }

    #[test]
    fn a_server_is_skipped_only_after_some_silence_in_a_row() {
        run_by_test_clock(async {
            let mute = ScriptedOrigin::answering(|_| Some(Vec::new()));
            let pools = pools_to([mute.address()], |upstream| upstream.retries = 0);
            for n_asked in 1..=3 {
                let begun_ms = reactor::now().mono_ms();
                let result = get(&pools).await;
                assert_eq!(result, Err(FetchFailure::Fetch(FetchError::FirstByteTimeout)));
                assert_eq!(reactor::now().mono_ms() - begun_ms, LIMITS.first_byte_ms);
                assert_eq!(pools.is_skipped(0), n_asked == 3, "after {n_asked}");
            }
        });
    }

    #[test]
    fn another_server_costs_a_retry_if_one_was_tried() {
        assert_eq!(n_left_after(0, FetchError::Unresolved), Some(0));
        assert_eq!(n_left_after(2, FetchError::ConnectTimeout), Some(1));
        assert_eq!(n_left_after(0, FetchError::Connect), None);
        assert_eq!(n_left_after(1, FetchError::PendingFull), None);
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
    fn an_answered_question_is_not_asked_again() {
        let answered = Again { has_answered: true, ..again(Method::Get, FetchError::Closed) };
        assert!(!may_ask_again(answered));
        assert!(!may_ask_again(again(Method::Get, FetchError::Truncated)));
    }
}
