//! Tests of the floor as a whole: exchanges with real cache directories, in the time of a test clock.

mod sample;
mod exchange;
mod fill;
mod join;
mod lease;
mod ranges;
