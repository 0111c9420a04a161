//! The tools of the conversations: an origin, a ktrix, clients, loads, and waiting.

pub mod client;
pub mod h2;
pub mod ktrix;
pub mod load;
pub mod message;
pub mod origin;
pub mod pace;
pub mod panics;
pub mod process;
pub mod quiet;
pub mod socket;
pub mod supervisor;
pub mod tls;
pub mod wait;

pub use client::{Answer, Ask, Client};
pub use ktrix::{Ktrix, Plan};
pub use load::{Load, burst};
pub use message::Broken;
pub use origin::{Origin, Request, Response};
pub use pace::Pace;
pub use quiet::alone;
pub use wait::{Gate, PATIENCE, until, until_ok, until_true};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes that differ everywhere, so that a shifted or mixed body is noticed.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A date in the form of RFC 9110, this many seconds from now.
pub fn date_from_now(offset_s: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let at = now.checked_add_signed(offset_s).expect("a date");
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at))
}
