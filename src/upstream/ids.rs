//! The numbers by which upstreams and their servers are known: their places in the configuration.

/// An upstream, by its place in `Config::upstreams`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(pub usize);

/// A server, by its place in its upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub usize);

/// One server among those of all upstreams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    /// Its upstream.
    pub upstream: UpstreamId,
    /// Which server of that upstream it is.
    pub id: ServerId,
}
