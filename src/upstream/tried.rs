//! The servers that a fetch has tried already.

use crate::upstream::ids::ServerId;

/// The servers that a fetch has tried already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tried {
    first: u128,
    /// Servers beyond the first 128.
    rest: Vec<ServerId>,
}

impl Tried {
    pub(crate) fn insert(&mut self, server: ServerId) {
        if server.0 < 128 {
            self.first |= 1 << server.0;
        } else if !self.rest.contains(&server) {
            self.rest.push(server);
        }
    }

    pub(crate) fn contains(&self, server: ServerId) -> bool {
        if server.0 < 128 { self.first >> server.0 & 1 == 1 } else { self.rest.contains(&server) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_servers_can_be_tried() {
        let mut tried = Tried::default();
        for server in [0, 127, 128, 4_000, 128] {
            tried.insert(ServerId(server));
        }
        assert!([0, 127, 4_000].iter().all(|n| tried.contains(ServerId(*n))));
        assert!([1, 129].iter().all(|n| !tried.contains(ServerId(*n))));
        assert_eq!(tried.rest, [128, 4_000].map(ServerId), "each once");
    }
}
