//! This module decides which fields a client gets when an answer begins, whatever the answer is
//! made of.

use std::borrow::Cow;
use std::rc::Rc;

use crate::http::fields::Fields;
use crate::http::head::BodyLength;
use crate::http::status::Status;
use crate::policy::cache_status::{CacheStatus, Report, Way};
use crate::policy::rfc9111::freshness::Lifetimes;
use crate::policy::rfc9111::rules::Rules;
use crate::proxy::client::Client;
use crate::proxy::facts::Facts;

/// The fields that are added to an answer, and the rules that say which of all its fields are sent.
#[derive(Clone, Debug)]
pub struct Added {
    /// The member of ktrix in `Cache-Status`.
    pub status: CacheStatus<'static>,
    /// Fields of the origin's answer that are for this client alone.
    pub private: Fields,
    key: Option<Rc<[u8]>>,
    rules: Option<Rc<Rules>>,
}

impl Added {
    /// `rules` are those of the route, if the request has one. `key` is the text of the key, which
    /// `Cache-Status` names if the rules say so.
    pub fn new(
        status: CacheStatus<'static>,
        rules: Option<&Rc<Rules>>,
        key: Option<&Rc<[u8]>>,
    ) -> Self {
        Self { status, private: Fields::new(), key: key.cloned(), rules: rules.cloned() }
    }

    /// The value of `Age`, in seconds. A response that was fetched for this very request keeps the
    /// age that it came with, although a second of the clock may end before it is passed on.
    pub fn age_s(&self, lifetimes: &Lifetimes, now_s: u64) -> u64 {
        let is_for_it = matches!(self.status.way, Way::Fwd(_)) && !self.status.collapsed;
        let is_new = is_for_it && now_s.saturating_sub(lifetimes.received_s) <= 1;
        lifetimes.current_age_s(if is_new { lifetimes.received_s } else { now_s })
    }

    /// Adds `Cache-Status` (RFC 9211) as the route configures it. The field is a list, and the
    /// member of ktrix follows those of the caches before it.
    fn push_cache_status(&self, sent: Status, fields: &mut Fields) {
        let report = self.rules.as_ref().map_or_else(Report::default, |rules| rules.report);
        let status = self.status.sent_as(sent).with_report(report);
        if status.is_sent() {
            let mut text = Vec::with_capacity(64);
            CacheStatus { key: self.key.as_deref(), ..status }.write(&mut text);
            fields.push(b"Cache-Status", &text);
        }
    }
}

/// Begins an answer with these fields and `Cache-Status`, without the fields that the route strips.
pub fn start<C: Client>(
    client: &mut C,
    status: Status,
    mut fields: Fields,
    length: BodyLength,
    added: &Added,
    facts: &mut Facts,
) {
    facts.status = status.0;
    added.push_cache_status(status, &mut fields);
    let served = match &added.rules {
        Some(rules) => rules.served(&fields),
        None => Cow::Borrowed(&fields),
    };
    client.start(status, &served, length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::reason::forward::Fwd;
    use crate::proxy::client::fake::FakeClient;

    #[test]
    fn a_fetched_response_keeps_the_age_that_it_came_with() {
        let lifetimes = Lifetimes { age_s: 30, received_s: 100, ..Lifetimes::default() };
        let fetched = CacheStatus::forward(Fwd::UriMiss);
        let collapsed = CacheStatus { collapsed: true, ..fetched };
        for (status, now_s, age_s) in [
            (fetched, 100, 30),
            (fetched, 101, 30),
            // A stale answer after a fetch that failed.
            (fetched, 102, 32),
            (collapsed, 101, 31),
            (CacheStatus::hit(5), 101, 31),
        ] {
            let added = Added::new(status, None, None);
            assert_eq!(added.age_s(&lifetimes, now_s), age_s, "{status:?} at {now_s}");
        }
    }

    /// An answer with these values, as a client gets it.
    fn served(status: CacheStatus<'static>, rules: Option<Rules>, key: Option<&str>) -> FakeClient {
        let (rules, key) = (rules.map(Rc::new), key.map(|key| Rc::from(key.as_bytes())));
        let added = Added::new(status, rules.as_ref(), key.as_ref());
        let fields = [("A", "1"), ("B", "2"), ("Cache-Status", "other; hit")].into_iter().collect();
        let (mut client, mut facts) = (FakeClient::new(), Facts::default());
        start(&mut client, Status(200), fields, BodyLength::None, &added, &mut facts);
        assert_eq!((facts.status, client.status()), (200, 200));
        client
    }

    #[test]
    fn fields_that_the_route_strips_are_not_sent() {
        let rules = |stripped: &str, report| Rules {
            stripped: vec![stripped.into()],
            report,
            ..Rules::default()
        };
        let all = |client: FakeClient| {
            let (_, fields, _) = client.started.unwrap();
            let text = |part: &[u8]| String::from_utf8(part.to_vec()).unwrap();
            fields.iter().map(|(name, value)| text(name) + ": " + &text(value)).collect::<Vec<_>>()
        };
        let told = served(CacheStatus::hit(5), None, Some("k"));
        let own = "Cache-Status: ktrix; hit; ttl=5";
        assert_eq!(all(told), ["A: 1", "B: 2", "Cache-Status: other; hit", own]);
        let none = Report { is_on: false, ..Report::default() };
        let told = served(CacheStatus::hit(5), Some(rules("a", none)), None);
        assert_eq!(all(told), ["B: 2", "Cache-Status: other; hit"]);
        let told = served(CacheStatus::hit(5), Some(rules("cache-status", none)), None);
        assert_eq!(all(told), ["A: 1", "B: 2"]);
        let told = served(CacheStatus::hit(5), Some(rules("b", Report::with_all(true))), Some("k"));
        let own = "Cache-Status: ktrix; hit; ttl=5; key=\"k\"";
        assert_eq!(all(told), ["A: 1", "Cache-Status: other; hit", own]);
    }
}
