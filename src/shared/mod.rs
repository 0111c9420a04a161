//! State that processes share: the owners of locks, wake-ups, signs of life, the bytes of request
//! bodies, the requests in flight, the servers of all upstreams, and the counters of all processes.

pub(crate) mod owner;
pub(crate) mod wake;
pub(crate) mod beats;
pub(crate) mod bodies;
pub(crate) mod in_flight;
pub(crate) mod server_row;
pub(crate) mod health;
pub(crate) mod servers;
pub(crate) mod server_names;
pub(crate) mod names;
pub(crate) mod metrics;
pub(crate) mod metric_rows;
pub(crate) mod meter;
