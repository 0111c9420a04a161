//! The program that an upgrade runs: the one by which this ktrix was started, as it is by then.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys::passed;

/// A program, and its arguments.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    args: Vec<OsString>,
}

impl Program {
    /// The program of this process, by the name that it was started by, so that a symbolic link is
    /// followed again at each upgrade. To be asked while the process starts: a package may replace the file
    /// later.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let args: Vec<OsString> = env::args_os().collect();
        let file = fs::read_link(SELF)?;
        let named = args.first().map(PathBuf::from).unwrap_or_default();
        let path = candidates(&named).find(|path| is_running(path)).unwrap_or_else(|| {
            let name = file.into_os_string().into_vec();
            let name = name.strip_suffix(b" (deleted)").unwrap_or(&name);
            PathBuf::from(std::ffi::OsStr::from_bytes(name))
        });
        Ok(Self { path, args })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it in the place of this process, a child that was just forked; see [`passed::exec`].
    pub(crate) fn exec(&self, passed: &[(String, BorrowedFd<'_>)]) -> (Option<OwnedFd>, io::Error) {
        passed::exec(&self.path, &self.args, passed)
    }
}

/// The files that a shell could have meant.
fn candidates(named: &Path) -> impl Iterator<Item = PathBuf> {
    let is_path = named.as_os_str().as_bytes().contains(&b'/');
    let here = is_path.then(|| std::path::absolute(named).ok()).flatten();
    let search = if is_path { None } else { env::var_os("PATH") };
    let found: Vec<_> =
        search.iter().flat_map(env::split_paths).map(|dir| dir.join(named)).collect();
    here.into_iter().chain(found)
}

fn is_running(path: &Path) -> bool {
    match (fs::metadata(path), fs::metadata(SELF)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

const SELF: &str = "/proc/self/exe";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_path_and_by_the_search_path() {
        let program = Program::of_this_process().unwrap();
        assert!(is_running(program.path()) && program.path().is_absolute());
        assert!(candidates(Path::new("sh")).any(|path| path.ends_with("bin/sh")));
        assert_eq!(candidates(Path::new("/a/b")).collect::<Vec<_>>(), [Path::new("/a/b")]);
    }
}
