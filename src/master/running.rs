//! Finds the master that runs, for a command that it is sent.
//!
//! A pid file alone proves little: its text may be old, and a directory may be another user's. What
//! counts is the lock on the file, held by a process that is a master of ktrix. Root also wants
//! both to be root's, so that no other user can choose what root signals. It takes those of the user
//! that the configuration names too, if both are that user's: the user can signal its own process.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs2::FileExt;
use nix::unistd::Pid;
use thiserror::Error;

use crate::cache::directory_lock::holder;
use crate::sys::privileges::{self, Account};
use crate::sys::process;

/// A master that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: Pid,
    /// Its pid file.
    pub(crate) path: PathBuf,
    file: File,
}

/// Why no master was found.
#[derive(Debug, Error)]
pub(crate) enum NotFound {
    /// No process holds the pid file.
    #[error("ktrix is not running (no process holds the lock of \"{}\")", .0.display())]
    NotRunning(PathBuf),
    /// Another user could have written the file.
    #[error("root does not trust pid file \"{}\", since it belongs to another user", .0.display())]
    NotRoots(PathBuf),
    /// The lock is held by something else.
    #[error("pid file \"{}\" is locked by another program than a master of ktrix", .0.display())]
    NotMaster(PathBuf),
    /// The file cannot be used.
    #[error("cannot read pid file \"{}\": {source}", path.display())]
    Io {
        /// The pid file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The master that holds the pid file.
///
/// # Errors
/// See [`NotFound`].
pub(crate) fn by_pid_file(path: &Path, user: Option<&Account>) -> Result<Running, NotFound> {
    let owned = || path.to_owned();
    let failed = |source| NotFound::Io { path: owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(NotFound::NotRunning(owned()));
        }
        Err(error) => return Err(failed(error)),
    };
    let owner = file.metadata().map_err(failed)?.uid();
    if !is_trusted(owner, user) {
        return Err(NotFound::NotRoots(owned()));
    }
    match FileExt::try_lock_shared(&file) {
        Ok(()) => {
            // Closing the file frees the lock too.
            return Err(NotFound::NotRunning(owned()));
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(failed(error)),
    }
    let pid = pid_in(&file);
    if pid <= 1 {
        return Err(NotFound::NotRunning(owned()));
    }
    // The kernel's list of locks is not readable in every container.
    let is_holder = holder(&file).is_none_or(|holder| i32::try_from(holder) == Ok(pid));
    if !is_holder || !is_ktrix(pid, |uid| uid == owner) {
        return Err(NotFound::NotMaster(owned()));
    }
    Ok(Running { pid: Pid::from_raw(pid), path: owned(), file })
}

/// The master that was started with this configuration, whatever pid file it has by now.
pub(crate) fn by_configuration(
    configuration: &Path,
    default: &Path,
    user: Option<&Account>,
) -> Option<Running> {
    let wanted = fs::canonicalize(configuration).ok()?;
    let entries = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_it = |pid: &i32| is_master_of(*pid, &wanted, default, user);
    pids.filter(is_it).find_map(|pid| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.filter_map(Result::ok);
        let paths = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        let is_its_own = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() <= PID_BYTES_MAX)
                && File::open(path).is_ok_and(|file| pid_in(&file) == pid)
        };
        paths.filter(is_its_own).find_map(|path| by_pid_file(&path, user).ok())
    })
}

impl Running {
    /// Waits until the master has ended. It gives the lock up shortly before.
    pub(crate) fn wait_for_end(&self) -> io::Result<()> {
        FileExt::lock_shared(&self.file)?;
        while !self.has_ended() {
            std::thread::sleep(STEP);
        }
        Ok(())
    }

    /// Whether the master has ended, even if its parent has not asked for its exit code yet.
    pub(crate) fn has_ended(&self) -> bool {
        process::has_ended(self.pid.as_raw())
    }
}

/// The number in a pid file, or 0 if there is none.
pub(crate) fn pid_in(file: &File) -> i32 {
    let mut text = String::new();
    let _ = file.take(PID_BYTES_MAX).read_to_string(&mut text);
    text.trim().parse().unwrap_or(0)
}

const STEP: Duration = Duration::from_millis(5);
/// More digits than any pid has.
const PID_BYTES_MAX: u64 = 16;

/// Whether root may trust what belongs to this user; others have no more rights than it has.
fn is_trusted(uid: u32, user: Option<&Account>) -> bool {
    !privileges::is_root() || uid == 0 || user.is_some_and(|user| user.is_of(uid))
}

/// Whether the process runs the same program as this one, and for root as a user that it trusts. What
/// the system does not tell is no objection: the signal then fails.
fn is_ktrix(pid: i32, is_trusted: impl Fn(u32) -> bool) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let has_trust = fs::metadata(&proc).is_ok_and(|found| is_trusted(found.uid()));
    if privileges::is_root() && !has_trust {
        return false;
    }
    match (name_of(&proc.join("exe")), name_of(Path::new("/proc/self/exe"))) {
        (Some(theirs), Some(ours)) => theirs == ours,
        _ => true,
    }
}

/// The name of a program, which may have been replaced by a newer one.
fn name_of(exe: &Path) -> Option<Vec<u8>> {
    let exe = fs::read_link(exe).ok()?;
    let name = exe.file_name()?.as_bytes();
    Some(name.strip_suffix(b" (deleted)").unwrap_or(name).to_owned())
}

fn is_master_of(pid: i32, wanted: &Path, default: &Path, user: Option<&Account>) -> bool {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let is_child = read("comm").starts_with(b"ktrix-");
    !is_child
        && is_ktrix(pid, |uid| is_trusted(uid, user))
        && configuration_of(&read("cmdline"), default).is_some_and(|file| {
            let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            fs::canonicalize(cwd.join(file)).is_ok_and(|file| file == wanted)
        })
}

/// The file of `ktrix [--daemon] [FILE]`; `None` for another command.
fn configuration_of<'a>(cmdline: &'a [u8], default: &'a Path) -> Option<&'a Path> {
    let mut args = cmdline.split(|&byte| byte == 0).skip(1).filter(|arg| !arg.is_empty());
    let file = args.by_ref().find(|arg| *arg != b"--daemon");
    let is_last = args.all(|arg| arg == b"--daemon");
    match file {
        None => Some(default),
        Some(file) if is_last && !file.starts_with(b"-") => {
            Some(Path::new(OsStr::from_bytes(file)))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_stands_in_the_command_line() {
        let default = Path::new("/etc/ktrix/ktrix.yaml");
        for (cmdline, file) in [
            (&b"ktrix\0"[..], Some("/etc/ktrix/ktrix.yaml")),
            (b"/usr/sbin/ktrix\0--daemon\0a.yaml\0", Some("a.yaml")),
            (b"ktrix\0a.yaml\0--daemon\0", Some("a.yaml")),
            (b"ktrix\0--daemon\0", Some("/etc/ktrix/ktrix.yaml")),
            (b"ktrix\0--upstream\0http://a\0", None),
            (b"ktrix\0-s\0reload\0a.yaml\0", None),
            (b"ktrix\0cache\0list\0", None),
        ] {
            assert_eq!(configuration_of(cmdline, default), file.map(Path::new), "{cmdline:?}");
        }
    }

    #[test]
    fn what_is_no_pid_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ktrix.pid");
        for text in ["", "0\n", "-1\n", "1\n", "twelve\n"] {
            fs::write(&path, text).unwrap();
            let file = File::open(&path).unwrap();
            file.lock_exclusive().unwrap();
            assert!(by_pid_file(&path, None).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_file_of_another_user_and_a_lock_of_another_process_are_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ktrix.pid");
        // The parent of this process has not locked the file.
        fs::write(&path, format!("{}\n", nix::unistd::getppid())).unwrap();
        let file = File::open(&path).unwrap();
        file.lock_exclusive().unwrap();
        assert!(matches!(by_pid_file(&path, None), Err(NotFound::NotMaster(_))));
        fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert!(by_pid_file(&path, None).is_ok());
        if privileges::is_root() {
            std::os::unix::fs::chown(&path, Some(1), None).unwrap();
            let (daemon, bin) = (Account::of("daemon").unwrap(), Account::of("bin").unwrap());
            let of = |user| by_pid_file(&path, user);
            assert!(matches!(of(None), Err(NotFound::NotRoots(_))));
            assert!(matches!(of(Some(&bin)), Err(NotFound::NotRoots(_))));
            // A file of the user does not speak for a process of root.
            assert!(matches!(of(Some(&daemon)), Err(NotFound::NotMaster(_))));
        }
    }
}
