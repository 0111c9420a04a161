//! A cache as a command sees it: its index for reading, its files, and one object of them.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::cache::files::store::{Object, OpenError, Store};
use crate::cache::index::reader::Reading;
use crate::cache::index::slot::{NO_CACHE, SlotView, State};
use crate::cache::index::table::IndexError;
use crate::cache::maintenance::reconcile::{SlotFault, compare};
use crate::cache::purge::bucket::Cause;
use crate::cache::purge::bucket::PurgeStatus;
use crate::cache::purge::cause::Reader;
use crate::cli::name::KeyText;
use crate::policy::key::Key;
use crate::policy::meta;

/// How often a file is looked at that does not fit its slot: its writer may be between renaming
/// the file and publishing it, for as long as a busy machine gives its time to others.
const LOOKS_MAX: usize = 7;

/// The time between the first two of these looks; it doubles from look to look.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a command waits for such slots in all, since the last one that was right in the end: a
/// cache that has lost many files is damaged, and not busy, and is told about without delay.
const PATIENCE: Duration = Duration::from_millis(500);

/// An open cache.
pub(super) struct Opened {
    pub(super) index: Reading,
    pub(super) store: Store,
    /// What was purged; `None` as long as no ktrix has noted it there.
    purges: Option<Reader>,
    /// What is left of [`PATIENCE`].
    patience: Cell<Duration>,
}

/// A slot and what is behind it.
pub(super) struct Sight {
    pub(super) view: SlotView,
    /// The file; `None` for a slot that needs none.
    pub(super) object: Result<Option<Object>, SlotFault>,
    /// Whether it was purged; the moments of the view are as that demands.
    pub(super) purge_status: PurgeStatus,
}

impl Opened {
    /// The cache in a directory.
    ///
    /// # Errors
    ///
    /// When there is no index in it, or it may not be read.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        Ok(Self::over(dir, Reading::open(dir)?))
    }

    /// As [`Opened::open`]; `None` when there is no index yet.
    ///
    /// # Errors
    ///
    /// When it may not be read.
    pub(super) fn open_if_any(dir: &Path) -> Result<Option<Self>> {
        match Reading::open(dir) {
            Err(IndexError::NotOurs(_)) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(index) => Ok(Some(Self::over(dir, index))),
        }
    }

    fn over(dir: &Path, index: Reading) -> Self {
        let store = Store::existing(dir, index.epoch());
        let purges = Reader::open(dir).ok();
        Self { index, store, purges, patience: Cell::new(PATIENCE) }
    }

    /// Whether nothing was ever purged.
    pub(super) fn is_unpurged(&self) -> bool {
        self.purges.as_ref().is_none_or(Reader::is_untouched)
    }

    /// Holds what was found against what was purged, as a look-up of a worker does.
    fn judge(&self, mut view: SlotView, object: Result<Option<Object>, SlotFault>) -> Sight {
        let file = object.as_ref().ok().and_then(Option::as_ref);
        let lifetimes = file.and_then(|file| Some((file, meta::decode(file.meta()).ok()?)));
        let purge_status = match (&self.purges, lifetimes) {
            (Some(purges), Some((file, mut lifetimes))) => {
                let purge_status = purges.purge_status(file.key_text(), &lifetimes.surrogates);
                if let PurgeStatus::Stale(since_s) = purge_status {
                    lifetimes.end_freshness(since_s.min(now_s()));
                    view.slot.fresh_until_s = lifetimes.fresh_until_s;
                    view.slot.swr_until_s = lifetimes.swr_until_s;
                    view.slot.sie_until_s = lifetimes.sie_until_s;
                }
                purge_status
            }
            _ => PurgeStatus::Valid,
        };
        Sight { view, object, purge_status }
    }

    /// The purges by which something that was found does not count as it did.
    pub(super) fn causes(&self, sight: &Sight) -> Vec<Cause> {
        let (Some(purges), Some(file)) = (&self.purges, sight.file()) else { return Vec::new() };
        let lifetimes = meta::decode(file.meta());
        lifetimes.map_or_else(|_| Vec::new(), |it| purges.causes(file.key_text(), &it.surrogates))
    }

    /// What is stored under a key.
    pub(super) fn find(&self, key: &Key) -> Option<Sight> {
        // Whatever replaces it meanwhile is looked at in its place.
        (0..LOOKS_MAX).find_map(|_| self.look(self.index.lookup(key)?))
    }

    /// What is behind a slot; `None` if it went or was replaced meanwhile, as under load many do.
    pub(super) fn look(&self, view: SlotView) -> Option<Sight> {
        let mut pause = PAUSE;
        for n_looks in 1.. {
            let object = compare(&self.store, &view);
            let is_gone = object.is_err() && !self.index.is_current(view.at, view.generation);
            let is_doubtful =
                !is_gone && matches!(object, Err(SlotFault::Missing | SlotFault::Lengths));
            if !is_doubtful && n_looks > 1 {
                self.patience.set(PATIENCE);
            }
            if is_gone {
                return None;
            }
            if !is_doubtful || n_looks == LOOKS_MAX || !self.waits(pause) {
                return Some(self.judge(view, object));
            }
            pause *= 2;
        }
        None
    }

    /// Waits for a writer, unless that has been done for long enough in vain.
    fn waits(&self, pause: Duration) -> bool {
        let Some(rest) = self.patience.get().checked_sub(pause) else { return false };
        self.patience.set(rest);
        std::thread::sleep(pause);
        true
    }
}

impl Sight {
    /// The file, if there is one and nothing is wrong with it.
    pub(super) fn file(&self) -> Option<&Object> {
        self.object.as_ref().ok()?.as_ref()
    }

    /// Whether it is as if it were not stored.
    pub(super) fn is_purged(&self) -> bool {
        self.purge_status == PurgeStatus::Purged
    }

    /// Why the file may not be read, if that says nothing about what is in it.
    pub(super) fn unreadable(&self) -> Option<&io::Error> {
        match &self.object {
            Err(SlotFault::File(OpenError::Io(error))) => Some(error),
            _ => None,
        }
    }

    /// The word for how it stands: what a request without wishes of its own would find.
    pub(super) fn word(&self, now_s: u64) -> &'static str {
        match (&self.object, self.view.state) {
            (Err(_), _) if self.unreadable().is_some() => "unreadable",
            (Err(_), _) => "damaged",
            (Ok(_), _) if self.is_purged() => "purged",
            (Ok(Some(file)), State::Vary) if KeyText::of(file.key_text()).is_list() => "list",
            (Ok(Some(file)), _) if KeyText::of(file.key_text()).is_part() => "part",
            (_, State::Vary) => "vary",
            (_, State::Pass) => "pass",
            (_, State::Ready) if is_fresh(&self.view, now_s) => "fresh",
            (_, State::Ready) => "stale",
        }
    }
}

/// Whether a slot may be used without asking the origin, as far as time is concerned.
pub(super) fn is_fresh(view: &SlotView, now_s: u64) -> bool {
    now_s < view.fresh_until_s && view.flags & NO_CACHE == 0
}

/// The age of what a slot stands for, in seconds (RFC 9111 section 4.2.3).
pub(super) fn age_s(view: &SlotView, now_s: u64) -> u64 {
    u64::from(view.age_s).saturating_add(now_s.saturating_sub(view.stored_s))
}

/// Seconds from `now_s` until a moment, negative when it is past.
pub(super) fn seconds_until(moment_s: u64, now_s: u64) -> i64 {
    moment_s.cast_signed().saturating_sub(now_s.cast_signed())
}

/// Unix seconds, now.
pub(super) fn now_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, slot, store_one};
    use std::time::Instant;

    #[test]
    fn what_cannot_be_read_is_not_called_damaged() {
        let (dir, index, store) = cache(10);
        store_one(&index, &store, "GET http://a/b", b"body").unwrap();
        let opened = Opened::open(dir.path()).unwrap();
        let key = slot("GET http://a/b").key;
        assert_eq!(opened.find(&key).unwrap().word(1), "fresh");
        assert_eq!(opened.find(&key).unwrap().word(2), "stale");
        // A file in the place of its directory is an error that says nothing of what is stored.
        let path = store.path(&key);
        let parent = path.parent().unwrap();
        std::fs::remove_dir_all(parent).unwrap();
        std::fs::write(parent, b"").unwrap();
        let sight = opened.find(&key).unwrap();
        assert_eq!((sight.word(1), sight.unreadable().is_some()), ("unreadable", true));
        std::fs::remove_file(parent).unwrap();
        assert_eq!(opened.find(&key).unwrap().word(1), "damaged");
    }

    #[test]
    fn many_missing_files_are_told_without_a_wait_for_each() {
        const N_FILES: usize = 400;
        let (dir, index, store) = cache(N_FILES);
        let texts: Vec<String> = (0..N_FILES).map(|n| format!("GET http://a/{n}")).collect();
        for text in &texts {
            store_one(&index, &store, text, b"body").unwrap();
            std::fs::remove_file(store.path(&slot(text).key)).unwrap();
        }
        let opened = Opened::open(dir.path()).unwrap();
        let begun = Instant::now();
        let views = opened.index.slots().flatten();
        let words = views.map(|view| opened.look(view).unwrap().word(1));
        assert_eq!(words.filter(|&word| word == "damaged").count(), N_FILES);
        assert!(texts.iter().all(|it| opened.find(&slot(it).key).unwrap().word(1) == "damaged"));
        // One after the other, they would take 50 seconds each way.
        assert!(begun.elapsed() < PATIENCE * 10, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_writer_that_was_worth_the_wait_earns_the_next_one_as_much() {
        let (dir, index, store) = cache(10);
        store_one(&index, &store, "a", b"body").unwrap();
        let path = store.path(&slot("a").key);
        let aside = dir.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        let opened = Opened::open(dir.path()).unwrap();
        opened.patience.set(PATIENCE / 2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(PAUSE * 3);
                std::fs::rename(&aside, &path).unwrap();
            });
            assert_eq!(opened.find(&slot("a").key).unwrap().word(1), "fresh");
        });
        assert_eq!(opened.patience.get(), PATIENCE);
    }

    #[test]
    fn a_cache_that_nobody_made_yet_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Opened::open_if_any(dir.path()).unwrap().is_none());
        assert!(Opened::open(dir.path()).is_err());
    }
}
