//! Descriptors with names that a process has from its start (sd_listen_fds_with_names(3)).
//!
//! systemd passes the sockets of socket units and what its store holds for the service. A ktrix that
//! is replaced passes its own in the same way, so the one that starts need not tell them apart.

use std::env;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// A descriptor, and the name that it was passed by.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) name: String,
    pub(crate) fd: OwnedFd,
}

/// The descriptors that were passed to this process, closed on exec. To be asked once, while the
/// process starts.
pub(crate) fn take() -> Vec<Passed> {
    let number = |name: &str| env::var(name).ok()?.parse::<i32>().ok();
    let is_ours = number(PID) == Some(nix::unistd::getpid().as_raw());
    let n_fds = if is_ours { number(FDS).unwrap_or(0) } else { 0 };
    let names = env::var(NAMES).unwrap_or_default();
    let mut names = names.split(':');
    let fds = (0..n_fds.clamp(0, FDS_MAX)).map(|n| (names.next().unwrap_or(""), FIRST + n));
    fds.filter_map(|(name, fd)| Some(Passed { name: name.to_owned(), fd: owned(fd)? })).collect()
}

/// Takes the first one of this name out.
pub(crate) fn find(passed: &mut Vec<Passed>, name: &str) -> Option<OwnedFd> {
    let at = passed.iter().position(|it| it.name == name)?;
    Some(passed.remove(at).fd)
}

fn owned(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: the descriptor is only looked at here, and F_GETFD fails if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_GETFD).ok()?;
    // SAFETY: it is open, it was passed to this process to own, and `take` is called once, before
    // anything else could have taken it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    Some(fd)
}

/// Runs a program in the place of this one, with these descriptors, and the environment of this
/// process but for the variables that are for one process alone. For a child that was just forked:
/// it returns only after an error, with the first of the descriptors, and the numbers of its other
/// descriptors may mean something else by then.
pub(crate) fn exec(
    program: &Path,
    args: &[OsString],
    passed: &[(String, BorrowedFd<'_>)],
) -> (Option<OwnedFd>, io::Error) {
    // Above all numbers that are written below.
    let above = FIRST + passed.len() as RawFd;
    let copy = |(_, fd): &(String, BorrowedFd<'_>)| {
        let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(above))?;
        // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    let copies: io::Result<Vec<OwnedFd>> = passed.iter().map(copy).collect();
    let mut copies = match copies {
        Ok(copies) => copies,
        Err(error) => {
            let first = passed.first().and_then(|(_, fd)| fd.try_clone_to_owned().ok());
            return (first, error);
        }
    };
    let numbered = copies.iter().zip(FIRST..).try_for_each(|(fd, number)| {
        // SAFETY: the process runs another program next, or ends; until then nothing of it uses what
        // had this number.
        nix::Error::result(unsafe { nix::libc::dup2(fd.as_raw_fd(), number) }).map(drop)
    });
    let failed = match numbered {
        Ok(()) => try_exec(program, args, passed),
        Err(errno) => errno.into(),
    };
    let first = (!copies.is_empty()).then(|| copies.swap_remove(0));
    (first, failed)
}

fn try_exec(program: &Path, args: &[OsString], passed: &[(String, BorrowedFd<'_>)]) -> io::Error {
    let text = |text: OsString| CString::new(text.into_vec()).map_err(io::Error::from);
    let made = || {
        let program = text(program.as_os_str().to_owned())?;
        let args: io::Result<Vec<_>> = args.iter().cloned().map(text).collect();
        let env: io::Result<Vec<_>> = environment(passed).into_iter().map(text).collect();
        Ok((program, args?, env?))
    };
    match made() {
        Ok((program, args, env)) => match nix::unistd::execve(&program, &args, &env) {
            Ok(never) => match never {},
            Err(errno) => errno.into(),
        },
        Err(error) => error,
    }
}

/// The variables of this process, with those that say which process they are for as they are to be.
fn environment(passed: &[(String, BorrowedFd<'_>)]) -> Vec<OsString> {
    let pid = nix::unistd::getpid();
    let mut env: Vec<OsString> = Vec::new();
    for (name, value) in env::vars_os() {
        let value = match name.to_str() {
            Some(PID | FDS | NAMES) => continue,
            Some(WATCHDOG_PID) => pid.to_string().into(),
            _ => value,
        };
        env.push([name, "=".into(), value].into_iter().collect());
    }
    let names: Vec<&str> = passed.iter().map(|(name, _)| &**name).collect();
    env.push(format!("{PID}={pid}").into());
    env.push(format!("{FDS}={}", passed.len()).into());
    env.push(format!("{NAMES}={}", names.join(":")).into());
    env
}

const PID: &str = "LISTEN_PID";
const FDS: &str = "LISTEN_FDS";
const NAMES: &str = "LISTEN_FDNAMES";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
const FIRST: RawFd = 3;
/// More than any service has: a socket for each of 128 workers and 30 addresses.
const FDS_MAX: i32 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_another_process_are_left_alone() {
        assert!(take().is_empty());
    }
}
