//! The result of a look-up.

use std::rc::Rc;

use crate::cache::hot::HotObject;
use crate::cache::index::slot::SlotRef;
use crate::cache::name::{Marker, Name};
use crate::policy::decide::Cached;
use crate::policy::rfc9111::parts::PartList;

/// The result of a look-up for a request.
#[derive(Clone, Debug)]
pub struct Found {
    /// The key before Vary.
    pub primary: Name,
    /// The name under which the response to this request is, or would be, stored.
    pub name: Name,
    /// The marker that chooses among variants, if the key has any.
    pub marker: Option<Marker>,
    /// The response or the note that is stored there.
    pub lookup: Lookup,
}

impl Found {
    /// The result as the policy sees it.
    pub fn cached(&self) -> Cached<'_> {
        match &self.lookup {
            Lookup::Miss { .. } => Cached::Miss { has_variants: self.marker.is_some() },
            Lookup::HitForMiss => Cached::HitForMiss,
            Lookup::Unreadable => Cached::Unreadable,
            Lookup::Stored(object) | Lookup::Parts { object, .. } => {
                Cached::Stored(&object.lifetimes)
            }
        }
    }

    /// The stored response, fresh or stale, if all of it is stored.
    pub fn object(&self) -> Option<&Rc<HotObject>> {
        match &self.lookup {
            Lookup::Stored(object) => Some(object),
            Lookup::Miss { .. }
            | Lookup::HitForMiss
            | Lookup::Unreadable
            | Lookup::Parts { .. } => None,
        }
    }

    /// The stored parts of a response: the object that lists them, and the list.
    pub fn parts(&self) -> Option<(&Rc<HotObject>, &PartList)> {
        match &self.lookup {
            Lookup::Parts { object, list } => Some((object, list)),
            _ => None,
        }
    }

    /// The object that is stored under the name: a whole response, or a list of parts.
    pub fn stored(&self) -> Option<&Rc<HotObject>> {
        self.object().or(self.parts().map(|(object, _)| object))
    }

    /// Whether what is stored here was purged.
    pub fn is_purged(&self) -> bool {
        matches!(self.lookup, Lookup::Miss { purged: Some(_) })
    }
}

/// The response or the note that is stored under a name.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Nothing that may be used.
    Miss {
        /// The slot of a response that was purged, or could not be read in time.
        purged: Option<SlotRef>,
    },
    /// A note that the last answer was not to be stored, so that no request waits for another's.
    HitForMiss,
    /// Something that cannot be read now.
    Unreadable,
    /// A whole response, fresh or stale.
    Stored(Rc<HotObject>),
    /// Parts of a response, fresh or stale.
    Parts {
        /// The object with their common fields. Its body is their list.
        object: Rc<HotObject>,
        /// That list.
        list: PartList,
    },
}

impl Lookup {
    /// Nothing is stored.
    pub const NOTHING: Self = Self::Miss { purged: None };
}
