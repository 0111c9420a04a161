//! Choosing servers and connections, and queueing fetches: on ids and numbers, without sockets.
//!
//! `balance` chooses a server of an upstream by a `method`, `retry` says whether another try is
//! allowed, `check` says what the checks of a server mean, `pool` keeps the connections to one server,
//! and `pending` holds the fetches that wait for a connection. `dns` reads how long an address may be used. Times are milliseconds of the monotonic
//! clock.

pub mod ids;
pub mod destination;
pub mod state;
pub mod method;
pub mod rtt;
pub mod dns;
pub mod retry;
pub mod check;
pub(crate) mod tried;
pub(crate) mod class;
pub mod balance;
pub mod pending;
pub mod pool;

#[cfg(test)]
mod tests;
