//! A connection to a server, over its socket: the handshake, and why it failed.

use std::io;
use std::rc::Rc;

use rustls::{CertificateError, Error};

use crate::config::ServerAddress;
use crate::policy::reason::fetch::FetchError;
use crate::reactor::stream::Stream;
use crate::tls::client::Client;
use crate::tls::handshake::{self, Refused, Secured};
use crate::tls::turns::Turns;

/// Shakes hands with a server at this address, until `deadline_ms` of the monotonic clock.
///
/// # Errors
/// Why the server may not be used, and the sentence for the log.
pub async fn connect(
    stream: Stream,
    client: &Client,
    address: &ServerAddress,
    turns: &Rc<Turns>,
    deadline_ms: u64,
) -> Result<Secured, (FetchError, String)> {
    let (config, name) = (client.config(), client.name_of(address));
    let shaken = handshake::connect(stream, config, name, turns, deadline_ms).await;
    shaken.map_err(|refused| (failure_of(&refused), refused.to_string()))
}

fn failure_of(refused: &Refused) -> FetchError {
    match refused {
        Refused::Io(error) if error.kind() == io::ErrorKind::TimedOut => FetchError::ConnectTimeout,
        Refused::Tls(Error::InvalidCertificate(error)) => match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => FetchError::CertificateExpired,
            CertificateError::UnknownIssuer => FetchError::CertificateUntrusted,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                FetchError::CertificateName
            }
            _ => FetchError::CertificateInvalid,
        },
        _ => FetchError::Tls,
    }
}
