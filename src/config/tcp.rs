//! Where a listener with `mode: tcp` sends its connections.

use crate::config::host::HostPattern;
use crate::upstream::ids::UpstreamId;

/// The upstreams of such a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpTargets {
    /// The upstream of connections that ask by TLS for no name of the list.
    pub default: Option<UpstreamId>,
    /// The upstreams by the name that is asked for (SNI); no pattern is there twice.
    pub names: Vec<(HostPattern, UpstreamId)>,
}

impl TcpTargets {
    /// The upstream for a connection that asks for this name, in lower case; empty for none. A name
    /// itself comes before the longest suffix.
    pub(crate) fn of(&self, name: &str) -> Option<UpstreamId> {
        let rank = |pattern: &HostPattern| pattern.rank(name.as_bytes());
        let matching = self.names.iter().filter_map(|(known, id)| Some((rank(known)?, *id)));
        matching.max_by_key(|(rank, _)| *rank).map(|(_, id)| id).or(self.default)
    }

    /// Whether some connections go to this upstream.
    pub(crate) fn lead_to(&self, upstream: UpstreamId) -> bool {
        self.default.iter().chain(self.names.iter().map(|(_, id)| id)).any(|id| *id == upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_before_the_longest_suffix_and_that_before_the_default() {
        let below = |suffix: &str| HostPattern::Below(suffix.to_owned());
        let exact = HostPattern::Exact("a.example".to_owned());
        let names = [exact, below(".example"), below(".b.example")];
        let names = names.into_iter().zip([1, 2, 3].map(UpstreamId)).collect();
        let targets = TcpTargets { default: Some(UpstreamId(0)), names };
        for (name, upstream) in
            [("a.example", 1), ("x.example", 2), ("x.b.example", 3), ("example", 0), ("", 0)]
        {
            assert_eq!(targets.of(name), Some(UpstreamId(upstream)), "{name}");
        }
        assert_eq!(TcpTargets { default: None, ..targets }.of("b"), None);
    }
}
