//! The task of a client's HTTP/2 connection: it drives the library, starts a task for each stream, and
//! ends the connection.
//!
//! ```text
//! preface ─▶ serving ─┬─ drain ─▶ GOAWAY, the last streams ─▶ GOAWAY ─┬─▶ end
//!                     ├─ idle, or room is needed ─▶ GOAWAY ───────────┤
//!                     └─ a flood, or broken frames ─▶ GOAWAY ─────────┘
//! ```

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;

use crate::policy::reason::close::CloseReason;
use crate::proxy::client::connections::Counted;
use crate::proxy::client::linger::linger;
use crate::proxy::context::Context;
use crate::proxy::h2::io::Io;
use crate::proxy::h2::payload::Payload;
use crate::proxy::h2::response::PART_BYTES;
use crate::proxy::h2::shared::Shared;
use crate::proxy::h2::stream;
use crate::reactor;
use crate::reactor::timer::{self, Sleep};

/// The window of a stream: a body comes at 160 Mbit/s over a link of 100 ms.
const STREAM_WINDOW: u32 = 2 << 20;

/// The window of the connection, which bounds what all streams together hold in memory while their
/// exchanges do not take it. It is larger than that of a stream, so that one stream whose exchange
/// waits for a slow origin does not stop the others.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Resets of streams that were not accepted yet. The library answers more by the end of the connection.
const UNACCEPTED_RESETS_MAX: usize = 20;

/// How long streams are remembered that ktrix has reset, so that frames under way are no error.
const RESET_MEMORY: std::time::Duration = std::time::Duration::from_secs(1);
const RESET_MEMORY_STREAMS: usize = 50;

/// How long the goodbye of a connection may take, in milliseconds.
const GOODBYE_MS: u64 = 2_000;

/// The bytes that the library counts for each field beside its name and value (RFC 9113 section
/// 6.5.2).
const FIELD_SPARE: usize = 32;

type Connection = h2::server::Connection<Io, Payload>;

/// Serves a client's connection to its end. `read` are the bytes that were read of it before.
pub(crate) fn serve(
    context: Rc<Context>,
    counted: Counted,
    read: Vec<u8>,
) -> impl Future<Output = ()> {
    // A value that is moved into a future, or within it between two waits, takes its room twice in
    // every connection.
    let shared = Rc::new(Shared::new(context, counted));
    let begun = Box::pin(begin(Rc::clone(&shared), read));
    async move {
        let reason = match begun.await {
            Ok(mut driver) => driver.run().await,
            Err(reason) => reason,
        };
        Box::pin(end(&shared, reason)).await;
    }
}

/// Ends the connection.
async fn end(shared: &Shared, reason: CloseReason) {
    shared.close.set(Some(reason));
    shared.connection().count_end(reason);
    let transport = &shared.connection().transport;
    if reason.is_flood() {
        let client = shared.connection().front.client;
        let client = client.map_or_else(|| "a unix socket".to_owned(), |client| client.to_string());
        ::log::warn!(
            "closed an HTTP/2 connection of {client}: {} ({})",
            reason.sentence(),
            reason.word()
        );
    }
    match reason {
        CloseReason::ClientClosed | CloseReason::SendTimeout => {
            transport.finish();
        }
        _ => linger(transport).await,
    }
    // Exchanges that go on without their client hold no connection open.
    transport.shutdown_both();
}

/// Waits for the preface of the client.
async fn begin(shared: Rc<Shared>, read: Vec<u8>) -> Result<Box<Driver>, CloseReason> {
    let config = &shared.context.config;
    let n_streams_max = config.limits.streams;
    let n_head_max = config.limits.head_bytes + FIELD_SPARE * config.limits.headers;
    let handshake = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(n_streams_max)
        .max_header_list_size(u32::try_from(n_head_max).unwrap_or(u32::MAX))
        .max_send_buffer_size(PART_BYTES)
        .max_pending_accept_reset_streams(UNACCEPTED_RESETS_MAX)
        .max_local_error_reset_streams(Some(n_streams_max as usize))
        .max_concurrent_reset_streams(RESET_MEMORY_STREAMS)
        .reset_stream_duration(RESET_MEMORY)
        .enable_connect_protocol()
        .handshake(Io::new(Rc::clone(&shared), read));
    let mut handshake = pin!(handshake);
    let handshake = poll_fn(|task| {
        let result = handshake.as_mut().poll(task);
        // A client may wait for the settings; an error shows when the library reads.
        let _ = shared.poll_flush(task);
        result
    });
    let deadline_ms = reactor::now().mono_ms() + shared.context.head_ms();
    match timer::timeout_at(deadline_ms, handshake).await {
        Ok(Ok(connection)) => Ok(Box::new(Driver::new(shared, connection, deadline_ms))),
        Ok(Err(error)) => Err(reason_of(&error)),
        Err(_) => Err(CloseReason::HeadTimeout),
    }
}

/// A connection between its preface and its end.
struct Driver {
    shared: Rc<Shared>,
    connection: Connection,
    /// Until when a request must come while none runs: the first one has `timeouts.client-head`.
    first_ms: u64,
    /// Why the connection ends, once it says goodbye, and until when it may.
    ending: Option<(CloseReason, u64)>,
    is_draining: bool,
    timer: Sleep,
}

/// The next event.
enum Next {
    Request(Box<Request<RecvStream>>, SendResponse<Payload>),
    End(CloseReason),
    Flood(CloseReason),
    Goodbye,
    Drain,
    /// A deadline may be over.
    Look,
}

impl Driver {
    fn new(shared: Rc<Shared>, connection: Connection, first_ms: u64) -> Self {
        let timer = timer::sleep_until(0);
        Self { shared, connection, first_ms, ending: None, is_draining: false, timer }
    }

    async fn run(&mut self) -> CloseReason {
        let context = Rc::clone(&self.shared.context);
        let mut drain = pin!(context.drain.after(0));
        loop {
            match self.next(drain.as_mut()).await {
                Next::Request(request, respond) => self.accept(*request, respond),
                Next::End(reason) => return self.ending.map_or(reason, |(reason, _)| reason),
                Next::Flood(reason) => self.end(reason, Reason::ENHANCE_YOUR_CALM),
                Next::Goodbye => self.end(CloseReason::IdleTimeout, Reason::NO_ERROR),
                Next::Drain => {
                    self.is_draining = true;
                    self.connection.graceful_shutdown();
                }
                Next::Look => {}
            }
            if let Some(reason) = self.overdue(reactor::now().mono_ms()) {
                return reason;
            }
        }
    }

    async fn next(&mut self, mut drain: Pin<&mut impl Future<Output = ()>>) -> Next {
        poll_fn(|task| {
            if self.ending.is_none() {
                if self.shared.connection().poll_goodbye(task).is_ready() {
                    return Poll::Ready(Next::Goodbye);
                }
                if !self.is_draining && drain.as_mut().poll(task).is_ready() {
                    return Poll::Ready(Next::Drain);
                }
            }
            match self.connection.poll_accept(task) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    return Poll::Ready(Next::Request(Box::new(request), respond));
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Next::End(reason_of(&error)));
                }
                Poll::Ready(None) => {
                    let reason = match self.is_draining {
                        true => CloseReason::Drain,
                        false => CloseReason::ClientClosed,
                    };
                    return Poll::Ready(Next::End(reason));
                }
                Poll::Pending => {}
            }
            if let Poll::Ready(Err(_)) = self.shared.poll_flush(task) {
                return Poll::Ready(Next::End(CloseReason::ClientClosed));
            }
            if let (None, Some(reason)) = (self.ending, self.shared.budget.borrow().spent()) {
                return Poll::Ready(Next::Flood(reason));
            }
            self.timer.reset(self.deadline_ms());
            Pin::new(&mut self.timer).poll(task).map(|()| Next::Look)
        })
        .await
    }

    /// Until when something must happen, in milliseconds of the monotonic clock.
    fn deadline_ms(&self) -> u64 {
        let shared = &self.shared;
        let blocked_ms = match shared.blocked_since_ms.get() {
            0 => u64::MAX,
            since_ms => since_ms + shared.context.send_ms(),
        };
        let ending_ms = self.ending.map_or(u64::MAX, |(_, until_ms)| until_ms);
        // While exchanges run, or answers wait to be sent, the connection is not idle; the end of an
        // exchange does not wake this task.
        let idle_since_ms = match (shared.n_running(), shared.blocked_since_ms.get()) {
            (0, 0) => shared.idle_since_ms.get(),
            _ => reactor::now().mono_ms(),
        };
        let idle_ms = match (self.ending, self.first_ms) {
            (Some(_), _) => u64::MAX,
            (None, 0) => idle_since_ms + shared.context.idle_ms(),
            (None, first_ms) => first_ms,
        };
        blocked_ms.min(ending_ms).min(idle_ms)
    }

    /// Ends the connection if a deadline is over: at once if the client takes nothing, else by a
    /// goodbye.
    fn overdue(&mut self, now_ms: u64) -> Option<CloseReason> {
        if self.deadline_ms() > now_ms {
            return None;
        }
        let since_ms = self.shared.blocked_since_ms.get();
        if since_ms != 0 && since_ms + self.shared.context.send_ms() <= now_ms {
            return Some(CloseReason::SendTimeout);
        }
        match self.ending {
            Some((reason, until_ms)) if until_ms <= now_ms => Some(reason),
            Some(_) => None,
            None => {
                self.end(CloseReason::IdleTimeout, Reason::NO_ERROR);
                None
            }
        }
    }

    /// Says goodbye.
    fn end(&mut self, reason: CloseReason, told: Reason) {
        self.ending = Some((reason, reactor::now().mono_ms() + GOODBYE_MS));
        self.first_ms = 0;
        self.connection.abrupt_shutdown(told);
    }

    /// Starts a request, unless the client has more of them than it may.
    fn accept(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Payload>) {
        self.first_ms = 0;
        let shared = &self.shared;
        if shared.n_running() >= shared.context.config.limits.streams as usize {
            shared.note_reset();
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        stream::start(shared, request, respond, reactor::turn_began());
    }
}

/// Why a connection ends that the library has ended.
fn reason_of(error: &h2::Error) -> CloseReason {
    match error.reason() {
        _ if error.is_io() || error.is_remote() => CloseReason::ClientClosed,
        Some(Reason::ENHANCE_YOUR_CALM) => CloseReason::FrameFlood,
        _ => CloseReason::BadFrame,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<F>(_task: impl FnOnce(Rc<Context>, Counted, Vec<u8>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_a_small_task() {
        // Beside it there are what the library holds, and its buffers.
        let bytes = future_bytes(serve) + size_of::<Driver>();
        assert!(bytes <= TASK_BYTES_MAX, "{bytes} bytes");
    }

    const TASK_BYTES_MAX: usize = 2 << 10;
}
