//! A fetch: one question to an upstream, sent to as many servers as are needed and allowed.
//!
//! [`may_ask_again`] decides which questions may be asked again, RFC 9110 section 9.2.2: those that
//! reached no server, and those that are idempotent and got no answer. The upstream's configuration
//! says after which failures they are, within a number of tries, a time and a budget. No try begins
//! later after the first one than a connection and the first byte of an answer may take together.

use std::net::IpAddr;
use std::rc::Rc;

use crate::base::time::Now;
use crate::config::bounds::OriginTimeouts;
use crate::http::head::ResponseHead;
use crate::http::method::Method;
use crate::http::status::Status;
use crate::origin::affinity;
use crate::origin::body::OriginBody;
use crate::origin::checkout::{Refusal, Tried};
use crate::origin::connection::Connection;
use crate::origin::pools::Pools;
use crate::origin::request::{self, FetchFailure, Request};
use crate::origin::upload::Upload;
use crate::origin::upstream::Upstream;
use crate::policy::reason::fetch::FetchError;
use crate::reactor;
use crate::sys::pinned::Race;
use crate::upstream::destination::{Answerer, Destination};
use crate::upstream::ids::ServerId;

/// A request, ready for the wire.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where it is asked.
    pub destination: Destination,
    /// The client, or the server, that it belongs to.
    pub tie: Tie,
    /// The bounds on waiting, where they differ from the upstream's.
    pub timeouts: OriginTimeouts,
    /// The method, which decides about retries and about the framing of the answer.
    pub method: Method,
    /// The request line and fields, with the blank line.
    pub head: Vec<u8>,
    /// The protocols that it asks to switch to; empty if it does not.
    pub protocols: Vec<u8>,
}

/// The client that a question belongs to: the facts by which a server may be chosen for it, and the
/// words by which it is introduced.
#[derive(Clone, Debug, Default)]
pub struct Tie {
    /// The address of the client.
    pub client: Option<IpAddr>,
    /// The server that its cookie names.
    pub server: Option<ServerId>,
    /// The PROXY header that a connection for it begins with, if the upstream is sent one.
    pub header: Option<Rc<[u8]>>,
}

/// An origin's answer, whose body is still to be read.
#[derive(Debug)]
pub struct Response {
    /// Its head.
    pub head: ResponseHead,
    /// Its body.
    pub body: OriginBody,
    /// The server that gave it.
    pub server: Answerer,
    /// The phases of the fetch.
    pub times: FetchTimes,
    /// The cookie that names the server, if the client does not have it. It is not part of what is
    /// stored.
    pub set_cookie: Option<String>,
}

/// The phases of a fetch.
#[derive(Clone, Copy, Debug, Default)]
pub struct FetchTimes {
    /// When it began.
    pub asked: Now,
    /// How long it waited for a free connection in all, in microseconds.
    pub queue_us: u64,
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
    let upstream = &match pools.resolved(&question.destination).await {
        Ok(upstream) => upstream,
        Err(error) => return Err(FetchFailure::Fetch(error)),
    };
    let mut times = FetchTimes { asked: reactor::now(), ..FetchTimes::default() };
    let mut tried = upstream.tied(question);
    let limits = upstream.limits.with(&question.timeouts);
    let mut n_left = upstream.retries;
    let mut may_go = true;
    let mut until_ms = None;
    upstream.budget.borrow_mut().request(reactor::now().mono_ms() / 1_000);
    loop {
        tried.may_try = question.method.is_idempotent() && n_left > 0 && upload.is_whole();
        let checked_out = check_out(upstream, &tried, upload, (may_go, &mut times.queue_us)).await;
        let now_ms = reactor::now().mono_ms();
        let until_ms = *until_ms.get_or_insert(now_ms + limits.attempt_ms());
        let connection = match checked_out {
            None => return Err(FetchFailure::Gone),
            Some(Ok(connection)) => connection,
            Some(Err(refusal)) => {
                let left = left_after(upstream, &mut tried, refusal, n_left, until_ms);
                n_left = left.ok_or(FetchFailure::Fetch(refusal.0))?;
                continue;
            }
        };
        let mut request = Request::new(connection, question.method, limits);
        request.protocols.clone_from(&question.protocols);
        times.requested = reactor::now();
        may_go = question.method.is_safe();
        let error = match ask(&mut request, question, upload).await {
            Ok(head) => {
                let server = request.connection.active().server().id;
                tried.add(server);
                let is_better_elsewhere = question.method.is_idempotent()
                    && n_left > 0
                    && upstream.retry_on.has_status(head.status.0)
                    && upstream.has_other_up(&tried)
                    && upstream.may_retry(FetchError::BadStatus, until_ms)
                    && upload.rewind();
                if is_better_elsewhere {
                    request.connection.active().answered();
                    let time_us = reactor::now().mono_us.saturating_sub(times.requested.mono_us);
                    upstream.count_answer(server, time_us);
                    n_left -= 1;
                    continue;
                }
                return Ok(answered(upstream, (question, &tried), request, head, times));
            }
            Err(FetchFailure::Fetch(error)) => error,
            Err(failure) => return Err(failure),
        };
        let active = request.connection.active();
        let server = active.server().id;
        let again = Again { method: question.method, error, has_sent: request.has_sent() };
        // It closed while it was idle: that says nothing about the server, and is not a try. The
        // next connection is new, so this ends.
        let is_stale = error == FetchError::Closed
            && request.connection.is_reused()
            && !request.has_answered();
        // A route that is less patient than the upstream says nothing about the server.
        let is_hasty = error == FetchError::FirstByteTimeout
            && limits.first_byte_ms < upstream.limits.first_byte_ms;
        if is_broken(error) && !is_stale && !is_hasty {
            active.doubtful(error);
        }
        if !is_stale {
            upstream.count_failure(server);
        }
        drop(request);
        if !may_ask_again(again) || !upload.rewind() {
            return Err(FetchFailure::Fetch(error));
        }
        if is_stale {
            tried.only_new_connections();
            continue;
        }
        tried.add(server);
        let is_allowed = n_left > 0 && upstream.has_other(&tried, error);
        if !is_allowed || !upstream.may_retry(error, until_ms) {
            return Err(FetchFailure::Fetch(error));
        }
        n_left -= 1;
    }
}

/// How many retries are left when there was no connection; `None` if no other server is tried.
pub(super) fn left_after(
    upstream: &Upstream,
    tried: &mut Tried,
    (error, server): Refusal,
    n_left: usize,
    until_ms: u64,
) -> Option<usize> {
    if let Some(server) = server {
        tried.add(server);
        upstream.count_failure(server);
    }
    let may_retry = upstream.may_retry(error, until_ms);
    let left = n_left_after(n_left, error).filter(|_| may_retry);
    left.filter(|_| upstream.has_other(tried, error))
}

/// A connection for a question; `None` if all its clients have left.
async fn check_out<U: Upload>(
    upstream: &Rc<Upstream>,
    tried: &Tried,
    upload: &mut U,
    (may_go, queue_us): (bool, &mut u64),
) -> Option<Result<Connection, Refusal>> {
    let taken = match upstream.take_at_once(tried) {
        Ok(None) => {
            let left = async {
                match may_go {
                    true => upload.left().await,
                    false => std::future::pending().await,
                }
            };
            let since = reactor::now();
            let taken = Race::new(upstream.take_in_line(tried), left).await?;
            *queue_us += reactor::now().mono_us.saturating_sub(since.mono_us);
            taken
        }
        Ok(Some(taken)) => Ok(taken),
        Err(refusal) => Err(refusal),
    };
    match taken {
        Ok(taken) => {
            let connection = upstream.connection(taken, tried);
            Race::new(connection, departure(upload, may_go)).await
        }
        Err(refusal) => Some(Err(refusal)),
    }
}

impl Upstream {
    /// The tie of a question to a server, before any was tried.
    fn tied(&self, question: &Question) -> Tried {
        let Tie { client, server, header } = &question.tie;
        let of_head = |of| affinity::hash_of(of, &question.head, *client);
        Tried::tied(self.hash_of.as_ref().map_or(0, of_head), *server, header.clone())
    }

    /// Whether another server may be tried after this failure, within the time and the budget of
    /// retries. A server that accepts no connection is not burdened by a retry elsewhere.
    fn may_retry(&self, error: FetchError, until_ms: u64) -> bool {
        let now_ms = reactor::now().mono_ms();
        let (on, is_counted) = match error {
            FetchError::Unresolved => return true,
            error if error.is_of_connecting() => (self.retry_on.connect, false),
            FetchError::FirstByteTimeout => (self.retry_on.timeout, true),
            FetchError::BadStatus => (true, true),
            error => (is_broken(error) && self.retry_on.broken, true),
        };
        on && now_ms <= until_ms && (!is_counted || self.budget.borrow_mut().retry(now_ms / 1_000))
    }
}

/// Whether a server is to blame if this happens often, and another one may do better.
const fn is_broken(error: FetchError) -> bool {
    matches!(
        error,
        FetchError::Closed
            | FetchError::Truncated
            | FetchError::BadResponse
            | FetchError::FirstByteTimeout
    )
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
        if !head.status.is_interim() || head.status == Status::SWITCHING_PROTOCOLS {
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

fn answered(
    upstream: &Upstream,
    (question, tied): (&Question, &Tried),
    request: Request,
    head: ResponseHead,
    times: FetchTimes,
) -> Response {
    let active = request.connection.active();
    active.answered();
    let server = active.server().id;
    let body = OriginBody::new(request, &head);
    let times = FetchTimes { received: reactor::now(), ..times };
    let time_us = times.received.mono_us.saturating_sub(times.requested.mono_us);
    upstream.note_rtt(server, time_us);
    upstream.count_answer(server, time_us);
    let sticky = upstream.sticky.as_ref().filter(|_| tied.sticky != Some(server));
    let set_cookie = sticky.and_then(|sticky| sticky.set_cookie(server));
    let server = Answerer { destination: question.destination.clone(), id: server };
    Response { head, body, server, times, set_cookie }
}

/// How many retries are left when another server is tried because there was no connection to
/// one; `None` if another may not be tried, or would not help.
const fn n_left_after(n_left: usize, error: FetchError) -> Option<usize> {
    match error {
        // No server was asked, and this one is skipped from now on.
        FetchError::Unresolved => Some(n_left),
        error if error.is_of_connecting() => n_left.checked_sub(1),
        _ => None,
    }
}

/// The circumstances in which a question failed.
#[derive(Clone, Copy, Debug)]
struct Again {
    method: Method,
    error: FetchError,
    has_sent: bool,
}

/// Whether a question that failed may be asked once more, RFC 9110 section 9.2.2. A head that is
/// garbage or cut off is no answer.
fn may_ask_again(again: Again) -> bool {
    is_broken(again.error) && (again.method.is_idempotent() || !again.has_sent)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;
    use crate::config::UpstreamConfig;
    use crate::origin::tests::sample::{LIMITS, get, name, pools_to};
    use crate::origin::tests::scripted::{OK, Place, ScriptedOrigin};
    use crate::policy::reason::server::ServerReason;
    use crate::reactor::clock::run_by_test_clock;
    use crate::reactor::event::Event;
    use crate::reactor::timer;
    use crate::shared::health::Pause;

    fn again(method: Method, error: FetchError) -> Again {
        Again { method, error, has_sent: true }
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
    fn a_server_is_skipped_after_some_closed_connections_in_a_row() {
        run_by_test_clock(async {
            let origin = origin(|_| false);
            let pools = pools_to([origin.address()], |upstream| upstream.retries = 0);
            for n_asked in 1..=3 {
                assert_eq!(get(&pools).await, Err(FetchFailure::Fetch(FetchError::Closed)));
                assert_eq!(pools.is_skipped(0), n_asked == 3, "after {n_asked}");
            }
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
    fn a_head_that_is_no_answer_may_be_asked_for_again() {
        for error in [FetchError::Truncated, FetchError::BadResponse, FetchError::FirstByteTimeout]
        {
            assert!(may_ask_again(again(Method::Get, error)));
            assert!(!may_ask_again(again(Method::Post, error)));
        }
        assert!(!may_ask_again(again(Method::Get, FetchError::IdleTimeout)));
    }

    /// The servers that answer four questions if the first server answers like this.
    fn around(answer: &'static [u8], change: impl FnOnce(&mut UpstreamConfig)) -> Vec<ServerId> {
        run_by_test_clock(async {
            let (bad, good) =
                (ScriptedOrigin::answering(|_| Some(answer.to_vec())), origin(|_| true));
            let pools = pools_to([bad.address(), good.address()], change);
            let mut servers = Vec::new();
            for _ in 0..4 {
                servers.push(get(&pools).await.unwrap());
            }
            servers
        })
    }

    #[test]
    fn garbage_a_cut_head_silence_and_some_statuses_lead_to_the_other_server() {
        for answer in [
            &b"\x15\x03\x01\x00\x02\x02\x28garbage\r\n\r\n"[..],
            b"HTTP/1.1 2000000 OK\r\n\r\n",
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            b"",
        ] {
            assert_eq!(around(answer, |_| {}), [ServerId(1); 4]);
        }
        let cut = run_by_test_clock(async {
            let bad = ScriptedOrigin::serving(async |mut peer| {
                peer.request().await;
                peer.say(b"HTTP/1.1 200 OK\r\nContent-Le").await;
            });
            let good = origin(|_| true);
            let pools = pools_to([bad.address(), good.address()], |_| {});
            [get(&pools).await, get(&pools).await]
        });
        assert_eq!(cut, [Ok(ServerId(1)); 2]);
    }

    #[test]
    fn a_common_failure_puts_no_server_aside() {
        run_by_test_clock(async {
            let is_good = Rc::new(Cell::new(false));
            let servers = [(); 3].map(|()| {
                let is_good = Rc::clone(&is_good);
                origin(move |_| is_good.get())
            });
            let pools = pools_to(servers.each_ref().map(ScriptedOrigin::address), |_| {});
            for _ in 0..9 {
                assert_eq!(get(&pools).await, Err(FetchFailure::Fetch(FetchError::Closed)));
            }
            assert!((0..3).all(|server| pools.is_skipped(server)));
            is_good.set(true);
            get(&pools).await.unwrap();
            assert!(!(0..3).any(|server| pools.is_skipped(server)));
        });
    }

    #[test]
    fn no_try_begins_after_the_time_for_all() {
        run_by_test_clock(async {
            let mute = || ScriptedOrigin::answering(|_| Some(Vec::new()));
            let servers = [mute(), mute(), mute(), mute()];
            let pools = pools_to(servers.each_ref().map(ScriptedOrigin::address), |upstream| {
                upstream.retries = 3;
                upstream.retry_budget = 1_000;
            });
            let begun_ms = reactor::now().mono_ms();
            let result = get(&pools).await;
            assert_eq!(result, Err(FetchFailure::Fetch(FetchError::FirstByteTimeout)));
            // The second try begins within the time of a connection and a first byte, no third does.
            assert_eq!(reactor::now().mono_ms() - begun_ms, 2 * LIMITS.first_byte_ms);
            assert_eq!(servers.iter().map(ScriptedOrigin::n_requests).sum::<usize>(), 2);
        });
    }

    #[test]
    fn retries_stop_when_the_budget_is_spent() {
        run_by_test_clock(async {
            let (bad, good) = (origin(|_| false), origin(|_| true));
            let pools = pools_to([bad.address(), good.address()], |upstream| {
                upstream.skip = Duration::ZERO;
                upstream.retry_budget = 0;
            });
            let mut n_failed = 0;
            for _ in 0..10 {
                n_failed += usize::from(get(&pools).await.is_err());
            }
            assert_eq!(n_failed, 5);
        });
    }

    #[test]
    fn all_servers_busy_is_no_reason_to_ask_a_skipped_one() {
        run_by_test_clock(async {
            let gate = Rc::new(Event::default());
            let held = Rc::clone(&gate);
            let good = ScriptedOrigin::serving(async move |mut peer| {
                while peer.request().await.is_some() {
                    held.after(0).await;
                    peer.say(OK).await;
                }
            });
            let bad = origin(|_| false);
            let pools = Rc::new(pools_to([bad.address(), good.address()], |upstream| {
                upstream.servers.iter_mut().for_each(|server| server.connections = 1);
            }));
            let pause = Pause { first_ms: 60_000, doubled_max: 0 };
            pools.known().row(ServerId(0)).failed(reactor::now(), pause, ServerReason::Connect);
            let asked: Vec<_> = (0..5)
                .map(|_| {
                    let pools = Rc::clone(&pools);
                    reactor::spawn_task(async move { get(&pools).await })
                })
                .collect();
            timer::sleep(Duration::from_millis(5)).await;
            gate.notify();
            for answer in asked {
                assert_eq!(answer.await, Ok(ServerId(1)));
            }
            assert_eq!((bad.n_requests(), good.n_connections()), (0, 1));
        });
    }
}
