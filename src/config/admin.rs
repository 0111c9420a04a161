//! The admin listener: who may ask it, and by which names.

use std::net::IpAddr;

use crate::config::network::Network;

/// The settings of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// The clients that get an answer.
    pub allow: Vec<Network>,
    /// The names, in lower case, by which it may be asked besides its addresses and localhost.
    pub hosts: Vec<String>,
}

impl AdminConfig {
    /// Whether a client may ask; `is_forwarded` says that the request names another client.
    pub fn admits(&self, client: Option<IpAddr>, is_forwarded: bool) -> bool {
        self.allow.iter().any(|network| network.contains(client, is_forwarded))
    }

    /// Whether a request may name this host. A page of another site can have its own name resolved to the
    /// address of the admin listener, and is then of the same origin: so no other name is answered.
    pub fn answers_for(&self, host: &[u8]) -> bool {
        let Ok(host) = str::from_utf8(host) else { return false };
        let address = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        // A browser names one; a check over HTTP/1.0 may not.
        host.is_empty()
            || address.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|it| host.eq_ignore_ascii_case(it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_localhost_and_listed_names_are_answered_for() {
        let config =
            AdminConfig { allow: vec![Network::Local], hosts: vec!["stats.lan".to_owned()] };
        for host in ["", "127.0.0.1", "[::1]", "10.0.0.1", "localhost", "LocalHost", "Stats.lan"] {
            assert!(config.answers_for(host.as_bytes()), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "[::1", "\u{e9}"] {
            assert!(!config.answers_for(host.as_bytes()), "{host}");
        }
        assert!(!config.answers_for(b"\xff"));
        let local = Some([127, 0, 0, 1].into());
        assert!(config.admits(local, false) && config.admits(None, false));
        assert!(!config.admits(local, true) && !config.admits(Some([10, 0, 0, 1].into()), false));
    }
}
