//! Which certificate a client gets: by the name that it asks for, and by what it can verify.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use rustls::SignatureAlgorithm;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::tls::certificate::{Certificate, parent_of};

/// The certificates of a name, in the order in which they are tried.
type Choice = Vec<Arc<CertifiedKey>>;

/// The certificates of a listener by their names.
#[derive(Debug)]
pub(super) struct Choices {
    by_name: HashMap<Box<str>, Choice>,
    default: Choice,
}

impl Choices {
    /// The first certificate, and others of its names, are the default.
    pub(super) fn new(certificates: &[Rc<Certificate>]) -> Self {
        let mut by_name: HashMap<Box<str>, Choice> = HashMap::new();
        for certificate in certificates {
            for name in &certificate.names {
                add(by_name.entry(name.clone()).or_default(), &certificate.key);
            }
        }
        let mut default = Choice::new();
        if let Some(first) = certificates.first() {
            add(&mut default, &first.key);
            let same = first.names.iter().filter_map(|name| by_name.get(name)).flatten();
            same.for_each(|key| add(&mut default, key));
        }
        Self { by_name, default }
    }

    /// The certificates of a name in lower case.
    fn of(&self, name: &str) -> &Choice {
        let name = name.strip_suffix('.').unwrap_or(name);
        let wildcard = || self.by_name.get(&*format!("*{}", parent_of(name)?));
        self.by_name.get(name).or_else(wildcard).unwrap_or(&self.default)
    }
}

/// Adds a key once; those that are cheaper to sign with than RSA come first.
fn add(choice: &mut Choice, key: &Arc<CertifiedKey>) {
    let is_rsa = |key: &Arc<CertifiedKey>| key.key.algorithm() == SignatureAlgorithm::RSA;
    if !choice.iter().any(|known| Arc::ptr_eq(known, key)) {
        let at = choice.partition_point(|known| !is_rsa(known) || is_rsa(key));
        choice.insert(at, Arc::clone(key));
    }
}

impl ResolvesServerCert for Choices {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let choice = hello.server_name().map_or(&self.default, |name| self.of(name));
        let suits =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        choice.iter().find(suits).or(choice.first()).cloned()
    }
}
