//! Changes of folders, by inotify.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// A watch of several folders.
#[derive(Debug)]
pub(crate) struct FolderWatch(Inotify);

impl FolderWatch {
    /// Watches these folders. Those that are not there are left out.
    ///
    /// # Errors
    /// When the system allows no more watches.
    pub(crate) fn new<'p>(folders: impl IntoIterator<Item = &'p Path>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        for folder in folders {
            match inotify.add_watch(folder, changes()).map_err(io::Error::from) {
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOSPC) => return Err(error),
                // A later look finds what this watch misses.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(Self(inotify))
    }

    /// Readable when a folder has changed.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Whether a folder has changed since the last call.
    pub(crate) fn take_change(&self) -> bool {
        let mut is_change = false;
        while self.0.read_events().is_ok_and(|events| !events.is_empty()) {
            is_change = true;
        }
        is_change
    }
}

/// Files that were written, renamed, linked, removed, or given to another owner, and the same for the
/// folder.
fn changes() -> AddWatchFlags {
    AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_ONLYDIR
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_way_to_replace_a_file_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a"), "1").unwrap();
        let none = path("none");
        let watch = FolderWatch::new([dir.path(), &none]).unwrap();
        assert!(!watch.take_change());
        let changes: [(&str, &dyn Fn()); 5] = [
            ("write", &|| fs::write(path("a"), "2").unwrap()),
            ("create", &|| fs::write(path("b"), "3").unwrap()),
            ("rename", &|| fs::rename(path("b"), path("a")).unwrap()),
            ("link", &|| std::os::unix::fs::symlink("a", path("c")).unwrap()),
            ("remove", &|| fs::remove_file(path("c")).unwrap()),
        ];
        for (name, change) in changes {
            change();
            assert!(watch.take_change(), "{name}");
            assert!(!watch.take_change(), "{name} is told once");
        }
        fs::read(path("a")).unwrap();
        assert!(!watch.take_change(), "a read is no change");
    }
}
