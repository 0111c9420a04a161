//! The TLS of every listener, made from the configuration and from the files that it names.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, SupportedProtocolVersion, version};

use crate::config::tls::{CertificateFiles, ListenTls, Versions};
use crate::config::{Config, HostPattern, Listen};
use crate::tls::certificate::{Certificate, Finding};
use crate::tls::choose::Choices;
use crate::tls::client::Clients;
use crate::tls::secrets::{SecretBytes, Secrets};
use crate::tls::tickets::{self, Policy, Tickets};

/// The TLS of all listeners.
#[derive(Debug, Default)]
pub struct Servers {
    /// By the key of the listener in the configuration.
    all: HashMap<String, Rc<Server>>,
    /// The secrets of `tls.ticket-keys`, the one that makes tickets first; none without that file.
    pub(crate) ticket_secrets: Vec<SecretBytes>,
    /// The TLS towards the servers of upstreams.
    pub(crate) clients: Rc<Clients>,
    /// The warnings about its files.
    pub(crate) warnings: Vec<Finding>,
}

/// The TLS of a listener.
#[derive(Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
}

/// The protocols that are offered to clients (ALPN), the preferred one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, where the listener offers it.
    Http2,
    /// HTTP/1.1, which a client that names no protocol speaks too.
    Http1,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Http2, Self::Http1];

    const fn name(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }

    /// The names of those that a listener offers.
    fn offered(has_http2: bool) -> Vec<Vec<u8>> {
        let offered = Self::ALL.into_iter().filter(|it| has_http2 || *it != Self::Http2);
        offered.map(|it| it.name().to_vec()).collect()
    }

    /// The protocol that the handshake has settled.
    pub(super) fn of(name: Option<&[u8]>) -> Self {
        Self::ALL.into_iter().find(|it| Some(it.name()) == name).unwrap_or(Self::Http1)
    }
}

impl Servers {
    /// Reads the certificates and keys of a configuration. Without `secrets` no session is resumed.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub(crate) fn load(
        config: &Config,
        secrets: Option<&Arc<Secrets>>,
    ) -> Result<Self, Vec<Finding>> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        let mut files = Files { now_s, wrong: Vec::new(), warnings: Vec::new() };
        let mut of_sites = Vec::new();
        for site in &config.sites {
            let Some(certificate) = site.tls.as_ref().and_then(|tls| files.load(tls)) else {
                continue;
            };
            files.warn_of_hosts(&certificate, site.tls.as_ref(), &site.hosts);
            of_sites.push(certificate);
        }
        let ticket_secrets = files.ticket_secrets(config);
        let lifetime_s = u32::try_from(config.tickets.lifetime.as_secs()).unwrap_or(u32::MAX);
        let mut all = HashMap::new();
        for listen in &config.listen {
            let Some(tls) = &listen.tls else { continue };
            // Both halves of "all addresses" have the same.
            if all.contains_key(&tls.path) {
                continue;
            }
            let own = tls.certificates.iter().filter_map(|own| files.load(own));
            let certificates: Vec<_> = own.chain(of_sites.iter().cloned()).collect();
            let tickets = secrets.map(|secrets| Tickets {
                secrets: Arc::clone(secrets),
                policy: NO_CLIENT_CERTIFICATES,
                lifetime_s,
            });
            match Server::new(listen, tls, &certificates, tickets) {
                Ok(server) => drop(all.insert(tls.path.clone(), Rc::new(server))),
                Err(error) => files.wrong.push(Finding::new(&*tls.path, error.to_string())),
            }
        }
        let clients = Clients::load(config, now_s, &mut files.wrong, &mut files.warnings);
        match files.wrong.is_empty() {
            true => Ok(Self {
                all,
                ticket_secrets,
                clients: Rc::new(clients),
                warnings: files.warnings,
            }),
            false => Err(files.wrong),
        }
    }

    /// The TLS of a listener, if it has any.
    pub fn of(&self, listen: &Listen) -> Option<Rc<Server>> {
        self.all.get(&listen.tls.as_ref()?.path).cloned()
    }
}

impl Server {
    fn new(
        listen: &Listen,
        tls: &ListenTls,
        certificates: &[Rc<Certificate>],
        tickets: Option<Tickets>,
    ) -> Result<Self, rustls::Error> {
        let versions: &[&SupportedProtocolVersion] = match tls.versions {
            Versions::Tls12 => &[&version::TLS12],
            Versions::Tls13 => &[&version::TLS13],
            Versions::Both => &[&version::TLS13, &version::TLS12],
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Choices::new(certificates)));
        config.alpn_protocols = Protocol::offered(listen.http2);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if let Some(tickets) = tickets {
            config.ticketer = Arc::new(tickets);
        }
        Ok(Self { config: Arc::new(config) })
    }

    /// The configuration for a client that asks for this name.
    pub(super) fn config(&self, _server_name: Option<&str>) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// The files that were read so far.
struct Files {
    now_s: u64,
    wrong: Vec<Finding>,
    warnings: Vec<Finding>,
}

/// The policy of listeners that ask for no client certificate.
const NO_CLIENT_CERTIFICATES: Policy = [0; 32];

impl Files {
    fn ticket_secrets(&mut self, config: &Config) -> Vec<SecretBytes> {
        let Some(path) = &config.tickets.keys else { return Vec::new() };
        tickets::read(path).unwrap_or_else(|why| {
            let message = format!("{} {why}", path.display());
            self.wrong.push(Finding::new("tls.ticket-keys", message));
            Vec::new()
        })
    }

    fn load(&mut self, files: &CertificateFiles) -> Option<Rc<Certificate>> {
        match Certificate::load(files, self.now_s) {
            Ok(certificate) => {
                self.warnings.extend_from_slice(&certificate.warnings);
                self.warnings.extend(certificate.namelessness(files));
                Some(Rc::new(certificate))
            }
            Err(finding) => {
                self.wrong.push(finding);
                None
            }
        }
    }

    /// Notes the hosts of a site that its certificate does not name.
    fn warn_of_hosts(
        &mut self,
        certificate: &Certificate,
        tls: Option<&CertificateFiles>,
        hosts: &[HostPattern],
    ) {
        let Some(tls) = tls else { return };
        for host in hosts {
            let name = match host {
                HostPattern::Exact(name) => name.clone(),
                HostPattern::Below(suffix) => format!("*{suffix}"),
                HostPattern::Any => continue,
            };
            if !certificate.covers(&name) {
                let file = tls.certificate.display();
                let message = format!("{file} has no name for {name}, a host of the site");
                self.warnings.push(Finding::new(format!("{}.certificate", tls.path), message));
            }
        }
    }
}
