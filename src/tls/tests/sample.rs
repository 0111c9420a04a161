//! Certificates in files, and both ends of a connection with TLS.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use crate::config::Config;
use crate::reactor;
use crate::reactor::stream::Stream;
use crate::reactor::timer::deadline;
use crate::tls::handshake::{self, Refused, Secured};
use crate::tls::server::{Server, Servers};
use crate::tls::sources::Sources;
use crate::tls::turns::Turns;

/// A certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.as_ref().pem()
    }

    /// A certificate of these names and its key, as PEM.
    pub(crate) fn sign(&self, names: &[&str], key: &KeyPair) -> String {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        self.sign_params(CertificateParams::new(names).unwrap(), key)
    }

    pub(crate) fn sign_params(&self, params: CertificateParams, key: &KeyPair) -> String {
        params.signed_by(key, &self.issuer).unwrap().pem()
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub(crate) fn write(&self, dir: &Path, name: &str, names: &[&str]) {
        let key = KeyPair::generate().unwrap();
        fs::write(dir.join(format!("{name}.pem")), self.sign(names, &key)).unwrap();
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    pub(crate) fn client(&self) -> ClientConfig {
        self.client_by(aws_lc_rs::default_provider())
    }

    /// A client that trusts this authority.
    pub(crate) fn client_by(&self, provider: CryptoProvider) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.as_ref().der().clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

/// The TLS of the only listener of a configuration; `$DIR` is the directory.
pub(crate) fn server(dir: &Path, tls: &str) -> Rc<Server> {
    let tls = tls.replace("$DIR", &dir.display().to_string());
    let text = format!("upstream: a\nlisten: {{address: 443, tls: {tls}}}\n");
    let config = Config::load_for(Path::new("k.yaml"), &text, 1).unwrap();
    Servers::load(&config, &Sources::of_disk(), None).unwrap().of(&config.listen[0]).unwrap()
}

/// A TCP connection.
pub(crate) fn tcp_pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let left = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (right, _) = listener.accept().unwrap();
    left.set_nonblocking(true).unwrap();
    right.set_nonblocking(true).unwrap();
    (Stream::from_fd(left.into()), Stream::from_fd(right.into()))
}

/// A handshake of a client, which asks for a name, with a server.
pub(crate) async fn shake(
    server: &Rc<Server>,
    client: ClientConfig,
    name: &str,
) -> (Result<Secured, Refused>, Result<Secured, Refused>) {
    let (left, right) = tcp_pair();
    let until_ms = deadline(std::time::Duration::from_secs(10));
    let (turns, server) = (Rc::<Turns>::default(), Rc::clone(server));
    let others = Rc::clone(&turns);
    let accepted =
        reactor::spawn_task(
            async move { handshake::accept(right, &server, &others, until_ms).await },
        );
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connected = handshake::connect(left, Arc::new(client), name, &turns, until_ms).await;
    (connected, accepted.await)
}

/// Both ends of a connection: the client's, and the server's.
pub(crate) async fn pair() -> (Secured, Secured) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "a", &["a.example"]);
    let tls = "{certificates: {certificate: $DIR/a.pem, key: $DIR/a.key}}";
    let (client, accepted) = shake(&server(dir.path(), tls), authority.client(), "a.example").await;
    (client.unwrap(), accepted.unwrap())
}
