//! Where a request goes.

use std::fmt;
use std::rc::Rc;

use crate::upstream::ids::{ServerId, UpstreamId};

/// Where a request goes. What asks, retries and logs is the same for both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To a server of an upstream of the configuration.
    Upstream(UpstreamId),
    /// To the host that the client of a forward proxy names.
    Address(Rc<HostPort>),
}

/// A host and its port, as a client of a forward proxy names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name in lower case without a dot at its end, or an address; an IPv6 address has no brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
}

/// The server that answered a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answerer {
    /// Where the request went.
    pub destination: Destination,
    /// The server there.
    pub id: ServerId,
}

impl Destination {
    /// The upstream, if it is one.
    pub fn upstream(&self) -> Option<UpstreamId> {
        match self {
            Self::Upstream(id) => Some(*id),
            Self::Address(_) => None,
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}"),
            false => write!(f, "{host}:{port}"),
        }
    }
}
