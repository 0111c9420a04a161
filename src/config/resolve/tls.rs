//! How listeners speak TLS, and which certificates sites add.

use std::path::PathBuf;
use std::rc::Rc;

use crate::config::document::{Place, Value};
use crate::config::error::Faults;
use crate::config::schema::Kind;
use crate::config::section::Section;
use crate::config::tls::{CertificateFiles, ListenTls, TicketConfig, Versions};
use crate::config::{Listen, SiteConfig};

/// How a listener speaks TLS, if it does.
pub(super) fn of_listener(faults: &mut Faults<'_>, listen: &Section<'_>) -> Option<Rc<ListenTls>> {
    let node = listen.node("tls")?;
    let path = listen.path_of("tls");
    let section = match node.value {
        Value::Scalar(_) if !listen.switch(faults, "tls")? => return None,
        Value::Scalar(_) => Section::absent("listen[].tls", path.clone(), node.place),
        _ => Section::open(faults, "listen[].tls", path.clone(), node),
    };
    let items = section.items(faults, "certificates").unwrap_or_default();
    let certificates = items.into_iter().filter_map(|item| {
        let schema = "listen[].tls.certificates[]";
        let section = Section::open(faults, schema, item.path.clone(), item.node);
        certificate(faults, &section, item.path)
    });
    let certificates = certificates.collect();
    Some(Rc::new(ListenTls { certificates, versions: versions(faults, &section), path }))
}

/// The session tickets.
pub(crate) fn tickets(faults: &mut Faults<'_>, section: &Section<'_>) -> TicketConfig {
    let lifetime = section.duration(faults, "ticket-lifetime");
    let keys = section.scalar(faults, "ticket-keys").and_then(|scalar| scalar.file(faults));
    TicketConfig { lifetime, keys }
}

/// The certificate of a site, if it has one.
pub(super) fn of_site(faults: &mut Faults<'_>, site: &Section<'_>) -> Option<CertificateFiles> {
    let node = site.node("tls")?;
    let path = site.path_of("tls");
    let section = Section::open(faults, "sites[].tls", path.clone(), node);
    certificate(faults, &section, path)
}

/// Notes a listener that has no certificate, and a site whose certificate no listener has.
pub(super) fn check(
    faults: &mut Faults<'_>,
    root: &Section<'_>,
    listen: &[Listen],
    sites: &[SiteConfig],
) {
    let mut all: Vec<_> = listen.iter().filter_map(|listen| listen.tls.as_ref()).collect();
    // Both halves of "all addresses" are of one entry.
    all.dedup_by_key(|tls| &tls.path);
    let mut listeners = all.into_iter().peekable();
    let mut of_sites = sites.iter().filter_map(|site| site.tls.as_ref()).peekable();
    match (listeners.peek(), of_sites.peek()) {
        (None, Some(site)) => {
            let message =
                "has no effect: no listener has tls (try \"listen: {address: 443, tls: on}\")";
            let place = place_of(faults, root, "sites", &site.path);
            faults.add(place, site.path.clone(), message);
        }
        (Some(_), None) => {
            for tls in listeners.filter(|tls| tls.certificates.is_empty()) {
                let message = "has no certificate (add certificates here, or tls to a site)";
                let place = place_of(faults, root, "listen", &tls.path);
                faults.add(place, tls.path.clone(), message);
            }
        }
        _ => {}
    }
}

/// The place of the `tls` of an entry of a list.
fn place_of(faults: &mut Faults<'_>, root: &Section<'_>, list: &str, path: &str) -> Place {
    let items = root.items(faults, list).unwrap_or_default();
    let found = items.iter().find(|item| path.strip_suffix(".tls") == Some(&item.path));
    let node = found.and_then(|item| match &item.node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == "tls"),
        _ => None,
    });
    node.map_or(root.place(), |entry| entry.node.place)
}

fn certificate(
    faults: &mut Faults<'_>,
    section: &Section<'_>,
    path: String,
) -> Option<CertificateFiles> {
    let certificate = section.required(faults, "certificate", "certificate: /etc/ktrix/www.pem");
    let file = |faults: &mut Faults<'_>, key| -> Option<PathBuf> {
        section.scalar(faults, key)?.file(faults)
    };
    let key = file(faults, "key");
    let certificate = certificate?.file(faults)?;
    let key = key.unwrap_or_else(|| certificate.clone());
    Some(CertificateFiles { certificate, key, path })
}

fn versions(faults: &mut Faults<'_>, section: &Section<'_>) -> Versions {
    let Some(items) = section.items(faults, "versions") else { return Versions::Both };
    let (mut has_12, mut has_13) = (false, false);
    for item in items {
        let Some(scalar) = item.scalar(faults, Kind::Text("version")) else { continue };
        match scalar.text {
            "1.2" => has_12 = true,
            "1.3" => has_13 = true,
            _ => scalar.wrong(faults, "is no version of TLS that ktrix speaks (try 1.2 or 1.3)"),
        }
    }
    match (has_12, has_13) {
        (true, false) => Versions::Tls12,
        (false, true) => Versions::Tls13,
        _ => Versions::Both,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn load(text: &str) -> Result<Config, String> {
        let text = format!("upstream: a\n{text}");
        Config::load_for(Path::new("k"), &text, 1).map_err(|errors| errors.to_string())
    }

    #[test]
    fn certificates_have_their_keys_and_listeners_their_own() {
        let config = load(
            "listen:\n  - 80\n  - address: 443\n    tls: {certificates: [{certificate: a}, {certificate: b, key: c}], \
             versions: 1.3}\n  - {address: 444, tls: on}\n  - {address: 445, tls: off}\n\
             sites: [{hosts: x, tls: {certificate: s}}]\n",
        );
        let config = config.unwrap();
        let tls: Vec<_> = config.listen.iter().map(|listen| listen.tls.as_ref()).collect();
        let own = tls.iter().flatten().find(|tls| tls.versions == Versions::Tls13).unwrap();
        let files = own.certificates.iter().map(|it| (it.certificate.to_str(), it.key.to_str()));
        assert_eq!(files.collect::<Vec<_>>(), [(Some("a"), Some("a")), (Some("b"), Some("c"))]);
        assert_eq!(own.certificates[1].path, "listen[1].tls.certificates[1]");
        assert_eq!(tls.iter().flatten().count() * 2, tls.len(), "those of 80 and 445 have none");
        assert_eq!(config.sites[0].tls.as_ref().unwrap().path, "sites[0].tls");
    }

    #[test]
    fn what_cannot_be_meant_is_a_fault_with_its_place() {
        for (text, expected) in [
            ("listen: {address: 443, tls: on}\n", "listen.tls: has no certificate (add"),
            (
                "sites: [{hosts: x, tls: {certificate: s}}]\n",
                "sites[0].tls: has no effect: no listener has tls (try",
            ),
            (
                "listen: {address: 443, tls: {certificates: [{key: s}, {certificate: c}]}}\n",
                "listen.tls.certificates[0].certificate: is missing",
            ),
            (
                "listen: {address: 443, tls: {certificates: {certificate: s}, versions: [1.1]}}\n",
                "listen.tls.versions[0]: \"1.1\" is no version of TLS that ktrix speaks",
            ),
        ] {
            let found = load(text).unwrap_err();
            let (place, rest) = found.split_once(": ").unwrap_or_default();
            assert!(place.starts_with("k:2:") && rest.starts_with(expected), "{text}: {found}");
            assert_eq!(found.lines().count(), 1, "{found}");
        }
    }
}
