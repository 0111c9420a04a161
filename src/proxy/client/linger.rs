//! The end of a connection whose client may still be sending.

use std::time::Duration;

use crate::reactor::{self, scratch};
use crate::transport::Transport;

/// The most that is read and dropped.
const LINGER_BYTES: usize = 256 << 10;

/// The longest time for that.
const LINGER: Duration = Duration::from_secs(2);

/// Tells the client that all has been written. If it has not read what was sent before, there is no room
/// for a close_notify, and it gets some time.
pub(crate) async fn finish(transport: &Transport) {
    transport.finished(reactor::now().mono_ms() + LINGER.as_millis() as u64).await;
}

/// Announces the end and drops what the client still sends. A close while bytes lie unread would send
/// a reset, and the client would lose the answer that is still on its way.
pub(crate) async fn linger(transport: &Transport) {
    let deadline_ms = reactor::now().mono_ms() + LINGER.as_millis() as u64;
    transport.finished(deadline_ms).await;
    if transport.shutdown_write().is_err() {
        return;
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::timer::{deadline, timeout};
    use crate::tls::sample;

    #[test]
    fn a_client_that_reads_late_sees_that_it_has_all() {
        for ends_by_linger in [false, true] {
            let conversation = async {
                let (client, server) = sample::pair().await;
                let [client, server] =
                    [client, server].map(|it| Transport::secured(it.stream, it.session));
                while server.try_write(&[7; 16 << 10]).is_ok() {}
                assert!(!server.finish(), "there is no room");
                let ended = reactor::spawn_task(async move {
                    match ends_by_linger {
                        true => linger(&server).await,
                        false => finish(&server).await,
                    }
                });
                let until_ms = deadline(Duration::from_secs(10));
                let mut buf = vec![0; 64 << 10];
                while client.read(&mut buf, until_ms).await.expect("no cut") > 0 {}
                drop(client);
                ended.await;
            };
            let within = async { timeout(Duration::from_secs(20), conversation).await };
            reactor::run(within).unwrap().expect("the test hangs");
        }
    }
}
