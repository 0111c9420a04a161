//! The users of a forward proxy, as htpasswd(1) writes them: a line `name:hash` for each, with a hash of
//! bcrypt. Empty lines, and lines that begin with `#`, are skipped.

use std::collections::HashMap;
use std::fmt;

/// The users, with the hashes of their passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Users(HashMap<Box<str>, Box<str>>);

impl Users {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The number of a bad line and its mistake, without the hash.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (n, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, hash)) = line.split_once(':').filter(|(name, _)| !name.is_empty())
            else {
                return Err(format!("line {n} is not a user and a hash (try \"htpasswd -B\")"));
            };
            if !is_bcrypt(hash) {
                return Err(format!("line {n} has no hash of bcrypt (try \"htpasswd -B\")"));
            }
            if users.insert(name.into(), hash.into()).is_some() {
                return Err(format!("line {n} has a user that is listed before it"));
            }
        }
        Ok(Self(users))
    }

    /// The hash of a user's password.
    pub fn hash(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|hash| &**hash)
    }

    /// The hash of some user's password, to be compared for a name that is not known, so that it takes as
    /// long as for a known one.
    pub fn any_hash(&self) -> Option<&str> {
        self.0.values().next().map(|hash| &**hash)
    }
}

/// Hashes are not for logs.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users", self.0.len())
    }
}

/// Whether a text is `$2y$10$` with 53 characters of salt and hash, whose cost a proxy can bear.
fn is_bcrypt(hash: &str) -> bool {
    let Some(rest) = ["$2a$", "$2b$", "$2y$"].iter().find_map(|it| hash.strip_prefix(it)) else {
        return false;
    };
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"./".contains(&byte);
    let Some((cost, rest)) = rest.split_once('$') else { return false };
    let cost = cost.parse().ok().filter(|_| cost.len() == 2);
    cost.is_some_and(|cost: u8| (4..=COST_MAX).contains(&cost))
        && rest.len() == 53
        && rest.bytes().all(is_base64)
}

/// A hash of this cost takes about a second.
const COST_MAX: u8 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuEJ1CdzvhSBh2sFRKT8fOwqZpTsYwxbi";

    #[test]
    fn users_are_read_as_htpasswd_writes_them() {
        let users = Users::parse(&format!("# users\n\nann:{HASH}\nbob:{HASH}\n")).unwrap();
        assert_eq!(users.hash("ann"), Some(HASH));
        assert_eq!(users.hash("# users"), None);
        assert_eq!(users.hash(""), None);
        assert_eq!(format!("{users:?}"), "2 users");
    }

    #[test]
    fn other_lines_are_mistakes_with_their_numbers() {
        for (text, mistake) in [
            ("ann\n", "line 1 is not a user and a hash"),
            (":x\n", "line 1 is not a user and a hash"),
            ("\nann:secret\n", "line 2 has no hash of bcrypt"),
            ("ann:$apr1$abc$def\n", "line 1 has no hash of bcrypt"),
            ("ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n", "line 1 has no hash of bcrypt"),
            (&HASH.replace("$05$", "$31$").replace("$2y", "a:$2y"), "line 1 has no hash"),
            (&format!("a:{HASH}x\n"), "line 1 has no hash of bcrypt"),
            (&format!("a:{HASH}\na:{HASH}\n"), "line 2 has a user that is listed before it"),
        ] {
            let found = Users::parse(text).unwrap_err();
            assert!(found.starts_with(mistake), "{text}: {found}");
            assert!(!found.contains("$2"), "no hash in a message");
        }
    }
}
