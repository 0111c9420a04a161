//! RFC 9111 as a shared cache: which responses may be stored, how long they are fresh, which
//! requests they may answer, and how they are validated and invalidated.

pub mod control;
pub(crate) mod targeted;
pub mod rules;
pub mod freshness;
pub(crate) mod storable;
pub(crate) mod outage;
pub(crate) mod answer;
pub mod parts;
pub mod partial;
pub(crate) mod revalidate;
pub(crate) mod invalidate;
