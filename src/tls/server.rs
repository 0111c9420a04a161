//! The TLS of every listener, made from the configuration and from the files that it names.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use zeroize::Zeroizing;

use crate::config::tls::{ListenTls, SitePolicy, Versions};
use crate::config::{Config, Listen, ListenMode};
use crate::http::tls::PolicyId;
use crate::route::hosts::Hosts;
use crate::tls::certificate::{Certificate, Digest, Finding};
use crate::tls::choose::Choices;
use crate::tls::client::Clients;
use crate::tls::parts::{Certificates, Parts};
use crate::tls::secrets::{SecretBytes, Secrets};
use crate::tls::sources::Sources;
use crate::tls::tickets::{self, Policy, Tickets};
use crate::tls::verification::Verification;

/// The TLS of all listeners.
#[derive(Debug, Default)]
pub struct Servers {
    /// By the key of the listener in the configuration.
    all: HashMap<String, Rc<Server>>,
    /// The TLS towards the servers of upstreams.
    pub(crate) clients: Rc<Clients>,
    certificates: RefCell<Certificates>,
    /// How certificates of clients are verified, by the order of the policies.
    verifications: RefCell<Vec<Rc<Verification>>>,
    /// Of all parts.
    digest: Cell<Digest>,
    /// The warnings about its files, when it was made.
    pub(crate) warnings: Vec<Finding>,
}

/// The TLS of a listener.
#[derive(Debug)]
pub struct Server {
    /// By the number of the policy.
    configs: RefCell<Vec<Arc<ServerConfig>>>,
    /// The policy of a client by the name that it asks for.
    sites: Option<Rc<SitePolicies>>,
    /// The policy of other clients.
    policy: PolicyId,
}

/// The policies that sites have of their own.
#[derive(Debug)]
struct SitePolicies {
    hosts: Hosts,
    /// In the order of the sites.
    policies: Vec<Option<SitePolicy>>,
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

/// The result of reading files that have changed.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    /// Whether a part is another now.
    pub(crate) is_change: bool,
    /// The certificates that are used from now on.
    pub(crate) certificates: Vec<Rc<Certificate>>,
    /// Why a part stays as it was.
    pub(crate) kept: Vec<Finding>,
    /// The warnings about the files.
    pub(crate) warnings: Vec<Finding>,
}

impl Servers {
    /// Makes the TLS of a configuration. Without `secrets` no session is resumed.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub(crate) fn load(
        config: &Config,
        sources: &Sources,
        secrets: Option<&Arc<Secrets>>,
    ) -> Result<Self, Vec<Finding>> {
        let mut parts = Parts::new(sources, now_s(), None);
        parts.wrong.extend(ticket_secrets(config, sources).err());
        match Self::make(config, &mut parts, secrets, None) {
            Some(servers) => Ok(servers),
            None => Err(parts.wrong),
        }
    }

    /// Makes it again of files that have changed. A part whose files are bad stays as it was. All who
    /// share the TLS of a listener or an upstream use the new one for their next handshake.
    pub(crate) fn renew(
        &self,
        config: &Config,
        sources: &Sources,
        secrets: Option<&Arc<Secrets>>,
    ) -> Renewal {
        let before = self.certificates.take();
        let mut parts = Parts::new(sources, now_s(), Some(&before));
        let made = Self::make(config, &mut parts, secrets, Some(self));
        let Parts { mut kept, wrong, warnings, .. } = parts;
        kept.extend(wrong);
        let Some(made) = made else {
            self.certificates.replace(before);
            return Renewal { kept, ..Renewal::default() };
        };
        let is_change = self.digest.replace(made.digest.get()) != made.digest.get();
        for (key, server) in made.all {
            if let Some(own) = self.all.get(&key) {
                own.configs.swap(&server.configs);
            }
        }
        self.clients.take_over(&made.clients);
        let is_new = |certificate: &&Rc<Certificate>| {
            !before.values().any(|before| Rc::ptr_eq(before, certificate))
        };
        let renewed = made.certificates.into_inner();
        let certificates = renewed.values().filter(is_new).cloned().collect();
        self.certificates.replace(renewed);
        self.verifications.swap(&made.verifications);
        Renewal { is_change, certificates, kept, warnings }
    }

    /// As [`Self::renew`], in a child of the master, from the files that the master has read.
    ///
    /// # Errors
    /// When the child has no descriptor left for them, or they cannot be read.
    pub(crate) fn renew_by(
        &self,
        config: &Config,
        secrets: &Arc<Secrets>,
        file: Option<File>,
    ) -> io::Result<()> {
        let file = file.ok_or_else(|| io::Error::from_raw_os_error(nix::libc::EMFILE))?;
        let sources = Sources::of_file(&file)?;
        // The log of the master has what came of it.
        drop(self.renew(config, &sources, Some(secrets)));
        Ok(())
    }

    /// `None` if a part cannot be made, which `parts` knows.
    fn make(
        config: &Config,
        parts: &mut Parts<'_>,
        secrets: Option<&Arc<Secrets>>,
        before: Option<&Self>,
    ) -> Option<Self> {
        let mut of_sites = Vec::new();
        for site in &config.sites {
            let Some(tls) = &site.tls else { continue };
            let Some(certificate) = parts.certificate(tls) else { continue };
            parts.warn_of_hosts(&certificate, tls, &site.hosts);
            of_sites.push(certificate);
        }
        let sites = Rc::new(SitePolicies {
            hosts: Hosts::of(&config.sites),
            policies: config.sites.iter().map(|site| site.client_policy).collect(),
        });
        let mut verifications = Vec::new();
        for (at, policy) in config.client_policies.iter().enumerate() {
            let own = before.and_then(|before| before.verifications.borrow().get(at).cloned());
            let made = Verification::load(policy, parts.sources, own.as_ref(), parts.now_s);
            let verification = parts.part(made, own.as_ref())?;
            parts.warnings.extend_from_slice(&verification.warnings);
            verifications.push(verification);
        }
        let lifetime_s = u32::try_from(config.tickets.lifetime.as_secs()).unwrap_or(u32::MAX);
        let tickets = secrets.map(|secrets| (secrets, lifetime_s));
        let mut all = HashMap::new();
        for listen in &config.listen {
            let Some(tls) = &listen.tls else { continue };
            // Both halves of "all addresses" have the same.
            if all.contains_key(&tls.path) {
                continue;
            }
            let own = tls.certificates.iter().filter_map(|own| parts.certificate(own));
            let certificates: Vec<_> = own.chain(of_sites.iter().cloned()).collect();
            match Server::new((listen, tls), &sites, &certificates, &verifications, tickets) {
                Ok(server) => drop(all.insert(tls.path.clone(), Rc::new(server))),
                Err(error) => parts.wrong.push(Finding::new(&*tls.path, error.to_string())),
            }
        }
        let clients = Rc::new(Clients::load(config, parts, before.map(|before| &*before.clients)));
        let digest = Cell::new(parts.digest());
        let certificates = RefCell::new(std::mem::take(&mut parts.certificates));
        let (warnings, verifications) = (parts.warnings.clone(), RefCell::new(verifications));
        let servers = Self { all, clients, certificates, verifications, digest, warnings };
        parts.wrong.is_empty().then_some(servers)
    }

    /// The certificates in use, with their keys in the configuration, in the order of the keys.
    pub(crate) fn certificates(&self) -> Vec<(String, Rc<Certificate>)> {
        let certificates = self.certificates.borrow();
        let own = certificates.iter().map(|(key, it)| (key.clone(), Rc::clone(it)));
        let mut own: Vec<_> = own.collect();
        own.sort_by(|left, right| left.0.cmp(&right.0));
        own
    }

    /// The lists of revoked certificates in use, with the time when each expires, in seconds since 1970.
    pub(crate) fn lists(&self) -> Vec<(PathBuf, u64)> {
        let verifications = self.verifications.borrow();
        let mut lists: Vec<_> = verifications.iter().flat_map(|it| it.lists.clone()).collect();
        lists.sort();
        lists.dedup();
        lists
    }

    /// The TLS of a listener, if it has any.
    pub fn of(&self, listen: &Listen) -> Option<Rc<Server>> {
        self.all.get(&listen.tls.as_ref()?.path).cloned()
    }
}

impl SitePolicies {
    fn of(&self, name: &str) -> Option<SitePolicy> {
        *self.policies.get(self.hosts.site(name.as_bytes())?)?
    }
}

impl Server {
    fn new(
        (listen, tls): (&Listen, &ListenTls),
        sites: &Rc<SitePolicies>,
        certificates: &[Rc<Certificate>],
        verifications: &[Rc<Verification>],
        tickets: Option<(&Arc<Secrets>, u32)>,
    ) -> Result<Self, rustls::Error> {
        let versions: &[&SupportedProtocolVersion] = match tls.versions {
            Versions::Tls12 => &[&version::TLS12],
            Versions::Tls13 => &[&version::TLS13],
            Versions::Both => &[&version::TLS13, &version::TLS12],
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let choices = Arc::new(Choices::new(certificates));
        let of_policy = |verification: Option<&Rc<Verification>>| {
            let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions)?;
            let config = match verification {
                None => config.with_no_client_auth(),
                Some(it) => config.with_client_cert_verifier(Arc::clone(&it.verifier)),
            };
            let mut config = config.with_cert_resolver(Arc::<Choices>::clone(&choices));
            if listen.mode.speaks_http() {
                config.alpn_protocols = Protocol::offered(listen.http2);
            }
            config.session_storage = Arc::new(NoServerSessionStorage {});
            if let Some((secrets, lifetime_s)) = tickets {
                config.ticketer = Arc::new(Tickets {
                    secrets: Arc::clone(secrets),
                    policy: verification.map_or(NO_CLIENT_CERTIFICATES, |it| it.digest),
                    lifetime_s,
                    until_s: verification.map_or(u64::MAX, |it| it.until_s),
                });
            }
            Ok::<_, rustls::Error>(Arc::new(config))
        };
        let all = std::iter::once(None).chain(verifications.iter().map(Some));
        let configs: Result<Vec<_>, _> = all.map(of_policy).collect();
        // A stream of TCP has no site, and a forward proxy has none of these.
        let sites = (listen.mode == ListenMode::Http).then(|| Rc::clone(sites));
        Ok(Self { configs: RefCell::new(configs?), sites, policy: tls.policy })
    }

    /// The policy and the configuration for a client that asks for this name. The site of the name
    /// decides, as it does for the host of a request.
    pub(super) fn config(
        &self,
        server_name: Option<&str>,
    ) -> Result<(PolicyId, Arc<ServerConfig>), rustls::Error> {
        let name = server_name.unwrap_or_default();
        let own = self.sites.as_ref().and_then(|sites| sites.of(name));
        let policy = own.map_or(self.policy, |site| site.id);
        let config = self.configs.borrow().get(usize::from(policy.0)).cloned();
        let config = config.ok_or_else(|| rustls::Error::General(NO_POLICY.to_owned()))?;
        Ok((policy, config))
    }
}

/// Every policy of a configuration has its own.
const NO_POLICY: &str = "the policy of client certificates is not loaded";

/// The secrets of `tls.ticket-keys`, the one that makes tickets first; none without that file. Only
/// the shared memory of all workers keeps them.
///
/// # Errors
/// Why the file cannot be used.
pub(crate) fn ticket_secrets(
    config: &Config,
    sources: &Sources,
) -> Result<Zeroizing<Vec<SecretBytes>>, Finding> {
    let Some(path) = &config.tickets.keys else { return Ok(Zeroizing::default()) };
    sources.note(path);
    tickets::read(path).map_err(|why| {
        let message = format!("{} {why}", path.display());
        Finding::new("tls.ticket-keys", message)
    })
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The policy of listeners that ask for no client certificate.
const NO_CLIENT_CERTIFICATES: Policy = [0; 32];
