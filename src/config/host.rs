//! The hosts of a site, and those that a forward proxy may lead to.

/// Hosts, lower-case and without a port or a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This one.
    Exact(String),
    /// Every name below it; the text begins with the dot (`.example.org`).
    Below(String),
    /// Any.
    Any,
}

impl HostPattern {
    /// Whether a host, which is in lower case, is one of these.
    pub fn contains(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}
