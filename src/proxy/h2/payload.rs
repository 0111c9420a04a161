//! Bytes of a body on their way to the client: a copy, or a part of a body that the hot tier shares.

use std::ops::Range;
use std::rc::Rc;

use bytes::{Buf, Bytes};

use crate::cache::hot::large::LargeBody;
use crate::proxy::h2::shared::Held;

/// Bytes of a body.
#[derive(Debug)]
pub(super) enum Payload {
    Own(Bytes),
    /// Own bytes that count against what the library may hold.
    Held {
        bytes: Bytes,
        _held: Held,
    },
    Shared(Rc<LargeBody>, Range<usize>),
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Own(bytes)
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        match self {
            Self::Own(bytes) | Self::Held { bytes, .. } => bytes.len(),
            Self::Shared(_, range) => range.len(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Own(bytes) | Self::Held { bytes, .. } => bytes,
            Self::Shared(body, range) => body.get(range.clone()).unwrap_or_default(),
        }
    }

    fn advance(&mut self, n_bytes: usize) {
        match self {
            Self::Own(bytes) | Self::Held { bytes, .. } => bytes.advance(n_bytes),
            Self::Shared(_, range) => range.start = range.end.min(range.start + n_bytes),
        }
    }
}
