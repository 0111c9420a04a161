//! The parts that the TLS of a configuration is made of. A part is made of its files; if they are bad
//! later, it stays as it was.

use std::collections::HashMap;
use std::rc::Rc;

use crate::config::HostPattern;
use crate::config::tls::CertificateFiles;
use crate::tls::certificate::{Certificate, Digest, Finding, digest_of};
use crate::tls::sources::Sources;

/// A value that was made of files.
pub(super) trait Part {
    /// The digest of their bytes.
    fn digest(&self) -> Digest;
}

impl Part for Certificate {
    fn digest(&self) -> Digest {
        self.digest
    }
}

/// Certificates by their keys in the configuration.
pub(super) type Certificates = HashMap<String, Rc<Certificate>>;

/// The parts that were made so far.
pub(super) struct Parts<'a> {
    pub(super) sources: &'a Sources,
    pub(super) now_s: u64,
    /// The certificates in use; `None` at the start and at a reload.
    before: Option<&'a Certificates>,
    pub(super) certificates: Certificates,
    /// Parts that cannot be made.
    pub(super) wrong: Vec<Finding>,
    /// Parts that stay as they were.
    pub(super) kept: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    digests: Vec<Digest>,
}

impl<'a> Parts<'a> {
    pub(super) fn new(sources: &'a Sources, now_s: u64, before: Option<&'a Certificates>) -> Self {
        Self {
            sources,
            now_s,
            before,
            certificates: Certificates::new(),
            wrong: Vec::new(),
            kept: Vec::new(),
            warnings: Vec::new(),
            digests: Vec::new(),
        }
    }

    /// The part that was made of its files now, or else the one in use.
    pub(super) fn part<T: Part>(
        &mut self,
        made: Result<Rc<T>, Finding>,
        before: Option<&Rc<T>>,
    ) -> Option<Rc<T>> {
        match self.or_before(made, before) {
            Ok(part) => {
                self.digests.push(part.digest());
                Some(part)
            }
            Err(finding) => {
                self.wrong.push(finding);
                None
            }
        }
    }

    fn or_before<T>(
        &mut self,
        made: Result<Rc<T>, Finding>,
        before: Option<&Rc<T>>,
    ) -> Result<Rc<T>, Finding> {
        match (made, before) {
            (Err(finding), Some(before)) => {
                self.kept.push(finding);
                Ok(Rc::clone(before))
            }
            (made, _) => made,
        }
    }

    /// The certificate of a listener or a site.
    pub(super) fn certificate(&mut self, files: &CertificateFiles) -> Option<Rc<Certificate>> {
        let before = self.before.and_then(|before| before.get(&files.path));
        let made = Certificate::load(files, self.sources, before, self.now_s);
        let certificate = self.part(made, before)?;
        self.warnings.extend(certificate.namelessness(files));
        self.use_certificate(files, &certificate);
        Some(certificate)
    }

    /// The certificate that servers of an upstream get.
    pub(super) fn client_certificate(
        &mut self,
        files: &CertificateFiles,
    ) -> Result<Rc<Certificate>, Finding> {
        let before = self.before.and_then(|before| before.get(&files.path));
        let made = Certificate::load(files, self.sources, before, self.now_s);
        let certificate = self.or_before(made, before)?;
        self.use_certificate(files, &certificate);
        Ok(certificate)
    }

    fn use_certificate(&mut self, files: &CertificateFiles, certificate: &Rc<Certificate>) {
        self.warnings.extend_from_slice(&certificate.warnings);
        self.certificates.insert(files.path.clone(), Rc::clone(certificate));
    }

    /// The digest of all parts.
    pub(super) fn digest(&self) -> Digest {
        digest_of(self.digests.iter().map(|digest| &digest[..]))
    }

    /// Notes the hosts of a site that its certificate does not name.
    pub(super) fn warn_of_hosts(
        &mut self,
        certificate: &Certificate,
        tls: &CertificateFiles,
        hosts: &[HostPattern],
    ) {
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
