//! ktrix, a caching reverse proxy: the map of the house.
//!
//! Modules stand in the order of their floors, and a module imports only modules declared above
//! it (`tests/floors.rs` keeps it so). The first floors are pure: bytes and values in, values
//! out, with the time as an argument. The kernel exists from `sys` down.
#![deny(unsafe_code)]

pub mod base;
pub mod http;
pub mod policy;
pub mod upstream;
pub mod metrics;
pub mod config;
pub mod route;

#[allow(unsafe_code)]
pub mod sys;

pub mod shared;
pub mod reactor;
pub mod disk;
pub mod log;
pub mod tls;
pub mod transport;
pub mod tunnel;
pub mod cache;
mod status;
pub mod origin;
pub mod proxy;
pub mod worker;
pub mod keeper;
pub mod master;
pub mod cli;
