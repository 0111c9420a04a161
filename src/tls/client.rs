//! The TLS towards the servers of every upstream, made from the configuration and from the files that
//! it names.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::tls::UpstreamTls;
use crate::config::{Config, ServerAddress, source};
use crate::tls::certificate::{Certificate, FILE_BYTES_MAX, Finding, chain};
use crate::upstream::ids::UpstreamId;

/// The TLS towards the servers of all upstreams.
#[derive(Debug, Default)]
pub struct Clients {
    /// In the order of the upstreams.
    all: Vec<Option<Rc<Client>>>,
}

/// The TLS towards the servers of an upstream.
#[derive(Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl Clients {
    /// Reads the authorities and certificates of a configuration, and adds to `wrong` and `warnings`.
    pub(super) fn load(
        config: &Config,
        now_s: u64,
        wrong: &mut Vec<Finding>,
        warnings: &mut Vec<Finding>,
    ) -> Self {
        let mut system = None;
        let mut load = |tls: &UpstreamTls| match Client::load(tls, now_s, &mut system, warnings) {
            Ok(client) => Some(Rc::new(client)),
            Err(finding) => {
                wrong.push(finding);
                None
            }
        };
        let upstreams = config.upstreams.iter();
        Self { all: upstreams.map(|it| it.tls.as_ref().and_then(&mut load)).collect() }
    }

    /// The TLS towards the servers of an upstream, if they are spoken to over TLS.
    pub fn of(&self, upstream: UpstreamId) -> Option<&Rc<Client>> {
        self.all.get(upstream.0)?.as_ref()
    }
}

impl Client {
    fn load(
        tls: &UpstreamTls,
        now_s: u64,
        system: &mut Option<Arc<RootCertStore>>,
        warnings: &mut Vec<Finding>,
    ) -> Result<Self, Finding> {
        let of_section = |error: Error| Finding::new(&*tls.path, error.to_string());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(of_section)?;
        let config = match (tls.verify, &tls.ca) {
            (false, _) => {
                config.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            }
            (true, Some(file)) => {
                let authorities = authorities(file).map_err(|why| {
                    Finding::new(format!("{}.ca", tls.path), format!("{} {why}", file.display()))
                });
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
        let mut config = match &tls.certificate {
            None => config.with_no_client_auth(),
            Some(files) => {
                let certificate = Certificate::load(files, now_s)?;
                warnings.extend_from_slice(&certificate.warnings);
                let own = SingleCertAndKey::from(certificate.key);
                config.with_client_cert_resolver(Arc::new(own))
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = tls.name.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
        Ok(Self { config: Arc::new(config), name })
    }

    /// How rustls verifies the servers.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
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

/// The authorities of a PEM file, or why there are none.
fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for der in chain(&source::read(file, FILE_BYTES_MAX)?)? {
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
