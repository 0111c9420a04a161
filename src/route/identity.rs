//! The fields in which origins are told who a client is.

use crate::base::chars::eq_as_variable;
use crate::config::Config;
use crate::http::fields::Fields;

/// The names of the fields that routes make from the certificates of clients.
#[derive(Debug, Default)]
pub struct IdentityFields(Vec<Box<str>>);

impl IdentityFields {
    /// Those of all routes: an origin that several routes lead to believes them from each.
    pub(super) fn of(config: &Config) -> Self {
        let routes = config.sites.iter().flat_map(|site| &site.routes);
        let changes = routes.filter_map(|route| route.changes.as_ref());
        let names = changes.flat_map(|changes| changes.request.identities());
        let mut names: Vec<Box<str>> = names.map(|name| name.to_ascii_lowercase().into()).collect();
        names.sort_unstable();
        names.dedup();
        Self(names)
    }

    /// Removes the copies that a client has sent, in every spelling that an origin might take for one.
    pub fn remove_from(&self, fields: &mut Fields) {
        if !self.0.is_empty() {
            let is_own =
                |name: &[u8]| self.0.iter().any(|own| eq_as_variable(name, own.as_bytes()));
            fields.retain(|name, _| !is_own(name));
        }
    }
}
