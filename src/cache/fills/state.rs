//! How far a fill is, as every worker can see it.

/// How far a fill is. Bytes are of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillState {
    /// No head yet.
    Fetching,
    /// The file can be opened, and has some bytes of the body.
    Streaming {
        /// Readable bytes.
        bytes: u64,
        /// The length of the body, if known.
        total: Option<u64>,
    },
    /// All bytes are there; the file has or had its final name.
    Done {
        /// Readable bytes.
        bytes: u64,
    },
    /// The fetch failed, or the leader died.
    Failed {
        /// The leader's code for the error; 0 if it gave none.
        code: u32,
    },
    /// The response is not stored: every client is fetched for alone.
    Pass,
    /// The entry holds another fill: look in the index.
    Gone,
}
