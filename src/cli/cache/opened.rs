//! A cache as a command sees it: its index for reading, its files, and one object of them.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::cache::reading::Reading;
use crate::cache::scrub::{SlotFault, compare};
use crate::cache::slot::{NO_CACHE, SlotView, State};
use crate::cache::store::{Object, Store};
use crate::policy::key::Key;

/// How often a file is looked at that does not fit its slot: its writer may be between renaming
/// the file and publishing it.
const LOOKS_MAX: usize = 5;

/// The time between two of these looks.
const PAUSE: Duration = Duration::from_millis(2);

/// An open cache.
pub(in crate::cli) struct Opened {
    pub(in crate::cli) index: Reading,
    pub(in crate::cli) store: Store,
}

/// A slot and what is behind it.
pub(in crate::cli) struct Sight {
    pub(in crate::cli) view: SlotView,
    /// The file; `None` for a slot that needs none.
    pub(in crate::cli) object: Result<Option<Object>, SlotFault>,
}

impl Opened {
    /// The cache in a directory.
    ///
    /// # Errors
    ///
    /// When there is no index in it, or it may not be read.
    pub(in crate::cli) fn open(dir: &Path) -> Result<Self> {
        let index = Reading::open(dir)?;
        let store = Store::existing(dir, index.epoch());
        Ok(Self { index, store })
    }

    /// What is stored under a key.
    pub(in crate::cli) fn find(&self, key: &Key) -> Option<Sight> {
        // Whatever replaces it meanwhile is looked at in its place.
        (0..LOOKS_MAX).find_map(|_| self.look(self.index.lookup(key)?))
    }

    /// What is behind a slot; `None` if it went or was replaced meanwhile, as under load many do.
    pub(in crate::cli) fn look(&self, view: SlotView) -> Option<Sight> {
        for n_looks in 1.. {
            let object = compare(&self.store, &view);
            if object.is_err() && !self.index.is_current(view.at, view.generation) {
                return None;
            }
            let may_pass = matches!(object, Err(SlotFault::Missing | SlotFault::Lengths));
            if !may_pass || n_looks == LOOKS_MAX {
                return Some(Sight { view, object });
            }
            std::thread::sleep(PAUSE);
        }
        None
    }
}

impl Sight {
    /// The file, if there is one and nothing is wrong with it.
    pub(in crate::cli) fn file(&self) -> Option<&Object> {
        self.object.as_ref().ok()?.as_ref()
    }

    /// The word for how it stands: what a request without wishes of its own would find.
    pub(in crate::cli) fn word(&self, now_s: u64) -> &'static str {
        match (&self.object, self.view.state) {
            (Err(_), _) => "damaged",
            (_, State::Vary) => "vary",
            (_, State::Pass) => "pass",
            (_, State::Ready) if is_fresh(&self.view, now_s) => "fresh",
            (_, State::Ready) => "stale",
        }
    }
}

/// Whether a slot may be used without asking the origin, as far as time is concerned.
pub(in crate::cli) fn is_fresh(view: &SlotView, now_s: u64) -> bool {
    now_s < view.fresh_until_s && view.flags & NO_CACHE == 0
}

/// The age of what a slot stands for, in seconds (RFC 9111 section 4.2.3).
pub(in crate::cli) fn age_s(view: &SlotView, now_s: u64) -> u64 {
    u64::from(view.age_s).saturating_add(now_s.saturating_sub(view.stored_s))
}

/// Seconds from `now_s` until a moment, negative when it is past.
pub(in crate::cli) fn seconds_until(moment_s: u64, now_s: u64) -> i64 {
    moment_s.cast_signed().saturating_sub(now_s.cast_signed())
}

/// Unix seconds, now.
pub(in crate::cli) fn now_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
