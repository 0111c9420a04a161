//! Parses addresses and host names.
//!
//! | written | listen | server |
//! | --- | --- | --- |
//! | `10.0.0.1:81`, `[::1]:81` | that | that |
//! | `10.0.0.1`, `[::1]`, `::1` | port 8080 | port 80 |
//! | `81`, `:81`, `*:81` | all addresses, IPv4 and IPv6 | - |
//! | `web.lan:81`, `web.lan` | - | the name, port 80 |
//! | `http://web.lan:81/` | - | without the `http://` |
//! | `https://web.lan` | - | over TLS, port 443 |
//! | `unix:/run/app.sock` | that | that |
//!
//! Each failure is a sentence that follows the text in quotes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::config::error::quoted;
use crate::config::section::{is_off, is_on};
use crate::config::{HostPattern, Listen, ListenAddress, ServerAddress};
use crate::http::scheme::Scheme;

/// The port to listen on without a configured one.
pub const LISTEN_PORT: u16 = 8080;

/// The port of a server without a configured one.
pub const SERVER_PORT: u16 = 80;

/// The port of a server over TLS without a configured one.
pub const SERVER_TLS_PORT: u16 = 443;

/// The length limit of a DNS name (RFC 1035 section 2.3.4), without the dot at its end.
const NAME_BYTES_MAX: usize = 253;

/// The length limit of a socket's path that every Unix accepts.
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// Reads an address to listen on; a bare port is one of each family.
///
/// # Errors
/// Why the text is not an address, with examples of one.
pub fn parse_listen(text: &str) -> Result<Vec<Listen>, String> {
    let wrong = |why: &str| {
        let hint = "try \"0.0.0.0:80\", \"[::1]:80\", \"80\" or \"unix:/run/ktrix.sock\"";
        Err(format!("{} {why} ({hint})", quoted(text)))
    };
    if let Some(path) = text.strip_prefix("unix:") {
        let path = parse_socket_path(path)?;
        return Ok(vec![Listen::at(ListenAddress::Unix(path))]);
    }
    let port = text.strip_prefix("*:").or_else(|| text.strip_prefix(':')).unwrap_or(text);
    if port.bytes().all(|byte| byte.is_ascii_digit()) {
        return match port.parse() {
            Ok(port) => Ok(all_addresses(port)),
            Err(_) => wrong("is not a port from 0 to 65535"),
        };
    }
    match split_port(text) {
        Ok((host, port)) => match parse_ip(host) {
            Some(ip) => {
                let address = SocketAddr::new(ip, port.unwrap_or(LISTEN_PORT));
                Ok(vec![Listen::at(ListenAddress::Ip(address))])
            }
            None => wrong("is not an IP address"),
        },
        Err(why) => wrong(why),
    }
}

/// Every address of this machine: IPv4, and IPv6 where the kernel has it.
pub(crate) fn all_addresses(port: u16) -> Vec<Listen> {
    let listen = |ip: IpAddr, is_optional| Listen {
        is_optional,
        ..Listen::at(ListenAddress::Ip(SocketAddr::new(ip, port)))
    };
    vec![listen(Ipv4Addr::UNSPECIFIED.into(), false), listen(Ipv6Addr::UNSPECIFIED.into(), true)]
}

/// Reads the address of a server, and the scheme if there is one; `has_tls` says that the upstream
/// speaks TLS.
///
/// # Errors
/// Why the text is not an address, with examples of one.
pub fn parse_server(text: &str, has_tls: bool) -> Result<(ServerAddress, Option<Scheme>), String> {
    let wrong = |why: &str| {
        let hint = "try \"10.0.0.1:8080\", \"app.example:8080\" or \"unix:/run/app.sock\"";
        Err(format!("{} {why} ({hint})", quoted(text)))
    };
    if let Some(path) = text.strip_prefix("unix:") {
        return parse_socket_path(path).map(|path| (ServerAddress::Unix(path), None));
    }
    if is_on(text) || is_off(text) {
        return wrong("is a switch, but an address is expected");
    }
    let (mut bare, mut scheme) = (text, None);
    if let Some((word, rest)) = text.split_once("://") {
        (bare, scheme) = (rest.strip_suffix('/').unwrap_or(rest), Scheme::parse(word.as_bytes()));
        if scheme.is_none() {
            return wrong("has an unknown scheme");
        }
    }
    let port_of = match has_tls || scheme == Some(Scheme::Https) {
        true => SERVER_TLS_PORT,
        false => SERVER_PORT,
    };
    if bare.contains('/') {
        return wrong("has a path, but only an address is expected");
    }
    let (host, port) = match split_port(bare) {
        Ok((host, port)) => (host, port.unwrap_or(port_of)),
        Err(why) => return wrong(why),
    };
    if port == 0 {
        return wrong("has port 0, which no server can have");
    }
    if let Some(ip) = parse_ip(host) {
        return Ok((ServerAddress::Ip(SocketAddr::new(ip, port)), scheme));
    }
    match parse_name(host) {
        Some(host) => Ok((ServerAddress::Name { host, port }, scheme)),
        None => wrong("is neither an IP address nor a host name"),
    }
}

/// Reads the host of a site: a name, an IP address, `*.` and a name, or `*`.
///
/// # Errors
/// Why the text is not a host, with examples of one.
pub fn parse_host(text: &str) -> Result<HostPattern, String> {
    let wrong = |why: &str| {
        let hint = "try \"www.example.com\", \"*.example.com\" or \"*\"";
        Err(format!("{} {why} ({hint})", quoted(text)))
    };
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    if text.contains("://") || text.contains('/') {
        return wrong("is a URL, but only its host is expected");
    }
    match parse_ip(text) {
        Some(IpAddr::V4(ip)) => return Ok(HostPattern::Exact(ip.to_string())),
        Some(IpAddr::V6(ip)) => return Ok(HostPattern::Exact(format!("[{ip}]"))),
        None => {}
    }
    if text.contains(':') {
        return wrong("has a port, but only the host chooses a site");
    }
    if let Some(below) = text.strip_prefix("*.") {
        return match parse_name(below) {
            Some(name) => Ok(HostPattern::Below(format!(".{name}"))),
            None => wrong("is not a host name after its \"*.\""),
        };
    }
    if text.contains('*') {
        return wrong("has its star in the wrong place");
    }
    match parse_name(text) {
        Some(name) => Ok(HostPattern::Exact(name)),
        None => wrong("is not a host name"),
    }
}

/// Splits `host:port`; of an IPv6 address, only one in brackets has a port.
fn split_port(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = if let Some(end) = text.strip_prefix('[').and(text.find(']')) {
        let (host, rest) = text.split_at(end + 1);
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err("has text after its bracket that is not a port"),
        }
    } else if text.parse::<Ipv6Addr>().is_ok() {
        (text, None)
    } else {
        match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let Some(port) = port else { return Ok((host, None)) };
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if is_number => Ok((host, Some(port))),
        _ => Err("has a port that is not a number from 0 to 65535"),
    }
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// A host name, in lower case and without a dot at its end. Underscores are accepted, since they
/// occur.
fn parse_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_sized = (1..=63).contains(&label.len());
        is_sized && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or("");
    // "300.1.1.1" is a mistyped address and not a name, since no top-level domain is a number.
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label) && !is_number;
    is_name.then(|| name.to_ascii_lowercase())
}

fn parse_socket_path(path: &str) -> Result<PathBuf, String> {
    if path.is_empty() || path.contains('\0') {
        return Err("\"unix:\" has no path behind it (try \"unix:/run/app.sock\")".to_owned());
    }
    if path.len() > SOCKET_PATH_BYTES_MAX {
        let max = SOCKET_PATH_BYTES_MAX;
        return Err(format!("{} is longer than the {max} bytes of a socket's path", quoted(path)));
    }
    Ok(Path::new(path).to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listens(text: &str) -> Vec<String> {
        parse_listen(text).unwrap().iter().map(|listen| listen.address.to_string()).collect()
    }

    #[test]
    fn listen_addresses_are_read() {
        for (text, read) in [
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("10.1.2.3", "10.1.2.3:8080"),
            ("[::1]:80", "[::1]:80"),
            ("[::1]", "[::1]:8080"),
            ("::1", "[::1]:8080"),
            ("unix:/run/k.sock", "unix:/run/k.sock"),
        ] {
            assert_eq!(listens(text), [read], "{text}");
        }
        for text in ["81", ":81", "*:81"] {
            assert_eq!(listens(text), ["0.0.0.0:81", "[::]:81"], "{text}");
        }
        assert!(parse_listen("81").unwrap()[1].is_optional);
    }

    #[test]
    fn invalid_listen_addresses_are_refused_with_examples() {
        for text in [
            "", ":", "70000", "localhost:80", "1.2.3.4:x", "1.2.3.4:", "[::1]80", "[::1", "a",
            "1.2.3.4:-1", "1.2.3.4:+1", "::1]:80", "*", "https://0.0.0.0",
        ] {
            let message = parse_listen(text).unwrap_err();
            assert!(message.contains("(try "), "{text}: {message}");
        }
        assert!(parse_listen("unix:").is_err());
        assert!(parse_listen(&format!("unix:/{}", "x".repeat(200))).is_err());
    }

    #[test]
    fn server_addresses_are_read() {
        for (text, read) in [
            ("192.168.0.1", "192.168.0.1:80"),
            ("10.0.0.1:8080", "10.0.0.1:8080"),
            ("[2001:db8::1]:81", "[2001:db8::1]:81"),
            ("2001:db8::1", "[2001:db8::1]:80"),
            ("localhost", "localhost:80"),
            ("App.Example.:81", "app.example:81"),
            ("http://app_1.lan:81/", "app_1.lan:81"),
            ("HTTP://[::1]", "[::1]:80"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("https://app", "app:443"),
            ("https://10.0.0.1:8443/", "10.0.0.1:8443"),
        ] {
            let address = parse_server(text, false).map(|(address, _)| address.to_string());
            assert_eq!(address, Ok(read.to_owned()), "{text}");
        }
        let with_tls = parse_server("app", true).map(|(address, _)| address.to_string());
        assert_eq!(with_tls, Ok("app:443".to_owned()));
    }

    #[test]
    fn invalid_server_addresses_are_refused_with_examples() {
        for text in [
            "", "https://", "ftp://a", "http://a/b", "a/b", "a:0", "a:99999", "a b", "-a", "a..b",
            "300.1.1.1", "1.2.3", "[::1", "[1.2.3.4]:80", "http://", "a:b:c", "ä.example",
        ] {
            let message = parse_server(text, false).unwrap_err();
            assert!(message.contains("(try "), "{text}: {message}");
        }
    }

    #[test]
    fn hosts_are_read() {
        for (text, read) in [
            ("www.Example.com", HostPattern::Exact("www.example.com".into())),
            ("www.example.com.", HostPattern::Exact("www.example.com".into())),
            ("*.Example.org", HostPattern::Below(".example.org".into())),
            ("*", HostPattern::Any),
            ("10.0.0.1", HostPattern::Exact("10.0.0.1".into())),
            ("[2001:DB8:0::1]", HostPattern::Exact("[2001:db8::1]".into())),
            ("localhost", HostPattern::Exact("localhost".into())),
        ] {
            assert_eq!(parse_host(text), Ok(read), "{text}");
        }
        for text in ["", "a:80", "http://a", "a.*", "*a.b", "*.*", "**", "a b", "*.", "."] {
            let message = parse_host(text).unwrap_err();
            assert!(message.contains("(try "), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[0-9a-f.:\\[\\]*/]{0,40}") {
            let _ = (parse_listen(&text), parse_server(&text, false), parse_host(&text));
        }

        #[test]
        fn printed_addresses_read_back(ip: [u8; 16], is_v6: bool, port in 1u16..) {
            let ip: IpAddr = match is_v6 {
                true => Ipv6Addr::from(ip).into(),
                false => Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]).into(),
            };
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(parse_server(&address.to_string(), false), Ok((ServerAddress::Ip(address), None)));
            let listen = Listen::at(ListenAddress::Ip(address));
            prop_assert_eq!(parse_listen(&address.to_string()), Ok(vec![listen]));
        }
    }
}
