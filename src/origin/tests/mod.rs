//! Tests of the whole floor, and the scripted origin for tests here and above.

mod half_open;
mod raw;
pub(super) mod sample;
pub(crate) mod scripted;
