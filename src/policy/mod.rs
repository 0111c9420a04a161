//! The decisions of a shared cache (RFC 9111) as pure functions.
//!
//! Nothing here opens a file, reads a clock or knows the configuration: a decision takes the
//! request, the response or what is stored of it, the operator's [`rfc9111::rules::Rules`] and the
//! time, and returns what may be done and why. A request passes through it so:
//!
//! ```text
//! decide::may_look_up ─ no ─▶ pass, with its PassReason
//!       │ yes
//! key::key_text (and variant_text) ─▶ the index
//!       │
//! decide::decide
//!   Answer ─▶ answer::answer
//!   Fill   ─▶ fill_request::condition ─▶ the origin
//!                304 ─▶ revalidate::renew ─▶ meta::encode
//!                else ─▶ Storable::of ─────▶ meta::encode
//! ```
//!
//! Every function names the section that it implements. Where the RFC leaves a choice, the comment
//! says which one ktrix takes.

pub mod reason;
pub mod cache_status;
pub(crate) mod acme;
pub mod key;
pub mod purge;
pub mod condition;
pub mod rfc9111;
pub mod fill_request;
pub mod decide;
pub mod meta;

#[cfg(test)]
#[path = "tests/sample.rs"]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
