//! The scrubber: every stored body is read again and compared with its checksum, round after round,
//! at a limited rate.
//!
//! ```text
//! Slots ─ the last one ─▶ Files ─ the last one ─▶ Slots …
//! ```
//!
//! `Slots` opens the file of each slot, compares the two and verifies the body; a wrong file is
//! removed before a client requests it. `Files` walks the directories for files without a slot.
//! Then there is a pause. The position of a round is kept in the index, so that a restart goes on
//! with it. BodyRead takes from an allowance of bytes that grows with time; once it is used up, the
//! scrubber waits.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cache::files::front::OpenError;
use crate::cache::files::store::{Object, Store, VERIFY_STEP_BYTES, Verify};
use crate::cache::index::Index;
use crate::cache::index::slot::{BLOCK_BYTES, SlotView};
use crate::cache::maintenance::reconcile::{self, Orphans, Reconciler};
use crate::cache::place;

/// The result of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that were correct.
    pub n_sound: u64,
    /// Slots removed, their files being damaged or missing.
    pub n_removed: u64,
    /// Files removed that had no slot.
    pub n_orphans: u64,
}

/// The result of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do, and some allowance left.
    Busy,
    /// The allowance is used up.
    Rests,
    /// A file was removed with its slot, for this reason.
    Removed(PathBuf, String),
    /// A round is over.
    Ended(Report),
}

/// The scrubber of one cache.
#[derive(Debug)]
pub struct Scrubber {
    rate_bytes_s: u64,
    /// In bytes; below zero, the scrubber waits.
    allowance: i64,
    counted_at: Instant,
    /// When a round may begin.
    begins_at: Instant,
    phase: Phase,
    report: Report,
    scratch: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    Slots(Option<BodyRead>),
    Files(Reconciler),
}

/// A body that is being verified.
#[derive(Debug)]
struct BodyRead {
    view: SlotView,
    object: Box<Object>,
    verify: Verify,
}

impl Scrubber {
    /// A scrubber that reads this many bytes in a second; `None` for a rate of 0.
    pub fn new(rate_bytes_s: u64, now: Instant) -> Option<Self> {
        (rate_bytes_s > 0).then(|| Self {
            rate_bytes_s,
            allowance: 0,
            counted_at: now,
            begins_at: now,
            phase: Phase::Slots(None),
            report: Report::default(),
            scratch: Vec::new(),
        })
    }

    /// Does one step, if there is allowance for it: some slots, or one part of a body.
    pub fn step(&mut self, index: &Index, store: &Store, now: Instant) -> Step {
        self.earn(now);
        if self.allowance <= 0 || now < self.begins_at {
            return Step::Rests;
        }
        match &mut self.phase {
            Phase::Slots(reading) => match reading.take() {
                Some(reading) => self.read(index, store, reading),
                None => self.next_slot(index, store),
            },
            Phase::Files(reconciler) => {
                let is_over = reconciler.step(index, store, N_FILES_STEP, |_, _| None);
                self.allowance -= BLOCK_BYTES as i64;
                if !is_over {
                    return Step::Busy;
                }
                let n_orphans = reconciler.report().n_files_removed;
                let report = Report { n_orphans, ..self.report };
                self.report = Report::default();
                self.phase = Phase::Slots(None);
                self.begins_at = now + REST;
                Step::Ended(report)
            }
        }
    }

    fn earn(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.counted_at);
        let earned = u128::from(self.rate_bytes_s) * elapsed.as_micros() / 1_000_000;
        if earned > 0 {
            self.counted_at = now;
            // Unused time adds no more than one second of allowance.
            let most = i64::try_from(self.rate_bytes_s).unwrap_or(i64::MAX);
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            self.allowance = self.allowance.saturating_add(earned).min(most);
        }
    }

    /// Opens the file of the next slot that has one.
    fn next_slot(&mut self, index: &Index, store: &Store) -> Step {
        let first = index.scrub_at();
        let end = first.saturating_add(N_SLOTS_STEP).min(index.n_slots());
        let mut slots = (first..end).filter_map(|number| index.slot(index.place(number)?));
        let found = slots.find(|view| view.state.has_file());
        let Some(view) = found else {
            index.set_scrub_at(end);
            if end == index.n_slots() {
                index.set_scrub_at(0);
                self.phase = Phase::Files(Reconciler::of_files(Orphans::Remove));
            }
            return Step::Busy;
        };
        index.set_scrub_at(view.at.number() + 1);
        self.allowance -= BLOCK_BYTES as i64;
        match reconcile::compare(store, &view) {
            Ok(Some(object)) => {
                let (object, verify) = (Box::new(object), Verify::default());
                self.phase = Phase::Slots(Some(BodyRead { view, object, verify }));
                Step::Busy
            }
            Ok(None) => Step::Busy,
            Err(fault) => match reconcile::remove_if_wrong(index, store, &view, &fault) {
                true => self.removed(store, &view, fault.to_string()),
                false => Step::Busy,
            },
        }
    }

    /// Verifies the next part of a body.
    fn read(&mut self, index: &Index, store: &Store, mut reading: BodyRead) -> Step {
        self.allowance -= reading.object.body_len.min(VERIFY_STEP_BYTES as u64) as i64;
        let BodyRead { view, object, verify } = &mut reading;
        match verify.step(object, &mut self.scratch) {
            Ok(false) => self.phase = Phase::Slots(Some(reading)),
            Ok(true) => {
                index.restamp(view.slot_ref(), object.stamp.get());
                self.report.n_sound += 1;
            }
            // The disk may have an error, but the file is not known to be wrong.
            Err(OpenError::Io(_)) => {}
            Err(fault) => {
                let is_removed =
                    place::discard(index, store, &view.key, Some(view.generation)).is_some();
                if is_removed {
                    return self.removed(store, &reading.view, fault.to_string());
                }
            }
        }
        Step::Busy
    }

    fn removed(&mut self, store: &Store, view: &SlotView, why: String) -> Step {
        self.report.n_removed += 1;
        Step::Removed(store.path(&view.key), why)
    }
}

/// The most slots that a step skips to find one with a file.
const N_SLOTS_STEP: u32 = 4_096;
/// The most files that a step looks up in the index.
const N_FILES_STEP: usize = 64;
/// Between two rounds: a small cache is not read all the time.
const REST: Duration = Duration::from_secs(1_800);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::place::tests::{cache, slot, store_one};
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;

    /// Steps of a round, and how long it took at this rate.
    fn round(index: &Index, store: &Store, rate: u64) -> (Report, Duration, Vec<String>) {
        let begin = Instant::now();
        let mut now = begin;
        let mut scrubber = Scrubber::new(rate, now).unwrap();
        let mut whys = Vec::new();
        loop {
            match scrubber.step(index, store, now) {
                Step::Busy => {}
                Step::Rests => now += Duration::from_millis(100),
                Step::Removed(_, why) => whys.push(why),
                Step::Ended(report) => return (report, now - begin, whys),
            }
            assert!(now - begin < Duration::from_secs(1_000_000), "it never ends");
        }
    }

    #[test]
    fn sound_files_stay_and_are_marked_as_verified() {
        let (_dir, index, store) = cache(100);
        for n in 0..50 {
            store_one(&index, &store, &n.to_string(), &[n; 3000]).unwrap();
        }
        index.iter().for_each(|view| assert!(index.restamp(view.slot_ref(), 0)));
        let (report, took, _) = round(&index, &store, 10_000);
        assert_eq!(report, Report { n_sound: 50, ..Report::default() });
        assert!(index.iter().all(|view| view.stamp != 0));
        // 50 fronts of a block, 50 bodies, and a block for each directory.
        let seconds = f64::from(50 * (4096 + 3000) + 256 * 4096) / 10_000.0;
        assert!((took.as_secs_f64() - seconds).abs() < 10.0, "{took:?} and not {seconds} s");
    }

    #[test]
    fn damage_is_found_without_a_request() {
        let (_dir, index, store) = cache(100);
        for text in ["sound", "rotten", "cut", "missing"] {
            store_one(&index, &store, text, &[7; 5000]).unwrap();
        }
        let open =
            |text: &str| OpenOptions::new().write(true).open(store.path(&slot(text).key)).unwrap();
        open("rotten").write_all_at(b"?", 4000).unwrap();
        let cut = open("cut");
        cut.set_len(3000).unwrap();
        cut.set_modified(std::time::SystemTime::now() - 2 * reconcile::ORPHAN_AGE).unwrap();
        std::fs::remove_file(store.path(&slot("missing").key)).unwrap();
        let (report, _, whys) = round(&index, &store, 1 << 20);
        assert_eq!(report, Report { n_sound: 1, n_removed: 3, n_orphans: 0 });
        assert_eq!(whys.len(), 3);
        assert_eq!((index.objects(), store.exists(&slot("rotten").key)), (1, false));
        assert!(index.lookup(&slot("sound").key).is_some());
    }

    #[test]
    fn old_files_without_a_slot_are_removed() {
        let (_dir, index, store) = cache(100);
        for text in ["old", "young", "known"] {
            store_one(&index, &store, text, b"x").unwrap();
            let file = OpenOptions::new().write(true).open(store.path(&slot(text).key)).unwrap();
            if text != "young" {
                file.set_modified(std::time::SystemTime::now() - 2 * reconcile::ORPHAN_AGE)
                    .unwrap();
            }
        }
        index.remove(&slot("old").key, None);
        index.remove(&slot("young").key, None);
        let (report, _, _) = round(&index, &store, 1 << 20);
        assert_eq!(report, Report { n_sound: 1, n_removed: 0, n_orphans: 1 });
        assert!(!store.exists(&slot("old").key) && store.exists(&slot("young").key));
    }

    #[test]
    fn a_restart_goes_on_with_the_round() {
        let (dir, index, store) = cache(100);
        for n in 0..50 {
            store_one(&index, &store, &n.to_string(), b"x").unwrap();
        }
        let mut now = Instant::now();
        let mut scrubber = Scrubber::new(1 << 30, now).unwrap();
        while index.scrub_at() < index.n_slots() / 2 {
            now += Duration::from_secs(1);
            scrubber.step(&index, &store, now);
        }
        let reached = index.scrub_at();
        drop(index);
        let (index, _) = Index::open(dir.path(), 100).unwrap();
        index.attach().unwrap();
        assert_eq!(index.scrub_at(), reached);
        let (report, ..) = round(&index, &store, 1 << 30);
        assert!((5..=45).contains(&report.n_sound), "{report:?}");
    }

    #[test]
    fn there_is_a_pause_after_a_round() {
        let (_dir, index, store) = cache(100);
        store_one(&index, &store, "a", b"x").unwrap();
        let begin = Instant::now();
        let mut scrubber = Scrubber::new(1 << 20, begin).unwrap();
        let n_rounds = (1..3_000)
            .flat_map(|second| [Duration::from_secs(second); 500])
            .filter(|&time| matches!(scrubber.step(&index, &store, begin + time), Step::Ended(_)))
            .count();
        assert_eq!(n_rounds, 2);
    }

    #[test]
    fn a_rate_of_zero_is_no_scrubber() {
        assert!(Scrubber::new(0, Instant::now()).is_none());
    }
}
