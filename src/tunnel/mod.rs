//! A tunnel: two connections joined byte for byte, until both peers have ended their sides.
//!
//! ```text
//!             ┌─ way to the origin ─▶ read, or splice ─▶ write ─▶ end of the client's side ─▶ shutdown
//! client ◀──▶ ┤                                                                                ◀──▶ origin
//!             └─ way to the client ◀─ write ◀─ read, or splice ◀─ end of the origin's side
//! ```
//!
//! The two ways are independent: a peer that has ended its side still gets all that the other one sends.
//! A way reads only when all that it read before is written, so that a peer that does not read stops the
//! other one. A tunnel without a byte in either direction for `idle` ends.
//!
//! Nothing of a tunnel is parsed. Its waits are safe to drop, which ends it; [`Moved`] knows then what went
//! through.

pub mod moved;
pub(crate) mod way;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use crate::reactor;
use crate::reactor::timer;
use crate::transport::Transport;
use crate::tunnel::moved::{Count, Moved};
use crate::tunnel::way::{Gone, Way};

/// A connection of a tunnel, and the bytes that were read of it and belong to the peer of the other one.
#[derive(Debug)]
pub struct Side<'t> {
    /// The connection.
    pub transport: &'t Transport,
    /// The bytes.
    pub ahead: Vec<u8>,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both peers have ended their sides.
    Finished,
    /// The connection to the client broke.
    ClientGone,
    /// The connection to the origin broke. The client may still be sending.
    OriginGone,
    /// No byte went through for too long.
    Idle,
}

/// Joins two connections until the tunnel ends. Both are then to be closed.
pub async fn join(client: Side<'_>, origin: Side<'_>, idle: Duration, moved: &Moved) -> End {
    let (up, down) = (moved.to_origin(), moved.to_client());
    let to_origin = Way { from: client.transport, to: origin.transport, count: up, other: down };
    let to_client = Way { from: origin.transport, to: client.transport, count: down, other: up };
    // Small messages must not wait for an acknowledgement; connections to origins never do.
    let _ = client.transport.set_nodelay();
    let to_origin = pin!(to_origin.run(client.ahead));
    let to_client = pin!(to_client.run(origin.ahead));
    both(to_origin, to_client, idle, moved).await
}

/// Runs both ways until the tunnel ends. A way ends only if it cannot go on.
pub(crate) async fn both(
    mut to_origin: Pin<&mut impl Future<Output = Gone>>,
    mut to_client: Pin<&mut impl Future<Output = Gone>>,
    idle: Duration,
    moved: &Moved,
) -> End {
    moved.touch();
    let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
    let mut sleep = pin!(timer::sleep_until(moved.last_ms().saturating_add(idle_ms)));
    let (mut sent, mut received) = (None, None);
    poll_fn(|context| {
        if sent.is_none()
            && let Poll::Ready(gone) = to_origin.as_mut().poll(context)
        {
            sent = Some(gone);
        }
        if received.is_none()
            && let Poll::Ready(gone) = to_client.as_mut().poll(context)
        {
            received = Some(gone);
        }
        if moved.to_origin().is_ended() && moved.to_client().is_ended() {
            return Poll::Ready(End::Finished);
        }
        let is_over = |gone: Option<Gone>, count: Count<'_>| gone.is_some() || count.is_ended();
        match (sent, received) {
            (Some(Gone::Sender), _) => return Poll::Ready(End::ClientGone),
            (_, Some(Gone::Sender)) => return Poll::Ready(End::OriginGone),
            (Some(Gone::Receiver), gone) if is_over(gone, moved.to_client()) => {
                return Poll::Ready(End::OriginGone);
            }
            (gone, Some(Gone::Receiver)) if is_over(gone, moved.to_origin()) => {
                return Poll::Ready(End::ClientGone);
            }
            _ => {}
        }
        // The timer is moved only when it fires.
        while sleep.as_mut().poll(context).is_ready() {
            let until_ms = moved.last_ms().saturating_add(idle_ms);
            if until_ms <= reactor::now().mono_ms() {
                return Poll::Ready(End::Idle);
            }
            sleep.as_mut().get_mut().reset(until_ms);
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests;
