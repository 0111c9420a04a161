//! How far a fill is, as every worker can see it.

/// How far a fill is. Bytes are of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillState {
    /// No head yet.
    Fetching,
    /// The file can be opened; so many bytes are there.
    Streaming {
        /// Readable bytes.
        bytes: u64,
        /// All there will be, if known.
        total: Option<u64>,
    },
    /// All bytes are there; the file has or had its final name.
    Done {
        /// Readable bytes.
        bytes: u64,
    },
    /// It broke, or its leader died.
    Failed {
        /// What the leader said of it; 0 when it said nothing.
        code: u32,
    },
    /// The response is not storable: everybody fetches alone.
    Pass,
    /// The entry serves another fill: look in the index.
    Gone,
}
