//! A request with the method PURGE: the clients that may purge, and the objects it names.

use std::net::{IpAddr, Ipv4Addr};

use crate::cache::purge::request::{self, DENIED, REFUSED};
use crate::cli::explain::explainer::Explainer;
use crate::cli::explain::outcome::Outcome;
use crate::cli::name::printable;
use crate::cli::request::UrlRequest;
use crate::http::head::RequestHead;
use crate::http::status::Status;
use crate::policy::purge::hash::PurgeKind;
use crate::policy::purge::request::{METHOD, is_forwarded};
use crate::route::changed::AskedUrl;

impl Explainer<'_> {
    /// The result for a request to purge; `None` if it is none, or there is no cache.
    pub(super) fn purge(&mut self, asked: &UrlRequest, head: &RequestHead) -> Option<Outcome> {
        if *head.method_text != *METHOD {
            return None;
        }
        let setting = self.setting;
        let about_cache = setting.has_file().then(|| setting.because_of(&["cache".to_owned()]));
        let Some(cache) = &setting.config.cache else {
            self.add_step("method", "PURGE has no meaning of its own without a cache", about_cache);
            return None;
        };
        let value = "PURGE: ktrix answers it itself, and does not forward it";
        self.add_step("method", value, about_cache);
        let because = setting.because_of(&["cache.purge".to_owned()]);
        let networks = cache.purge.iter().map(ToString::to_string).collect::<Vec<_>>();
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let value = match networks.as_slice() {
            [] => "no client may purge by a request (use \"ktrix cache purge\")".to_owned(),
            networks => format!("{} may purge by a request", networks.join(", ")),
        };
        self.add_step("allowed", value, Some(because));
        let is_forwarded = is_forwarded(&head.fields);
        let may = cache.purge.iter().any(|network| network.contains(Some(client), is_forwarded));
        if !networks.is_empty() {
            let value = if may { "may" } else { "may not" };
            self.add_step("client", format!("{client}, taken as the client: {value}"), None);
        }
        if !may {
            return Some(Outcome::own(Status(403), DENIED));
        }
        let keys = setting.router.keys_of_url(&AskedUrl::of(asked.scheme, head));
        match request::orders(&keys, asked.scheme, head, "") {
            Ok(orders) => {
                for order in orders {
                    let soft = if order.is_soft { "make stale" } else { "purge" };
                    let name = match order.kind {
                        // The URL as the route's key has it.
                        PurgeKind::Url => printable(&order.text),
                        _ => printable(order.name.as_bytes()),
                    };
                    let value = format!("{soft} {} {name}", order.kind.word());
                    self.add_step("decision", value.trim_end(), None);
                }
                Some(Outcome::own(Status(200), "purge"))
            }
            Err(refusal) => {
                self.add_step("decision", format!("purge nothing: {}", refusal.sentence()), None);
                Some(Outcome::own(Status(400), REFUSED))
            }
        }
    }
}
