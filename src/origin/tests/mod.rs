//! Tests of the floor as a whole, and what tests here and above need of an origin.

mod half_open;
pub(super) mod sample;
pub(crate) mod scripted;
