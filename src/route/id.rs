//! The number of a route.

/// A rule of one router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub(super) u32);

impl RouteId {
    /// Its place among the routes of its configuration.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}
