//! A response of which only parts are stored: what of a request they answer.

use crate::cache::lookup::Name;
use crate::cli::explain::explainer::{Explainer, Routed};
use crate::cli::opened::{Opened, Sight};
use crate::http::fields::Fields;
use crate::http::status::Status;
use crate::policy::rfc9111::partial::{self, Form, PartList, Plan, Stretch};

/// How stored parts stand to a request.
pub(super) enum Parted {
    /// They answer it, with this status.
    Whole(Status),
    /// The origin is asked for what is missing.
    Lacking,
}

impl Explainer<'_> {
    /// What the parts that lie under a name answer of a request.
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
                self.by_rfc("answer", value, "RFC 9110 section 13.2.2");
                return Parted::Whole(Status(304));
            }
            Plan::Unsatisfiable(_) => {
                let value = "416: there is no such part of it";
                self.by_rfc("answer", value, "RFC 9110 section 15.5.17");
                return Parted::Whole(Status(416));
            }
            Plan::Unknown => {
                let value = "cannot be told from the parts that are there";
                self.by_rfc("missing", value, "RFC 9111 section 3.3");
                return Parted::Lacking;
            }
            Plan::Bytes(form, ranges) => (form, ranges),
        };
        let missing =
            ranges.iter().flat_map(|range| list.stretches(range)).find_map(
                |stretch| match stretch {
                    Stretch::Missing(range) => Some(range),
                    Stretch::Stored { range, id, .. } => {
                        let sight = cache.find(&name.part(id).key).filter(|it| !it.is_purged());
                        sight.as_ref().and_then(Sight::file).is_none().then_some(range)
                    }
                },
            );
        if let Some(missing) = missing {
            let value =
                format!("bytes from {} to {}", missing.start, missing.end.saturating_sub(1));
            self.by_rfc("missing", value, "RFC 9111 section 3.4");
            return Parted::Lacking;
        }
        match form {
            Form::Whole => Parted::Whole(Status(200)),
            Form::One | Form::Several => {
                self.by_rfc("answer", "206: parts that are there", "RFC 9111 section 3.3");
                Parted::Whole(Status(206))
            }
        }
    }
}
