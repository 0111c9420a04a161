//! The stored response for a request, its freshness, and the decision.

use anyhow::{Result, bail};

use crate::cache::index::slot::State;
use crate::cache::language::{is_hit, name_in_language};
use crate::cache::load::STORED_FIELDS_MAX;
use crate::cache::name::{Name, PART_STATUS};
use crate::cache::purge::bucket::PurgeStatus;
use crate::cache::variants::Others;
use crate::cli::cause::PurgeReason;
use crate::cli::explain::explainer::{Explainer, Routed};
use crate::cli::explain::outcome::{Basis, Outcome, partial_outcome, pass_outcome};
use crate::cli::explain::parts::Parted;
use crate::cli::explain::step::Because;
use crate::cli::find::{Found, find, list, part_list, part_list_line};
use crate::cli::name::{KeyText, printable, variant_line};
use crate::cli::opened::{Inspected, Opened};
use crate::config::Admission;
use crate::http::date;
use crate::http::fields::Fields;
use crate::http::h1::head::parse_fields;
use crate::http::status::Status;
use crate::policy::decide::{Action, Cached, decide, wants_only_cached};
use crate::policy::key::KeyComponents;
use crate::policy::meta;
use crate::policy::reason::reuse::ReuseReason;
use crate::policy::rfc9111::answer::{self, Answer};
use crate::policy::rfc9111::freshness::Lifetimes;
use crate::policy::rfc9111::parts::PartList;

/// A stored response, parsed.
pub(super) struct Response {
    pub(super) status: Status,
    pub(super) fields: Fields,
    pub(super) body_len: u64,
    pub(super) lifetimes: Lifetimes,
    /// The end of its freshness if it had not been purged, in Unix seconds.
    pub(super) counted_until_s: u64,
    /// The stored parts, if only parts of it are stored.
    pub(super) parts: Option<PartList>,
}

impl Explainer<'_> {
    /// Looks the request up in the cache and explains the decision.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, although a worker may be able to.
    pub(super) fn look_up(&mut self, routed: &Routed) -> Result<Outcome> {
        if let Err(reason) = self.permission(routed) {
            return Ok(pass_outcome(routed, reason));
        }
        let name = Name::of_request(&routed.rules.key, routed.scheme, &routed.head);
        let because = match routed.rules.key == KeyComponents::default() {
            true => Because::Rfc("RFC 9111 section 2"),
            false => self.setting.about_cache(routed.at, "key"),
        };
        self.add_step("key", printable(&name.text), Some(because));
        self.add_step("md5", name.key.to_string(), None);
        let Some(cache) = self.cache else {
            self.add_step("stored", "nothing: there is no index yet", None);
            let nothing = Cached::Miss { has_variants: false };
            let (action, why) = decide(&routed.head, nothing, &routed.rules, self.now_s);
            return Ok(self.explain_action(routed, action, why, None, None));
        };
        let found = find(cache, &routed.rules.key, &name, &routed.head.fields);
        let inspected = found.inspected.as_ref();
        if let Some(error) = inspected.and_then(Inspected::unreadable) {
            bail!("cannot read cache file {:?}: {error}", cache.store.path(&found.name.key));
        }
        self.explain_vary(routed, &found);
        let response = inspected.and_then(|inspected| self.response(cache, inspected));
        let is_hit_for_miss =
            inspected.is_some_and(|inspected| is_hit_for_miss(inspected, self.now_s));
        if response.is_none()
            && !is_hit_for_miss
            && let Some(outcome) = self.in_language(cache, routed, &name, &found)
        {
            return Ok(outcome);
        }
        self.explain_control(routed);
        if let Some(response) = &response {
            self.explain_freshness(routed, response);
        }
        let cached = match &response {
            Some(response) => Cached::Stored(&response.lifetimes),
            None if is_hit_for_miss => Cached::HitForMiss,
            None => Cached::Miss { has_variants: found.marker.is_some() },
        };
        if inspected.is_none() {
            self.add_rfc_step("stored", "nothing", "RFC 9111 section 4");
        }
        let (action, why) = decide(&routed.head, cached, &routed.rules, self.now_s);
        if let Some(Response { parts: Some(parts), fields, .. }) = &response
            && matches!(action, Action::Answer { .. } | Action::Fill { .. })
        {
            let parted = self.parted(cache, routed, &found.name, fields, parts);
            return Ok(self.explain_parted(routed, (action, why), fields, parted));
        }
        let others = found.marker.as_ref().and_then(|marker| {
            Others::among(list(cache, &name, marker), &name, marker, &found.name)
        });
        Ok(self.explain_action(routed, action, why, response.as_ref(), others.as_ref()))
    }

    /// The result for another variant, in the language that the request prefers, where the selected
    /// one is missing; `None`, without any step, if that is not used.
    fn in_language(
        &mut self,
        cache: &Opened,
        routed: &Routed,
        primary: &Name,
        found: &Found,
    ) -> Option<Outcome> {
        let marker = found.marker.as_ref().filter(|_| routed.rules.selects_language)?;
        let name = name_in_language(&list(cache, primary, marker), primary, marker, &found.name)?;
        let inspected = cache.find(&name.key)?;
        let n_told = self.steps.len();
        let because = self.setting.about_cache(routed.at, "vary-language");
        let chosen = variant_line(&KeyText::of(&name.text).variant());
        self.add_step("language", format!("preferred to all others: {chosen}"), Some(because));
        self.add_step("md5", name.key.to_string(), None);
        let response = self.response(cache, &inspected).filter(|it| it.parts.is_none());
        let made = response.and_then(|response| {
            let cached = Cached::Stored(&response.lifetimes);
            let (action, why) = decide(&routed.head, cached, &routed.rules, self.now_s);
            is_hit(action).then_some((action, why, response))
        });
        let Some((action, why, response)) = made else {
            self.steps.truncate(n_told);
            return None;
        };
        self.explain_control(routed);
        self.explain_freshness(routed, &response);
        Some(self.explain_action(routed, action, why, Some(&response), None))
    }

    fn explain_vary(&mut self, routed: &Routed, found: &Found) {
        let Some(marker) = &found.marker else { return };
        let chosen = variant_line(&KeyText::of(&found.name.text).variant());
        match &routed.rules.key.chosen {
            Some(own) if own.names().eq(marker.names.names()) => {
                let because = self.setting.about_cache(routed.at, "key");
                self.add_step("variant", chosen, Some(because));
            }
            _ => self.add_rfc_step("variant", chosen, "RFC 9111 section 4.1"),
        }
        self.add_step("md5", found.name.key.to_string(), None);
    }

    /// The response behind a slot; `None` if there is none, or none that would be served.
    fn response(&mut self, cache: &Opened, inspected: &Inspected) -> Option<Response> {
        let view = &inspected.view;
        let path = cache.store.path(&view.key).display().to_string();
        let file = match &inspected.object {
            Ok(Some(file)) => file,
            Ok(None) => {
                let until = printable(&date::format(view.fresh_until_s));
                let is_over =
                    if is_hit_for_miss(inspected, self.now_s) { "" } else { ", which is past" };
                self.add_step(
                    "stored",
                    format!("hit-for-miss: not to be stored, until {until}{is_over}"),
                    None,
                );
                return None;
            }
            Err(fault) => {
                let value = format!("{path} is not usable ({fault}): it would be removed");
                self.add_step("stored", value, None);
                return None;
            }
        };
        let lifetimes = meta::decode(file.meta()).ok();
        let fields = parse_fields(file.head(), STORED_FIELDS_MAX).ok();
        let (Some(mut lifetimes), Some(fields)) = (lifetimes, fields) else {
            self.add_step("stored", format!("{path} is of another version of ktrix"), None);
            return None;
        };
        let counted_until_s = lifetimes.fresh_until_s;
        match inspected.purge_status {
            PurgeStatus::Valid => {}
            PurgeStatus::Stale(since_s) => {
                lifetimes.end_freshness(since_s.min(self.now_s));
                self.explain_purges(cache, inspected);
            }
            PurgeStatus::Purged => {
                self.add_step(
                    "stored",
                    format!("{path} was purged: it counts as not stored"),
                    None,
                );
                self.explain_purges(cache, inspected);
                return None;
            }
        }
        let (status, body_len) = (Status(file.status()), file.body_len);
        if view.state == State::Vary {
            return None;
        }
        if status == PART_STATUS {
            let Some(parts) = part_list(file) else {
                self.add_step(
                    "stored",
                    format!("{path} is not a list of parts: it would be removed"),
                    None,
                );
                return None;
            };
            self.add_rfc_step(
                "stored",
                format!("{}, {path}", part_list_line(&parts)),
                "RFC 9111 section 3.3",
            );
            let parts = Some(parts);
            return Some(Response { status, fields, body_len, lifetimes, counted_until_s, parts });
        }
        let value = format!("{} {}, {body_len} bytes, {path}", status.0, status.reason());
        self.add_rfc_step("stored", value, "RFC 9111 section 3");
        Some(Response { status, fields, body_len, lifetimes, counted_until_s, parts: None })
    }

    /// Names the purges that made a response stale or removed it.
    fn explain_purges(&mut self, cache: &Opened, inspected: &Inspected) {
        let causes = cache.causes(inspected);
        for cause in &causes {
            let how = if cause.is_soft { "made stale by " } else { "by " };
            self.add_step("purged", format!("{how}{}", PurgeReason::of(cause).line()), None);
        }
        if causes.is_empty() {
            let value = "by a purge that was folded into a coarser one, or with the whole table";
            self.add_step("purged", value, None);
        }
    }

    fn explain_action(
        &mut self,
        routed: &Routed,
        action: Action,
        why: Option<ReuseReason>,
        response: Option<&Response>,
        others: Option<&Others>,
    ) -> Outcome {
        self.explain_decision(routed, action, why);
        if matches!(action, Action::Fill { .. }) {
            if response.is_none() {
                self.explain_admission(routed);
            }
            let n_tags = others.map_or(0, |others| others.tags().len());
            if n_tags > 0 {
                let value =
                    format!("{n_tags} tags of other variants, for which the origin is asked too");
                self.add_rfc_step("others", value, "RFC 9111 section 4.1");
            }
        }
        let status = response.map(|it| match action {
            Action::Answer { .. } => self.explain_answer(routed, it),
            _ => it.status,
        });
        let stored = response.map(|it| &it.fields);
        let basis = Basis { stored, status, others, has_parts: false };
        basis.outcome(routed, action, reason(action, why))
    }

    /// The decision where only parts are stored.
    fn explain_parted(
        &mut self,
        routed: &Routed,
        (action, why): (Action, Option<ReuseReason>),
        stored: &Fields,
        parted: Parted,
    ) -> Outcome {
        let status = match (action, parted) {
            (Action::Answer { .. }, Parted::Lacking) if wants_only_cached(&routed.head) => {
                return self.explain_action(routed, Action::NotCached, None, None, None);
            }
            (_, Parted::Lacking) => {
                let value = "answer with the stored parts and the missing ones from the origin";
                self.add_rfc_step("decision", value, "RFC 9111 section 3.4");
                return partial_outcome(routed);
            }
            (_, Parted::Whole(status)) => status,
        };
        self.explain_decision(routed, action, why);
        let basis =
            Basis { stored: Some(stored), status: Some(status), others: None, has_parts: true };
        basis.outcome(routed, action, reason(action, why))
    }

    fn explain_decision(&mut self, routed: &Routed, action: Action, why: Option<ReuseReason>) {
        let because = why.map(|why| match why {
            ReuseReason::RefreshIf => self.setting.about_cache(routed.at, "refresh-if"),
            why => Because::Rfc(why.section()),
        });
        let (value, because) = match action {
            Action::Answer { refreshes: true, .. } => {
                ("answer with it, and validate it in the background", because)
            }
            Action::Answer { .. } => ("answer with it", because),
            Action::NotCached => ("answer 504", Some(Because::Rfc("RFC 9111 section 5.2.1.7"))),
            Action::Pass(reason) => {
                (reason.sentence(), reason.section().map(Because::Rfc).or(because))
            }
            Action::Fill { may_serve_on_error: true, .. } => {
                ("ask the origin; answer with the stored response if that fails", because)
            }
            Action::Fill { .. } => {
                let because = because.or(Some(Because::Rfc("RFC 9111 section 4")));
                ("ask the origin, and store its answer if that is allowed", because)
            }
        };
        let value = match why {
            Some(why) => format!("{}: {value}", why.sentence()),
            None => value.to_owned(),
        };
        self.add_step("decision", value, because);
    }

    /// The rules that may keep a new answer from being stored.
    fn explain_admission(&mut self, routed: &Routed) {
        let uses_min = routed.rules.uses_min;
        if uses_min > 1 {
            let because = self.setting.about_cache(routed.at, "min-uses");
            let value = format!("stored at request {uses_min}; only workers count requests");
            self.add_step("admission", value, Some(because));
        }
        let admission = self.setting.config.cache.as_ref().map(|cache| cache.admission);
        let value = match admission {
            Some(Admission::On) => "a full cache stores it at its second request",
            Some(Admission::Auto) => "a full cache may store it only at its second request",
            Some(Admission::Off) | None => return,
        };
        let because = self.setting.because_of(&["cache.admission".to_owned()]);
        self.add_step("admission", value, Some(because));
    }

    /// The part of the stored response that answers the request, and the status.
    fn explain_answer(&mut self, routed: &Routed, response: &Response) -> Status {
        let Response { status, fields, body_len, .. } = response;
        let (status, value, section) =
            match answer::answer(&routed.head, *status, fields, *body_len) {
                Answer::Full => return *status,
                Answer::NotModified => {
                    (304, "the client has it already", "RFC 9110 section 13.2.2")
                }
                Answer::Partial(_) => (206, "a part of it", "RFC 9110 section 14.2"),
                Answer::Unsatisfiable => (416, "no such part exists", "RFC 9110 section 15.5.17"),
            };
        self.add_rfc_step("answer", format!("{status}: {value}"), section);
        Status(status)
    }
}

/// The word for the reason.
fn reason(action: Action, why: Option<ReuseReason>) -> &'static str {
    match (why, action) {
        (Some(why), _) => why.word(),
        (None, Action::Fill { fwd, .. }) => fwd.word(),
        (None, Action::NotCached) => "only-if-cached",
        (None, _) => "-",
    }
}

/// Whether a slot is a valid hit-for-miss mark.
fn is_hit_for_miss(inspected: &Inspected, now_s: u64) -> bool {
    inspected.view.state == State::Pass && now_s < inspected.view.fresh_until_s
}
