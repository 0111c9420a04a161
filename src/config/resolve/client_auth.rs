//! How clients are asked for certificates.

use std::path::PathBuf;

use crate::config::error::Faults;
use crate::config::schema;
use crate::config::section::Section;
use crate::config::tls::{ClientPolicy, SitePolicy};
use crate::http::tls::PolicyId;

/// The policies of all listeners and sites, each once.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) list: Vec<ClientPolicy>,
}

impl Policies {
    /// The policy that a mapping names; `None` if it says nothing.
    pub(super) fn of(
        &mut self,
        faults: &mut Faults<'_>,
        section: &Section<'_>,
        path: &str,
    ) -> Option<SitePolicy> {
        let word = section.word_if_any(faults, "client-auth");
        let authorities = files(faults, section, "client-ca");
        let lists = files(faults, section, "client-crl").unwrap_or_default();
        let depth = section.count(faults, "client-depth");
        let is_required = match (word, &authorities) {
            (Some("off"), _) | (None, None) => {
                for key in ["client-ca", "client-depth", "client-crl"] {
                    if let Some(node) = section.node(key) {
                        let why = match word {
                            Some(_) => "has no effect, since client-auth is off",
                            None => "has no effect without client-ca",
                        };
                        faults.add(node.place, section.path_of(key), why);
                    }
                }
                return word.map(|_| SitePolicy { id: PolicyId::NONE, is_required: false });
            }
            (word, _) => word != Some("optional"),
        };
        let Some(authorities) = authorities else {
            section.missing(faults, "client-ca", "client-ca: /etc/ktrix/clients.pem");
            return None;
        };
        let path = path.to_owned();
        let policy = ClientPolicy { is_required, authorities, depth, lists, path };
        let is_same = |known: &ClientPolicy| {
            let path = policy.path.clone();
            ClientPolicy { path, ..known.clone() } == policy
        };
        let at = self.list.iter().position(is_same).unwrap_or_else(|| {
            self.list.push(policy);
            self.list.len() - 1
        });
        let id = u8::try_from(at + 1).map(PolicyId);
        if id.is_err() {
            let why = "is one of too many policies (255 different ones are the most)";
            faults.add(section.place(), section.path_of("client-auth"), why);
        }
        Some(SitePolicy { id: id.unwrap_or_default(), is_required })
    }
}

/// The files of a list, or of a single path.
fn files(faults: &mut Faults<'_>, section: &Section<'_>, key: &str) -> Option<Vec<PathBuf>> {
    let kind = schema::directive(section.schema(), key).kind;
    let items = section.items(faults, key)?;
    let files = items.into_iter().filter_map(|item| item.scalar(faults, kind)?.file(faults));
    Some(files.collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;
    use crate::http::tls::PolicyId;

    fn load(listen: &str, sites: &str) -> Result<Config, String> {
        let text = format!(
            "upstream: a\nlisten: [{{address: 443, tls: {{certificates: {{certificate: c}}, {listen}}}}}, 80]\n\
             sites: [{{hosts: a, tls: {{{sites}}}}}, {{hosts: b, tls: {{certificate: d}}}}]\n"
        );
        Config::load_for(Path::new("k"), &text, 1).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_policy_is_one_of_its_kind_and_a_site_has_its_own() {
        let same = "client-ca: [ca.pem, more], client-crl: lists";
        let config = load(same, &format!("client-depth: 1, client-auth: required, {same}"));
        let config = config.unwrap();
        assert_eq!(config.client_policies.len(), 1);
        let policy = &config.client_policies[0];
        assert!(policy.is_required && policy.depth == 1 && policy.authorities.len() == 2);
        assert_eq!(policy.path, "sites[0].tls");
        let site = config.sites[0].client_policy.unwrap();
        assert!(site.is_required && config.sites[0].tls.is_none());
        assert_eq!(config.sites[1].client_policy, None);
        let listen = |config: &Config| config.listen[0].tls.as_ref().unwrap().policy;
        assert_eq!((site.id, listen(&config)), (PolicyId(1), PolicyId(1)));
        let config = load(same, "client-auth: off").unwrap();
        assert_eq!(config.sites[0].client_policy.unwrap().id, PolicyId::NONE);
        assert_eq!(listen(&config), PolicyId(1));
        let config = load("versions: 1.3", "client-auth: optional, client-ca: x").unwrap();
        assert!(!config.sites[0].client_policy.unwrap().is_required);
        assert_eq!(listen(&config), PolicyId::NONE);
    }

    #[test]
    fn what_cannot_be_meant_is_a_fault() {
        let ok = "client-auth: off";
        for (listen, site, expected) in [
            ("client-auth: required", ok, "listen[0].tls.client-ca: is missing (try"),
            ("client-crl: x", ok, "listen[0].tls.client-crl: has no effect without client-ca"),
            ("client-auth: off, client-ca: x", ok, "listen[0].tls.client-ca: has no effect, since"),
            (
                "client-ca: x, client-depth: 7",
                ok,
                "listen[0].tls.client-depth: \"7\" is out of range",
            ),
            ("client-ca: x", "key: k", "sites[0].tls.certificate: is missing"),
        ] {
            let found = load(listen, site).unwrap_err();
            assert!(found.contains(expected) && found.lines().count() == 1, "{found}");
        }
        let text = "upstream: a\nsites: [{hosts: a, tls: {client-ca: x}}]\n";
        let found = Config::load_for(Path::new("k"), text, 1).unwrap_err().to_string();
        assert!(found.starts_with("k:2:") && found.contains("no listener has tls"), "{found}");
    }
}
