//! Checking the index against the files, in steps, while the cache serves.
//!
//! ```text
//! Slots ─▶ Fans ─▶ End
//! ```
//!
//! `Slots` removes slots whose file is missing or wrong (the first hit verifies the body, if the
//! stamp differs). `Fans` walks the 256 directories for files without a slot. After the index was
//! lost, each gets a slot. Otherwise a process left them when it died between two steps (the object
//! was being removed, or was not published yet), and they are removed: a purged object must not
//! come back.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::cache::files::front::OpenError;
use crate::cache::files::store::{Object, Store};
use crate::cache::index::Index;
use crate::cache::index::slot::{NewSlot, SlotView};
use crate::cache::place;
use crate::policy::key::Key;

/// The treatment of files without a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphans {
    /// The index was lost: give each a slot.
    Adopt,
    /// Remove them once they are older than [`ORPHAN_AGE`].
    Remove,
}

/// The result of the comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Slots looked at.
    pub n_slots: u64,
    /// Slots removed, their files being missing or wrong.
    pub n_slots_removed: u64,
    /// Files that became slots.
    pub n_adopted: u64,
    /// Files removed that had no slot, or were not whole.
    pub n_files_removed: u64,
}

/// A running comparison.
#[derive(Debug)]
pub struct Reconciler {
    orphans: Orphans,
    phase: Phase,
    report: Report,
}

#[derive(Debug)]
enum Phase {
    Slots { next: u32 },
    Fans { next: u32, files: Vec<PathBuf> },
    End,
}

/// A younger file may be between two steps of a living process.
pub const ORPHAN_AGE: Duration = Duration::from_secs(120);

impl Reconciler {
    /// A comparison that begins with the slots.
    pub const fn new(orphans: Orphans) -> Self {
        Self { orphans, phase: Phase::Slots { next: 0 }, report: NOTHING }
    }

    /// A comparison of the files alone.
    pub const fn of_files(orphans: Orphans) -> Self {
        Self { orphans, phase: Phase::Fans { next: 0, files: Vec::new() }, report: NOTHING }
    }

    /// Does about `n` slots or files of work; true when all is done. `adopt` makes a slot for a
    /// checked object (its lengths and stamp are filled in here), or gives `None` to have it
    /// removed.
    pub fn step(
        &mut self,
        index: &Index,
        store: &Store,
        n: usize,
        adopt: impl Fn(&Key, &Object) -> Option<NewSlot>,
    ) -> bool {
        match &mut self.phase {
            Phase::Slots { next } => {
                let end = next.saturating_add(n as u32).min(index.n_slots());
                for number in *next..end {
                    if let Some(view) = index.place(number).and_then(|at| index.slot(at)) {
                        self.report.n_slots += 1;
                        let fault = compare(store, &view).err();
                        if fault.is_some_and(|it| remove_if_wrong(index, store, &view, &it)) {
                            self.report.n_slots_removed += 1;
                        }
                    }
                }
                *next = end;
                if end == index.n_slots() {
                    self.phase = Phase::Fans { next: 0, files: Vec::new() };
                }
            }
            Phase::Fans { next, files } => {
                if files.is_empty() {
                    *files = list(&store.dir().join(format!("{:02x}", *next)));
                    *next += 1;
                }
                let is_last = *next == 256 && files.len() <= n;
                let at = files.len().saturating_sub(n);
                for path in files.split_off(at) {
                    check_file(index, store, &path, self.orphans, &adopt, &mut self.report);
                }
                if is_last {
                    self.phase = Phase::End;
                }
            }
            Phase::End => {}
        }
        matches!(self.phase, Phase::End)
    }

    /// Whether it rebuilds a lost index.
    pub fn is_rebuild(&self) -> bool {
        self.orphans == Orphans::Adopt
    }

    /// The result so far.
    pub const fn report(&self) -> Report {
        self.report
    }
}

const NOTHING: Report = Report { n_slots: 0, n_slots_removed: 0, n_adopted: 0, n_files_removed: 0 };

/// Why a slot and its file do not match.
#[derive(Debug, thiserror::Error)]
pub enum SlotFault {
    /// There is no file.
    #[error("missing")]
    Missing,
    /// The lengths differ.
    #[error("lengths differ")]
    Lengths,
    /// The file is damaged or cannot be read.
    #[error(transparent)]
    File(#[from] OpenError),
}

/// The slot's object, if the file matches; `None` for a slot without a file.
///
/// # Errors
///
/// How they differ.
pub fn compare(store: &Store, view: &SlotView) -> Result<Option<Object>, SlotFault> {
    if !view.state.has_file() {
        return Ok(None);
    }
    let object = store.open_any(&view.key)?.ok_or(SlotFault::Missing)?;
    // The part beside the body is longer if a writer was killed while it wrote a new head.
    if object.body_len == view.body_len { Ok(Some(object)) } else { Err(SlotFault::Lengths) }
}

/// Removes a slot whose file has this fault, unless the fault may be temporary; says whether it
/// did.
pub fn remove_if_wrong(index: &Index, store: &Store, view: &SlotView, fault: &SlotFault) -> bool {
    match fault {
        // The system may be at fault, not the file: too many open files, for example.
        SlotFault::File(OpenError::Io(_)) => false,
        // A put renames before it publishes: only a slot that is still the same one is wrong.
        _ if !index.is_current(view.slot_ref()) => false,
        SlotFault::Missing => index.remove(&view.key, Some(view.generation)).is_some(),
        _ if is_young(&store.path(&view.key)) => false,
        _ => place::discard(index, store, &view.key, Some(view.generation)).is_some(),
    }
}

fn check_file(
    index: &Index,
    store: &Store,
    path: &Path,
    orphans: Orphans,
    adopt: impl Fn(&Key, &Object) -> Option<NewSlot>,
    report: &mut Report,
) {
    let Some(key) = key_of_path(path) else { return };
    if index.lookup(&key).is_some_and(|view| view.state.has_file()) {
        return;
    }
    if orphans == Orphans::Adopt && adopt_file(index, store, &key, adopt) {
        report.n_adopted += 1;
        return;
    }
    // A file that cannot be adopted is removed at any age. Any other young file may be about to get
    // a slot.
    let may_go = orphans == Orphans::Adopt || is_old(path);
    let is_orphan = || index.lookup(&key).is_none_or(|view| !view.state.has_file());
    if may_go && is_orphan() && store.unlink(&key).is_ok() {
        report.n_files_removed += 1;
    }
}

fn adopt_file(
    index: &Index,
    store: &Store,
    key: &Key,
    adopt: impl Fn(&Key, &Object) -> Option<NewSlot>,
) -> bool {
    let Ok(Some(object)) = store.open_any(key) else { return false };
    let Some(new) = adopt(key, &object) else { return false };
    // Stamp 0: the body is verified by the first hit.
    let new = NewSlot {
        key: *key,
        head_len: object.head_len(),
        body_len: object.body_len,
        stamp: 0,
        ..new
    };
    let Ok(published) = index.publish(&new) else { return false };
    if let Some((evicted, _)) = published.evicted {
        let _ = store.unlink(&evicted);
    }
    // Since the file was opened, another process may have replaced or removed it.
    let is_still_it = !published.replaced && store.exists(key);
    if !is_still_it {
        index.remove(key, Some(published.slot.generation));
    }
    is_still_it
}

/// The key of a path `…/ab/cdef…`.
pub fn key_of_path(path: &Path) -> Option<Key> {
    let rest = path.file_name()?.to_str()?;
    let fan_out = path.parent()?.file_name()?.to_str()?;
    if rest.bytes().chain(fan_out.bytes()).any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    (fan_out.len() == 2).then(|| Key::from_hex(format!("{fan_out}{rest}").as_bytes()))?
}

/// The files of a directory; none if it is not there.
pub fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn is_old(path: &Path) -> bool {
    age(path).is_some_and(|age| age >= ORPHAN_AGE)
}

fn is_young(path: &Path) -> bool {
    age(path).is_some_and(|age| age < ORPHAN_AGE)
}

/// How long ago the file was written to; `None` if it is not there.
pub fn age(path: &Path) -> Option<Duration> {
    let modified = path.symlink_metadata().ok()?.modified().ok()?;
    Some(SystemTime::now().duration_since(modified).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, slot, store_one};
    use std::fs::OpenOptions;

    fn age_file(path: &Path) {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - ORPHAN_AGE * 2).unwrap();
    }

    fn reconcile(index: &Index, store: &Store, orphans: Orphans, n: usize) -> Report {
        let mut reconciler = Reconciler::new(orphans);
        let adopt = |_: &Key, object: &Object| {
            (object.meta() == b"m").then(|| slot(std::str::from_utf8(object.key_text()).unwrap()))
        };
        while !reconciler.step(index, store, n, adopt) {}
        reconciler.report()
    }

    #[test]
    fn a_sound_cache_is_left_as_it_is() {
        let (_dir, index, store) = cache(100);
        (0..50).for_each(|n| {
            store_one(&index, &store, &n.to_string(), b"x").unwrap();
        });
        for n in [1, 7, 1000] {
            let report = reconcile(&index, &store, Orphans::Remove, n);
            assert_eq!(report, Report { n_slots: 50, ..NOTHING });
        }
    }

    #[test]
    fn slots_without_a_matching_file_and_old_orphans_are_removed() {
        let (_dir, index, store) = cache(100);
        let path = |text: &str| store.path(&slot(text).key);
        for text in ["missing", "cut", "orphan", "young", "good"] {
            store_one(&index, &store, text, b"x").unwrap();
        }
        std::fs::remove_file(path("missing")).unwrap();
        OpenOptions::new().write(true).open(path("cut")).unwrap().set_len(70).unwrap();
        age_file(&path("cut"));
        age_file(&path("orphan"));
        index.remove(&slot("orphan").key, None);
        index.remove(&slot("young").key, None);
        let report = reconcile(&index, &store, Orphans::Remove, 3);
        assert_eq!((report.n_slots, report.n_slots_removed), (3, 2));
        assert_eq!(report.n_files_removed, 1);
        assert!(!path("orphan").exists() && !path("cut").exists());
        assert!(path("young").exists() && path("good").exists());
    }

    #[test]
    fn a_lost_index_is_rebuilt_from_the_files() {
        let (dir, index, store) = cache(300);
        (0..200).for_each(|n| {
            store_one(&index, &store, &n.to_string(), b"x").unwrap();
        });
        std::fs::write(store.path(&slot("7").key), b"garbage").unwrap();
        std::fs::remove_file(dir.path().join("index")).unwrap();
        drop(index);
        let (index, _) = Index::open(dir.path(), 300).unwrap();
        index.attach().unwrap();
        let report = reconcile(&index, &store, Orphans::Adopt, 10);
        assert_eq!((report.n_adopted, report.n_files_removed), (199, 1));
        for n in (0..200).filter(|&n| n != 7) {
            let view = index.lookup(&slot(&n.to_string()).key).unwrap();
            assert!(compare(&store, &view).unwrap().is_some());
            assert_eq!(view.stamp, 0);
        }
        assert_eq!(index.objects(), 199);
    }

    #[test]
    fn an_object_that_is_invalidated_during_a_rebuild_does_not_come_back() {
        let (_dir, index, store) = cache(100);
        let key = |text: &str| slot(text).key;
        for text in ["before", "as it comes", "replaced as it comes", "kept"] {
            store_one(&index, &store, text, b"old").unwrap();
            index.remove(&key(text), None);
        }
        place::forget(&index, &store, &key("before"));
        let mut reconciler = Reconciler::new(Orphans::Adopt);
        // Between the look at a file and its slot.
        let adopt = |_: &Key, object: &Object| {
            let text = std::str::from_utf8(object.key_text()).unwrap();
            match text {
                "as it comes" => place::forget(&index, &store, &key(text)),
                "replaced as it comes" => {
                    place::forget(&index, &store, &key(text));
                    store_one(&index, &store, text, b"newer").unwrap();
                }
                _ => {}
            }
            Some(slot(text))
        };
        while !reconciler.step(&index, &store, 1, adopt) {}
        assert_eq!(index.iter().map(|view| view.key).collect::<Vec<_>>(), [key("kept")]);
        for text in ["before", "as it comes", "replaced as it comes"] {
            assert!(!store.exists(&key(text)), "{text}");
        }
    }

    #[test]
    fn only_names_of_cache_files_are_keys() {
        let key = slot("a").key;
        let hex = String::from_utf8(key.hex().to_vec()).unwrap();
        let (fan_out, rest) = hex.split_at(2);
        assert_eq!(key_of_path(&Path::new("/x").join(fan_out).join(rest)), Some(key));
        for path in ["/x/tmp/00", "/x/ab/readme", "/x/index", "/", "ab"] {
            assert_eq!(key_of_path(Path::new(path)), None, "{path}");
        }
    }
}
