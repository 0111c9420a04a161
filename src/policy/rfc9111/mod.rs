//! RFC 9111 as a shared cache: what may be stored, for how long it is fresh, what it may answer, and
//! how it is validated and invalidated.

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
pub mod hold;
pub mod answer;
pub mod partial;
pub mod revalidate;
pub mod invalidate;
