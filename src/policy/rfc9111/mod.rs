//! RFC 9111 as a shared cache: which responses may be stored, how long they are fresh, which
//! requests they may answer, and how they are validated and invalidated.

pub mod directive;
pub mod scope;
pub mod control;
pub mod targeted;
pub mod codes;
pub mod rules;
pub mod freshness;
pub mod lifetimes;
pub mod omit;
pub mod storable;
pub mod reuse;
pub mod outage;
pub mod answer;
pub mod parts;
pub mod partial;
pub mod revalidate;
pub mod invalidate;
