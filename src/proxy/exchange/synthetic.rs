//! Synthetic answers: short texts that say what is wrong.

use crate::config::action::ErrorPage;
use crate::http::answer::synthetic;
use crate::http::date;
use crate::http::fields::Fields;
use crate::http::flaw::Flaw;
use crate::http::status::Status;
use crate::policy::cache_status::{CacheStatus, CacheVerdict};
use crate::policy::reason::close::CloseReason;
use crate::policy::reason::fetch::FetchError;
use crate::policy::reason::forward::Fwd;
use crate::proxy::client::{Client, ClientError};
use crate::proxy::exchange::Exchange;
use crate::proxy::facts::Facts;
use crate::proxy::respond::{self, Added};
use crate::proxy::upload::ReceiveError;
use crate::reactor;

impl<C: Client> Exchange<'_, C> {
    pub(crate) async fn not_received(&mut self, error: ReceiveError) -> Result<(), CloseReason> {
        match error {
            ReceiveError::Client(ClientError::Closed(reason)) => {
                if reason.is_late() {
                    let text = "the request's body did not come in time";
                    self.synthetic(Status(408), text, &[]).await?;
                }
                Err(reason)
            }
            ReceiveError::Client(ClientError::Flaw(flaw)) => self.flawed(flaw).await,
            ReceiveError::TooLarge(why) => {
                self.facts.reason = Flaw::BodyTooLarge.word();
                self.synthetic(Status(413), why, &[]).await?;
                Err(CloseReason::BadRequest)
            }
            ReceiveError::NoRoom => {
                self.failed(FetchError::BodiesFull, None).await?;
                Err(CloseReason::BadRequest)
            }
            ReceiveError::File(error) => {
                ::log::error!(
                    "cannot keep a request's body in {:?}: {error}; the request is refused",
                    self.context.temporary
                );
                self.failed(FetchError::Resources, None).await?;
                Err(CloseReason::Incomplete)
            }
        }
    }

    pub(crate) async fn flawed(&mut self, flaw: Flaw) -> Result<(), CloseReason> {
        self.facts.reason = flaw.word();
        self.synthetic(flaw.status(), flaw.word(), &[]).await?;
        Err(CloseReason::BadRequest)
    }

    pub(crate) async fn not_cached(&mut self) -> Result<(), CloseReason> {
        self.synthetic(Status(504), "only-if-cached, and no stored response may answer", &[]).await
    }

    pub(crate) async fn failed(
        &mut self,
        error: FetchError,
        fwd: Option<Fwd>,
    ) -> Result<(), CloseReason> {
        self.facts.reason = error.word();
        let status = error.status();
        let forward = fwd.map_or(CacheStatus::own(), CacheStatus::forward);
        let cache_status = CacheStatus { detail: Some(error.word()), ..forward };
        self.synthetic_with(status, error.sentence(), retry_after(status), cache_status).await
    }

    pub(crate) async fn synthetic(
        &mut self,
        status: Status,
        sentence: &str,
        extra: &[(&str, &str)],
    ) -> Result<(), CloseReason> {
        self.synthetic_with(status, sentence, extra, CacheStatus::own()).await
    }

    pub(crate) async fn synthetic_with(
        &mut self,
        status: Status,
        sentence: &str,
        extra: &[(&str, &str)],
        cache_status: CacheStatus<'static>,
    ) -> Result<(), CloseReason> {
        if self.client.has_started() {
            self.client.abort();
            return Err(CloseReason::Incomplete);
        }
        let added = self.added_with(cache_status, None);
        let changed = self.route.changed.as_deref();
        let page = changed.and_then(|changed| changed.error_page(status));
        answer_by(self.client, status, (sentence, page), extra, &added, self.facts).await
    }
}

/// Answers a client with content of this type, if it has one, without an origin.
pub(crate) async fn content<C: Client>(
    client: &mut C,
    (status, kind, body): (Status, Option<&str>, &[u8]),
    extra: &[(&str, &str)],
    added: &Added,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    facts.verdict.get_or_insert(CacheVerdict::NotLookedUp);
    let mut fields = Fields::new();
    fields.push(b"Date", &date::format(reactor::now().unix_s()));
    for (name, value) in kind.map(|kind| ("Content-Type", kind)).iter().chain(extra) {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    respond::whole(client, status, fields, body, added, facts).await
}

/// The fields that tell a client when to try again, with an answer of this status.
pub(crate) const fn retry_after(status: Status) -> &'static [(&'static str, &'static str)] {
    if status.0 == 503 { &[("Retry-After", "1")] } else { &[] }
}

/// Answers a client with a short text, without an origin.
pub(crate) async fn answer<C: Client>(
    client: &mut C,
    status: Status,
    sentence: &str,
    extra: &[(&str, &str)],
    added: &Added,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    answer_by(client, status, (sentence, None), extra, added, facts).await
}

/// As [`answer`], with a page of the operator in the place of the text, if there is one.
pub(crate) async fn answer_by<C: Client>(
    client: &mut C,
    status: Status,
    (sentence, page): (&str, Option<&ErrorPage>),
    extra: &[(&str, &str)],
    added: &Added,
    facts: &mut Facts,
) -> Result<(), CloseReason> {
    facts.verdict.get_or_insert(CacheVerdict::NotLookedUp);
    let (mut fields, mut body) = synthetic(status, sentence, extra);
    if let Some(page) = page {
        fields.set("Content-Type", page.kind.as_bytes());
        body = page.body.to_vec();
    }
    fields.push(b"Date", &date::format(reactor::now().unix_s()));
    respond::whole(client, status, fields, &body, added, facts).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::client::fake::FakeClient;

    #[test]
    fn a_synthetic_answer_says_what_is_wrong() {
        let mut client = FakeClient::new();
        let mut facts = Facts::default();
        let added = Added::new(CacheStatus::own(), None, None);
        let retry = [("Retry-After", "1")];
        let given = answer(&mut client, Status(503), "try again", &retry, &added, &mut facts);
        assert_eq!(reactor::run(given).unwrap(), Ok(()));
        assert!(client.is_answered());
        assert_eq!(client.sent, b"503 Service Unavailable: try again\n");
        assert_eq!((facts.status, facts.verdict), (503, Some(CacheVerdict::NotLookedUp)));
        assert_eq!(client.field("retry-after"), Some("1"));
        assert_eq!(client.field("cache-status"), None);
        assert!(client.field("date").is_some());
    }
}
