//! What processes share: who holds a lock, who is to be woken, and how the servers of all upstreams
//! stand.

pub mod owner;
pub mod wake;
pub(crate) mod health;
pub mod servers;
