//! A handshake over a socket, as the server or as the client.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, HandshakeKind, ProtocolVersion,
};
use thiserror::Error;

use crate::http::client_certificate::ClientCertificate;
use crate::http::tls::{PolicyId, TlsFacts};
use crate::policy::reason::handshake::HandshakeEnd;
use crate::reactor;
use crate::reactor::stream::Stream;
use crate::reactor::timer::timeout_at;
use crate::tls::ciphertext::{Out, with_ciphertext};
use crate::tls::framing::Framing;
use crate::tls::server::{Protocol, Server};
use crate::tls::session::Session;
use crate::tls::tickets::Until;
use crate::tls::turns::Turns;

/// A connection that has shaken hands.
#[derive(Debug)]
pub struct Secured {
    /// Its socket.
    pub stream: Stream,
    /// Its TLS.
    pub session: Session,
    /// Its version, cipher suite and name.
    pub facts: TlsFacts,
    /// The protocol that the client chose among those that were offered.
    pub protocol: Protocol,
    /// Whether a session was resumed.
    pub is_resumed: bool,
}

/// Why a handshake with a client has failed.
#[derive(Debug, Error)]
pub enum Refused {
    /// The first byte begins no TLS record: the client speaks in the clear.
    #[error("the client does not speak TLS")]
    Plain(Stream, Vec<u8>),
    /// The connection broke or was silent for too long.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client and ktrix do not agree, or the client breaks the protocol.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl Refused {
    /// How the handshake of a client ended by this.
    pub fn end(&self) -> HandshakeEnd {
        match self {
            Self::Plain(..) => HandshakeEnd::Plain,
            Self::Io(error) if matches!(error.kind(), ErrorKind::TimedOut) => HandshakeEnd::Timeout,
            Self::Io(error) if matches!(error.kind(), ErrorKind::InvalidData) => {
                HandshakeEnd::Protocol
            }
            Self::Io(_) => HandshakeEnd::Broken,
            Self::Tls(rustls::Error::InvalidCertificate(_)) => HandshakeEnd::Certificate,
            Self::Tls(_) => HandshakeEnd::Protocol,
        }
    }

    /// Whether the certificate of the peer could not be verified.
    pub const fn is_of_certificate(&self) -> bool {
        matches!(self, Self::Tls(rustls::Error::InvalidCertificate(_)))
    }
}

/// Shakes hands with a client, until `deadline_ms` of the monotonic clock.
///
/// # Errors
/// See [`Refused`]; the client has got an alert.
pub async fn accept(
    stream: Stream,
    server: &Server,
    turns: &Rc<Turns>,
    deadline_ms: u64,
) -> Result<Secured, Refused> {
    // Only the records of servers are counted.
    let mut framing = Framing::default();
    let mut acceptor = Acceptor::default();
    let mut first = Vec::new();
    let mut is_first = true;
    let accepted = loop {
        let received =
            receive(&stream, HELLO_STEP_BYTES, deadline_ms, |mut bytes| {
                if std::mem::take(&mut is_first) && bytes.first() != Some(&HANDSHAKE_RECORD) {
                    first = bytes.to_vec();
                    return Ok(());
                }
                acceptor.read_tls(&mut bytes)?;
                match bytes {
                    [] => Ok(()),
                    _ => Err(io::Error::new(ErrorKind::InvalidData, "the ClientHello is too long")
                        .into()),
                }
            });
        received.await?;
        if !first.is_empty() {
            return Err(Refused::Plain(stream, first));
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err((error, mut alert)) => {
                let _ = alert.write_all(&mut Out(&stream));
                return Err(error.into());
            }
        }
    };
    turn(turns, deadline_ms).await?;
    let (policy, config) = server.config(accepted.client_hello().server_name())?;
    let mut until = Until::new();
    let mut tls = match until.step(|| accepted.into_connection(config)) {
        Ok(tls) => Connection::Server(tls),
        Err((error, mut alert)) => {
            let _ = alert.write_all(&mut Out(&stream));
            return Err(error.into());
        }
    };
    complete(&stream, (&mut tls, &mut framing, &mut until), turns, deadline_ms).await?;
    let mut secured = Secured::of(tls, framing, stream);
    secured.facts.policy = policy;
    Ok(secured)
}

/// Shakes hands with the server of this name, until `deadline_ms` of the monotonic clock. The
/// configuration says how the server is verified.
///
/// # Errors
/// See [`Refused`]; the server has got an alert.
pub async fn connect(
    stream: Stream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    turns: &Rc<Turns>,
    deadline_ms: u64,
) -> Result<Secured, Refused> {
    let mut tls = Connection::Client(ClientConnection::new(config, name)?);
    let (mut framing, mut until) = (Framing::default(), Until::new());
    complete(&stream, (&mut tls, &mut framing, &mut until), turns, deadline_ms).await?;
    Ok(Secured::of(tls, framing, stream))
}

impl Secured {
    fn of(tls: Connection, framing: Framing, stream: Stream) -> Self {
        let (facts, protocol) = (facts(&tls), Protocol::of(tls.alpn_protocol()));
        let is_resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
        let session = Session::new(tls, framing, &stream);
        Self { stream, session, facts, protocol, is_resumed }
    }
}

/// Sends and receives until both sides have finished.
async fn complete(
    stream: &Stream,
    (tls, framing, until): (&mut Connection, &mut Framing, &mut Until),
    turns: &Rc<Turns>,
    deadline_ms: u64,
) -> Result<(), Refused> {
    loop {
        while tls.wants_write() {
            match tls.write_tls(&mut Out(stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    stream.writable(deadline_ms).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !tls.is_handshaking() {
            return Ok(());
        }
        let take = |bytes: &[u8]| {
            framing.pass(bytes);
            until.step(|| feed(tls, bytes))
        };
        let mut stepped = receive(stream, STEP_BYTES, deadline_ms, take).await;
        if stepped.is_ok() {
            turn(turns, deadline_ms).await?;
            stepped = until.step(|| tls.process_new_packets().map(drop).map_err(Refused::from));
        }
        if let Err(Refused::Tls(_)) = stepped {
            // An alert, best effort.
            let _ = tls.write_tls(&mut Out(stream));
        }
        stepped?;
    }
}

/// Waits for the turn of the next step.
async fn turn(turns: &Rc<Turns>, deadline_ms: u64) -> io::Result<()> {
    timeout_at(deadline_ms, turns.step()).await.map_err(|_| ErrorKind::TimedOut.into())
}

/// Gives all of `bytes` to a handshake. Where rustls has no room for them, behind most of a large
/// record, it takes a step first.
fn feed(tls: &mut Connection, mut bytes: &[u8]) -> Result<(), Refused> {
    loop {
        let n_taken = tls.read_tls(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(());
        }
        tls.process_new_packets()?;
        if n_taken == 0 {
            return Err(io::Error::from(ErrorKind::InvalidData).into());
        }
    }
}

/// Waits for bytes, at most `step_bytes` of them, and gives them to `take`.
async fn receive(
    stream: &Stream,
    step_bytes: usize,
    deadline_ms: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), Refused>,
) -> Result<(), Refused> {
    loop {
        reactor::breathe().await;
        let received =
            with_ciphertext(|bytes| match stream.try_read(&mut bytes[..step_bytes])? {
                0 => Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                n_read => take(&bytes[..n_read]),
            });
        match received {
            Err(Refused::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                stream.readable(deadline_ms).await?;
            }
            received => return received,
        }
    }
}

fn facts(tls: &Connection) -> TlsFacts {
    let server_name = match tls {
        Connection::Server(server) => server.server_name().unwrap_or_default(),
        Connection::Client(_) => "",
    };
    let version = match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "",
    };
    let cipher = match tls.negotiated_cipher_suite().map(|it| it.suite()) {
        Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => "TLS_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => "TLS_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
        Some(suite) => suite.as_str().unwrap_or_default(),
        None => "",
    };
    let chain = match tls {
        Connection::Server(server) => server.peer_certificates().unwrap_or_default(),
        Connection::Client(_) => &[],
    };
    let client = ClientCertificate::new(chain.iter().map(|der| &**der));
    TlsFacts { version, cipher, server_name: server_name.into(), policy: PolicyId::NONE, client }
}

/// The type of a record that begins a handshake, RFC 8446 section 5.1.
const HANDSHAKE_RECORD: u8 = 22;

/// The most of a ClientHello that is received at once. Behind any part of a whole record, rustls has
/// room for that, before it knows that more records belong to it.
const HELLO_STEP_BYTES: usize = 2 << 10;

/// The most that is received at once: plain bytes behind the handshake are fewer than rustls keeps.
const STEP_BYTES: usize = 4 << 10;
