//! The requests that ask for the proof of an ACME challenge, RFC 8555 section 8.3.

use crate::http::head::RequestHead;
use crate::http::method::Method;

/// The folder of the proofs in the one that is configured, where certbot and lego write them.
pub(crate) const FOLDER: &str = ".well-known/acme-challenge";

/// The token of the challenge that a request asks for, which is the name of a file.
pub(crate) fn token(request: &RequestHead) -> Option<&str> {
    let is_read = matches!(request.method, Method::Get | Method::Head);
    let token = request.target.path().strip_prefix(PREFIX).filter(|_| is_read)?;
    // Only the characters of base64url: no other name is one of a token, or leads out of the folder.
    let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_token = (1..=TOKEN_BYTES_MAX).contains(&token.len()) && token.iter().all(is_base64url);
    std::str::from_utf8(token).ok().filter(|_| is_token)
}

const PREFIX: &[u8] = b"/.well-known/acme-challenge/";

/// A token of 128 bits has 22.
const TOKEN_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::target::Target;
    use crate::policy::sample;

    #[test]
    fn a_token_is_one_name_of_base64url() {
        let asked = |method: &str, path: &str| {
            let mut request = sample::request(method, &[]);
            request.target = Target::parse(Method::Get, path.as_bytes()).unwrap();
            token(&request).map(str::to_owned)
        };
        let prefix = "/.well-known/acme-challenge/";
        let get = |rest: &str| asked("GET", &format!("{prefix}{rest}"));
        assert_eq!(get("aZ09-_").as_deref(), Some("aZ09-_"));
        assert_eq!(get("a?b=c").as_deref(), Some("a"));
        for other in ["", "a/b", "a.b", "..", "a%2e", "a%00", "~", &"a".repeat(129)] {
            assert_eq!(get(other), None, "{other}");
        }
        assert_eq!(asked("HEAD", &format!("{prefix}a")).as_deref(), Some("a"));
        assert_eq!(asked("POST", &format!("{prefix}a")), None);
        assert_eq!(asked("GET", "/.well-known/acme-challenge"), None);
    }
}
