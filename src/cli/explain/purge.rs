//! A request with the method PURGE: who may, and what it names.

use std::net::{IpAddr, Ipv4Addr};

use crate::cli::explain::explainer::Explainer;
use crate::cli::explain::outcome::Outcome;
use crate::cli::name::printable;
use crate::cli::request::Asked;
use crate::http::head::RequestHead;
use crate::http::status::Status;
use crate::policy::purge::surrogate::Kind;
use crate::proxy::purge::{self, DENIED, METHOD, REFUSED};

impl Explainer<'_> {
    /// What comes of a request to purge; `None` if this is none, or one that no cache heeds.
    pub(super) fn purge(&mut self, asked: &Asked, head: &RequestHead) -> Option<Outcome> {
        if *head.method_text != *METHOD {
            return None;
        }
        let setting = self.setting;
        let about_cache = setting.has_file().then(|| setting.said(&["cache".to_owned()]));
        let Some(cache) = &setting.config.cache else {
            self.say("method", "PURGE means nothing without a cache", about_cache);
            return None;
        };
        let value = "PURGE: ktrix answers it itself, and no server sees it";
        self.say("method", value, about_cache);
        let because = setting.said(&["cache.purge".to_owned()]);
        let networks = cache.purge.iter().map(ToString::to_string).collect::<Vec<_>>();
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let value = match networks.as_slice() {
            [] => "nobody may purge by a request (\"ktrix cache purge\" does)".to_owned(),
            networks => format!("{} may purge by a request", networks.join(", ")),
        };
        self.say("who", value, Some(because));
        let may = cache.purge.iter().any(|network| network.contains(Some(client)));
        if !networks.is_empty() {
            let value = if may { "may" } else { "may not" };
            self.say("client", format!("{client}, as if asked from this machine: {value}"), None);
        }
        if !may {
            return Some(Outcome::own(Status(403), DENIED));
        }
        match purge::orders(&setting.router, asked.scheme, head, "") {
            Ok(orders) => {
                for order in orders {
                    let soft = if order.is_soft { "make stale" } else { "purge" };
                    let name = match order.kind {
                        // What the route's key makes of it.
                        Kind::Url => printable(&order.text),
                        _ => printable(order.name.as_bytes()),
                    };
                    let value = format!("{soft} {} {name}", order.kind.word());
                    self.say("decision", value.trim_end(), None);
                }
                Some(Outcome::own(Status(200), "purge"))
            }
            Err(refusal) => {
                self.say("decision", format!("purge nothing: {}", refusal.sentence()), None);
                Some(Outcome::own(Status(400), REFUSED))
            }
        }
    }
}
