//! A purge as the reason why a stored object is stale or not served.

use serde::Serialize;

use crate::cache::purge::bucket::Cause;
use crate::cli::name::printable;
use crate::http::date;

/// A purge, as JSON; `name` and `who` are left out where they are not remembered.
#[derive(Serialize)]
pub(super) struct PurgeReason {
    number: u64,
    kind: Option<&'static str>,
    pub(super) soft: bool,
    time: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    who: String,
}

impl PurgeReason {
    pub(super) fn of(cause: &Cause) -> Self {
        Self {
            number: cause.number,
            kind: cause.kind.map(|kind| kind.word()),
            soft: cause.is_soft,
            time: cause.time_s,
            name: printable(cause.name.as_bytes()),
            who: printable(cause.who.as_bytes()),
        }
    }

    /// `soft purge 7 of tag news, Sun, 06 Nov 1994 08:49:37 GMT, by user root`.
    pub(super) fn line(&self) -> String {
        let soft = if self.soft { "soft " } else { "" };
        let kind = self.kind.unwrap_or("another kind");
        let name = if self.name.is_empty() { "" } else { &format!(" {}", self.name) };
        let date = String::from_utf8_lossy(&date::format(self.time)).into_owned();
        let who = if self.who.is_empty() { "" } else { &format!(", by {}", self.who) };
        format!("{soft}purge {} of {kind}{name}, {date}{who}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::purge::hash::PurgeKind;

    #[test]
    fn a_purge_is_described_as_far_as_it_is_remembered() {
        let cause = |is_soft, name: &str, who: &str| Cause {
            number: 7,
            kind: Some(PurgeKind::Tag),
            is_soft,
            time_s: 784_111_777,
            name: name.to_owned(),
            who: who.to_owned(),
        };
        for (cause, line) in [
            (
                cause(true, "news", "user root"),
                "soft purge 7 of tag news, Sun, 06 Nov 1994 08:49:37 GMT, by user root",
            ),
            (cause(false, "", ""), "purge 7 of tag, Sun, 06 Nov 1994 08:49:37 GMT"),
        ] {
            assert_eq!(PurgeReason::of(&cause).line(), line);
        }
    }
}
