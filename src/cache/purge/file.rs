//! The file of the purges: its header, its geometry, and how it is opened, checked and replaced.
//!
//! `DIR/purges` is mapped by the master, its children and the command line at once:
//!
//! | bytes | part |
//! | --- | --- |
//! | 0..4096 | header, fields below |
//! | 4096..8192 | 128 owner rows of 32 bytes (`sys::owner`) |
//! | 8192..270336 | journal: 1024 records of 256 bytes |
//! | 270336.. | buckets of 256 bytes |
//!
//! | bytes | header field | meaning |
//! | --- | --- | --- |
//! | 0..8 | magic | `ktrixprg` |
//! | 8..12 | version | 3 |
//! | 12..16 | crc | CRC-32C of magic, version, id and buckets |
//! | 16..24 | id | of this very file: 24 random bits, not 0 |
//! | 24..32 | buckets | how many follow, a power of two |
//! | 64..72 | version | counts every change, from 1 |
//! | 128..132 | lock | the writer ([`crate::shared::owner::Owner`] word), 0 = free |
//! | 136..144 | count | sealed number of the last purge |
//! | 144..152 | tagged | sealed number of the last purge of a tag or a group |
//! | 152..160 | logged | number of the last purge that the keeper has logged |
//! | 160..168 | synced | the version that was last written to the disk |
//! | 168..176 | boot | of the machine, in which it was made or last repaired ([`owner::boot`]) |
//! | 256..512 | lengths | bit n: there are or were purges of prefixes of n bytes |
//!
//! A file that is foreign, of another version, truncated or torn is never changed in place: a new
//! one, with another id, is renamed over it. A response that was stored under another id is not
//! valid.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::cache::purge::bucket::{Bucket, sealed, unsealed};
use crate::cache::purge::journal::{Line, RECORDS};
use crate::shared::owner::{self, OwnerRow, OwnerTable};
use crate::sys::file::{Access, read_full_at};
use crate::sys::shm::{SharedMap, SharedSlice, shared_struct};

/// Name of the file within the cache directory.
pub const FILE_NAME: &str = "purges";

/// Words of the set of lengths.
pub(super) const LENGTH_WORDS: usize = 32;

/// Why there is no table of purges.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused.
    #[error("cannot {action} {path:?}: {source}")]
    Io {
        /// The failed action.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// There is no file, or not one of this version.
    #[error("no table of purges at {0:?}, or one of another version (start ktrix to make it)")]
    NotOurs(PathBuf),
}

shared_struct! {
    /// The header: see the module's field table.
    #[derive(Debug)]
    pub(super) struct Header: 512 bytes, aligned 64 {
        magic: AtomicU64,
        form: AtomicU32,
        crc: AtomicU32,
        pub(super) id: AtomicU64,
        pub(super) n_buckets: AtomicU64,
        _line_0: [AtomicU64; 4],
        pub(super) version: AtomicU64,
        _line_1: [AtomicU64; 7],
        pub(super) lock: AtomicU32,
        _lock_rest: AtomicU32,
        pub(super) count: AtomicU64,
        pub(super) tagged: AtomicU64,
        pub(super) logged: AtomicU64,
        pub(super) synced: AtomicU64,
        pub(super) boot: AtomicU64,
        _line_2: [AtomicU64; 10],
        pub(super) lengths: [AtomicU64; LENGTH_WORDS],
    }
}

/// The mapped parts of the file.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) map: SharedMap,
    pub(super) header: SharedSlice<Header>,
    pub(super) owners: OwnerTable,
    pub(super) journal: SharedSlice<Line>,
    pub(super) buckets: SharedSlice<Bucket>,
}

impl Parts {
    /// Opens `DIR/purges`, or makes it with `n_buckets`; says whether it is new. One process at a
    /// time: see [`directory_lock`](crate::cache::directory_lock).
    pub(super) fn open(dir: &Path, n_buckets: usize) -> Result<(Self, bool), OpenError> {
        let path = dir.join(FILE_NAME);
        let doing = |action| {
            let path = path.clone();
            move |source| OpenError::Io { action, path, source }
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if let Some((file, form)) = open_ours(&path, &options).map_err(doing("open"))? {
            let parts = Self::map(&file, form.n_buckets).map_err(doing("map"))?;
            if parts.is_sound() {
                return Ok((parts, false));
            }
        }
        let beside = dir.join(NEW_NAME);
        let made = create(&beside, n_buckets).and_then(|file| {
            let parts = Self::map(&file, n_buckets)?;
            parts.map.flush()?;
            std::fs::rename(&beside, &path)?;
            Ok(parts)
        });
        if made.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        Ok((made.map_err(doing("create"))?, true))
    }

    /// Maps the existing file.
    pub(super) fn open_existing(dir: &Path) -> Result<Self, OpenError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        Self::open_as_it_is(dir, &options, SharedMap::file)
    }

    /// Maps the existing file for reading only.
    pub(super) fn open_for_reading(dir: &Path) -> Result<Self, OpenError> {
        Self::open_as_it_is(dir, OpenOptions::new().read(true), SharedMap::file_for_reading)
    }

    fn open_as_it_is(
        dir: &Path,
        options: &OpenOptions,
        map: impl FnOnce(&File, usize) -> io::Result<SharedMap>,
    ) -> Result<Self, OpenError> {
        let path = dir.join(FILE_NAME);
        let failed = |source| OpenError::Io { action: "open", path: path.clone(), source };
        let not_ours = || OpenError::NotOurs(path.clone());
        let (file, form) = open_ours(&path, options).map_err(failed)?.ok_or_else(not_ours)?;
        let mapped = map(&file, file_len(form.n_buckets));
        let parts = mapped.and_then(|map| Self::of(map, form.n_buckets)).map_err(failed)?;
        if parts.is_sound() { Ok(parts) } else { Err(not_ours()) }
    }

    fn map(file: &File, n_buckets: usize) -> io::Result<Self> {
        Self::of(SharedMap::file(file, file_len(n_buckets))?, n_buckets)
    }

    fn of(map: SharedMap, n_buckets: usize) -> io::Result<Self> {
        Ok(Self {
            header: map.slice(0, 1)?,
            owners: OwnerTable::new(map.slice::<OwnerRow>(OWNERS_AT, OWNERS)?),
            journal: map.slice(JOURNAL_AT, RECORDS)?,
            buckets: map.slice(BUCKETS_AT, n_buckets)?,
            map,
        })
    }

    /// Whether the count, on which all numbers depend, matches its seal.
    fn is_sound(&self) -> bool {
        let count = self.header[0].count.load(Ordering::Acquire);
        unsealed(count, COUNT_SEED).is_some()
    }
}

/// Seed of the seal of `count` and `tagged`.
pub(super) const COUNT_SEED: u64 = 0x6b74_7269_7863_6e74;

/// The static part of a header.
struct Form {
    n_buckets: usize,
}

fn open_ours(path: &Path, options: &OpenOptions) -> io::Result<Option<(File, Form)>> {
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut start = [0; STATIC_LEN];
    let is_whole = read_full_at(&file, &mut start, 0, Access::Wait)? == STATIC_LEN;
    let Some(form) = parse_static(&start).filter(|_| is_whole) else { return Ok(None) };
    let has_its_length = file.metadata()?.len() == file_len(form.n_buckets) as u64;
    Ok(has_its_length.then_some((file, form)))
}

fn create(path: &Path, n_buckets: usize) -> io::Result<File> {
    let _ = std::fs::remove_file(path);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(path)?;
    crate::sys::file::allocate_all(&file, file_len(n_buckets) as u64)?;
    file.write_all_at(&static_bytes(random_id(), n_buckets), 0)?;
    file.write_all_at(&1_u64.to_le_bytes(), VERSION_AT)?;
    file.write_all_at(&sealed(0, COUNT_SEED).to_le_bytes(), COUNT_AT)?;
    file.write_all_at(&owner::boot().to_le_bytes(), BOOT_AT)?;
    Ok(file)
}

/// The seeds of a hasher come from the system's random source.
fn random_id() -> u64 {
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (random & ID_MAX).max(1)
}

fn static_bytes(id: u64, n_buckets: usize) -> [u8; STATIC_LEN] {
    let mut bytes = [0; STATIC_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORM.to_le_bytes());
    bytes[16..24].copy_from_slice(&id.to_le_bytes());
    bytes[24..32].copy_from_slice(&(n_buckets as u64).to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn parse_static(bytes: &[u8; STATIC_LEN]) -> Option<Form> {
    let id = u64::from_le_bytes(bytes[16..24].try_into().ok()?);
    let n_buckets = u64::from_le_bytes(bytes[24..32].try_into().ok()?);
    let n_buckets = usize::try_from(n_buckets).ok()?;
    let is_sane = n_buckets.is_power_of_two() && n_buckets <= BUCKETS_MAX && id <= ID_MAX;
    (is_sane && static_bytes(id, n_buckets) == *bytes).then_some(Form { n_buckets })
}

const fn file_len(n_buckets: usize) -> usize {
    BUCKETS_AT + n_buckets * size_of::<Bucket>()
}

/// The largest id: a purge epoch has 24 bits for it above the number of a purge.
pub(super) const ID_MAX: u64 = (1 << 24) - 1;

pub(crate) const MAGIC: &[u8; 8] = b"ktrixprg";
const FORM: u32 = 3;
pub(crate) const NEW_NAME: &str = "purges.new";
const STATIC_LEN: usize = 32;
const VERSION_AT: u64 = 64;
const COUNT_AT: u64 = 136;
pub(super) const BOOT_AT: u64 = 168;
const OWNERS_AT: usize = 4096;
const OWNERS: usize = 128;
const JOURNAL_AT: usize = 8192;
const BUCKETS_AT: usize = JOURNAL_AT + RECORDS * size_of::<Line>();
const BUCKETS_MAX: usize = 1 << 20;
const _: () = assert!(OWNERS_AT + OWNERS * size_of::<OwnerRow>() <= JOURNAL_AT, "rows fit");
const _: () = assert!(std::mem::offset_of!(Header, version) == VERSION_AT as usize, "pinned");
const _: () = assert!(std::mem::offset_of!(Header, count) == COUNT_AT as usize, "pinned");
const _: () = assert!(std::mem::offset_of!(Header, boot) == BOOT_AT as usize, "pinned");
const _: () = assert!(std::mem::offset_of!(Header, lengths) == 256, "pinned");
