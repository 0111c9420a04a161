//! The bounds of a site and of a route: on the sizes of messages, and on waiting.
//!
//! The innermost that is set applies: that of the route, then that of the site, then that of the
//! upstream (for servers), then that at the top.

use std::time::Duration;

use crate::base::units::format_size;
use crate::config::bounds::{OriginTimeouts, RouteLimits, RouteTimeouts};
use crate::config::error::Faults;
use crate::config::section::{Section, as_usize};

/// The bounds of a route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) limits: RouteLimits,
    pub(crate) timeouts: RouteTimeouts,
}

impl Bounds {
    /// Those of a site or route; `top` are those at the top.
    pub(crate) fn below(&self, faults: &mut Faults<'_>, section: &Section<'_>, top: &Self) -> Self {
        let (limits, timeouts) = match section.schema() {
            "sites[]" => ("sites[].limits", "sites[].timeouts"),
            _ => ("sites[].routes[].limits", "sites[].routes[].timeouts"),
        };
        let limits = section.section(faults, limits, "limits");
        let timeouts = section.section(faults, timeouts, "timeouts");
        Self {
            limits: self.limits_below(faults, &limits, top),
            timeouts: self.timeouts_below(faults, &timeouts),
        }
    }

    fn limits_below(
        &self,
        faults: &mut Faults<'_>,
        section: &Section<'_>,
        top: &Self,
    ) -> RouteLimits {
        let mut bytes = |key, inherited| section.size_if_any(faults, key).unwrap_or(inherited);
        let inherited = &self.limits;
        let memory_bytes = inherited.response_memory_bytes as u64;
        let limits = RouteLimits {
            head_bytes: as_usize(bytes("head", inherited.head_bytes as u64)),
            body_bytes: bytes("body", inherited.body_bytes),
            response_memory_bytes: as_usize(bytes("response-memory", memory_bytes)),
            response_file_bytes: bytes("response-file", inherited.response_file_bytes),
        };
        // A head is read before its site is known.
        if limits.head_bytes > top.limits.head_bytes {
            let most = format_size(top.limits.head_bytes as u64);
            let scalar = section.scalar(faults, "head");
            scalar.inspect(|it| it.wrong(faults, &format!("is larger than limits.head ({most})")));
        }
        limits
    }

    fn timeouts_below(&self, faults: &mut Faults<'_>, section: &Section<'_>) -> RouteTimeouts {
        let mut duration = |key| section.duration_if_any(faults, key);
        let inherited = &self.timeouts;
        let or = |own: Option<Duration>, inherited| own.unwrap_or(inherited);
        RouteTimeouts {
            client_body: or(duration("client-body"), inherited.client_body),
            client_request: or(duration("client-request"), inherited.client_request),
            client_send: or(duration("client-send"), inherited.client_send),
            tunnel: or(duration("tunnel"), inherited.tunnel),
            origin: OriginTimeouts {
                connect: None,
                first_byte: duration("first-byte").or(inherited.origin.first_byte),
                idle: duration("idle").or(inherited.origin.idle),
            },
        }
    }
}
