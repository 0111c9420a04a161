//! The work of a TLS server alone, from memory to memory: what a handshake or a record costs before ktrix
//! adds a socket, a request and an answer.
//!
//! `cargo bench --bench tls` prints microseconds of the server's side on one processor, and what that
//! would be in a second: full handshakes with an RSA key of 2,048 bits and a client certificate that is
//! verified, full ones with P-256, resumed ones, and an exchange of a small request and a kilobyte. A
//! number replaces the 500 of each.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
};

fn main() {
    let number = std::env::args().skip(1).find_map(|it| it.parse().ok());
    let n = number.unwrap_or(500_u32);
    let rsa = Ends::new(&rcgen::PKCS_RSA_SHA256, true);
    let ecdsa = Ends::new(&rcgen::PKCS_ECDSA_P256_SHA256, false);
    print("full, RSA 2048, client certificate", n, || rsa.handshake(false).0);
    print("full, P-256", n, || ecdsa.handshake(false).0);
    // The first one brings the tickets.
    ecdsa.handshake(true);
    print("resumed", n, || {
        let (took, server, _) = ecdsa.handshake(true);
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed));
        took
    });
    let (_, mut server, mut client) = ecdsa.handshake(false);
    print("a request and a kilobyte", n, || exchange(&mut server, &mut client));
    println!(
        "in 2012 one of the systems that ktrix grew from claimed 2,000 full and 6,600 resumed \
         transactions a second"
    );
}

fn print(what: &str, n: u32, mut once: impl FnMut() -> Duration) {
    for _ in 0..n / 10 {
        once();
    }
    let took = (0..n).map(|_| once()).sum::<Duration>() / n;
    let each_us = took.as_secs_f64() * 1e6;
    println!("{what:36}{each_us:8.1} us, {:9.0} in a second", 1e6 / each_us);
}

/// The configurations of both ends.
struct Ends {
    server: Arc<ServerConfig>,
    client: ClientConfig,
    resuming: Arc<ClientConfig>,
}

impl Ends {
    fn new(algorithm: &'static SignatureAlgorithm, asks_clients: bool) -> Self {
        let (certificate, key) = certificate(algorithm);
        let (client_certificate, client_key) = certificate_of_client();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = |certificate: &CertificateDer<'static>| {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone()).expect("a root");
            Arc::new(roots)
        };
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let server = match asks_clients {
            false => server.with_no_client_auth(),
            true => server.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(
                    roots(&client_certificate),
                    Arc::clone(&provider),
                )
                .build()
                .expect("a verifier"),
            ),
        };
        let mut server = server.with_single_cert(vec![certificate.clone()], key).expect("a key");
        server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("tickets");
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots(&certificate))
            .with_client_auth_cert(vec![client_certificate], client_key)
            .expect("a client's key");
        let resuming = Arc::new(client.clone());
        client.resumption = Resumption::disabled();
        Self { server: Arc::new(server), client, resuming }
    }

    /// A handshake, and the time that the server's side took, tickets included.
    fn handshake(&self, resumes: bool) -> (Duration, ServerConnection, ClientConnection) {
        let config =
            if resumes { Arc::clone(&self.resuming) } else { Arc::new(self.client.clone()) };
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(config, name).expect("a client");
        let mut took = Duration::ZERO;
        let begun = Instant::now();
        let mut server = ServerConnection::new(Arc::clone(&self.server)).expect("a server");
        took += begun.elapsed();
        while client.is_handshaking() || server.is_handshaking() {
            took += step(&mut server, &mut client);
        }
        took += step(&mut server, &mut client);
        (took, server, client)
    }
}

/// Lets both ends write and read; returns the time of the server.
fn step(server: &mut ServerConnection, client: &mut ClientConnection) -> Duration {
    let mut to_server = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut to_server).expect("memory");
    }
    let (begun, mut from_server, mut unread) = (Instant::now(), Vec::new(), &to_server[..]);
    while !unread.is_empty() {
        server.read_tls(&mut unread).expect("memory");
        server.process_new_packets().expect("a valid client");
    }
    while server.wants_write() {
        server.write_tls(&mut from_server).expect("memory");
    }
    let took = begun.elapsed();
    let mut unread = &from_server[..];
    while !unread.is_empty() {
        client.read_tls(&mut unread).expect("memory");
        client.process_new_packets().expect("a valid server");
    }
    took
}

/// A request and its answer; returns the time of the server.
fn exchange(server: &mut ServerConnection, client: &mut ClientConnection) -> Duration {
    client.writer().write_all(&[b'x'; 100]).expect("memory");
    let mut took = step(server, client);
    let (begun, mut request) = (Instant::now(), [0; 100]);
    server.reader().read_exact(&mut request).expect("a request");
    server.writer().write_all(&[b'x'; 1_300]).expect("memory");
    took += begun.elapsed();
    took += step(server, client);
    client.reader().read_exact(&mut [0; 1_300]).expect("an answer");
    took
}

fn certificate(
    algorithm: &'static SignatureAlgorithm,
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let made = params.self_signed(&key).expect("a certificate");
    (made.der().clone(), key.into())
}

/// Clients have RSA keys of 2,048 bits.
fn certificate_of_client() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    certificate(&rcgen::PKCS_RSA_SHA256)
}
