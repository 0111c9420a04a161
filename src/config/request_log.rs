//! The two logs with lines about requests: the access log, and the slow log, which has a line for those
//! that took longer than a bound.

use std::ops::{Index, IndexMut};

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestLog {
    /// All requests.
    Access,
    /// Those that took long.
    Slow,
}

impl RequestLog {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Access, Self::Slow];

    /// Its name in the error log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "access log",
            Self::Slow => "slow log",
        }
    }

    /// Its section of the configuration.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Access => "log.access",
            Self::Slow => "log.slow",
        }
    }
}

/// A value for each of the two.
#[derive(Clone, Debug, Default)]
pub struct PerLog<T>([T; 2]);

impl<T> PerLog<T> {
    /// The values that `make` gives.
    pub fn of(make: impl FnMut(RequestLog) -> T) -> Self {
        Self(RequestLog::ALL.map(make))
    }

    /// As [`Self::of`].
    ///
    /// # Errors
    /// The first of `make`.
    pub fn try_of<E>(mut make: impl FnMut(RequestLog) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self([make(RequestLog::Access)?, make(RequestLog::Slow)?]))
    }

    /// Both values.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> Index<RequestLog> for PerLog<T> {
    type Output = T;

    fn index(&self, which: RequestLog) -> &T {
        &self.0[which as usize]
    }
}

impl<T> IndexMut<RequestLog> for PerLog<T> {
    fn index_mut(&mut self, which: RequestLog) -> &mut T {
        &mut self.0[which as usize]
    }
}
