//! The methods by which a server is chosen, and what they hash.

/// How a server is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One after the other, by weight.
    RoundRobin,
    /// The one with the fewest active connections for its weight.
    LeastConnections,
    /// The better of two that are drawn.
    Random,
    /// The one that is expected to answer first.
    Rtt,
    /// The one with the most idle connections of this worker.
    MostIdle,
    /// The same one for the same hash, as long as it has no more than its share of the load.
    Hash,
    /// The same one for the same client.
    Source,
    /// The first one with a free connection.
    First,
}

impl Method {
    /// Whether it compares the active connections of all workers.
    pub(crate) const fn needs_active(self) -> bool {
        matches!(self, Self::LeastConnections | Self::Random | Self::Rtt | Self::Hash)
    }

    /// Whether it compares the times to an answer.
    pub(crate) const fn needs_rtt(self) -> bool {
        matches!(self, Self::Rtt)
    }
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOf {
    /// Host, path and query.
    Key,
    /// The value of this field.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The address of the client.
    Client,
}

/// A hash of bytes that is the same in all processes of all versions.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    // FNV-1a, finished by a mix, because its low bits alone spread badly.
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// Spreads a number over all its bits (the finalizer of splitmix64).
pub(crate) const fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_never_changes() {
        assert_eq!(hash(b""), 0xf52a_15e9_a9b5_e89b);
        assert_ne!(hash(b"a"), hash(b"b"));
    }
}
