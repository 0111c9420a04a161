//! When the error log warns that a certificate expires: 14 days, 7 days and one day before; and that a list
//! of revoked certificates has expired, which is renewed too often to be warned of before.
//!
//! Each warning is given once for each certificate, also if the certificate is new or ktrix has just
//! started. Pure: the time is an argument.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use crate::tls::certificate::{Certificate, Digest, day};

/// The warnings that the log has about the certificates in use.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    said: HashMap<Digest, Notice>,
    /// When lists of revoked certificates were looked at last, in seconds since 1970; 0 for never.
    looked_s: u64,
}

/// A warning; each is more urgent than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Notice {
    None,
    TwoWeeks,
    Week,
    Day,
    Expired,
}

impl Notice {
    fn of(expires_s: u64, now_s: u64) -> Self {
        match expires_s.checked_sub(now_s) {
            None => Self::Expired,
            Some(left_s) if left_s <= DAY_S => Self::Day,
            Some(left_s) if left_s <= WEEK_S => Self::Week,
            Some(left_s) if left_s <= TWO_WEEKS_S => Self::TwoWeeks,
            Some(_) => Self::None,
        }
    }
}

impl Expiries {
    /// The warnings about these certificates that are due, and forgets all others.
    pub(crate) fn take_due(&mut self, certificates: &[Rc<Certificate>], now_s: u64) -> Vec<String> {
        let (mut said, mut due) = (HashMap::new(), Vec::new());
        for certificate in certificates {
            let notice = Notice::of(certificate.expires_s, now_s);
            let before = said.get(&certificate.digest).or(self.said.get(&certificate.digest));
            let is_due = match before {
                Some(before) => *before < notice,
                // A certificate that has expired already was reported when it was read.
                None => notice != Notice::None && notice != Notice::Expired,
            };
            let most = before.map_or(notice, |before| notice.max(*before));
            said.insert(certificate.digest, most);
            if is_due {
                due.push(sentence(certificate, now_s));
            }
        }
        self.said = said;
        due
    }

    /// The warnings about lists of revoked certificates that have ended since the last call: their files,
    /// and when they end. A list that had ended before was reported when it was read.
    pub(crate) fn take_ended(&mut self, lists: &[(PathBuf, u64)], now_s: u64) -> Vec<String> {
        let last_s = std::mem::replace(&mut self.looked_s, now_s);
        let has_ended = |ends_s: u64| last_s > 0 && last_s <= ends_s && ends_s < now_s;
        let ended = lists.iter().filter(|(_, ends_s)| has_ended(*ends_s));
        let warning = |(file, ends_s): &(PathBuf, u64)| {
            let (file, on) = (file.display(), day(*ends_s));
            format!("the list {file} has expired on {on}: the clients of its issuer are refused")
        };
        ended.map(warning).collect()
    }
}

fn sentence(certificate: &Certificate, now_s: u64) -> String {
    let (file, on) = (certificate.file.display(), day(certificate.expires_s));
    match certificate.expires_s.checked_sub(now_s).map(|left_s| left_s / DAY_S) {
        None => format!("the certificate {file} has expired on {on}; renew it"),
        Some(0) => format!("the certificate {file} expires in less than a day, on {on}; renew it"),
        Some(1) => format!("the certificate {file} expires in 1 day, on {on}; renew it"),
        Some(n) => format!("the certificate {file} expires in {n} days, on {on}; renew it"),
    }
}

const DAY_S: u64 = 86_400;
const WEEK_S: u64 = 7 * DAY_S;
const TWO_WEEKS_S: u64 = 14 * DAY_S;

#[cfg(test)]
mod tests {
    use crate::config::tls::CertificateFiles;
    use crate::tls::sample::Authority;
    use crate::tls::sources::Sources;

    use super::*;

    fn certificate(dir: &std::path::Path, name: &str) -> Rc<Certificate> {
        Authority::new().write(dir, name, &["a.example"]);
        let path = |end| dir.join(format!("{name}.{end}"));
        let (certificate, key) = (path("pem"), path("key"));
        let files = CertificateFiles { certificate, key, path: "tls".to_owned() };
        Certificate::load(&files, &Sources::of_disk(), None, 0).unwrap()
    }

    #[test]
    fn each_warning_is_given_once_for_each_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (certificate(dir.path(), "a"), certificate(dir.path(), "b"));
        let mut expiries = Expiries::default();
        let in_use = [Rc::clone(&first), Rc::clone(&first)];
        let mut told = |in_use: &[Rc<Certificate>], days: f64| -> Vec<String> {
            let now_s = first.expires_s.saturating_add_signed((-days * 86_400.0) as i64);
            let due = expiries.take_due(in_use, now_s);
            let words = due.iter().map(|it| it.split(" expire").nth(1).unwrap_or(it));
            words
                .map(|it| it.split(',').next().unwrap_or(it).trim_start_matches("s in ").to_owned())
                .collect()
        };
        assert!(told(&in_use, 14.1).is_empty());
        assert_eq!(told(&in_use, 14.0), ["14 days"]);
        assert!(told(&in_use, 13.9).is_empty() && told(&in_use, 7.1).is_empty());
        assert_eq!(told(&in_use, 6.9), ["6 days"]);
        assert!(told(&in_use, 1.1).is_empty());
        assert_eq!(told(&in_use, 0.5), ["less than a day"]);
        assert!(told(&in_use, 0.1).is_empty());
        assert_eq!(told(&in_use, -0.1).len(), 1, "it has expired");
        assert!(told(&in_use, -9.0).is_empty());
        // The renewed one, after a start.
        let (now_s, renewed) = (second.expires_s - 3 * DAY_S, [second]);
        let mut expiries = Expiries::default();
        assert_eq!(expiries.take_due(&renewed, now_s).len(), 1);
        assert!(expiries.take_due(&renewed, now_s).is_empty());
        assert!(expiries.take_due(&[], now_s).is_empty());
        assert_eq!(expiries.take_due(&renewed, now_s).len(), 1, "another one of the same bytes");
        assert!(Expiries::default().take_due(&renewed, now_s + 9 * DAY_S).is_empty());
    }

    #[test]
    fn a_list_that_ends_is_reported_once() {
        let lists = [(PathBuf::from("/crl/a"), 1_000), (PathBuf::from("/crl/b"), 2_000)];
        let mut expiries = Expiries::default();
        let mut n_told = |now_s| expiries.take_ended(&lists, now_s).len();
        assert_eq!([900, 1_000, 1_060, 1_120, 2_001].map(&mut n_told), [0, 0, 1, 0, 1]);
        let mut expiries = Expiries::default();
        assert!(expiries.take_ended(&lists, 1_500).is_empty(), "it was reported when it was read");
        let told = expiries.take_ended(&lists, 2_060);
        assert!(
            told.len() == 1 && told[0].starts_with("the list /crl/b has expired on "),
            "{told:?}"
        );
    }
}
