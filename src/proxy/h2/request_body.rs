//! The body of a request: its DATA, the pace at which it comes, and its trailers.

use std::future::poll_fn;
use std::task::Poll;

use h2::RecvStream;

use crate::http::fields::Fields;
use crate::policy::reason::close::CloseReason;
use crate::proxy::client::ClientError;
use crate::proxy::client::pace::Pace;
use crate::proxy::h2::request;
use crate::reactor::{self, timer};

/// Bytes that are taken at once.
const TAKE_BYTES: usize = 256 << 10;

/// The body of a request.
#[derive(Debug)]
pub(super) struct RequestBody {
    /// Until it has ended.
    stream: Option<RecvStream>,
    trailers: Fields,
    pace: Pace,
}

impl RequestBody {
    pub(super) fn new(stream: RecvStream, pace: Pace) -> Self {
        let stream = (!stream.is_end_stream()).then_some(stream);
        Self { stream, trailers: Fields::new(), pace }
    }

    /// The same, at another pace.
    pub(super) fn at_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Whether all of it was read.
    pub(super) fn is_end(&self) -> bool {
        self.stream.is_none()
    }

    /// Waits for a part and appends it; `false` at the end.
    pub(super) async fn read(&mut self, into: &mut Vec<u8>) -> Result<bool, ClientError> {
        reactor::breathe().await;
        let Some(n_taken) = self.take(into).await? else {
            self.take_section().await?;
            return Ok(false);
        };
        reactor::charge(n_taken);
        self.stream = self.stream.take().filter(|stream| !stream.is_end_stream());
        Ok(self.stream.is_some())
    }

    /// The stream itself, behind a head that no body follows.
    pub(super) fn take_stream(&mut self) -> Option<RecvStream> {
        self.stream.take()
    }

    /// The trailers, once it was read to its end.
    pub(super) fn take_trailers(&mut self) -> Fields {
        std::mem::take(&mut self.trailers)
    }

    /// Waits for bytes of the body, and takes those that are there; `None` at its end.
    async fn take(&mut self, into: &mut Vec<u8>) -> Result<Option<usize>, ClientError> {
        let Some(body) = &mut self.stream else { return Ok(None) };
        let n_before = into.len();
        let taken = poll_fn(|context| {
            loop {
                let n_taken = into.len() - n_before;
                match body.poll_data(context) {
                    Poll::Ready(Some(Ok(bytes))) => into.extend_from_slice(&bytes),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(&error))),
                    Poll::Ready(None) if n_taken == 0 => return Poll::Ready(Ok(None)),
                    Poll::Pending if n_taken == 0 => return Poll::Pending,
                    Poll::Ready(None) | Poll::Pending => return Poll::Ready(Ok(Some(n_taken))),
                }
                if into.len() - n_before >= TAKE_BYTES {
                    return Poll::Ready(Ok(Some(into.len() - n_before)));
                }
            }
        });
        let now_ms = reactor::now().mono_ms();
        let (deadline_ms, reason) = self.pace.deadline(now_ms);
        let taken = timer::timeout_at(deadline_ms, taken).await;
        let taken = taken.unwrap_or(Err(reason)).map_err(ClientError::Closed)?;
        if let Some(n_taken) = taken {
            self.pace.add(reactor::now().mono_ms().saturating_sub(now_ms), n_taken);
            // The window opens again by what the exchange has, and by no more.
            let released = body.flow_control().release_capacity(n_taken).map_err(gone);
            released.map_err(ClientError::Closed)?;
        }
        Ok(taken)
    }

    /// Reads the trailers behind the body.
    async fn take_section(&mut self) -> Result<(), ClientError> {
        let Some(mut body) = self.stream.take() else { return Ok(()) };
        let (deadline_ms, reason) = self.pace.deadline(reactor::now().mono_ms());
        let trailers = poll_fn(|context| body.poll_trailers(context));
        match timer::timeout_at(deadline_ms, trailers).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(fields))) => {
                self.trailers = request::trailers(&fields).map_err(ClientError::Flaw)?;
                Ok(())
            }
            Ok(Err(error)) => Err(ClientError::Closed(broken(&error))),
            Err(_) => Err(ClientError::Closed(reason)),
        }
    }
}

/// Why a body is not whole: the library resets a stream that breaks the protocol, as with DATA that is
/// not as long as `content-length` says.
fn broken(error: &h2::Error) -> CloseReason {
    match error.is_library() && error.is_reset() {
        true => CloseReason::BadRequest,
        false => CloseReason::ClientGone,
    }
}

fn gone(_: h2::Error) -> CloseReason {
    CloseReason::ClientGone
}
