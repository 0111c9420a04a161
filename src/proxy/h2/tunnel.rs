//! A tunnel between a stream of HTTP/2 and an origin (RFC 8441): DATA in the place of bytes, and the end
//! of the stream in the place of a half-close.

use std::future::{pending, poll_fn};
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use crate::proxy::h2::payload::Payload;
use crate::proxy::h2::shared::Shared;
use crate::reactor::event::Event;
use crate::reactor::{self, scratch};
use crate::sys::pinned::Race;
use crate::transport::Transport;
use crate::tunnel::moved::{Count, Moved};
use crate::tunnel::way::Gone;
use crate::tunnel::{self, End, Side};

/// The most bytes of the origin that wait for the windows of the client.
const PART_BYTES: usize = 16 << 10;

/// Joins a stream with an origin until the tunnel ends.
pub(super) async fn join(
    shared: &Rc<Shared>,
    (receive, send): (RecvStream, SendStream<Payload>),
    origin: Side<'_>,
    idle: Duration,
    moved: &Moved,
) -> End {
    // A reset ends both directions, although the origin may not take what was sent before.
    let was_reset = Event::default();
    let to_origin = to_origin(receive, origin.transport, moved.to_origin(), moved.to_client());
    let to_client = to_client(shared, send, origin, moved.to_client());
    let to_origin =
        pin!(async { Race::new(to_origin, was_reset.after(0)).await.unwrap_or(Gone::Sender) });
    let to_client = pin!(async {
        let gone = to_client.await;
        if gone == Gone::Receiver {
            was_reset.notify();
        }
        gone
    });
    tunnel::both(to_origin, to_client, idle, moved).await
}

async fn to_origin(
    mut receive: RecvStream,
    to: &Transport,
    count: Count<'_>,
    other: Count<'_>,
) -> Gone {
    while let Some(part) = poll_fn(|task| receive.poll_data(task)).await {
        let Ok(part) = part else { return Gone::Sender };
        if to.write_all(&part, 0).await.is_err() {
            return Gone::Receiver;
        }
        count.add(part.len());
        // The window opens again by what the origin has.
        if receive.flow_control().release_capacity(part.len()).is_err() {
            return Gone::Sender;
        }
    }
    to.finished(0).await;
    if to.shutdown_write().is_err() && !other.is_ended() {
        return Gone::Receiver;
    }
    count.end();
    pending().await
}

async fn to_client(
    shared: &Rc<Shared>,
    mut send: SendStream<Payload>,
    origin: Side<'_>,
    count: Count<'_>,
) -> Gone {
    let mut part = Bytes::from(origin.ahead);
    loop {
        while !part.is_empty() {
            let since = shared.room.version();
            if !shared.has_room() {
                if Race::new(shared.room.after(since), reset(&mut send)).await.is_none() {
                    return Gone::Receiver;
                }
                continue;
            }
            send.reserve_capacity(part.len());
            let n_free = match send.capacity() {
                0 => match poll_fn(|task| send.poll_capacity(task)).await {
                    Some(Ok(n_free)) => n_free,
                    _ => return Gone::Receiver,
                },
                n_free => n_free,
            };
            let now = part.split_to(n_free.min(part.len()));
            let n_sent = now.len();
            let now = Payload::Held { _held: shared.hold(n_sent), bytes: now };
            if send.send_data(now, false).is_err() {
                return Gone::Receiver;
            }
            shared.budget.borrow_mut().note_data(n_sent);
            count.add(n_sent);
        }
        part = match Race::new(read(origin.transport), reset(&mut send)).await {
            Some(Ok(part)) => part,
            Some(Err(ErrorKind::UnexpectedEof)) => break,
            Some(Err(_)) => return Gone::Sender,
            None => return Gone::Receiver,
        };
    }
    if send.send_data(Bytes::new().into(), true).is_err() {
        return Gone::Receiver;
    }
    count.end();
    match Race::new(origin.transport.broken(), reset(&mut send)).await {
        Some(_) => Gone::Sender,
        None => Gone::Receiver,
    }
}

/// Waits until the client has reset the stream.
async fn reset(send: &mut SendStream<Payload>) {
    let _ = poll_fn(|task| send.poll_reset(task)).await;
}

/// The bytes that have arrived; `UnexpectedEof` at the end.
async fn read(from: &Transport) -> Result<Bytes, ErrorKind> {
    loop {
        reactor::breathe().await;
        let read = scratch::with_scratch(|scratch| {
            let room = scratch.len().min(PART_BYTES);
            let n_read = from.try_read(&mut scratch[..room])?;
            Ok::<_, std::io::Error>(Bytes::copy_from_slice(
                scratch.get(..n_read).unwrap_or_default(),
            ))
        });
        match read {
            Ok(part) if part.is_empty() => return Err(ErrorKind::UnexpectedEof),
            Ok(part) => return Ok(part),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                from.readable(0).await.map_err(|error| error.kind())?;
            }
            Err(error) => return Err(error.kind()),
        }
    }
}
