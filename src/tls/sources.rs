//! The files that the TLS of a configuration is made of: certificates, keys, authorities, lists.
//!
//! The master reads them, because only root may be able to read a key. What it has read it hands to
//! workers that run already, in memory without a name, and they make the same of the same bytes.
//!
//! ```text
//! each file:  kind (1) | length of the path (4) | length of the rest (4) | path | rest
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use zeroize::Zeroizing;

use crate::config::source;
use crate::sys::shm;

/// The bytes of a file, erased when the last owner drops them.
pub(crate) type Text = Rc<Zeroizing<Vec<u8>>>;

/// The files of a configuration, as they are on the disk or as the master has read them.
#[derive(Debug)]
pub(crate) struct Sources {
    is_disk: bool,
    found: RefCell<BTreeMap<PathBuf, Found>>,
    stamps: RefCell<Stamps>,
}

/// The thing at a path.
#[derive(Clone)]
enum Found {
    File(Text),
    /// The files of a folder, sorted by name.
    Folder(Vec<PathBuf>),
    /// Why it cannot be used, in one line.
    Wrong(String),
}

impl Sources {
    /// The files on the disk.
    pub(crate) fn of_disk() -> Self {
        Self { is_disk: true, found: RefCell::default(), stamps: RefCell::default() }
    }

    /// The bytes of a file. Each is read once.
    ///
    /// # Errors
    /// Why it cannot be used, in one line.
    pub(crate) fn read(&self, path: &Path, bytes_max: u64) -> Result<Text, String> {
        let read = || match source::read(path, bytes_max) {
            Ok(bytes) => Found::File(Rc::new(Zeroizing::new(bytes))),
            Err(why) => Found::Wrong(why),
        };
        match self.find(path, read) {
            Found::File(text) => Ok(text),
            Found::Folder(_) => Err("is not a file".to_owned()),
            Found::Wrong(why) => Err(why),
        }
    }

    /// The files of a folder, sorted by name; `None` if the path is no folder.
    ///
    /// # Errors
    /// Why the folder cannot be read, in one line.
    // For the folders of authorities and revocation lists.
    #[allow(dead_code)]
    pub(crate) fn files_in(&self, path: &Path) -> Result<Option<Vec<PathBuf>>, String> {
        if self.is_disk && !path.is_dir() {
            return Ok(None);
        }
        match self.find(path, || folder(path)) {
            Found::File(_) => Ok(None),
            Found::Folder(files) => Ok(Some(files)),
            Found::Wrong(why) => Err(why),
        }
    }

    fn find(&self, path: &Path, read: impl FnOnce() -> Found) -> Found {
        if let Some(found) = self.found.borrow().get(path) {
            return found.clone();
        }
        if !self.is_disk {
            return Found::Wrong("was not handed over".to_owned());
        }
        // Before the bytes are read: a change in between is seen later.
        self.note(path);
        let found = read();
        self.found.borrow_mut().insert(path.to_owned(), found.clone());
        found
    }

    /// Notes what a file looks like that is read elsewhere.
    pub(crate) fn note(&self, path: &Path) {
        self.stamps.borrow_mut().0.insert(path.to_owned(), stamp(path));
    }

    /// The looks of the files when they were read.
    pub(crate) fn stamps(&self) -> Stamps {
        self.stamps.borrow().clone()
    }

    /// The files in memory without a name, for another process.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub(crate) fn to_file(&self) -> io::Result<File> {
        let mut bytes = Zeroizing::new(Vec::new());
        for (path, found) in self.found.borrow().iter() {
            let (kind, rest) = found.encoded();
            let path = path.as_os_str().as_bytes();
            bytes.push(kind);
            for len in [path.len(), rest.len()] {
                let len =
                    u32::try_from(len).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
                bytes.extend_from_slice(&len.to_be_bytes());
            }
            bytes.extend_from_slice(path);
            bytes.extend_from_slice(&rest);
        }
        let mut file = shm::unnamed_file()?;
        file.write_all(&bytes)?;
        Ok(file)
    }

    /// The files that another process has read.
    ///
    /// # Errors
    /// When the file was not made by [`Self::to_file`].
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let mut bytes = Zeroizing::new(vec![0; len]);
        // The offset of the file is that of every process that has got it.
        file.read_exact_at(&mut bytes, 0)?;
        let found = decoded(&bytes).ok_or_else(|| io::Error::from(ErrorKind::InvalidData))?;
        Ok(Self { is_disk: false, found: RefCell::new(found), stamps: RefCell::default() })
    }
}

impl Found {
    fn encoded(&self) -> (u8, Zeroizing<Vec<u8>>) {
        match self {
            Self::File(text) => (b'f', Zeroizing::new(text.to_vec())),
            Self::Folder(files) => {
                let names: Vec<_> = files.iter().map(|file| file.as_os_str()).collect();
                (b'd', Zeroizing::new(names.join(OsStr::new("\0")).into_vec()))
            }
            Self::Wrong(why) => (b'w', Zeroizing::new(why.clone().into_bytes())),
        }
    }

    fn of(kind: u8, rest: &[u8]) -> Option<Self> {
        Some(match kind {
            b'f' => Self::File(Rc::new(Zeroizing::new(rest.to_vec()))),
            b'd' => {
                let names = rest.split(|byte| *byte == 0).filter(|name| !name.is_empty());
                Self::Folder(names.map(path_of).collect())
            }
            b'w' => Self::Wrong(String::from_utf8(rest.to_vec()).ok()?),
            _ => return None,
        })
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(text) => write!(f, "{} bytes", text.len()),
            Self::Folder(files) => write!(f, "{} files", files.len()),
            Self::Wrong(why) => f.write_str(why),
        }
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

fn folder(path: &Path) -> Found {
    match fs::read_dir(path) {
        Ok(entries) => {
            let files = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
            let mut files: Vec<_> = files.collect();
            files.sort();
            Found::Folder(files)
        }
        Err(error) => Found::Wrong(format!("cannot be read: {error}")),
    }
}

fn decoded(mut bytes: &[u8]) -> Option<BTreeMap<PathBuf, Found>> {
    let mut found = BTreeMap::new();
    while let Some((kind, rest)) = bytes.split_first() {
        let (path_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (rest_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (path, rest) = rest.split_at_checked(u32::from_be_bytes(*path_bytes) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*rest_bytes) as usize)?;
        found.insert(path_of(path), Found::of(*kind, value)?);
        bytes = rest;
    }
    Some(found)
}

/// The looks of files: inode, length and times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamps(BTreeMap<PathBuf, Option<[i64; 7]>>);

impl Stamps {
    /// Whether the files still look so.
    pub(crate) fn are_current(&self) -> bool {
        self.0.iter().all(|(path, before)| stamp(path) == *before)
    }

    /// The folders in which a change of these files shows, those behind symbolic links included.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        let mut add = |path: &Path| folders.extend(path.parent().map(Path::to_owned));
        for path in self.0.keys() {
            add(path);
            let real = fs::canonicalize(path);
            real.iter().for_each(|real| add(real));
            // A link to a folder, which may lead to another one later.
            path.ancestors().filter(|above| above.is_symlink()).for_each(&mut add);
            if path.is_dir() {
                // Its name stands for its files, and it may be a link itself.
                add(&path.join("."));
            }
        }
        folders.sort();
        folders.dedup();
        folders
    }
}

fn stamp(path: &Path) -> Option<[i64; 7]> {
    let of = |it: Metadata| {
        let (device, inode, len) = (it.dev() as i64, it.ino() as i64, it.len() as i64);
        [device, inode, len, it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()]
    };
    fs::metadata(path).ok().map(of)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_process_finds_the_same_files_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("crl")).unwrap();
        for (name, text) in [("a.pem", "certificate"), ("crl/2", "two"), ("crl/1", "one")] {
            fs::write(path(name), text).unwrap();
        }
        let disk = Sources::of_disk();
        let read = |sources: &Sources, name: &str| {
            sources.read(&path(name), 100).map(|text| String::from_utf8_lossy(&text).into_owned())
        };
        let told = |sources: &Sources| {
            let files = sources.files_in(&path("crl")).unwrap().unwrap();
            assert_eq!(files, [path("crl/1"), path("crl/2")]);
            assert_eq!(sources.files_in(&path("a.pem")), Ok(None));
            ["a.pem", "crl/1", "none"].map(|name| read(sources, name))
        };
        let [a, one, none] = told(&disk);
        assert_eq!((a.as_deref(), one.as_deref()), (Ok("certificate"), Ok("one")));
        assert!(none.as_ref().unwrap_err().starts_with("cannot be read: "));
        let handed = Sources::of_file(&disk.to_file().unwrap()).unwrap();
        for name in ["a.pem", "crl/1"] {
            fs::write(path(name), "changed since").unwrap();
        }
        assert_eq!(told(&handed), [a, one, none]);
        assert_eq!(read(&handed, "crl/2"), Err("was not handed over".to_owned()));
        assert!(!disk.stamps().are_current());
    }

    #[test]
    fn a_link_to_a_folder_is_watched_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("releases/1/tls")).unwrap();
        fs::create_dir(path("site")).unwrap();
        fs::write(path("releases/1/tls/c.pem"), "1").unwrap();
        std::os::unix::fs::symlink("../releases/1", path("site/current")).unwrap();
        let disk = Sources::of_disk();
        disk.read(&path("site/current/tls/c.pem"), 9).unwrap();
        let folders = disk.stamps().folders();
        assert_eq!(folders, [path("releases/1/tls"), path("site"), path("site/current/tls")]);
    }

    #[test]
    fn a_change_of_a_file_shows_in_its_folders() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in ["live", "archive"] {
            fs::create_dir(path(folder)).unwrap();
        }
        fs::write(path("archive/c1.pem"), "1").unwrap();
        std::os::unix::fs::symlink("../archive/c1.pem", path("live/c.pem")).unwrap();
        let disk = Sources::of_disk();
        assert_eq!(**disk.read(&path("live/c.pem"), 9).unwrap(), b"1");
        assert!(disk.read(&path("later/k.pem"), 9).is_err());
        let stamps = disk.stamps();
        assert_eq!(stamps.folders(), [path("archive"), path("later"), path("live")]);
        assert!(stamps.are_current());
        fs::create_dir(path("later")).unwrap();
        fs::write(path("archive/c2.pem"), "2").unwrap();
        assert!(stamps.are_current());
        fs::remove_file(path("live/c.pem")).unwrap();
        std::os::unix::fs::symlink("../archive/c2.pem", path("live/c.pem")).unwrap();
        assert!(!stamps.are_current());
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded(&bytes);
        }
    }
}
