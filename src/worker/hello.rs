//! Receiving the ClientHello of a connection that is passed on as it is.

use std::io::ErrorKind;

use crate::policy::reason::close::CloseReason;
use crate::reactor::scratch::with_scratch;
use crate::reactor::stream::Stream;
use crate::tls::client_hello::{HELLO_BYTES_MAX, Hello, read};

/// Reads until it is known which name the client asks for, until `deadline_ms` of the monotonic
/// clock; the bytes that were read are in `ahead`. The name is empty if there is none.
///
/// # Errors
/// Why the connection is to be closed.
pub(super) async fn receive(
    stream: &Stream,
    deadline_ms: u64,
    ahead: &mut Vec<u8>,
) -> Result<Box<str>, CloseReason> {
    loop {
        let received = with_scratch(|scratch| {
            let n_read = stream.try_read(scratch.get_mut(..HELLO_BYTES_MAX).unwrap_or_default())?;
            ahead.extend_from_slice(scratch.get(..n_read).unwrap_or_default());
            Ok(n_read)
        });
        match received.map_err(|error: std::io::Error| error.kind()) {
            Ok(0) => return Err(CloseReason::ClientGone),
            Ok(_) => {}
            Err(ErrorKind::WouldBlock) => {
                stream.readable(deadline_ms).await.map_err(|_| CloseReason::HelloTimeout)?;
                continue;
            }
            Err(_) => return Err(CloseReason::ClientGone),
        }
        match read(ahead).map_err(|_| CloseReason::ClientHello)? {
            Some(Hello::Named(name)) => return Ok(name.into()),
            Some(Hello::Nameless | Hello::Foreign) => return Ok("".into()),
            None => {}
        }
    }
}
