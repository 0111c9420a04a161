//! How the responses of a route are buffered.

/// Whether a response is taken from a server faster than the client takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseBuffering {
    /// It is not.
    Off,
    /// As far as there is room in memory.
    Memory,
    /// Into memory, and then into a file.
    File,
}

impl ResponseBuffering {
    /// The word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Memory => "memory",
            Self::File => "file",
        }
    }
}
