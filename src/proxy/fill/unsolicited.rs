//! The sending side of a fill's request, which has no body and no client.

use crate::cache::lease::Lease;
use crate::http::head::ResponseHead;
use crate::origin::upload::Upload;
use crate::proxy::progress::LocalFill;
use std::convert::Infallible;

/// The upload of a fill's request. Interim responses go to the leader of the fill.
pub(crate) struct FillUpload<'f> {
    lease: &'f Lease,
    local: &'f LocalFill,
    is_background: bool,
}

impl<'f> FillUpload<'f> {
    pub(crate) fn new(lease: &'f Lease, local: &'f LocalFill, is_background: bool) -> Self {
        Self { lease, local, is_background }
    }

    fn is_wanted(&self) -> bool {
        self.is_background || self.local.has_readers() || self.lease.has_followers()
    }
}

impl Upload for FillUpload<'_> {
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
