//! The TLS towards the servers of every upstream, made from the configuration and from the files that
//! it names.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::tls::UpstreamTls;
use crate::config::{Config, ServerAddress};
use crate::tls::certificate::{Digest, FILE_BYTES_MAX, Finding, chain, digest_of};
use crate::tls::parts::{Part, Parts};
use crate::upstream::ids::UpstreamId;

/// The TLS towards the servers of all upstreams.
#[derive(Debug, Default)]
pub struct Clients {
    /// In the order of the upstreams.
    all: Vec<Option<Rc<Client>>>,
    /// The authorities of the system, as they were when they were first needed.
    system: Option<Arc<RootCertStore>>,
}

/// The TLS towards the servers of an upstream.
#[derive(Debug)]
pub struct Client {
    config: RefCell<Arc<ClientConfig>>,
    /// Of its authorities and its certificate.
    digest: Cell<Digest>,
    name: Option<ServerName<'static>>,
}

impl Clients {
    /// Makes the TLS of every upstream.
    pub(super) fn load(config: &Config, parts: &mut Parts<'_>, before: Option<&Self>) -> Self {
        let mut system = before.and_then(|before| before.system.clone());
        let mut all = Vec::new();
        for (id, upstream) in (0..).map(UpstreamId).zip(&config.upstreams) {
            all.push(upstream.tls.as_ref().and_then(|tls| {
                let before = before.and_then(|before| before.of(id));
                // A listener of streams may pass any protocol on.
                let speaks_http = !config.listen.iter().any(|listen| listen.targets.lead_to(id));
                let made = Client::load(tls, speaks_http, parts, &mut system, before);
                parts.part(made, before)
            }));
        }
        Self { all, system }
    }

    /// Takes over what is new in `others`.
    pub(super) fn take_over(&self, others: &Self) {
        let both = self.all.iter().flatten().zip(others.all.iter().flatten());
        for (own, other) in both.filter(|(own, other)| !Rc::ptr_eq(own, other)) {
            own.config.swap(&other.config);
            own.digest.swap(&other.digest);
        }
    }

    /// The TLS towards the servers of an upstream, if they are spoken to over TLS.
    pub fn of(&self, upstream: UpstreamId) -> Option<&Rc<Client>> {
        self.all.get(upstream.0)?.as_ref()
    }
}

impl Client {
    /// `before` if it was made of the same files.
    fn load(
        tls: &UpstreamTls,
        speaks_http: bool,
        parts: &mut Parts<'_>,
        system: &mut Option<Arc<RootCertStore>>,
        before: Option<&Rc<Self>>,
    ) -> Result<Rc<Self>, Finding> {
        let of_ca = |file: &Path, why: String| {
            Finding::new(format!("{}.ca", tls.path), format!("{} {why}", file.display()))
        };
        let text = tls.ca.as_deref().filter(|_| tls.verify).map(|file| {
            let read = parts.sources.read(file, FILE_BYTES_MAX);
            read.map(|text| (file, text)).map_err(|why| of_ca(file, why))
        });
        let text = text.transpose()?;
        let certificate = match &tls.certificate {
            Some(files) => Some(parts.client_certificate(files)?),
            None => None,
        };
        let of_certificate = certificate.as_ref().map(|certificate| &certificate.digest[..]);
        let of_authorities = text.as_ref().map(|(_, text)| &text[..]);
        let digest = digest_of([of_authorities, of_certificate].map(Option::unwrap_or_default));
        if let Some(before) = before.filter(|before| before.digest.get() == digest) {
            return Ok(Rc::clone(before));
        }
        let of_section = |error: Error| Finding::new(&*tls.path, error.to_string());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(of_section)?;
        let config = match (tls.verify, text) {
            (false, _) => {
                config.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            }
            (true, Some((file, text))) => {
                let authorities = authorities(&text).map_err(|why| of_ca(file, why));
                config.with_root_certificates(authorities?)
            }
            (true, None) => {
                let system = match system {
                    Some(known) => Arc::clone(known),
                    None => Arc::clone(system.insert(of_system(tls)?)),
                };
                config.with_root_certificates(system)
            }
        };
        let mut config = match certificate {
            None => config.with_no_client_auth(),
            Some(certificate) => {
                let own = SingleCertAndKey::from(Arc::clone(&certificate.key));
                config.with_client_cert_resolver(Arc::new(own))
            }
        };
        if speaks_http {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let name = tls.name.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let config = RefCell::new(Arc::new(config));
        Ok(Rc::new(Self { config, digest: Cell::new(digest), name }))
    }

    /// How rustls verifies the servers.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config.borrow())
    }

    /// The name that is asked for and verified. Without one, a server that is not verified is not
    /// asked for any.
    pub(super) fn name_of(&self, address: &ServerAddress) -> ServerName<'static> {
        let name = self.name.clone().or_else(|| match address {
            ServerAddress::Ip(address) => Some(ServerName::from(address.ip())),
            ServerAddress::Name { host, .. } => ServerName::try_from(host.clone()).ok(),
            ServerAddress::Unix(_) => None,
        });
        // An address is never sent as a name.
        name.unwrap_or_else(|| ServerName::from(std::net::Ipv4Addr::LOCALHOST))
    }
}

impl Part for Client {
    fn digest(&self) -> Digest {
        self.digest.get()
    }
}

/// The authorities of the text of a PEM file, or why there are none.
fn authorities(text: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for der in chain(text)? {
        roots.add(der).map_err(|error| format!("has an invalid certificate: {error}"))?;
    }
    Ok(roots)
}

/// The authorities of the system. One that cannot be read is left out, as by other programs.
fn of_system(tls: &UpstreamTls) -> Result<Arc<RootCertStore>, Finding> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let why = "needs the authorities of the system, which has none \
                   (install ca-certificates, or name a file with ca)";
        return Err(Finding::new(&*tls.path, why));
    }
    Ok(Arc::new(roots))
}

/// Accepts every certificate. The server must still have its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
