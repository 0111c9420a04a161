//! Tests of the whole floor, and the scripted origin for tests here and above.

mod half_open;
pub(super) mod sample;
pub(crate) mod scripted;
