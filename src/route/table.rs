//! The routes of one site, ready to be looked up.
//!
//! An exact path is one hash. The literal beginnings of all other paths are a sorted tree, which
//! gives the few that a path begins with. The globs and regular expressions are matched together,
//! in one pass over the path, and only if the path begins as one of them does.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

use crate::config::matching::{Matching, PathPattern, PathSet};
use crate::config::{RouteConfig, SiteConfig};
use crate::route::asked::{Asked, Unmet};
use crate::route::id::RouteId;
use crate::route::prefixes::Prefixes;

/// The routes of one site.
#[derive(Debug)]
pub(super) struct RouteTable {
    exact: HashMap<Box<[u8]>, Vec<Candidate>, foldhash::fast::RandomState>,
    beginnings: Prefixes<Vec<Candidate>>,
    patterns: Option<PathSet>,
    /// Whether a route depends on the network of the client.
    pub(super) depends_on_client: bool,
}

/// A route that takes a request if the rest of its path and its conditions match.
#[derive(Debug)]
struct Candidate {
    route: RouteId,
    /// The number of its pattern.
    pattern: Option<usize>,
    /// Its conditions, if it has any.
    conditions: Option<Box<Matching>>,
}

impl RouteTable {
    /// The routes of a site, which have these ids.
    pub(super) fn new(site: &SiteConfig, ids: impl Iterator<Item = RouteId>) -> Self {
        let mut n_patterns = 0;
        let mut all: Vec<(&Matching, Candidate)> = Vec::with_capacity(site.routes.len());
        for (config, route) in site.routes.iter().zip(ids) {
            let matching = &config.matching;
            let is_pattern = matches!(matching.path, PathPattern::Glob(_) | PathPattern::Regex(_));
            let pattern = is_pattern.then_some(n_patterns);
            n_patterns += usize::from(is_pattern);
            let has_conditions = matching.n_conditions() > 0;
            let conditions = has_conditions.then(|| Box::new(matching.clone()));
            all.push((matching, Candidate { route, pattern, conditions }));
        }
        all.sort_by_key(|(matching, candidate)| (matching.order(), candidate.route));
        let mut exact: HashMap<Box<[u8]>, Vec<Candidate>, _> = HashMap::default();
        let mut beginnings: BTreeMap<Box<[u8]>, Vec<Candidate>> = BTreeMap::new();
        for (matching, candidate) in all {
            let literal = matching.path.literal().into();
            match matching.path {
                PathPattern::Exact(_) => exact.entry(literal).or_default().push(candidate),
                _ => beginnings.entry(literal).or_default().push(candidate),
            }
        }
        let is_of_client = |route: &RouteConfig| !route.matching.clients.is_empty();
        Self {
            exact,
            beginnings: Prefixes::new(beginnings),
            patterns: site.patterns.clone(),
            depends_on_client: site.routes.iter().any(is_of_client),
        }
    }

    /// The route of a request.
    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<RouteId> {
        self.tried(asked).find(|(_, unmet)| unmet.is_none()).map(|(route, _)| route)
    }

    /// The routes with a literal beginning that fits, in their order, each with the condition that
    /// the request does not meet.
    pub(super) fn tried<'t>(
        &'t self,
        asked: &'t Asked<'_>,
    ) -> impl Iterator<Item = (RouteId, Option<Unmet>)> + 't {
        // The asterisk of OPTIONS addresses the whole host.
        let path = if *asked.path == *b"*" { b"/" } else { &*asked.path };
        let exact = if self.exact.is_empty() { None } else { self.exact.get(path) };
        let others = self.beginnings.longest_first(path);
        let matched = OnceCell::new();
        exact.into_iter().chain(others).flatten().map(move |candidate| {
            let fits = match (candidate.pattern, &self.patterns) {
                (Some(at), Some(set)) => matched.get_or_init(|| set.matches(path)).matched(at),
                _ => true,
            };
            let unmet = match &candidate.conditions {
                _ if !fits => Some(Unmet::Path),
                Some(matching) => asked.unmet(matching),
                None => None,
            };
            (candidate.route, unmet)
        })
    }
}
