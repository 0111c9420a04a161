//! The names of stored responses in the table of purges, as 64-bit hashes.
//!
//! Two names with one hash are purged together: that purges too much, and never too little.

/// The kinds of names that a purge has for responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PurgeKind {
    /// Every stored response.
    All = 1,
    /// A host, with its port or for all ports.
    Host = 2,
    /// A prefix of URLs, with any scheme.
    Prefix = 3,
    /// A tag of `Cache-Tag`, `Surrogate-Key` or `xkey`.
    Tag = 4,
    /// A group of `Cache-Groups`, within one origin.
    Group = 5,
    /// A URL, with all variants.
    Url = 6,
}

impl PurgeKind {
    /// Every kind.
    pub const EACH: [Self; 6] =
        [Self::All, Self::Host, Self::Prefix, Self::Tag, Self::Group, Self::Url];

    /// The word in commands, lists and the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Host => "host",
            Self::Prefix => "prefix",
            Self::Tag => "tag",
            Self::Group => "group",
            Self::Url => "url",
        }
    }

    /// Its number in hashes and in the journal; never 0.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::EACH.into_iter().find(|kind| kind.code() == code)
    }
}

/// The hash of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PurgeHash(pub u64);

impl PurgeHash {
    /// The hash of a name of this kind.
    pub fn of(kind: PurgeKind, text: &[u8]) -> Self {
        let mut running = RunningHash::new(kind);
        text.iter().for_each(|&byte| running.push(byte));
        running.hash()
    }

    /// The hash of the text `HOST` or `HOST:PORT`, without an allocation for it.
    pub(crate) fn of_host(host: &[u8], port: Option<u16>) -> Self {
        let mut running = RunningHash::new(PurgeKind::Host);
        host.iter().for_each(|&byte| running.push(byte));
        if let Some(port) = port {
            running.push(b':');
            let digits = [10_000, 1_000, 100, 10, 1].map(|place| (port / place % 10) as u8);
            let first = digits.iter().position(|digit| *digit > 0).unwrap_or(4);
            digits.iter().skip(first).for_each(|digit| running.push(b'0' + digit));
        }
        running.hash()
    }
}

/// A hash that grows byte by byte (FNV-1a, mixed at its end), so that the hashes of all prefixes of
/// a text need one pass over it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunningHash(u64);

impl RunningHash {
    pub(crate) fn new(kind: PurgeKind) -> Self {
        let mut running = Self(0xcbf2_9ce4_8422_2325);
        running.push(kind.code());
        running
    }

    pub(crate) fn push(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    pub(crate) fn hash(self) -> PurgeHash {
        let mixed = (self.0 ^ self.0 >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        PurgeHash(mixed ^ mixed >> 33)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_and_codes_of_kinds_are_unique() {
        for kind in PurgeKind::EACH {
            assert_eq!(PurgeKind::from_code(kind.code()), Some(kind));
        }
        let words: HashSet<_> = PurgeKind::EACH.map(PurgeKind::word).into();
        assert_eq!(words.len(), PurgeKind::EACH.len());
        assert_eq!(PurgeKind::from_code(0), None);
    }
}
