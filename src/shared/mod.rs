//! State that processes share: the owners of locks, wake-ups, and the servers of all upstreams.

pub(crate) mod owner;
pub(crate) mod wake;
pub(crate) mod health;
pub(crate) mod servers;
