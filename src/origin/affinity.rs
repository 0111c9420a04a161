//! The ties of a request to a server: the value that is hashed, and the cookie that names a server.
//!
//! The value is read from the head of the question, so that a request whose upstream needs none costs
//! nothing. The cookie is taken out of a request before a key is made of it: it is ktrix's own, and an
//! origin that gets it could vary its answers by it. It holds a hash of the server's address, so it means
//! the same to all workers, and after a reload or a restart.

use std::net::IpAddr;

use crate::http::cookie;
use crate::http::fields::Fields;
use crate::upstream::ids::ServerId;
use crate::upstream::method::{HashOf, hash};

/// The cookie by which clients stay with a server.
#[derive(Clone, Debug)]
pub(crate) struct Sticky {
    cookie: String,
    /// The value for each server.
    tokens: Vec<String>,
}

impl Sticky {
    /// The seeds are numbers of the servers that never change.
    pub(crate) fn new(cookie: String, seeds: impl Iterator<Item = u64>) -> Self {
        Self { cookie, tokens: seeds.map(|seed| format!("{seed:016x}")).collect() }
    }

    /// Takes the cookie out of a request, and gives the server that it names.
    pub(crate) fn take(&self, request: &mut Fields) -> Option<ServerId> {
        let value = cookie::take(request, self.cookie.as_bytes())?;
        self.tokens.iter().position(|token| token.as_bytes() == value).map(ServerId)
    }

    /// The value of the Set-Cookie field that names a server.
    pub(crate) fn set_cookie(&self, server: ServerId) -> Option<String> {
        let token = self.tokens.get(server.0)?;
        Some(format!("{}={token}; Path=/; HttpOnly", self.cookie))
    }
}

/// The hash of a question with this head, by a client of this address.
pub(crate) fn hash_of(of: &HashOf, head: &[u8], client: Option<IpAddr>) -> u64 {
    let value = match of {
        HashOf::Key => {
            let target = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            let host = field(head, "host").unwrap_or_default();
            return hash(host).rotate_left(1) ^ hash(target);
        }
        HashOf::Header(name) => field(head, name),
        HashOf::Cookie(name) => cookie_of(head, name),
        HashOf::Client => return hash(text_of(client).as_bytes()),
    };
    hash(value.unwrap_or_default())
}

/// The text of an address; an IPv4 address in the form of IPv6 is the same client.
fn text_of(client: Option<IpAddr>) -> String {
    client.map(|client| client.to_canonical().to_string()).unwrap_or_default()
}

/// The last field of this name in a head that ktrix has written.
fn field<'h>(head: &'h [u8], name: &str) -> Option<&'h [u8]> {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    let values = lines.filter_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    });
    values.last()
}

/// The value of the first cookie of this name.
fn cookie_of<'h>(head: &'h [u8], name: &str) -> Option<&'h [u8]> {
    let pairs = field(head, "cookie")?.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let values = pairs.filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    values.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: h\r\nX-User: 7\r\n\
                          Cookie: a=1; route=0000000000000009; route=x\r\n\
                          X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n\r\n";

    #[test]
    fn a_request_is_hashed_by_what_the_configuration_names() {
        let of = |of| hash_of(&of, HEAD, "10.0.0.2".parse().ok());
        assert_eq!(of(HashOf::Header("x-user".into())), hash(b"7"));
        assert_eq!(of(HashOf::Header("x-use".into())), hash(b""));
        assert_eq!(of(HashOf::Cookie("a".into())), hash(b"1"));
        assert_eq!(of(HashOf::Cookie("rout".into())), hash(b""));
        assert_eq!(of(HashOf::Client), hash(b"10.0.0.2"));
        let by_client = |client: &str| hash_of(&HashOf::Client, HEAD, str::parse(client).ok());
        assert_eq!(by_client("::ffff:10.0.0.2"), hash(b"10.0.0.2"));
        assert_eq!(by_client(""), hash(b""));
        let key = |head: &[u8]| hash_of(&HashOf::Key, head, None);
        assert_eq!(key(HEAD), key(b"HEAD /a?b HTTP/1.1\r\nhost: h\r\n\r\n"));
        assert_ne!(key(HEAD), key(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_ne!(key(HEAD), key(b"GET /a?b HTTP/1.1\r\nHost: i\r\n\r\n"));
    }

    #[test]
    fn a_cookie_names_a_server() {
        let sticky = Sticky::new("route".into(), [8, 9].into_iter());
        let taken = |cookies: &str| {
            let mut fields: Fields = [("Cookie", cookies)].into_iter().collect();
            (sticky.take(&mut fields), fields.get("cookie").map(<[u8]>::to_vec))
        };
        let of_second = "a=1; route=0000000000000009; route=x";
        assert_eq!(taken(of_second), (Some(ServerId(1)), Some(b"a=1".to_vec())));
        assert_eq!(taken("route=9"), (None, None), "it names no server");
        assert_eq!(taken("a=1"), (None, Some(b"a=1".to_vec())));
        let cookie = sticky.set_cookie(ServerId(0)).unwrap();
        assert_eq!(cookie, "route=0000000000000008; Path=/; HttpOnly");
        assert_eq!(sticky.set_cookie(ServerId(2)), None);
    }
}
