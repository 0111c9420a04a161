//! The states of a server, by the words of the log, the status and the manual.

/// Whether a server gets requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It gets requests.
    Up,
    /// It failed, and one request finds out whether it works again.
    Trying,
    /// It failed and is skipped for a while.
    Down,
    /// It gets no new clients; those that have its cookie stay.
    Draining,
    /// It gets nothing.
    Disabled,
}

impl State {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Trying => "trying",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// A server that is skipped until this time, in milliseconds, or later is held down: it is not tried.
pub(crate) const HELD_MS: u64 = (u64::MAX >> 2) - 1;

/// Why the keeper holds a server down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Its checks fail.
    Checks,
    /// Its name has no address.
    Name,
}

/// What the operator wants of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting {
    /// To serve.
    #[default]
    Enabled,
    /// To finish what it has, and serve the clients that have its cookie.
    Draining,
    /// To get nothing.
    Disabled,
}

impl Setting {
    /// The number in shared memory.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Enabled => 0,
            Self::Draining => 1,
            Self::Disabled => 2,
        }
    }

    pub(crate) const fn of_code(code: u32) -> Self {
        match code {
            1 => Self::Draining,
            2 => Self::Disabled,
            _ => Self::Enabled,
        }
    }
}
