//! How listeners speak TLS, which certificates sites add, and how servers are spoken to over TLS.

use std::path::PathBuf;
use std::rc::Rc;

use rustls::pki_types::ServerName;

use crate::config::document::{Place, Value};
use crate::config::error::Faults;
use crate::config::resolve::client_auth::Policies;
use crate::config::schema::Kind;
use crate::config::section::{Item, Section};
use crate::config::tls::{
    CertificateFiles, ListenTls, SitePolicy, TicketConfig, UpstreamTls, Versions,
};
use crate::config::{Listen, ServerAddress, ServerConfig, SiteConfig};
use crate::http::scheme::Scheme;

/// How a listener speaks TLS, if it does.
pub(super) fn of_listener(
    faults: &mut Faults<'_>,
    listen: &Section<'_>,
    policies: &mut Policies,
) -> Option<Rc<ListenTls>> {
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
    let policy = policies.of(faults, &section, &path).map(|policy| policy.id).unwrap_or_default();
    Some(Rc::new(ListenTls { certificates, versions: versions(faults, &section), policy, path }))
}

/// The session tickets.
pub(crate) fn tickets(faults: &mut Faults<'_>, section: &Section<'_>) -> TicketConfig {
    let lifetime = section.duration(faults, "ticket-lifetime");
    let keys = section.scalar(faults, "ticket-keys").and_then(|scalar| scalar.file(faults));
    TicketConfig { lifetime, keys }
}

/// The certificate of a site and how its clients are asked for theirs, if it says so.
pub(super) fn of_site(
    faults: &mut Faults<'_>,
    site: &Section<'_>,
    policies: &mut Policies,
) -> (Option<CertificateFiles>, Option<SitePolicy>) {
    let Some(node) = site.node("tls") else { return (None, None) };
    let path = site.path_of("tls");
    let section = Section::open(faults, "sites[].tls", path.clone(), node);
    let policy = policies.of(faults, &section, &path);
    let has_policy = section.entries().iter().any(|entry| entry.key.starts_with("client-"));
    let has_files = ["certificate", "key"].iter().any(|key| section.node(key).is_some());
    match has_policy && !has_files {
        true => (None, policy),
        false => (certificate(faults, &section, path), policy),
    }
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
    let with_tls = sites.iter().position(|it| it.tls.is_some() || it.client_policy.is_some());
    match (listeners.peek(), with_tls) {
        (None, Some(at)) => {
            let message =
                "has no effect: no listener has tls (try \"listen: {address: 443, tls: on}\")";
            let items = root.items(faults, "sites").unwrap_or_default();
            let path = items.get(at).map(|item| format!("{}.tls", item.path)).unwrap_or_default();
            let place = place_of(faults, root, "sites", &path);
            faults.add(place, path, message);
        }
        (Some(_), _) if sites.iter().all(|site| site.tls.is_none()) => {
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

/// How the servers of an upstream are spoken to over TLS, if `tls` says that they are.
pub(super) fn of_upstream(faults: &mut Faults<'_>, upstream: &Section<'_>) -> Option<UpstreamTls> {
    let node = upstream.node("tls")?;
    let path = upstream.path_of("tls");
    if let Value::Scalar(_) = node.value {
        return upstream.switch(faults, "tls")?.then(|| with_defaults(&path));
    }
    let section = Section::open(faults, "upstreams.NAME.tls", path.clone(), node);
    let verify = section.switch(faults, "verify").unwrap_or(true);
    let ca = section.scalar(faults, "ca").and_then(|scalar| scalar.file(faults));
    if let Some(node) = section.node("ca").filter(|_| !verify) {
        let why = "has no effect, since verify is off";
        faults.add(node.place, section.path_of("ca"), why);
    }
    let name = section.scalar(faults, "name").and_then(|scalar| {
        let is_name = ServerName::try_from(scalar.text).is_ok();
        if !is_name {
            scalar.wrong(faults, "is neither a host name nor an IP address");
        }
        is_name.then(|| scalar.text.to_ascii_lowercase())
    });
    let certificate = match (section.node("certificate"), section.node("key")) {
        (None, None) => None,
        _ => certificate(faults, &section, path.clone()),
    };
    Some(UpstreamTls { name, verify, ca, certificate, path })
}

/// TLS to servers that are verified by the authorities of the system.
pub(super) fn with_defaults(path: &str) -> UpstreamTls {
    let path = path.to_owned();
    UpstreamTls { name: None, verify: true, ca: None, certificate: None, path }
}

/// The TLS of an upstream, after the schemes of its servers: either all of them speak TLS or none.
pub(super) fn with_schemes(
    faults: &mut Faults<'_>,
    upstream: &Section<'_>,
    tls: Option<UpstreamTls>,
    schemes: &[(&Item<'_>, Option<Scheme>)],
) -> Option<UpstreamTls> {
    let is_https = |scheme: Option<Scheme>| scheme == Some(Scheme::Https);
    let has_https = schemes.iter().any(|(_, scheme)| is_https(*scheme));
    let odd = schemes.iter().find(|(_, scheme)| match (&tls, upstream.node("tls")) {
        (Some(_), _) => *scheme == Some(Scheme::Http),
        (None, Some(_)) => is_https(*scheme),
        (None, None) => has_https && !is_https(*scheme),
    });
    if let Some((item, scheme)) = odd {
        let why = match (&tls, scheme) {
            (Some(_), _) => "begins with http://, but tls is on",
            (None, Some(Scheme::Https)) => "begins with https://, but tls is off",
            (None, _) => "is without https://, but another server of this upstream has it",
        };
        faults.add(item.node.place, item.path.clone(), why);
    }
    tls.or_else(|| has_https.then(|| with_defaults(&upstream.path_of("tls"))))
}

/// Notes a server over TLS that has no name to be verified by.
pub(super) fn check_names(
    faults: &mut Faults<'_>,
    upstream: &Section<'_>,
    tls: Option<&UpstreamTls>,
    servers: &[ServerConfig],
) {
    let Some(tls) = tls.filter(|tls| tls.name.is_none() && tls.verify) else { return };
    let is_nameless = |server: &ServerConfig| match &server.address {
        ServerAddress::Unix(_) => true,
        ServerAddress::Ip(_) => false,
        ServerAddress::Name { host, .. } => ServerName::try_from(&**host).is_err(),
    };
    if let Some(server) = servers.iter().find(|server| is_nameless(server)) {
        let place = upstream.node("tls").map_or(upstream.place(), |node| node.place);
        let why =
            format!("needs a name to verify {} by (add \"name: app.example\")", server.address);
        faults.add(place, tls.path.clone(), why);
    }
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
