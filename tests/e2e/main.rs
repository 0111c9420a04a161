//! Conversations with a real ktrix: real processes, real sockets, one file per behaviour.
//!
//! All of them are one binary, so that it is linked once. Every wait has a deadline; all peers are
//! on loopback.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod support;

mod acceptance;
mod access_log;
mod acme;
mod actions;
mod adoption;
mod ailing_disk;
mod balancing;
mod bounds;
mod bulk;
mod bursts;
mod cache_status;
mod caching;
mod command_line;
mod connections;
mod crashes;
mod damage;
mod demo;
mod departures;
mod eviction;
mod dying_origins;
mod emptied;
mod fills;
mod forward;
mod forwarding;
mod full_disk;
mod handshakes;
mod harness;
mod hot_bodies;
mod http2;
mod http2_floods;
mod health;
mod hostile_origins;
mod inspect;
mod inspect_explain;
mod invalidation;
mod leaks;
mod log_files;
mod loops;
mod memory;
mod partial;
mod poison;
mod processes;
mod proxy_protocol;
mod purge;
mod purge_fills;
mod queue;
mod ranges;
mod reloads;
mod request_bodies;
mod response_buffering;
mod revalidation;
mod routes;
mod rules;
mod rules_control;
mod rules_key;
mod rules_outage;
mod rules_requests;
mod signals;
mod slow_clients;
mod splice;
mod status;
mod strictness;
mod tcp;
mod tls;
mod tls_live;
mod trust;
mod tunnels;
mod upstream_tls;
mod upstreams;
mod vary;
