//! The target of a CONNECT is refused, or names one host and one permitted port, which name the same when
//! they are written again.
#![no_main]

use std::path::Path;
use std::rc::Rc;

use ktrix::config::Config;
use ktrix::http::h1::head::{HeadLimits, parse_request};
use ktrix::route::forward::destination;
use ktrix::upstream::destination::HostPort;
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = "listen: [{address: 3128, mode: forward}]
forward: {connect-ports: [1, 443, 65535], hosts: [\"*.example\", \"a.test\", \"127.0.0.1\", \"[::1]\"]}
";

fn of(config: &Config, target: &[u8]) -> Option<Rc<HostPort>> {
    let limits = HeadLimits { head_bytes: 4096, fields: 32, target_bytes: 1024 };
    let head = [b"CONNECT ", target, b" HTTP/1.1\r\nHost: a.test:443\r\n\r\n"].concat();
    let (head, _) = parse_request(&head, &limits).ok()??;
    destination(config.forward.as_deref()?, &head).ok()
}

fuzz_target!(|target: &[u8]| {
    thread_local! {
        static LOADED: Config = Config::load_for(Path::new("k.yaml"), CONFIG, 1).unwrap();
    }
    LOADED.with(|config| {
        let Some(named) = of(config, target) else { return };
        assert!([1, 443, 65535].contains(&named.port));
        assert!(!named.host.is_empty() && named.host.is_ascii());
        assert!(!named.host.contains(|c: char| c.is_ascii_control() || " /@?#[]".contains(c)));
        assert!(!named.host.contains(char::is_uppercase));
        assert_eq!(of(config, named.to_string().as_bytes()), Some(named));
    });
});
