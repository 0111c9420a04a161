//! The index's file: its header, its geometry, and how it is opened, judged and replaced.
//!
//! `DIR/index` is mapped by master, keeper, workers and the command line at once:
//!
//! | bytes | part |
//! | --- | --- |
//! | 0..4096 | header, fields below |
//! | 4096..20480 | 511 owner rows of 32 bytes (`sys::owner`) |
//! | 20480.. | buckets of 512 bytes |
//! | then | the hits of every slot, 4 bytes each, in the order of the slots |
//!
//! | bytes | header field | meaning |
//! | --- | --- | --- |
//! | 0..8 | magic | `ktrixidx` |
//! | 8..12 | version | 2 |
//! | 12..16 | crc | CRC-32C of magic, version, objects and buckets |
//! | 16..24 | objects | how many objects it was made for |
//! | 24..32 | buckets | how many buckets follow; the last one is only ever a second choice |
//! | 64..68 | is_clean | 1 after a clean stop, 0 while in use |
//! | 68..72 | epoch | changes when it is taken into use, which ends all earlier stamps |
//! | 72..76 | generation | the last one given |
//! | 76..80 | wants_recount | a writer died: the counters may be off |
//! | 80..84 | is_partial | 1 from its making until all files that are there have been taken in |
//! | 128..136 | bytes | disk bytes of all files |
//! | 136..144 | objects | slots that are taken |
//! | 192..200 | size | limit of `bytes`, 0 = none |
//! | 200..208 | hand | where eviction stands, a generation |
//! | 208..216 | scrub_at | where the scrubber stands, a slot number |
//!
//! A file that is foreign, of another version or size, cut or torn is never changed in place, since
//! a process may have it mapped: a new one is made beside it and renamed over it, during a reload
//! when the children that use it serve. Other programs may not be so careful: see
//! [`Table::is_in_place`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::cache::index::bucket::{Bucket, SLOTS};
use crate::shared::owner::{OwnerTable, ROWS_MAX};
use crate::sys::file::{Access, read_full_at};
use crate::sys::shm::{SharedMap, SharedSlice, shared_struct};

/// Name of the index within the cache directory.
pub const FILE_NAME: &str = "index";
/// Name of a new index until it takes the place of the one before.
pub const NEW_NAME: &str = "index.new";
/// The most objects an index is made for.
pub const OBJECTS_MAX: usize = 500_000_000;

/// Why there is no index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The system refused.
    #[error("cannot {action} cache index {path:?}: {source}")]
    Io {
        /// The failed action.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// More objects than an index can hold, or none.
    #[error("cannot make a cache index for {0} objects (1 to {OBJECTS_MAX})")]
    Objects(usize),
    /// No index, or not one of this version.
    #[error("no cache index at {0:?}, or one of another version")]
    NotOurs(PathBuf),
}

/// How the index was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// There was none: it is new and empty; the files are to be walked to fill it.
    Fresh,
    /// As [`Opened::Fresh`], in the place of one for another number of objects.
    Resized,
    /// As [`Opened::Fresh`], in the place of something that was damaged, foreign or of another
    /// version.
    Replaced,
    /// It was new, and its master ended before the rebuild from the files was complete: the rebuild
    /// goes on.
    Partial,
    /// As a clean stop left it, or in use by living processes.
    Clean,
    /// Its master died: it is used, and the keeper checks it against the files.
    Unclean,
}

shared_struct! {
    /// The header: see the module's field table.
    #[derive(Debug)]
    pub struct Header: 256 bytes, aligned 64 {
        magic: AtomicU64,
        version: AtomicU32,
        crc: AtomicU32,
        /// How many objects the index was made for.
        pub n_objects_max: AtomicU64,
        /// How many buckets there are.
        pub n_buckets: AtomicU64,
        _line_0: [AtomicU64; 4],
        /// 1 after a clean stop.
        pub is_clean: AtomicU32,
        /// Changes when an index that nobody uses is taken into use.
        pub epoch: AtomicU32,
        /// The last generation given.
        pub generation: AtomicU32,
        /// A writer died: the counters may be off.
        pub wants_recount: AtomicU32,
        /// Files may exist that have no slot yet.
        pub is_partial: AtomicU32,
        _line_1: [AtomicU32; 11],
        /// Disk bytes of all files.
        pub bytes: AtomicU64,
        /// Slots that are taken.
        pub objects: AtomicU64,
        _line_2: [AtomicU64; 6],
        /// Limit of `bytes`; 0 is none.
        pub size_bytes: AtomicU64,
        /// Where eviction stands: the generation that it looked at last.
        pub hand: AtomicU64,
        /// Where the scrubber stands, a slot number.
        pub scrub_at: AtomicU64,
        _line_3: [AtomicU64; 5],
    }
}

/// The mapped parts of the file.
#[derive(Debug)]
pub struct Table {
    /// The mapping.
    pub map: SharedMap,
    /// One header.
    pub header: SharedSlice<Header>,
    /// The processes that write.
    pub owners: OwnerTable,
    /// The buckets, at least two.
    pub buckets: SharedSlice<Bucket>,
    /// How often each slot answered: see `hits`.
    pub(super) hits: SharedSlice<AtomicU32>,
}

impl Table {
    /// Opens `DIR/index` for `n_objects`, making a new one if it is not usable as it is. Takes the
    /// same short time for any number of objects. One process at a time: see
    /// [`directory_lock`](crate::cache::directory_lock).
    ///
    /// # Errors
    ///
    /// When the directory cannot be written or the disk has no room.
    pub fn open(dir: &Path, n_objects: usize) -> Result<(Self, Opened), IndexError> {
        let (table, opened) = Self::open_beside(dir, n_objects)?;
        match table.take_place(dir) {
            Ok(()) => Ok((table, opened)),
            Err(error) => {
                table.withdraw(dir);
                Err(error)
            }
        }
    }

    /// As [`Table::open`], but a new index is made beside the present one, which may be in use,
    /// until [`Table::take_place`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_beside(dir: &Path, n_objects: usize) -> Result<(Self, Opened), IndexError> {
        if n_objects == 0 || n_objects > OBJECTS_MAX {
            return Err(IndexError::Objects(n_objects));
        }
        let path = dir.join(FILE_NAME);
        let doing = |action| {
            let path = path.clone();
            move |source| IndexError::Io { action, path, source }
        };
        let geometry = Geometry::of(n_objects);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if let Some(file) = open_current(&path, &options, Some(geometry)).map_err(doing("open"))? {
            let table = Self::map(&file, geometry).map_err(doing("map"))?;
            let opened = table.take_into_use();
            let opened = if table.is_partial() { Opened::Partial } else { opened };
            return Ok((table, opened));
        }
        let opened = match path.symlink_metadata() {
            Err(_) => Opened::Fresh,
            Ok(_) if matches!(open_current(&path, &options, None), Ok(Some(_))) => Opened::Resized,
            Ok(_) => Opened::Replaced,
        };
        let beside = dir.join(NEW_NAME);
        let made = create(&beside, geometry).and_then(|file| Self::map(&file, geometry));
        if made.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        Ok((made.map_err(doing("create"))?, opened))
    }

    /// Gives a new index its name, in the place of the one before; nothing to do for any other.
    ///
    /// # Errors
    ///
    /// An error of the file system.
    pub fn take_place(&self, dir: &Path) -> Result<(), IndexError> {
        let (beside, path) = (dir.join(NEW_NAME), dir.join(FILE_NAME));
        if !self.map.is_at(&beside) {
            return Ok(());
        }
        let failed = |source| IndexError::Io { action: "create", path: path.clone(), source };
        std::fs::rename(&beside, &path).map_err(failed)
    }

    /// Removes a new index that has not taken its place.
    pub fn withdraw(&self, dir: &Path) {
        let beside = dir.join(NEW_NAME);
        if self.map.is_at(&beside) {
            let _ = std::fs::remove_file(&beside);
        }
    }

    /// Maps the index that is there, of whatever size, and changes nothing.
    ///
    /// # Errors
    ///
    /// When there is none, or one of another version.
    pub fn open_existing(dir: &Path) -> Result<Self, IndexError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        Self::open_as_it_is(dir, &options, SharedMap::file)
    }

    /// As [`Table::open_existing`], mapped for reading only. Read permission is enough.
    ///
    /// # Errors
    ///
    /// As there.
    pub(super) fn open_for_reading(dir: &Path) -> Result<Self, IndexError> {
        Self::open_as_it_is(dir, OpenOptions::new().read(true), SharedMap::file_for_reading)
    }

    /// Whether the file has its full length: a process that touches a truncated part dies.
    pub fn is_whole(&self) -> bool {
        self.map.is_whole()
    }

    /// Whether `DIR/index` is the mapped file, and was not truncated.
    pub fn is_in_place(&self, dir: &Path) -> bool {
        self.is_whole() && self.map.is_at(&dir.join(FILE_NAME))
    }

    /// Whether files may exist that have no slot yet.
    #[inline]
    pub fn is_partial(&self) -> bool {
        self.header().is_partial.load(Ordering::Acquire) != 0
    }

    /// Notes that the rebuild is complete: from now on a file without a slot is an orphan.
    pub fn set_complete(&self) {
        self.header().is_partial.store(0, Ordering::Release);
    }

    /// The number of a key's first bucket, by the key's upper half; never the last one.
    #[inline]
    pub(super) fn home(&self, high: u64) -> usize {
        let n_homes = self.buckets.len() - 1;
        ((u128::from(high) * n_homes as u128) >> 64) as usize
    }

    /// The header.
    #[inline]
    pub fn header(&self) -> &Header {
        // `map` made it a slice of exactly one.
        &self.header[0]
    }

    fn open_as_it_is(
        dir: &Path,
        options: &OpenOptions,
        map: impl FnOnce(&File, usize) -> io::Result<SharedMap>,
    ) -> Result<Self, IndexError> {
        let path = dir.join(FILE_NAME);
        let failed = |source| IndexError::Io { action: "open", path: path.clone(), source };
        let file = open_current(&path, options, None).map_err(failed)?;
        let file = file.ok_or_else(|| IndexError::NotOurs(path.clone()))?;
        let mut start = [0; STATIC_LEN];
        file.read_exact_at(&mut start, 0).map_err(failed)?;
        let geometry = parse_static(&start).ok_or_else(|| IndexError::NotOurs(path.clone()))?;
        let mapped = geometry.file_len().and_then(|len| map(&file, len));
        mapped.and_then(|map| Self::over(map, geometry)).map_err(failed)
    }

    fn map(file: &File, geometry: Geometry) -> io::Result<Self> {
        Self::over(SharedMap::file(file, geometry.file_len()?)?, geometry)
    }

    fn over(map: SharedMap, geometry: Geometry) -> io::Result<Self> {
        Ok(Self {
            header: map.slice(0, 1)?,
            owners: OwnerTable::new(map.slice(OWNERS_AT, ROWS_MAX)?),
            buckets: map.slice(BUCKETS_AT, geometry.n_buckets)?,
            hits: map.slice(
                BUCKETS_AT + geometry.n_buckets * size_of::<Bucket>(),
                geometry.n_buckets * SLOTS,
            )?,
            map,
        })
    }

    fn take_into_use(&self) -> Opened {
        let header = self.header();
        let was_clean = header.is_clean.swap(0, Ordering::AcqRel) == 1;
        if self.owners.is_anyone_alive(None) {
            return Opened::Clean;
        }
        // The files may have changed meanwhile, so each body is verified again at its first use.
        header.epoch.fetch_add(1, Ordering::AcqRel);
        if was_clean {
            return Opened::Clean;
        }
        header.wants_recount.store(1, Ordering::Release);
        Opened::Unclean
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Geometry {
    n_objects: usize,
    n_buckets: usize,
}

impl Geometry {
    /// On average five of seven slots are taken when the index has all its objects. The few buckets
    /// that overflow use their neighbours.
    const fn of(n_objects: usize) -> Self {
        Self { n_objects, n_buckets: n_objects / 5 + 8 }
    }

    fn file_len(self) -> io::Result<usize> {
        self.n_buckets
            .checked_mul(size_of::<Bucket>() + SLOTS * size_of::<AtomicU32>())
            .and_then(|len| len.checked_add(BUCKETS_AT))
            .ok_or_else(|| io::Error::other("the index is larger than the address space"))
    }
}

/// Opens the file if it is a whole index of this version (of this geometry, when one is given).
fn open_current(
    path: &Path,
    options: &OpenOptions,
    expected: Option<Geometry>,
) -> io::Result<Option<File>> {
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut start = [0; STATIC_LEN];
    let n_read = read_full_at(&file, &mut start, 0, Access::Wait)?;
    let geometry = if n_read == STATIC_LEN { parse_static(&start) } else { None };
    let Some(geometry) = geometry else { return Ok(None) };
    let is_whole = file.metadata()?.len() == geometry.file_len()? as u64;
    let is_expected = expected.is_none_or(|expected| expected == geometry);
    Ok((is_whole && is_expected).then_some(file))
}

/// A new file, all its blocks on the disk, with the static part of the header written.
fn create(path: &Path, geometry: Geometry) -> io::Result<File> {
    let _ = std::fs::remove_file(path);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(path)?;
    crate::sys::file::allocate_all(&file, geometry.file_len()? as u64)?;
    file.write_all_at(&static_bytes(geometry), 0)?;
    file.write_all_at(&first_epoch().to_le_bytes(), EPOCH_AT)?;
    file.write_all_at(&1_u32.to_le_bytes(), PARTIAL_AT)?;
    Ok(file)
}

/// Stamps of a lost index must not be valid in the new one.
fn first_epoch() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_micros() as u32)
}

fn static_bytes(geometry: Geometry) -> [u8; STATIC_LEN] {
    let mut bytes = [0; STATIC_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&(geometry.n_objects as u64).to_le_bytes());
    bytes[24..32].copy_from_slice(&(geometry.n_buckets as u64).to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn parse_static(bytes: &[u8; STATIC_LEN]) -> Option<Geometry> {
    let n_objects = u64::from_le_bytes(bytes[16..24].try_into().ok()?);
    let n_objects = usize::try_from(n_objects).ok().filter(|&n| n <= OBJECTS_MAX)?;
    let geometry = Geometry::of(n_objects);
    (static_bytes(geometry) == *bytes).then_some(geometry)
}

pub(crate) const MAGIC: &[u8; 8] = b"ktrixidx";
const VERSION: u32 = 2;
const STATIC_LEN: usize = 32;
const EPOCH_AT: u64 = 68;
const PARTIAL_AT: u64 = 80;
const _: () = assert!(std::mem::offset_of!(Header, epoch) == EPOCH_AT as usize, "pinned");
const _: () = assert!(std::mem::offset_of!(Header, is_partial) == PARTIAL_AT as usize, "pinned");
const OWNERS_AT: usize = 4096;
const BUCKETS_AT: usize = 20480;
const _: () = assert!(OWNERS_AT + ROWS_MAX * 32 <= BUCKETS_AT, "owner rows end before the buckets");

/// A count below zero, which a crash can leave, as zero.
pub(super) fn without_debt(count: u64) -> u64 {
    if count > u64::MAX / 2 { 0 } else { count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_index_is_fresh_then_partial_then_unclean_then_clean() {
        let dir = tempfile::tempdir().unwrap();
        let (table, opened) = Table::open(dir.path(), 100).unwrap();
        assert_eq!((opened, table.buckets.len()), (Opened::Fresh, 28));
        drop(table);
        for is_clean in [0, 1] {
            let (table, opened) = Table::open(dir.path(), 100).unwrap();
            assert_eq!(opened, Opened::Partial, "clean: {is_clean}");
            table.header().is_clean.store(1, Ordering::Relaxed);
        }
        let (table, _) = Table::open(dir.path(), 100).unwrap();
        table.set_complete();
        drop(table);
        let (table, opened) = Table::open(dir.path(), 100).unwrap();
        assert_eq!(opened, Opened::Unclean);
        table.header().is_clean.store(1, Ordering::Relaxed);
        assert_eq!(Table::open(dir.path(), 100).unwrap().1, Opened::Clean);
        let owner = table.owners.claim(0..9);
        assert!(owner.is_some());
        assert_eq!(Table::open(dir.path(), 100).unwrap().1, Opened::Clean, "others live");
    }

    #[test]
    fn the_epoch_changes_at_every_start_but_not_beside_those_who_live() {
        let dir = tempfile::tempdir().unwrap();
        let epoch = |table: &Table| table.header().epoch.load(Ordering::Relaxed);
        let (table, _) = Table::open(dir.path(), 100).unwrap();
        let mut last = epoch(&table);
        for is_clean in [0, 1, 1, 0] {
            table.header().is_clean.store(is_clean, Ordering::Relaxed);
            let (table, _) = Table::open(dir.path(), 100).unwrap();
            assert_eq!(epoch(&table), last.wrapping_add(1), "clean: {is_clean}");
            last = epoch(&table);
        }
        let (owner, _) = table.owners.claim(0..9).unwrap();
        assert_eq!(epoch(&Table::open(dir.path(), 100).unwrap().0), last, "a reload");
        table.owners.release(owner);
        assert_eq!(epoch(&Table::open_existing(dir.path()).unwrap()), last, "a command beside it");
    }

    #[test]
    fn what_is_not_ours_is_replaced_and_never_changed() {
        let doomers: [fn(&File); 5] = [
            |file| file.set_len(20_000).unwrap(),
            |file| file.set_len(0).unwrap(),
            |file| file.set_len(1 << 20).unwrap(),
            |file| file.write_all_at(b"?", 3).unwrap(),
            |file| file.write_all_at(&[9], 20).unwrap(),
        ];
        for doom in doomers {
            let dir = tempfile::tempdir().unwrap();
            drop(Table::open(dir.path(), 50).unwrap());
            let path = dir.path().join(FILE_NAME);
            let before = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            doom(&before);
            let len = before.metadata().unwrap().len();
            assert!(matches!(Table::open_existing(dir.path()), Err(IndexError::NotOurs(_))));
            assert_eq!(Table::open(dir.path(), 50).unwrap().1, Opened::Replaced);
            assert_eq!(before.metadata().unwrap().len(), len);
            assert!(Table::open_existing(dir.path()).is_ok());
            assert!(!dir.path().join(NEW_NAME).exists());
        }
    }

    #[test]
    fn another_version_is_replaced_even_if_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let geometry = Geometry::of(50);
        for version in [VERSION - 1, VERSION + 1, u32::MAX] {
            drop(Table::open(dir.path(), 50).unwrap());
            let mut bytes = static_bytes(geometry);
            bytes[8..16].fill(0);
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            let crc = crc32c::crc32c(&bytes);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            let path = dir.path().join(FILE_NAME);
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            file.write_all_at(&1_u32.to_le_bytes(), 64).unwrap();
            assert!(matches!(Table::open_existing(dir.path()), Err(IndexError::NotOurs(_))));
            assert_eq!(Table::open(dir.path(), 50).unwrap().1, Opened::Replaced, "{version}");
        }
    }

    #[test]
    fn a_new_one_beside_leaves_the_one_in_use_until_it_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (old, _) = Table::open(dir.path(), 50).unwrap();
        let (given_up, opened) = Table::open_beside(dir.path(), 51).unwrap();
        assert_eq!((opened, old.is_in_place(dir.path())), (Opened::Resized, true));
        given_up.withdraw(dir.path());
        assert!(!dir.path().join(NEW_NAME).exists());
        let (forgotten, _) = Table::open_beside(dir.path(), 52).unwrap();
        let (new, _) = Table::open_beside(dir.path(), 53).unwrap();
        forgotten.take_place(dir.path()).unwrap();
        forgotten.withdraw(dir.path());
        assert!(old.is_in_place(dir.path()));
        new.take_place(dir.path()).unwrap();
        assert!(new.is_in_place(dir.path()) && !old.is_in_place(dir.path()));
        new.withdraw(dir.path());
        new.take_place(dir.path()).unwrap();
        assert!(new.is_in_place(dir.path()) && !dir.path().join(NEW_NAME).exists());
    }

    #[test]
    fn another_number_of_objects_is_another_index() {
        let dir = tempfile::tempdir().unwrap();
        drop(Table::open(dir.path(), 50).unwrap());
        assert_eq!(Table::open(dir.path(), 51).unwrap().1, Opened::Resized);
        assert!(matches!(Table::open(dir.path(), 0), Err(IndexError::Objects(0))));
        let missing = dir.path().join("nowhere");
        let text = Table::open(&missing, 5).unwrap_err().to_string();
        assert!(text.contains("nowhere/index"), "{text}");
    }
}
