//! The sending side of a fill's request: nobody's.

use std::convert::Infallible;
use std::rc::Rc;

use crate::cache::fills::FillAt;
use crate::http::head::ResponseHead;
use crate::proxy::context::CacheSide;
use crate::proxy::lease::Lease;
use crate::proxy::progress::LocalFill;
use crate::proxy::upload::Upload;

/// A fill's request has no body, and its interim responses go to the exchange that led to it.
pub(super) struct Unasked {
    local: Rc<LocalFill>,
    cache: Rc<CacheSide>,
    at: FillAt,
    is_background: bool,
}

impl Unasked {
    /// On behalf of the fill of this lease.
    pub(super) fn new(lease: &Lease, is_background: bool) -> Self {
        let (local, cache) = (Rc::clone(&lease.local), Rc::clone(&lease.cache));
        Self { local, cache, at: lease.at, is_background }
    }

    fn is_wanted(&self) -> bool {
        self.is_background || self.local.has_readers() || self.cache.fills.has_followers(self.at)
    }
}

impl Upload for Unasked {
    type Error = Infallible;

    fn in_memory(&self) -> Option<&[u8]> {
        Some(b"")
    }

    async fn next(&mut self, _into: &mut Vec<u8>) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn rewind(&mut self) -> bool {
        true
    }

    async fn interim(&mut self, head: &ResponseHead) -> Result<(), Infallible> {
        self.local.push_interim(head.clone());
        Ok(())
    }

    async fn gone(&mut self) {
        loop {
            let since = self.local.event.version();
            if !self.is_wanted() {
                return;
            }
            self.local.event.after(since).await;
        }
    }
}
