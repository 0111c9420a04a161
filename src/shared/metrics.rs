//! The counters of all processes: one file in memory, made by the master.
//!
//! Each process has a page of its own and is its only writer, so that counting is a load and a store. What
//! a process has counted stays when it dies: the next one in the page goes on. Readers add up all pages.
//!
//! ```text
//! header  16 words: magic, layout, pages that were ever used, when the counters began (Unix time)
//! names   256 bytes for each row (see `metric_rows`)
//! pages   N_PAGES times: 8 words (the master of the process, its pid, its role: 1 the master, 2 the
//!         keeper, 3 and more a worker of the number above that), then the cells
//! ```
//!
//! The file outlives a master that hands it to another binary of the same layout. The two give their
//! processes different pages, since the first word of a page is taken by a compare-and-swap.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::metrics::label::Rows;
use crate::metrics::scale::Scale;
use crate::metrics::table::{Cell, Kind, LAYOUT, Metric, N_CELLS, Source};
use crate::sys::shm::{SharedMap, SharedSlice};

/// The name of the file, by which a command finds it among the open files of the master.
pub(crate) const FILE_NAME: &str = "ktrix-metrics";

/// How many processes can count at once, those of a master that another has replaced included.
const N_PAGES: usize = 256;

pub(super) const NAME_BYTES: usize = 256;
const N_WORDS_HEADER: usize = 16;
const N_WORDS_PAGE: usize = 8 + N_CELLS;
const FIRST_CELL: usize = 8;
const MAGIC: u64 = u64::from_le_bytes(*b"ktrixmtr");

/// Words of the header.
const N_USED: usize = 2;
const BEGUN: usize = 3;

/// Words of a page.
const MASTER: usize = 0;
const PID: usize = 1;
const ROLE: usize = 2;

/// The process in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counting {
    Master,
    Keeper,
    Worker(usize),
}

/// All pages.
#[derive(Debug)]
pub(crate) struct MetricTable {
    header: SharedSlice<AtomicU64>,
    pub(super) names: SharedSlice<AtomicU8>,
    pages: SharedSlice<AtomicU64>,
    map: SharedMap,
}

/// The page of a process.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    words: SharedSlice<AtomicU64>,
}

/// The content of a page at one time.
#[derive(Clone, Debug)]
pub(crate) struct PageView {
    /// `None` while no process has it.
    pub(crate) process: Option<(u32, Counting)>,
    pub(crate) cells: Vec<u64>,
}

impl MetricTable {
    /// An empty table; call before forking.
    ///
    /// # Errors
    /// When the kernel refuses the memory.
    pub(crate) fn create(now_s: u64) -> io::Result<Self> {
        let table = Self::over(SharedMap::named(FILE_NAME, offsets()[2])?)?;
        for (word, value) in table.header.iter().zip([MAGIC, LAYOUT, 0, now_s]) {
            word.store(value, Ordering::Relaxed);
        }
        Ok(table)
    }

    /// The table in a file that a master has open, this one or another.
    ///
    /// # Errors
    /// When it has another layout.
    pub(crate) fn open(fd: OwnedFd) -> io::Result<Self> {
        let other =
            || io::Error::new(io::ErrorKind::InvalidData, "the metrics have another layout");
        let table = Self::over(SharedMap::passed(fd, offsets()[2]).map_err(|_| other())?)?;
        let word = |n: usize| table.header[n].load(Ordering::Relaxed);
        match (word(0), word(1)) {
            (MAGIC, LAYOUT) => Ok(table),
            _ => Err(other()),
        }
    }

    fn over(map: SharedMap) -> io::Result<Self> {
        let [names, pages, _] = offsets();
        Ok(Self {
            header: map.slice(0, N_WORDS_HEADER)?,
            names: map.slice(names, n_rows() * NAME_BYTES)?,
            pages: map.slice(pages, N_PAGES * N_WORDS_PAGE)?,
            map,
        })
    }

    /// The file, to hand it on.
    pub(crate) fn file(&self) -> Option<&File> {
        self.map.opened_file()
    }

    /// When the counters began, in seconds since 1970.
    pub(crate) fn begun_s(&self) -> u64 {
        self.header[BEGUN].load(Ordering::Relaxed)
    }

    /// Takes a page for a process of this master: one that has been used, if there is one, so that few
    /// are. `is_alive` says whether there is a process.
    ///
    /// # Errors
    /// When all pages are taken.
    pub(crate) fn claim(&self, master: u32, is_alive: impl Fn(u32) -> bool) -> io::Result<Page> {
        let master = u64::from(master);
        for (n, words) in self.pages.chunks_exact(N_WORDS_PAGE).enumerate() {
            let owner = words[MASTER].load(Ordering::Relaxed);
            let pid = words[PID].load(Ordering::Relaxed) as u32;
            let is_free =
                owner == 0 || owner != master && !is_counting([owner as u32, pid], &is_alive);
            let taken = || {
                let (ok, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
                words[MASTER].compare_exchange(owner, master, ok, relaxed).is_ok()
            };
            if is_free && taken() {
                self.header[N_USED].fetch_max(n as u64 + 1, Ordering::Release);
                let offset = offsets()[1] + n * N_WORDS_PAGE * size_of::<u64>();
                let page = Page { words: self.map.slice(offset, N_WORDS_PAGE)? };
                // A process of a master that was killed may have left some.
                page.clear_gauges();
                return Ok(page);
            }
        }
        Err(io::Error::other("too many processes count metrics"))
    }

    /// Whether a process of another master than this one may count: in an upgrade, or after the end of
    /// a master that was killed.
    pub(super) fn has_strangers(&self, master: u32, is_alive: impl Fn(u32) -> bool) -> bool {
        self.used().any(|words| {
            let owner = words[MASTER].load(Ordering::Acquire) as u32;
            let pid = words[PID].load(Ordering::Relaxed) as u32;
            owner != 0 && owner != master && is_counting([owner, pid], &is_alive)
        })
    }

    fn used(&self) -> impl Iterator<Item = &[AtomicU64]> {
        let n_used = self.header[N_USED].load(Ordering::Acquire);
        let n_used = usize::try_from(n_used).unwrap_or(N_PAGES).min(N_PAGES);
        self.pages.chunks_exact(N_WORDS_PAGE).take(n_used)
    }

    /// The cells of all processes, added up.
    pub(crate) fn totals(&self) -> Vec<u64> {
        let mut totals = vec![0_u64; N_CELLS];
        for words in self.used() {
            for (total, word) in totals.iter_mut().zip(&words[FIRST_CELL..]) {
                *total = total.wrapping_add(word.load(Ordering::Relaxed));
            }
        }
        totals
    }

    /// Each page that was ever used.
    pub(crate) fn views(&self) -> impl Iterator<Item = PageView> {
        self.used().map(|words| {
            let word = |n: usize| words[n].load(Ordering::Relaxed);
            let process = process_in(words).filter(|_| word(MASTER) != 0);
            let cells = words[FIRST_CELL..].iter().map(|it| it.load(Ordering::Relaxed)).collect();
            PageView { process: process.map(|role| (word(PID) as u32, role)), cells }
        })
    }

    /// Moves what all pages have counted for a row, which no living process counts for any more, to
    /// the row of all others in `page`.
    pub(super) fn fold(&self, rows: Rows, row: usize, page: &Page) {
        for (from, to) in metric_cells(rows, row) {
            for words in self.used() {
                page.add(Cell(to), words[FIRST_CELL + from].swap(0, Ordering::Relaxed));
            }
        }
    }
}

/// Whether a page's master or process is alive; a worker may outlive its master for a while. A page that
/// was only claimed has process 0.
fn is_counting(pids: [u32; 2], is_alive: impl Fn(u32) -> bool) -> bool {
    pids.into_iter().any(|pid| pid != 0 && is_alive(pid))
}

/// The cells of a row and those of the first one in the same metrics.
fn metric_cells(rows: Rows, row: usize) -> impl Iterator<Item = (usize, usize)> {
    use crate::metrics::label::Set;
    let of_rows = Metric::ALL.iter().filter(move |metric| {
        let row = metric.row();
        let first = row.labels.first().map(|label| label.set);
        row.source == Source::Cells && matches!(first, Some(Set::Rows(it)) if it == rows)
    });
    of_rows.flat_map(move |metric| {
        let n = metric.row().n_cells() / rows.size();
        let first = metric.first();
        (0..n).map(move |at| (first + row * n + at, first + at))
    })
}

/// All rows of all kinds.
fn n_rows() -> usize {
    Rows::ALL.iter().map(|rows| rows.size()).sum()
}

/// The offsets of names and pages, and the end, in bytes.
fn offsets() -> [usize; 3] {
    let names = N_WORDS_HEADER * size_of::<u64>();
    let pages = (names + n_rows() * NAME_BYTES).next_multiple_of(4096);
    [names, pages, pages + N_PAGES * N_WORDS_PAGE * size_of::<u64>()]
}

fn process_in(words: &[AtomicU64]) -> Option<Counting> {
    match words.get(ROLE)?.load(Ordering::Relaxed) {
        0 => None,
        1 => Some(Counting::Master),
        2 => Some(Counting::Keeper),
        n => Some(Counting::Worker(n as usize - 3)),
    }
}

impl Page {
    pub(crate) fn process(&self) -> Option<Counting> {
        process_in(&self.words)
    }

    /// The process that counts in it. Called in that process.
    pub(crate) fn set_process(&self, role: Counting) {
        let code = match role {
            Counting::Master => 1,
            Counting::Keeper => 2,
            Counting::Worker(number) => number as u64 + 3,
        };
        self.words[PID].store(u64::from(std::process::id()), Ordering::Relaxed);
        self.words[ROLE].store(code, Ordering::Relaxed);
    }

    /// Gives the page back: its process is dead.
    pub(crate) fn release(&self) {
        self.clear_gauges();
        self.words[ROLE].store(0, Ordering::Relaxed);
        self.words[MASTER].store(0, Ordering::Release);
    }

    fn clear_gauges(&self) {
        let gauges = Metric::ALL.iter().filter(|metric| metric.row().kind == Kind::Gauge);
        for metric in gauges {
            let first = metric.first();
            (first..first + metric.row().n_cells()).for_each(|it| self.set(Cell(it), 0));
        }
    }

    /// Adds to a counter. There is no other writer.
    #[inline]
    pub(crate) fn add(&self, cell: Cell, n: u64) {
        if let Some(word) = self.words.get(FIRST_CELL + cell.0) {
            word.store(word.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, cell: Cell, value: u64) {
        if let Some(word) = self.words.get(FIRST_CELL + cell.0) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// The value of a cell.
    #[inline]
    pub(crate) fn value(&self, cell: Cell) -> u64 {
        self.words.get(FIRST_CELL + cell.0).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Adds a value to a histogram, but for its count, which gives the cell of the bucket.
    #[inline]
    pub(crate) fn add_to_sum(&self, metric: Metric, label: usize, value: u64) -> Cell {
        let first = metric.at(label);
        self.add(first, value);
        let bucket = match metric.row().kind {
            Kind::Histogram(scale) => scale.bucket(value),
            Kind::Counter | Kind::Gauge => 0,
        };
        Cell(first.0 + 1 + bucket)
    }
}

const _: () = assert!(N_CELLS < 1 << 16, "the number of a cell has 16 bits");
const _: () = assert!(matches!(Metric::RequestDuration.row().kind, Kind::Histogram(Scale::Time)));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_counted_stays_when_it_dies() {
        let table = MetricTable::create(7).unwrap();
        let (a, b) = (table.claim(1, |_| true).unwrap(), table.claim(1, |_| true).unwrap());
        a.set_process(Counting::Worker(4));
        a.add(Metric::Accepted.cell(), 2);
        b.add(Metric::Accepted.cell(), 3);
        a.set(Metric::Connections.cell(), 5);
        let total = |metric: Metric| table.totals()[metric.cell().0];
        assert_eq!([Metric::Accepted, Metric::Connections].map(total), [5, 5]);
        let views: Vec<_> = table.views().map(|it| it.process).collect();
        assert_eq!(views, [Some((std::process::id(), Counting::Worker(4))), None]);
        a.release();
        assert_eq!([Metric::Accepted, Metric::Connections].map(total), [5, 0]);
        let next = table.claim(1, |_| true).unwrap();
        next.add(Metric::Accepted.cell(), 1);
        assert_eq!(next.value(Metric::Accepted.cell()), 3, "the page of the dead one");
        assert_eq!((total(Metric::Accepted), table.views().count()), (6, 2));
    }

    #[test]
    fn another_binary_goes_on_with_the_file_and_with_pages_of_its_own() {
        let table = MetricTable::create(7).unwrap();
        let old = table.claim(1, |_| true).unwrap();
        let fd = || OwnedFd::from(table.file().unwrap().try_clone().unwrap());
        let taken_over = MetricTable::open(fd()).unwrap();
        assert_eq!(taken_over.begun_s(), 7);
        // One that was claimed and never used has no process.
        assert!(!taken_over.has_strangers(2, |pid| pid == 0));
        assert!(taken_over.has_strangers(2, |pid| pid == 1));
        let new = taken_over.claim(2, |_| true).unwrap();
        old.add(Metric::Purges.cell(), 1);
        new.add(Metric::Purges.cell(), 1);
        assert_eq!((old.value(Metric::Purges.cell()), new.value(Metric::Purges.cell())), (1, 1));
        assert_eq!(taken_over.totals()[Metric::Purges.cell().0], 2);
        old.set_process(Counting::Worker(0));
        let orphan = taken_over.claim(2, |pid| pid != 1).unwrap();
        assert_eq!(orphan.value(Metric::Purges.cell()), 0, "its process lives on");
        let third = taken_over.claim(2, |pid| pid != 1 && pid != std::process::id()).unwrap();
        assert_eq!(third.value(Metric::Purges.cell()), 1, "the old master is dead");
        table.header[1].store(LAYOUT + 1, Ordering::Relaxed);
        assert!(MetricTable::open(fd()).is_err());
        assert!(MetricTable::open(tempfile::tempfile().unwrap().into()).is_err());
    }

    #[test]
    fn all_pages_can_be_taken_and_no_more() {
        let table = MetricTable::create(7).unwrap();
        let pages: Vec<_> = (0..N_PAGES).map(|_| table.claim(1, |_| true).unwrap()).collect();
        assert!(table.claim(1, |_| true).is_err());
        pages[9].release();
        assert!(table.claim(1, |_| true).is_ok());
    }
}
