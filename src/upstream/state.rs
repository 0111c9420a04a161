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
    /// Every state.
    pub(crate) const ALL: [Self; 5] =
        [Self::Up, Self::Trying, Self::Down, Self::Draining, Self::Disabled];

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

/// The state of a pool: the connections of one worker to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolState {
    /// No request runs on its connections, if it has any.
    Idle,
    /// A request runs on one of its connections.
    Active,
    /// Its worker makes no connection, because the server is skipped or disabled, or the last one
    /// could not be made.
    Down,
}

impl PoolState {
    /// The state of a pool with so many connections, after `n_failed` that could not be made.
    pub(crate) const fn of(server: State, n_active: u32, n_idle: u32, n_failed: u32) -> Self {
        let is_served = matches!(server, State::Up | State::Draining);
        match (n_active, n_idle) {
            (1.., _) => Self::Active,
            _ if !is_served => Self::Down,
            (0, 0) if n_failed > 0 => Self::Down,
            _ => Self::Idle,
        }
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Down => "down",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_active_down_or_idle() {
        for (server, counts, word) in [
            (State::Up, [0, 0, 0], "idle"),
            (State::Up, [0, 2, 0], "idle"),
            (State::Up, [1, 2, 0], "active"),
            (State::Up, [0, 0, 1], "down"),
            (State::Up, [0, 1, 1], "idle"),
            (State::Draining, [0, 0, 0], "idle"),
            (State::Down, [0, 1, 0], "down"),
            (State::Down, [1, 0, 0], "active"),
            (State::Trying, [0, 0, 0], "down"),
            (State::Disabled, [0, 0, 0], "down"),
        ] {
            let [n_active, n_idle, n_failed] = counts;
            let state = PoolState::of(server, n_active, n_idle, n_failed);
            assert_eq!(state.word(), word, "{server:?} {counts:?}");
        }
    }
}
