//! The status of a running ktrix, read from its shared memory: for commands beside it, and for the
//! admin listener within it.

pub(crate) mod view;
pub(crate) mod values;
pub(crate) mod counts;
pub(crate) mod report;
pub(crate) mod page;
