//! The chores of the cache: repairing the index, eviction, and comparing index and files.
//!
//! Each call does one short step; between the steps the keeper handles messages. The repair comes
//! first, so that the counters are right; then eviction, because workers wait for room; then the
//! comparison, for which no worker waits.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cache::Shared;
use crate::cache::files::store::Object;
use crate::cache::fills::refused::Refusals;
use crate::cache::index::repair::IndexRepair;
use crate::cache::index::slot::NewSlot;
use crate::cache::maintenance::evict::{Evictor, Limits};
use crate::cache::maintenance::reconcile::{Orphans, Reconciler};
use crate::cache::maintenance::scrubber::{self, Scrubber};
use crate::cache::maintenance::temp_cleanup::{OlderFills, TempCleanup};
use crate::http::status::Status;
use crate::metrics::table::Metric;
use crate::policy::key::{Key, key_of};
use crate::policy::meta;
use crate::shared::meter;
use crate::worker::inherited::{Inherited, Reconcile};

/// How soon the next step is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// At once.
    Busy,
    /// After a pause: the step is not urgent, and others need the processor and the disk.
    After(Duration),
    /// At the next event, or after a while.
    Idle,
}

/// The chores of one cache.
#[derive(Debug)]
pub(super) struct Chores {
    cache: Rc<Shared>,
    index_repair: Option<IndexRepair>,
    evictor: Evictor,
    reconciler: Option<Reconciler>,
    has_scrubbed: bool,
    scrubber: Option<Scrubber>,
    temp_cleanup: TempCleanup,
    clean_temps_at: Instant,
    is_short_of_room: bool,
    is_unsynced: bool,
}

impl Chores {
    /// The chores of a child that has a cache.
    pub(super) fn new(inherited: &Inherited) -> Option<Self> {
        let cache = Rc::clone(inherited.cache.as_ref()?);
        let config = inherited.config.cache.as_ref()?;
        let limits = Limits {
            size_bytes: config.size_bytes,
            objects: cache.index.n_objects_max(),
            free_bytes_min: config.free_bytes_min,
        };
        let orphans = match inherited.reconcile {
            Reconcile::None => None,
            Reconcile::Check => Some(Orphans::Remove),
            Reconcile::Rebuild => Some(Orphans::Adopt),
        };
        // Only an unclean index shows that no child of an earlier master still uses the directory.
        let older_fills = match inherited.reconcile {
            Reconcile::Check => OlderFills::Ended,
            Reconcile::None | Reconcile::Rebuild => OlderFills::MayRun,
        };
        if orphans.is_some() {
            log::info!("comparing cache \"{}\" with its index", cache.store.dir().display());
        }
        Some(Self {
            cache,
            index_repair: Some(IndexRepair::default()),
            evictor: Evictor::new(limits),
            reconciler: orphans.map(Reconciler::new),
            has_scrubbed: false,
            scrubber: Scrubber::new(config.scrub_bytes_s, Instant::now()),
            temp_cleanup: TempCleanup::new(older_fills),
            clean_temps_at: Instant::now(),
            is_short_of_room: false,
            is_unsynced: false,
        })
    }

    /// Does one step of what is due.
    pub(super) fn step(&mut self, now: Instant) -> Pace {
        self.clean_temps(now);
        self.sync_purges();
        self.report_refused();
        self.cache.uses.maintain();
        if self.repair_step() {
            return Pace::Busy;
        }
        if self.cache.index.wants_recount() {
            self.cache.index.recount();
        }
        let to_come = || self.cache.fills.bytes_under_way();
        let step =
            self.evictor.step_for(&self.cache.index, &self.cache.store, N_SLOTS_STEP, to_come);
        if step.wants_more && step.n_removed > 0 {
            return Pace::Busy;
        }
        self.note_room(step.wants_more);
        let begun = Instant::now();
        if self.reconcile_step() {
            // While slots and files are compared, the cache works as usual. While a lost index is
            // rebuilt, every request is a miss.
            let is_urgent = self.reconciler.as_ref().is_some_and(Reconciler::is_rebuild);
            return if is_urgent { Pace::Busy } else { Pace::After(begun.elapsed()) };
        }
        if self.scrub_step(now) {
            return Pace::Busy;
        }
        // Each step clears marks of use, so a whole round may pass without a removal.
        if step.wants_more && self.cache.index.objects() > 0 { Pace::Busy } else { Pace::Idle }
    }

    /// Logs once that there is nothing left to evict and still no room.
    fn note_room(&mut self, wants_more: bool) {
        let is_short = wants_more && self.cache.index.objects() == 0;
        if is_short && !self.is_short_of_room {
            log::warn!(
                "the disk of \"{}\" is full with files of other programs; the cache can store little",
                self.cache.store.dir().display()
            );
        }
        self.is_short_of_room = is_short;
    }

    /// Whether the comparison has ended since the last call.
    pub(super) fn take_scrubbed(&mut self) -> bool {
        std::mem::take(&mut self.has_scrubbed)
    }

    /// Logs new purges, and writes them to the disk.
    fn sync_purges(&mut self) {
        self.cache.purges.each_unlogged(|record| {
            meter::count(Metric::Purges.cell());
            record.log();
        });
        match self.cache.purges.sync() {
            Ok(()) => self.is_unsynced = false,
            Err(error) if !self.is_unsynced => {
                self.is_unsynced = true;
                log::error!(
                    "cannot write the table of purges to the disk: {error}; \
                     its purges are in force, and may be lost with the power"
                );
            }
            Err(_) => {}
        }
    }

    /// Logs what the disk has refused to the workers since one of them logged that.
    fn report_refused(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_s = since.map_or(0, |since| since.as_secs());
        let taken = |refusals: Option<&Refusals>| refusals.map_or(0, |it| it.take(now_s));
        match taken(self.cache.fills.refused_stores()) {
            0 => {}
            n => {
                log::warn!("cannot store in the cache: {n} more responses were passed on unstored")
            }
        }
        match taken(self.cache.fills.refused_reads()) {
            0 => {}
            n => log::warn!("cannot read from the cache: {n} more responses came from the origin"),
        }
    }

    fn clean_temps(&mut self, now: Instant) {
        if now < self.clean_temps_at {
            return;
        }
        self.clean_temps_at = now + TEMPS_PAUSE;
        let n_removed = self.temp_cleanup.look(&self.cache.store, &self.cache.fills);
        if n_removed > 0 {
            log::debug!("removed {n_removed} temporary files of dead fills");
        }
    }

    /// A step of repairing the index; `true` while there is more to do.
    fn repair_step(&mut self) -> bool {
        let Some(repair) = &mut self.index_repair else { return false };
        if !repair.step(&self.cache.index, N_BUCKETS_STEP) {
            return true;
        }
        let report = repair.report();
        self.index_repair = None;
        if report.n_buckets > 0 {
            log::warn!(
                "repaired {} damaged buckets of the cache index; {} slots were lost",
                report.n_buckets,
                report.n_slots
            );
        }
        // Files whose slots were lost are found only by a walk of the files.
        if report.n_slots > 0 && self.reconciler.is_none() {
            self.reconciler = Some(Reconciler::new(Orphans::Remove));
        }
        false
    }

    /// A step of the comparison; `true` while there is more to do.
    fn reconcile_step(&mut self) -> bool {
        let Some(reconciler) = &mut self.reconciler else { return false };
        if !reconciler.step(&self.cache.index, &self.cache.store, N_FILES_STEP, slot_of) {
            return true;
        }
        let report = reconciler.report();
        log::info!(
            "compared {} slots with their files: {} slots and {} files removed, {} files added",
            report.n_slots,
            report.n_slots_removed,
            report.n_files_removed,
            report.n_adopted
        );
        if reconciler.is_rebuild() {
            self.cache.index.table().set_complete();
        }
        self.reconciler = None;
        self.has_scrubbed = true;
        self.cache.index.recount();
        false
    }
}

impl Chores {
    /// Some steps of the scrubber, once the comparison is over; `true` while it may go on.
    fn scrub_step(&mut self, now: Instant) -> bool {
        (0..N_SCRUB_STEPS).all(|_| self.scrub_once(now))
    }

    fn scrub_once(&mut self, now: Instant) -> bool {
        let Some(scrubber) = &mut self.scrubber else { return false };
        match scrubber.step(&self.cache.index, &self.cache.store, now) {
            scrubber::Step::Busy => return true,
            scrubber::Step::Rests => return false,
            scrubber::Step::Removed(path, why) => {
                log::warn!("cache file {path:?} is not usable ({why}): removed by the scrubber");
            }
            scrubber::Step::Ended(report) => {
                let level = match report.n_removed + report.n_orphans {
                    0 => log::Level::Debug,
                    _ => log::Level::Info,
                };
                log::log!(
                    level,
                    "verified the cache: {} files correct, {} removed, {} without a slot removed",
                    report.n_sound,
                    report.n_removed,
                    report.n_orphans
                );
            }
        }
        true
    }
}

/// The slot of an object whose slot was lost; `None` if the file does not say enough. The
/// comparison fills in lengths and stamp.
fn slot_of(key: &Key, object: &Object) -> Option<NewSlot> {
    let lifetimes = meta::decode(object.meta()).ok()?;
    if key_of(object.key_text()) != *key {
        return None;
    }
    Some(NewSlot::of(*key, Status(object.status()), &lifetimes))
}

/// Buckets that one step of the repair checks.
const N_BUCKETS_STEP: usize = 1_024;
/// Slots that one step of eviction looks at.
const N_SLOTS_STEP: usize = 4_096;
/// Slots or files that one step of the comparison checks.
const N_FILES_STEP: usize = 64;
/// Steps of the scrubber that are done in one go.
const N_SCRUB_STEPS: usize = 32;
/// The pause between two looks for temporary files of dead fills.
const TEMPS_PAUSE: Duration = Duration::from_millis(900);
