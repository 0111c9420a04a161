//! The pid file: its lock shows that ktrix is running, its text is the pid for signals.
//!
//! A master is running if the file is locked, not if it exists. The kernel drops the lock when the
//! last descriptor closes, so the file of a killed master does no harm. Children close their copy
//! first of all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs2::FileExt;
use thiserror::Error;

use crate::master::reload_report;
use crate::master::running::pid_in;
use crate::sys::file::is_at;

/// A locked pid file that names this process.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    file: File,
}

impl AsFd for PidFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Why there is no pid file.
#[derive(Debug, Error)]
pub(crate) enum PidFileError {
    /// Another master holds it.
    #[error("ktrix is already running as pid {pid} (it holds the lock of \"{}\")", path.display())]
    Running {
        /// That master's pid, as the file says; 0 when it has not written it yet.
        pid: i32,
        /// The pid file.
        path: PathBuf,
    },
    /// The file cannot be used.
    #[error("cannot {what} pid file \"{}\": {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The pid file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl PidFile {
    /// Takes the lock and writes the pid of this process.
    ///
    /// # Errors
    /// [`PidFileError::Running`] when another master has it.
    pub(crate) fn lock(path: &Path) -> Result<Self, PidFileError> {
        let mut n_tries = 0;
        loop {
            let file = open(path)?;
            match file.try_lock_exclusive() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    n_tries += 1;
                    if n_tries == N_TRIES_MAX {
                        let pid = pid_in(&file);
                        return Err(PidFileError::Running { pid, path: path.to_owned() });
                    }
                    // The other process may only be `ktrix -s`, which tests the lock.
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(source) => return Err(failed("lock", path, source)),
            }
            // A master that stops removes its file: then the lock is on a file without a name.
            if is_at(&file, path) {
                let pid_file = Self { path: path.to_owned(), file };
                pid_file.write_pid()?;
                return Ok(pid_file);
            }
        }
    }

    /// Writes another file over the one that is there, so that commands find either the master before
    /// or this one.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn replace(path: &Path) -> Result<Self, PidFileError> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        let _ = fs::remove_file(&new);
        let file = open(&new)?;
        file.try_lock_exclusive().map_err(|source| failed("lock", &new, source))?;
        let pid_file = Self { path: path.to_owned(), file };
        pid_file.write_pid()?;
        fs::rename(&new, path).map_err(|source| failed("replace", path, source))?;
        Ok(pid_file)
    }

    fn write_pid(&self) -> Result<(), PidFileError> {
        let mut file = &self.file;
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        written.map_err(|source| failed("write", &self.path, source))
    }

    /// Makes the file again if it was removed or replaced; says whether it was. The directory is
    /// not made, because its disk may not be mounted.
    ///
    /// # Errors
    /// As [`PidFile::lock`]; [`PidFileError::Running`] when another master has come meanwhile.
    pub(crate) fn restore(&mut self) -> Result<bool, PidFileError> {
        let is_dir = |dir: &Path| dir.as_os_str().is_empty() || dir.is_dir();
        let has_dir = self.path.parent().is_some_and(is_dir);
        if is_at(&self.file, &self.path) || !has_dir {
            return Ok(false);
        }
        *self = Self::lock(&self.path)?;
        Ok(true)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, if it is still the locked one, then drops the lock, at the end of a clean
    /// stop.
    pub(crate) fn remove(self) {
        // A file that stays does no harm, since only the lock counts.
        let _ = fs::remove_file(reload_report::path_of(&self.path));
        self.remove_for_another();
    }

    /// As [`Self::remove`], when another file takes its place: the outcome of the reload stays for a
    /// command that waits for it.
    pub(crate) fn remove_for_another(self) {
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

const N_TRIES_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_millis(10);

fn open(path: &Path) -> Result<File, PidFileError> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir)
            .map_err(|source| failed("create the directory of", path, source))?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        // A symbolic link in a directory that others may write must not lead root to another file.
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(|source| failed("open", path, source))
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> PidFileError {
    PidFileError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::running::{NotFound, by_pid_file};
    use crate::sys::process::{fork_child, send_signal, wait_for};
    use nix::sys::signal::Signal;
    use nix::unistd::Pid;

    fn running(path: &Path) -> Result<Pid, NotFound> {
        by_pid_file(path, None).map(|running| running.pid)
    }

    #[test]
    fn a_second_start_says_who_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/ktrix.pid");
        let held = PidFile::lock(&path).unwrap();
        let refusal = PidFile::lock(&path).unwrap_err().to_string();
        let me = std::process::id();
        assert_eq!(
            refusal,
            format!("ktrix is already running as pid {me} (it holds the lock of {path:?})")
        );
        assert_eq!(running(&path).unwrap().as_raw() as u32, me);
        held.remove();
        assert!(!path.exists());
        assert!(matches!(running(&path), Err(NotFound::NotRunning(_))));
    }

    #[test]
    fn a_start_after_a_killed_master_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ktrix.pid");
        let theirs = path.clone();
        let child = fork_child(&[], move || {
            let Ok(_held) = PidFile::lock(&theirs) else { return 1 };
            loop {
                nix::unistd::pause();
            }
        })
        .unwrap();
        while running(&path).is_err() {
            std::thread::yield_now();
        }
        assert_eq!(running(&path).unwrap(), child);
        send_signal(child, Signal::SIGKILL).unwrap();
        wait_for(child).unwrap();
        assert!(matches!(running(&path), Err(NotFound::NotRunning(_))));
        assert!(PidFile::lock(&path).is_ok());
    }

    #[test]
    fn a_replaced_file_is_the_new_masters_and_the_old_one_leaves_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ktrix.pid");
        let old = PidFile::lock(&path).unwrap();
        let new = PidFile::replace(&path).unwrap();
        assert!(is_at(&new.file, &path) && !is_at(&old.file, &path));
        old.remove_for_another();
        assert_eq!(running(&path).unwrap().as_raw() as u32, std::process::id());
        new.remove();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_removed_file_is_made_again_unless_another_master_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/ktrix.pid");
        let mut held = PidFile::lock(&path).unwrap();
        assert!(!held.restore().unwrap());
        fs::remove_file(&path).unwrap();
        assert!(held.restore().unwrap() && !held.restore().unwrap());
        assert_eq!(running(&path).unwrap().as_raw() as u32, std::process::id());
        fs::remove_file(&path).unwrap();
        let other = PidFile::lock(&path).unwrap();
        assert!(matches!(held.restore(), Err(PidFileError::Running { .. })));
        held.remove();
        assert!(path.exists(), "it is the other's");
        let mut held = PidFile { path: path.clone(), file: File::open(dir.path()).unwrap() };
        other.remove();
        fs::remove_dir(dir.path().join("run")).unwrap();
        assert!(!held.restore().unwrap() && !dir.path().join("run").exists());
    }
}
