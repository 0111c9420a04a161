//! The freshness of a stored response, the source of its lifetime, and the request's directives.

use crate::cli::explain::explainer::{Explainer, Routed};
use crate::cli::explain::step::Because;
use crate::cli::explain::stored::Response;
use crate::http::fields::Fields;
use crate::policy::rfc9111::control::{RequestControl, ResponseControl};
use crate::policy::rfc9111::freshness::{FreshnessLifetime, LifetimeSource};
use crate::policy::rfc9111::targeted;

impl Explainer<'_> {
    /// Age, lifetime and the rest of it.
    pub(super) fn explain_freshness(&mut self, routed: &Routed, response: &Response) {
        let lifetimes = &response.lifetimes;
        let age_s = lifetimes.current_age_s(self.now_s);
        let since_s = age_s.saturating_sub(u64::from(lifetimes.age_s));
        let value = format!("{age_s} s: {} s when received, {since_s} s since", lifetimes.age_s);
        self.add_rfc_step("age", value, "RFC 9111 section 4.2.3");
        self.explain_field_rules(routed, &response.fields);
        self.explain_lifetime(routed, response);
        let ended_s = response.counted_until_s.saturating_sub(lifetimes.fresh_until_s);
        if ended_s > 0 {
            self.add_step("lifetime", format!("ended {ended_s} s before that, by the purge"), None);
        }
        let left_s = lifetimes.fresh_until_s.cast_signed().saturating_sub(self.now_s.cast_signed());
        let value = match left_s {
            1.. => format!("fresh for {left_s} s"),
            _ => format!("stale for {} s", left_s.unsigned_abs()),
        };
        self.add_rfc_step("freshness", value, "RFC 9111 section 4.2");
        let control = ResponseControl::of(&routed.rules.effective_fields(&response.fields));
        let (swr, sie) = (control.stale_while_revalidate, control.stale_if_error);
        for (step, until_s, key, section, is_stated) in [
            (
                "while-stale",
                lifetimes.swr_until_s,
                "stale-while-revalidate",
                "RFC 5861 section 3",
                swr.is_some(),
            ),
            (
                "on-error",
                lifetimes.sie_until_s,
                "stale-if-error",
                "RFC 5861 section 4",
                sie.is_some(),
            ),
        ] {
            let window_s = until_s.saturating_sub(lifetimes.fresh_until_s);
            if window_s > 0 {
                let value = format!("{key} for {window_s} s after that");
                let because = match is_stated {
                    true => Because::Rfc(section),
                    false => self.setting.about_cache(routed.at, key),
                };
                self.add_step(step, value, Some(because));
            }
        }
        for (is_set, word, section) in [
            (lifetimes.no_cache, "no-cache", "RFC 9111 section 5.2.2.4"),
            (lifetimes.must_revalidate, "must not be served stale", "RFC 9111 section 5.2.2.2"),
            (lifetimes.immutable, "immutable", "RFC 8246 section 2"),
        ] {
            if is_set {
                self.add_rfc_step("marked", word, section);
            }
        }
    }

    /// The fields that ktrix ignores or replaces.
    fn explain_field_rules(&mut self, routed: &Routed, stored: &Fields) {
        let rules = &routed.rules;
        let ignored: Vec<&str> =
            rules.ignored.iter().filter(|name| stored.contains(name)).map(|it| &**it).collect();
        if !ignored.is_empty() {
            let because = self.setting.about_cache(routed.at, "ignore");
            self.add_step("ignored", ignored.join(", "), Some(because));
        }
        if let Some(target) = targeted::selected(&rules.targets, stored) {
            let value = format!("{target} replaces Cache-Control and Expires");
            self.add_rfc_step("targeted", value, "RFC 9213 section 2.2");
        }
    }

    /// The lifetime that the stored fields have by the rules of now.
    fn explain_lifetime(&mut self, routed: &Routed, response: &Response) {
        let lifetimes = &response.lifetimes;
        let (status, fields, rules) = (response.status, &response.fields, &routed.rules);
        let kept_s = response
            .counted_until_s
            .saturating_add(u64::from(lifetimes.age_s))
            .saturating_sub(lifetimes.received_s);
        let Some(stated) =
            FreshnessLifetime::of_stored(status, fields, lifetimes.received_s, rules)
        else {
            let value = format!("{kept_s} s: the origin states none, and no heuristic applies");
            return self.add_rfc_step("lifetime", value, "RFC 9111 section 4.2.1");
        };
        let because = match stated.source {
            LifetimeSource::SMaxage => Because::Rfc("RFC 9111 section 5.2.2.10"),
            LifetimeSource::MaxAge => Because::Rfc("RFC 9111 section 5.2.2.1"),
            LifetimeSource::Expires => Because::Rfc("RFC 9111 section 5.3"),
            LifetimeSource::Heuristic => Because::Rfc("RFC 9111 section 4.2.2"),
            LifetimeSource::Rule => self.setting.about_cache(routed.at, "ttl-status"),
        };
        self.add_step(
            "lifetime",
            format!("{} s, {}", stated.seconds, stated.source.sentence()),
            Some(because),
        );
        let bounded_s = stated.seconds.max(rules.ttl_min_s).min(rules.ttl_max_s);
        if bounded_s != stated.seconds {
            let is_raised = bounded_s > stated.seconds;
            let (word, key) =
                if is_raised { ("raised to", "ttl-min") } else { ("cut to", "ttl-max") };
            let because = self.setting.about_cache(routed.at, key);
            self.add_step("lifetime", format!("{word} {bounded_s} s"), Some(because));
        }
        if u64::from(bounded_s) != kept_s && !lifetimes.no_cache {
            let value = format!("{kept_s} s were set when it was stored, by other rules");
            self.add_step("lifetime", value, None);
        }
    }

    /// The request's directives about a stored response.
    pub(super) fn explain_control(&mut self, routed: &Routed) {
        let control = RequestControl::of(&routed.head.fields);
        let seconds = [
            ("max-age", control.max_age, "RFC 9111 section 5.2.1.1"),
            ("max-stale", control.max_stale, "RFC 9111 section 5.2.1.2"),
            ("min-fresh", control.min_fresh, "RFC 9111 section 5.2.1.3"),
            ("stale-if-error", control.stale_if_error, "RFC 5861 section 4"),
        ];
        for (name, value_s, section) in seconds {
            match value_s {
                Some(u32::MAX) => self.add_rfc_step("directive", name, section),
                Some(value_s) => {
                    self.add_rfc_step("directive", format!("{name}={value_s}"), section)
                }
                None => {}
            }
        }
        for (name, is_set, section) in [
            ("no-cache", control.no_cache, "RFC 9111 section 5.2.1.4"),
            ("no-store", control.no_store, "RFC 9111 section 5.2.1.5"),
            ("only-if-cached", control.only_if_cached, "RFC 9111 section 5.2.1.7"),
        ] {
            if is_set {
                self.add_rfc_step("directive", name, section);
            }
        }
        if routed.rules.refreshes(&routed.head) {
            let because = self.setting.about_cache(routed.at, "refresh-if");
            self.add_step("directive", "a condition of refresh-if holds", Some(because));
        }
    }
}
