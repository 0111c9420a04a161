//! The reasons that ktrix gives: each has one word, which the access log, `Cache-Status`, the metrics
//! and the manual use alike.

pub mod fetch;
pub mod close;
pub mod forward;
pub mod pass;
pub mod decision;
