//! The table of metrics: one row for each (name, type, unit, labels, help).
//!
//! The layout in shared memory, the text of `/metrics`, the manual ktrix-metrics(7) and the status are
//! all made from the table. Labels have values of bounded sets: the words of an enum, or names of the
//! configuration. No label has a value that a client sent.

pub mod scale;
pub mod label;
pub mod table;
pub mod text;
pub mod manual;
