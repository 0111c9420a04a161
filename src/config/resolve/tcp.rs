//! Where a listener with `mode: tcp` sends its connections.

use crate::config::address::parse_host;
use crate::config::error::Faults;
use crate::config::resolve::upstreams::Upstreams;
use crate::config::schema::Kind;
use crate::config::section::Section;
use crate::config::tcp::TcpTargets;
use crate::config::{HostPattern, ListenMode};
use crate::upstream::ids::UpstreamId;

/// The upstreams of a listener; none if it has another mode.
pub(super) fn targets(
    faults: &mut Faults<'_>,
    listener: &Section<'_>,
    mode: ListenMode,
    upstreams: &Upstreams<'_>,
) -> TcpTargets {
    let (idle, why): (&[&str], _) = match mode {
        ListenMode::Tcp => (&["http2"], "has no effect with mode: tcp"),
        ListenMode::Http => (&["upstream", "sni"], "has no effect without mode: tcp"),
        ListenMode::Forward | ListenMode::Admin => {
            (&["http2", "upstream", "sni"], "has no effect with mode: forward")
        }
    };
    for key in idle {
        if let Some(node) = listener.node(key) {
            faults.add(node.place, listener.path_of(key), why);
        }
    }
    if mode != ListenMode::Tcp {
        return TcpTargets::default();
    }
    let default = listener.scalar(faults, "upstream");
    let default = default.and_then(|name| upstreams.find(faults, &name));
    let names = names(faults, listener, upstreams);
    if listener.node("upstream").is_none() && listener.node("sni").is_none() {
        listener.missing(faults, "upstream", "upstream: db");
    }
    TcpTargets { default, names }
}

/// The upstreams by name.
fn names(
    faults: &mut Faults<'_>,
    listener: &Section<'_>,
    upstreams: &Upstreams<'_>,
) -> Vec<(HostPattern, UpstreamId)> {
    let Some(node) = listener.node("sni") else { return Vec::new() };
    let section = Section::open_named(faults, "listen[].sni", listener.path_of("sni"), node);
    let mut names: Vec<(HostPattern, UpstreamId)> = Vec::new();
    for entry in section.entries() {
        let upstream = section.named_scalar(faults, entry, Kind::Text("name of an upstream"));
        let upstream = upstream.and_then(|name| upstreams.find(faults, &name));
        let why = match parse_host(&entry.key) {
            Ok(HostPattern::Any) => "is any name (try the key upstream)".to_owned(),
            Ok(name) => {
                if names.iter().all(|(other, _)| *other != name) {
                    names.extend(upstream.map(|upstream| (name, upstream)));
                    continue;
                }
                "is listed twice".to_owned()
            }
            Err(message) => message,
        };
        faults.add(entry.place, section.path_of(&entry.key), why);
    }
    names
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, ListenMode};
    use crate::upstream::ids::UpstreamId;

    fn load(listener: &str) -> Result<Config, String> {
        let text = format!(
            "upstreams: {{a: {{servers: x}}, b: {{servers: y}}}}\nlisten: {{address: 1, {listener}}}\n"
        );
        Config::load_for(Path::new("k"), &text, 1).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_listener_of_streams_needs_no_site() {
        let config = load("mode: tcp, upstream: a, sni: {B.example: b}").unwrap();
        let listen = &config.listen[0];
        assert_eq!(listen.mode, ListenMode::Tcp);
        let of = |name| listen.targets.of(name);
        assert_eq!((of("b.example"), of("")), (Some(UpstreamId(1)), Some(UpstreamId(0))));
    }

    #[test]
    fn what_cannot_be_meant_is_a_fault_with_its_place() {
        for (listener, expected) in [
            ("mode: tcp", "listen.upstream: is missing"),
            ("mode: tcp, upstream: c", "listen.upstream: \"c\" is not defined"),
            ("mode: tcp, upstream: a, http2: on", "listen.http2: has no effect with mode: tcp"),
            ("mode: tcp, sni: {x: c}", "listen.sni.x: \"c\" is not defined"),
            ("mode: tcp, sni: {\"*\": a}", "listen.sni.\"*\": is any name"),
            ("mode: tcp, sni: {x: a, X: b}", "listen.sni.X: is listed twice"),
            ("mode: udp", "listen.mode: \"udp\" is not known"),
        ] {
            let found = load(listener).unwrap_err();
            assert!(found.contains(expected), "{listener}: {found}");
        }
        let found = load("upstream: a").unwrap_err();
        assert!(found.contains("listen.upstream: has no effect without mode: tcp"), "{found}");
    }
}
