//! The end of a connection whose client may still be sending.

use std::time::Duration;

use crate::reactor::{self, scratch};
use crate::transport::Transport;

/// The most that is read and dropped.
const LINGER_BYTES: usize = 256 << 10;

/// The longest time for that.
const LINGER: Duration = Duration::from_secs(2);

/// Announces the end and drops what the client still sends. A close while bytes lie unread would send
/// a reset, and the client would lose the answer that is still on its way.
pub(crate) async fn linger(transport: &Transport) {
    if transport.shutdown_write().is_err() {
        return;
    }
    let deadline_ms = reactor::now().mono_ms() + LINGER.as_millis() as u64;
    let mut n_left = LINGER_BYTES;
    while n_left > 0 {
        reactor::breathe().await;
        match scratch::with_scratch(|scratch| transport.try_read(scratch)) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if transport.readable(deadline_ms).await.is_err() {
                    return;
                }
            }
            Ok(0) | Err(_) => return,
            Ok(n_read) => n_left = n_left.saturating_sub(n_read),
        }
    }
}
