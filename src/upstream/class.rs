//! The servers of an upstream as a balancer sees them, and the classes among which it chooses: the
//! servers that are used, then the backups among them, then those that are skipped, as the last resort.

use crate::upstream::ids::ServerId;
use crate::upstream::state::{HELD_MS, Setting};

/// The servers of an upstream, as a balancer sees them.
pub(crate) trait ServerView {
    fn n_servers(&self) -> usize;
    fn seen(&self, id: ServerId, now_ms: u64) -> Seen;
    /// Active connections, in all workers.
    fn n_active(&self, id: ServerId) -> u32;
    /// Idle connections, in this worker.
    fn n_idle(&self, id: ServerId) -> usize;
    /// The expected time to an answer, in µs; 0 if it is not known.
    fn rtt_us(&self, id: ServerId, now_ms: u64) -> u64;
    /// A number of the server, the same in all workers and for ever.
    fn seed(&self, id: ServerId) -> u64;
}

/// A server, as a balancer sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) setting: Setting,
    /// Its share, see [`share`]; with 0 it takes no new clients.
    pub(crate) weight: u32,
    /// The end of its pause, which may be past; 0 if it has none.
    pub(crate) skipped_until_ms: u64,
    pub(crate) is_backup: bool,
}

impl Seen {
    /// Whether it has a pause. Only a request that may try the server sees the end of one.
    pub(super) const fn is_skipped(&self, now_ms: u64, may_try: bool) -> bool {
        match may_try {
            true => self.skipped_until_ms > now_ms,
            false => self.skipped_until_ms > 0,
        }
    }
}

/// The classes of the servers that may be chosen, the best one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Used,
    Backup,
    Skipped,
    SkippedBackup,
}

impl Class {
    /// `None` for a server that takes no new clients, or is held down.
    pub(super) fn of(seen: &Seen, now_ms: u64, may_try: bool) -> Option<Self> {
        let takes_clients = seen.setting == Setting::Enabled && seen.weight > 0;
        if !takes_clients || seen.skipped_until_ms >= HELD_MS {
            return None;
        }
        Some(match (seen.is_skipped(now_ms, may_try), seen.is_backup) {
            (false, false) => Self::Used,
            (false, true) => Self::Backup,
            (true, false) => Self::Skipped,
            (true, true) => Self::SkippedBackup,
        })
    }
}

/// Whether a server that would be chosen has room for a request.
pub(crate) fn has_open(
    view: &impl ServerView,
    now_ms: u64,
    has_room: impl Fn(ServerId) -> bool,
) -> bool {
    let class = |id| Class::of(&view.seen(id, now_ms), now_ms, true);
    let ids = || (0..view.n_servers()).map(ServerId);
    let Some(best) = ids().filter_map(class).min() else { return false };
    ids().any(|id| class(id) == Some(best) && has_room(id))
}

/// The weight of a server that has just come back grows from a part of its own to all of it, within
/// `slow_ms`. The unit is a 256th of a weight, so that the part may be small.
pub(crate) fn share(weight: u32, up_since_ms: u64, now_ms: u64, slow_ms: u64) -> u32 {
    let whole = weight.saturating_mul(SHARE_ONE);
    let up_ms = now_ms.saturating_sub(up_since_ms);
    if up_since_ms == 0 || up_ms >= slow_ms {
        return whole;
    }
    let part = u64::from(whole) * up_ms / slow_ms;
    u32::try_from(part).unwrap_or(whole).max(weight.min(1))
}

pub(super) const SHARE_ONE: u32 = 256;

#[cfg(test)]
mod tests {
    #[test]
    fn a_server_that_comes_back_gets_its_share_slowly() {
        let share = |now_ms| super::share(4, 1_000, now_ms, 10_000);
        assert_eq!([1_000, 3_500, 6_000, 11_000].map(share), [1, 256, 512, 1_024]);
        assert_eq!(super::share(4, 0, 5, 10_000), 1_024, "it was never away");
        assert_eq!(super::share(0, 1_000, 1_001, 10_000), 0);
        assert_eq!(super::share(3, 1_000, 1_000, 0), 768);
    }
}
