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
    /// How closely it names a host, which is in lower case, among other patterns; `None` if the host is
    /// not one of these.
    pub fn rank(&self, host: &[u8]) -> Option<usize> {
        match self {
            Self::Exact(name) => (name.as_bytes() == host).then_some(usize::MAX),
            Self::Below(suffix) => {
                let is_below = host.len() > suffix.len() && host.ends_with(suffix.as_bytes());
                is_below.then_some(suffix.len())
            }
            Self::Any => Some(0),
        }
    }
}
