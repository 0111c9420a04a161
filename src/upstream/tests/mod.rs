//! Tests of the whole floor.

mod balance;
