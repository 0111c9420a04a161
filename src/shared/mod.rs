//! What processes share: who holds a lock, who is to be woken, and how the servers of all upstreams
//! stand.

pub(crate) mod owner;
pub(crate) mod wake;
pub(crate) mod health;
pub(crate) mod servers;
