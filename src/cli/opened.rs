//! A cache as a command sees it: its index for reading, its files, and one object of it.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::cache::files::front::OpenError;
use crate::cache::files::store::{Object, Store};
use crate::cache::index::reader::IndexReader;
use crate::cache::index::slot::{NO_CACHE, SlotView, State};
use crate::cache::index::table::IndexError;
use crate::cache::maintenance::reconcile::{SlotFault, compare};
use crate::cache::purge::bucket::Cause;
use crate::cache::purge::bucket::PurgeStatus;
use crate::cache::purge::cause::Reader;
use crate::cli::name::KeyText;
use crate::policy::key::Key;
use crate::policy::meta;

/// The limit of looks at a file that does not match its slot: its writer may be between renaming
/// the file and publishing it, for as long as a busy machine runs other processes.
const LOOKS_MAX: usize = 7;

/// The time between the first two of these looks; it doubles from look to look.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a command waits for such slots in all, since the last one that turned out well: a cache
/// that has lost many files is damaged, not busy, and must be reported without delay.
const WAIT_TOTAL_MAX: Duration = Duration::from_millis(500);

/// An open cache.
pub(super) struct Opened {
    pub(super) index: IndexReader,
    pub(super) store: Store,
    /// The purges; `None` as long as no ktrix has made the table.
    purges: Option<Reader>,
    /// The rest of [`WAIT_TOTAL_MAX`].
    wait_left: Cell<Duration>,
}

/// A slot and its object.
pub(super) struct Inspected {
    pub(super) view: SlotView,
    /// The file; `None` for a slot that needs none.
    pub(super) object: Result<Option<Object>, SlotFault>,
    /// Whether it was purged; the times of the view are adjusted to that.
    pub(super) purge_status: PurgeStatus,
}

impl Opened {
    /// The cache in a directory.
    ///
    /// # Errors
    ///
    /// When there is no index in it, or it cannot be read.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        Ok(Self::over(dir, IndexReader::open(dir)?))
    }

    /// As [`Opened::open`]; `None` when there is no index yet.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(super) fn open_if_any(dir: &Path) -> Result<Option<Self>> {
        match IndexReader::open(dir) {
            Err(IndexError::NotOurs(_)) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(index) => Ok(Some(Self::over(dir, index))),
        }
    }

    fn over(dir: &Path, index: IndexReader) -> Self {
        let store = Store::existing(dir, index.epoch());
        let purges = Reader::open(dir).ok();
        Self { index, store, purges, wait_left: Cell::new(WAIT_TOTAL_MAX) }
    }

    /// Whether nothing was ever purged.
    pub(super) fn is_unpurged(&self) -> bool {
        self.purges.as_ref().is_none_or(Reader::is_untouched)
    }

    /// Applies the purges to an object, as a look-up of a worker does.
    fn apply_purges(
        &self,
        mut view: SlotView,
        object: Result<Option<Object>, SlotFault>,
    ) -> Inspected {
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
        Inspected { view, object, purge_status }
    }

    /// The purges that made an object stale or removed it.
    pub(super) fn causes(&self, inspected: &Inspected) -> Vec<Cause> {
        let (Some(purges), Some(file)) = (&self.purges, inspected.file()) else {
            return Vec::new();
        };
        let lifetimes = meta::decode(file.meta());
        lifetimes.map_or_else(|_| Vec::new(), |it| purges.causes(file.key_text(), &it.surrogates))
    }

    /// The object that is stored under a key.
    pub(super) fn find(&self, key: &Key) -> Option<Inspected> {
        // A slot that was replaced meanwhile is read again.
        (0..LOOKS_MAX).find_map(|_| self.look(self.index.lookup(key)?))
    }

    /// The object of a slot; `None` if the slot was removed or replaced meanwhile, as is frequent
    /// under load.
    pub(super) fn look(&self, view: SlotView) -> Option<Inspected> {
        let mut pause = PAUSE;
        for n_looks in 1.. {
            let object = compare(&self.store, &view);
            let is_gone = object.is_err() && !self.index.is_current(view.slot_ref());
            let is_doubtful =
                !is_gone && matches!(object, Err(SlotFault::Missing | SlotFault::Lengths));
            if !is_doubtful && n_looks > 1 {
                self.wait_left.set(WAIT_TOTAL_MAX);
            }
            if is_gone {
                return None;
            }
            if !is_doubtful || n_looks == LOOKS_MAX || !self.waits(pause) {
                return Some(self.apply_purges(view, object));
            }
            pause *= 2;
        }
        None
    }

    /// Waits for a writer, unless the total wait is used up.
    fn waits(&self, pause: Duration) -> bool {
        let Some(rest) = self.wait_left.get().checked_sub(pause) else { return false };
        self.wait_left.set(rest);
        std::thread::sleep(pause);
        true
    }
}

impl Inspected {
    /// The file, if there is a usable one.
    pub(super) fn file(&self) -> Option<&Object> {
        self.object.as_ref().ok()?.as_ref()
    }

    /// Whether it counts as not stored.
    pub(super) fn is_purged(&self) -> bool {
        self.purge_status == PurgeStatus::Purged
    }

    /// Why the file cannot be read, if that says nothing about its contents.
    pub(super) fn unreadable(&self) -> Option<&io::Error> {
        match &self.object {
            Err(SlotFault::File(OpenError::Io(error))) => Some(error),
            _ => None,
        }
    }

    /// The word for its state: the result for a request without Cache-Control.
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

/// Whether a slot may be used without validation, as far as time is concerned.
pub(super) fn is_fresh(view: &SlotView, now_s: u64) -> bool {
    now_s < view.fresh_until_s && view.flags & NO_CACHE == 0
}

/// The age of a slot's object, in seconds (RFC 9111 section 4.2.3).
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
    fn an_unreadable_file_is_not_called_damaged() {
        let (dir, index, store) = cache(10);
        store_one(&index, &store, "GET http://a/b", b"body").unwrap();
        let opened = Opened::open(dir.path()).unwrap();
        let key = slot("GET http://a/b").key;
        assert_eq!(opened.find(&key).unwrap().word(1), "fresh");
        assert_eq!(opened.find(&key).unwrap().word(2), "stale");
        // A file in the place of its directory is an error that says nothing about the object.
        let path = store.path(&key);
        let parent = path.parent().unwrap();
        std::fs::remove_dir_all(parent).unwrap();
        std::fs::write(parent, b"").unwrap();
        let inspected = opened.find(&key).unwrap();
        assert_eq!((inspected.word(1), inspected.unreadable().is_some()), ("unreadable", true));
        std::fs::remove_file(parent).unwrap();
        assert_eq!(opened.find(&key).unwrap().word(1), "damaged");
    }

    #[test]
    fn many_missing_files_are_reported_without_a_wait_for_each() {
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
        assert!(begun.elapsed() < WAIT_TOTAL_MAX * 10, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_finished_writer_restores_the_total_wait() {
        let (dir, index, store) = cache(10);
        store_one(&index, &store, "a", b"body").unwrap();
        let path = store.path(&slot("a").key);
        let aside = dir.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        let opened = Opened::open(dir.path()).unwrap();
        opened.wait_left.set(WAIT_TOTAL_MAX / 2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(PAUSE * 3);
                std::fs::rename(&aside, &path).unwrap();
            });
            assert_eq!(opened.find(&slot("a").key).unwrap().word(1), "fresh");
        });
        assert_eq!(opened.wait_left.get(), WAIT_TOTAL_MAX);
    }

    #[test]
    fn a_cache_without_an_index_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Opened::open_if_any(dir.path()).unwrap().is_none());
        assert!(Opened::open(dir.path()).is_err());
    }
}
