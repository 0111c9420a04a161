//! The URL prefixes of purges.

use crate::base::chars::is_target_char;
use crate::http::authority;
use crate::http::scheme::Scheme;
use crate::policy::key::host::NamedHost;

/// Why a text is not a prefix of URLs that can be purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// It does not begin like a URL, or has a character that a URL cannot have.
    #[error("it is not a prefix of a URL (try \"http://host/path\")")]
    Url,
    /// Its host is missing, malformed or a wildcard.
    #[error("it does not begin with one whole host")]
    Host,
    /// It has no scheme, and the default port of one.
    #[error("whether its port counts depends on the scheme: begin with http:// or https://")]
    Port,
}

/// The text for the hash of a prefix: `//host/path`, from a URL with or without its scheme. The
/// host is whole: `http://a` is a prefix of the URLs on `a`, but not of those on `a.example`.
///
/// # Errors
/// Why it names nothing.
pub fn prefix_text(url: &[u8]) -> Result<Vec<u8>, PrefixError> {
    let url = url.split(|&byte| byte == b'#').next().unwrap_or_default();
    let at = memchr::memmem::find(url, b"//").ok_or(PrefixError::Url)?;
    let (scheme, rest) = url.split_at_checked(at).unwrap_or_default();
    let scheme = match scheme {
        [] => None,
        [name @ .., b':'] => Some(Scheme::parse(name).ok_or(PrefixError::Url)?),
        _ => return Err(PrefixError::Url),
    };
    if !url.iter().all(|&byte| is_target_char(byte)) {
        return Err(PrefixError::Url);
    }
    let rest = rest.get(2..).unwrap_or_default();
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or_default();
    let host = NamedHost::parse(authority).ok_or(PrefixError::Host)?;
    if scheme.is_none() && matches!(host.port(), Some(80 | 443)) {
        return Err(PrefixError::Port);
    }
    let mut text = b"//".to_vec();
    text.extend(authority::normalised(scheme, authority));
    if !path.starts_with(b"/") {
        text.push(b'/');
    }
    text.extend_from_slice(path);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_begins_with_one_whole_host() {
        assert_eq!(prefix_text(b"HTTPS://a:443?b#c").unwrap(), b"//a/?b");
        for (reason, urls) in [
            (PrefixError::Url, &["a.example/x", "/x", "http//a", "ftp://a/", "http://a/b c"][..]),
            (
                PrefixError::Host,
                &["http:///x", "http://*.test/", "//*", "http://a:/", "http://u@a/"],
            ),
            (PrefixError::Port, &["//a:80/x", "//a:443"]),
        ] {
            for url in urls {
                assert_eq!(prefix_text(url.as_bytes()), Err(reason), "{url}");
            }
        }
    }
}
