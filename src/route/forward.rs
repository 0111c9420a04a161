//! Where the request of a forward proxy's client goes.

use std::net::Ipv6Addr;
use std::rc::Rc;

use crate::config::forward::ForwardConfig;
use crate::http::authority::Authority;
use crate::http::head::RequestHead;
use crate::http::method::Method;
use crate::http::target::Form;
use crate::policy::reason::refusal::ForwardRefusal;
use crate::upstream::destination::HostPort;

/// The host and port that a request names, by CONNECT or in the absolute form of its target (RFC 9112
/// section 3.2).
///
/// # Errors
/// Why the request goes nowhere.
pub fn destination(
    config: &ForwardConfig,
    head: &RequestHead,
) -> Result<Rc<HostPort>, ForwardRefusal> {
    let is_connect = head.method == Method::Connect;
    if !is_connect && head.target.form() != Form::Absolute {
        return Err(ForwardRefusal::Form);
    }
    if !is_connect && !has_scheme_http(head.target.as_sent()) {
        return Err(ForwardRefusal::Scheme);
    }
    let port = match Authority::parse(head.authority()).ok().and_then(|it| it.port) {
        Some(port) => port,
        None if is_connect => return Err(ForwardRefusal::Form),
        None => HTTP_PORT,
    };
    let ports = if is_connect { &config.connect_ports } else { &config.ports };
    if !ports.contains(&port) {
        return Err(ForwardRefusal::Port);
    }
    let host = str::from_utf8(head.host()).map_err(|_| ForwardRefusal::Host)?;
    if host.is_empty() || !config.allows_host(host) {
        return Err(ForwardRefusal::Host);
    }
    Ok(Rc::new(HostPort { host: without_brackets(host).into(), port }))
}

fn has_scheme_http(target: &[u8]) -> bool {
    target.get(..HTTP.len()).is_some_and(|start| start.eq_ignore_ascii_case(HTTP))
}

/// An IPv6 address without its brackets; another host as it is.
fn without_brackets(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.filter(|inner| inner.parse::<Ipv6Addr>().is_ok()).unwrap_or(host)
}

const HTTP: &[u8] = b"http://";
const HTTP_PORT: u16 = 80;
