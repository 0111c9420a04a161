//! The values that a request is explained from, and the steps found so far.

use std::rc::Rc;

use crate::cli::explain::setting::{RouteAt, Setting};
use crate::cli::explain::step::{Because, Step};
use crate::cli::opened::Opened;
use crate::http::head::RequestHead;
use crate::http::scheme::Scheme;
use crate::policy::rfc9111::rules::Rules;
use crate::route::Rule;

/// One explanation in the making.
pub(super) struct Explainer<'a> {
    pub(super) setting: &'a Setting,
    pub(super) cache: Option<&'a Opened>,
    pub(super) now_s: u64,
    pub(super) steps: Vec<Step>,
}

impl Explainer<'_> {
    pub(super) fn add_step(
        &mut self,
        step: &'static str,
        value: impl Into<String>,
        because: Option<Because>,
    ) {
        self.steps.push(Step { step, value: value.into(), because });
    }

    pub(super) fn add_rfc_step(
        &mut self,
        step: &'static str,
        value: impl Into<String>,
        section: &'static str,
    ) {
        self.add_step(step, value, Some(Because::Rfc(section)));
    }
}

/// A request that has a route.
pub(super) struct Routed {
    pub(super) via: String,
    pub(super) head: RequestHead,
    pub(super) scheme: Scheme,
    pub(super) at: RouteAt,
    pub(super) rule: Rule,
    pub(super) rules: Rc<Rules>,
}
