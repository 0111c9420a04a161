//! The base of every floor above: units, the time of a turn, tables of characters.
//!
//! Nothing here knows HTTP, the kernel or a clock.

pub mod chars;
pub mod time;
pub mod units;
