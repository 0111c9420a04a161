//! A request for a part of a response, and what is known of the part.

use crate::cache::insert::NewObject;
use crate::cache::name::{Name, PART_STATUS};
use crate::http::fields::Fields;
use crate::http::range::Spec;
use crate::origin::fetch::Question;
use crate::policy::fill_request;
use crate::policy::key::Key;
use crate::policy::rfc9111::partial::PartialContent;
use crate::proxy::forwarding;
use crate::upstream::ids::UpstreamId;

/// The part that a fill is to fetch.
#[derive(Debug)]
pub(crate) struct PartJob {
    /// The key of the lease, beside that of the whole. Other requests for the same part follow this
    /// fill.
    pub key: Key,
    /// What is asked for.
    pub spec: Spec,
    /// How the origin is asked.
    pub ask: PartAsk,
    /// How many fills in a row led to this one, each by what it left missing.
    pub n_before: usize,
    /// The place of the content and the name of its whole, once they are known.
    pub piece: Option<(PartialContent, Name)>,
}

/// How an origin is asked for parts.
#[derive(Clone, Debug)]
pub(crate) struct PartAsk {
    /// The upstream.
    pub upstream: UpstreamId,
    /// The path and query.
    pub target: Vec<u8>,
    /// The fields, without any that ask for less than the whole.
    pub fields: Fields,
}

impl PartAsk {
    /// The key of the lease for this question, beside that of the whole.
    pub(crate) fn key(&self, whole: &Name, spec: Spec, if_range: Option<&[u8]>) -> Key {
        let text = [spec.text().as_bytes(), b"\n", if_range.unwrap_or_default()].concat();
        whole.key.beside(&text)
    }

    /// The question for a part, on condition that the whole still has this validator.
    pub(crate) fn question(&self, spec: Spec, if_range: Option<&[u8]>) -> Question {
        let mut fields = self.fields.clone();
        fill_request::ask_for_part(&mut fields, spec, if_range);
        forwarding::question_by_get(self.upstream, &self.target, &fields)
    }
}

/// Whether an answer is stored as a part.
pub(crate) fn is_part(new: &NewObject) -> bool {
    new.status == PART_STATUS
}
