//! The credentials of the clients of a forward proxy (RFC 7617): a name and its password are compared with the hashes of the
//! configuration.
//!
//! A hash of bcrypt takes long by design, so a helper thread computes it, and passwords that were right are
//! known for a while. An unknown name costs the same time as a wrong password. After some failures the
//! passwords of an address are not looked at for a while.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::base::chars;
use crate::config::users::Users;
use crate::disk::{Kind, Limits, Running};
use crate::http::fields::Fields;
use crate::policy::reason::refusal::ForwardRefusal;
use crate::reactor;

/// The credentials that clients of one worker have shown.
#[derive(Debug)]
pub(crate) struct Credentials {
    users: Users,
    /// Makes the digests of this worker its own.
    salt: [u8; DIGEST_BYTES],
    helpers: Running,
    known: RefCell<HashMap<Digest, u64>>,
    failures: RefCell<HashMap<Option<Guesser>, Failures>>,
}

type Digest = [u8; DIGEST_BYTES];

/// The network of a client that guesses: its address, or the first half of an IPv6 address, of which it may
/// have all others.
type Guesser = IpAddr;

#[derive(Clone, Copy, Debug)]
struct Failures {
    n: u32,
    until_ms: u64,
}

const DIGEST_BYTES: usize = 32;

/// The time for which right credentials are known.
const KNOWN_MS: u64 = 5 * 60 * 1_000;
const KNOWN_MAX: usize = 4_096;

/// Failures of an address within this time...
const FAILURES_MS: u64 = 60 * 1_000;
/// ...and so many of them are as many as it may have.
const FAILURES_MAX: u32 = 10;
const THROTTLED_MAX: usize = 4_096;

/// The threads, and how long a client waits for one.
const HELPERS: Limits = Limits { n_helpers: 2, timeout: Duration::from_secs(10) };

impl Credentials {
    /// The users of a configuration.
    ///
    /// # Errors
    /// When the kernel has no descriptor or no random bytes left.
    pub(crate) fn new(users: &Users) -> io::Result<Self> {
        let mut salt = [0; DIGEST_BYTES];
        rand::fill(&mut salt).map_err(|_| io::Error::other("no random bytes"))?;
        let (known, failures) = (RefCell::default(), RefCell::default());
        Ok(Self { users: users.clone(), salt, helpers: Running::new(HELPERS)?, known, failures })
    }

    /// Whether a request has credentials that are known to be right.
    pub(crate) fn are_known(&self, request: &Fields) -> bool {
        let Some((digest, ..)) = self.read(request) else { return false };
        let now_ms = reactor::now().mono_ms();
        self.known.borrow().get(&digest).is_some_and(|until_ms| now_ms < *until_ms)
    }

    /// Compares the credentials of a request.
    ///
    /// # Errors
    /// Why the client is refused.
    pub(crate) async fn check(
        &self,
        request: &Fields,
        client: Option<IpAddr>,
    ) -> Result<(), ForwardRefusal> {
        let read = self.read(request).ok_or(ForwardRefusal::Unauthorized)?;
        let guesser = client.map(guesser);
        // A password that is being compared counts as wrong, so that many at once are no way round.
        if !self.may_try(guesser) {
            return Err(ForwardRefusal::Throttled);
        }
        let (digest, name, password) = read;
        let of_name = self.users.hash(&name);
        let is_known_name = of_name.is_some();
        let hash = of_name.or(self.users.any_hash()).unwrap_or_default().to_owned();
        let verify = move || io::Result::Ok(bcrypt::verify(password, &hash).unwrap_or(false));
        let compared = self.helpers.run(Kind::Read, verify).await;
        let now_ms = reactor::now().mono_ms();
        match compared {
            Ok(true) if is_known_name => {
                let mut known = self.known.borrow_mut();
                make_room(&mut known, KNOWN_MAX, |until_ms| now_ms < *until_ms);
                known.insert(digest, now_ms + KNOWN_MS);
                self.was_right(guesser);
                Ok(())
            }
            Ok(_) => Err(ForwardRefusal::Unauthorized),
            Err(error) => {
                ::log::debug!("cannot compare a password: {error}");
                Err(ForwardRefusal::Throttled)
            }
        }
    }

    /// The digest, the name and the password of the credentials of a request.
    fn read(&self, request: &Fields) -> Option<(Digest, String, Vec<u8>)> {
        let mut values = request.get_all("proxy-authorization");
        let value = values.next().filter(|_| values.next().is_none())?;
        let (scheme, token) = value.split_at_checked(SCHEME.len())?;
        if !chars::eq_ignore_case(scheme, SCHEME) {
            return None;
        }
        let pair = STANDARD.decode(token.trim_ascii()).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        let (name, password) = (pair.get(..colon)?, pair.get(colon + 1..)?);
        let mut salted = digest::Context::new(&digest::SHA256);
        salted.update(&self.salt);
        salted.update(&pair);
        let digest = salted.finish().as_ref().try_into().ok()?;
        Some((digest, String::from_utf8(name.to_vec()).ok()?, password.to_vec()))
    }

    /// Whether the passwords of a client are compared now; counts one as wrong.
    fn may_try(&self, guesser: Option<Guesser>) -> bool {
        let now_ms = reactor::now().mono_ms();
        let mut failures = self.failures.borrow_mut();
        make_room(&mut failures, THROTTLED_MAX, |it| now_ms < it.until_ms);
        let fresh = Failures { n: 0, until_ms: now_ms + FAILURES_MS };
        let of_client = failures.entry(guesser).or_insert(fresh);
        if now_ms >= of_client.until_ms {
            *of_client = fresh;
        }
        let may_try = of_client.n < FAILURES_MAX;
        of_client.n += u32::from(may_try);
        may_try
    }

    fn was_right(&self, guesser: Option<Guesser>) {
        if let Some(failures) = self.failures.borrow_mut().get_mut(&guesser) {
            failures.n = failures.n.saturating_sub(1);
        }
    }
}

fn guesser(client: IpAddr) -> Guesser {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

/// Removes what is no longer valid from a map that is full, and else all of it.
fn make_room<K, V>(map: &mut HashMap<K, V>, n_max: usize, is_valid: impl Fn(&V) -> bool)
where
    K: Eq + std::hash::Hash,
{
    if map.len() >= n_max {
        map.retain(|_, value| is_valid(value));
    }
    if map.len() >= n_max {
        map.clear();
    }
}

const SCHEME: &[u8] = b"basic ";

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pair: &str) -> Fields {
        let mut fields = Fields::new();
        let value = format!("Basic {}", STANDARD.encode(pair));
        fields.push(b"Proxy-Authorization", value.as_bytes());
        fields
    }

    #[test]
    fn right_credentials_are_known_after_a_check_and_no_others() {
        reactor::run(async {
            let hash = bcrypt::hash("a:b", 4).unwrap();
            let users = Users::parse(&format!("ann:{hash}\n")).unwrap();
            let credentials = Credentials::new(&users).unwrap();
            let right = of("ann:a:b");
            assert!(!credentials.are_known(&right));
            assert_eq!(credentials.check(&right, None).await, Ok(()));
            assert!(credentials.are_known(&right));
            let mut twice = right.clone();
            twice.push(b"Proxy-Authorization", b"Basic x");
            for wrong in [of("ann:a"), of("bob:a:b"), of(":a:b"), of("ann"), twice, Fields::new()] {
                assert!(!credentials.are_known(&wrong));
                let refused = Err(ForwardRefusal::Unauthorized);
                assert_eq!(credentials.check(&wrong, None).await, refused);
            }
        })
        .unwrap();
    }

    #[test]
    fn an_address_that_guesses_is_not_listened_to_for_a_while() {
        reactor::run(async {
            let hash = bcrypt::hash("secret", 4).unwrap();
            let credentials =
                Credentials::new(&Users::parse(&format!("ann:{hash}\n")).unwrap()).unwrap();
            let (guesser, other) = ("2001:db8::1".parse().ok(), "2001:db8:0:1::1".parse().ok());
            let neighbour = "2001:db8::2".parse().ok();
            for n in 0..FAILURES_MAX {
                let refused = credentials.check(&of(&format!("ann:{n}")), guesser).await;
                assert_eq!(refused, Err(ForwardRefusal::Unauthorized));
            }
            let right = of("ann:secret");
            assert_eq!(credentials.check(&right, guesser).await, Err(ForwardRefusal::Throttled));
            assert_eq!(credentials.check(&right, neighbour).await, Err(ForwardRefusal::Throttled));
            assert_eq!(credentials.check(&right, other).await, Ok(()));
            assert!(credentials.are_known(&right), "a client that is known is not asked");
        })
        .unwrap();
    }
}
