//! A response with only parts stored: what they answer of a request.

use crate::cache::name::Name;
use crate::cli::explain::explainer::{Explainer, Routed};
use crate::cli::opened::{Inspected, Opened};
use crate::http::fields::Fields;
use crate::http::status::Status;
use crate::policy::rfc9111::partial::{self, Form, Plan};
use crate::policy::rfc9111::parts::{PartList, Stretch};

/// How far stored parts answer a request.
pub(super) enum Parted {
    /// They answer it, with this status.
    Whole(Status),
    /// The origin is asked for the missing bytes.
    Lacking,
}

impl Explainer<'_> {
    /// How far the parts under a name answer a request.
    pub(super) fn parted(
        &mut self,
        cache: &Opened,
        routed: &Routed,
        name: &Name,
        stored: &Fields,
        list: &PartList,
    ) -> Parted {
        let (form, ranges) = match partial::plan(&routed.head, stored, list) {
            Plan::NotModified => {
                let value = "304: the client has it already";
                self.add_rfc_step("answer", value, "RFC 9110 section 13.2.2");
                return Parted::Whole(Status(304));
            }
            Plan::Unsatisfiable(_) => {
                let value = "416: no such part exists";
                self.add_rfc_step("answer", value, "RFC 9110 section 15.5.17");
                return Parted::Whole(Status(416));
            }
            Plan::Unknown => {
                let value = "cannot be known from the stored parts";
                self.add_rfc_step("missing", value, "RFC 9111 section 3.3");
                return Parted::Lacking;
            }
            Plan::Bytes(form, ranges) => (form, ranges),
        };
        let missing =
            ranges.iter().flat_map(|range| list.stretches(range)).find_map(
                |stretch| match stretch {
                    Stretch::Missing(range) => Some(range),
                    Stretch::Stored { range, id, .. } => {
                        let inspected = cache.find(&name.part(id).key).filter(|it| !it.is_purged());
                        inspected.as_ref().and_then(Inspected::file).is_none().then_some(range)
                    }
                },
            );
        if let Some(missing) = missing {
            let value =
                format!("bytes from {} to {}", missing.start, missing.end.saturating_sub(1));
            self.add_rfc_step("missing", value, "RFC 9111 section 3.4");
            return Parted::Lacking;
        }
        match form {
            Form::Whole => Parted::Whole(Status(200)),
            Form::One | Form::Several => {
                self.add_rfc_step("answer", "206: stored parts", "RFC 9111 section 3.3");
                Parted::Whole(Status(206))
            }
        }
    }
}
