//! Whether the user of the workers can use the cache directory, and the master the logs.
//!
//! Only the kernel knows: modes, groups, access lists and the rules of a network file system all
//! count. So a child becomes the user and asks it. Nothing is made or changed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::cache::marker;
use crate::config::{Config, ErrorSink};
use crate::sys::privileges::{self, Account};
use crate::sys::process::{ExitStatus, fork_child, wait_for};

/// A problem: the keys that may have the path, and the message.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) keys: &'static [&'static str],
    pub(crate) message: String,
}

/// All problems with directories and files of a configuration.
pub(crate) fn problems(config: &Config, account: Option<&Account>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let user = config.user.as_deref().filter(|_| account.is_some());
    if let Some(cache) = &config.cache {
        let keys = &["cache.path", "cache"];
        let mut add = |message| problems.push(Problem { keys, message });
        if let Err(error) = marker::check_if_there(&cache.path) {
            add(error.to_string());
        } else if let Some(message) = refusal(user, account, &needs(&cache.path, has_to_enter)) {
            add(message);
        }
    }
    if let Some(acme) = config.acme.as_ref().filter(|acme| acme.exists())
        && let Some(message) = refusal(user, account, &needs(acme, |_| AccessFlags::X_OK))
    {
        problems.push(Problem { keys: &["acme"], message });
    }
    let access = config.log.access.as_ref().map(|access| &access.file);
    let slow = config.log.slow.as_ref().map(|slow| &slow.file);
    let error = match &config.log.error {
        ErrorSink::File(path) => Some(path),
        ErrorSink::Auto | ErrorSink::Stderr | ErrorSink::Syslog => None,
    };
    let logs = [
        (access, &["log.access.file", "log.access", "log"][..]),
        (slow, &["log.slow.file", "log.slow"][..]),
        (error, &["log.error"][..]),
    ];
    for (path, keys) in logs {
        let needs = path.map(|path| needs(path, |_| AccessFlags::W_OK)).unwrap_or_default();
        if let Some(message) = refusal(None, None, &needs) {
            problems.push(Problem { keys, message });
        }
    }
    problems
}

/// A directory of root is given to the user when it is opened.
fn has_to_enter(dir: &Path) -> AccessFlags {
    let is_given = privileges::is_root() && fs::metadata(dir).is_ok_and(|found| found.uid() == 0);
    if is_given {
        AccessFlags::F_OK
    } else {
        AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK
    }
}

/// What must be allowed, from the root of the file system on: to pass each directory that is there,
/// and what `of_itself` says of the path. What is missing can be made by the master.
fn needs(path: &Path, of_itself: impl Fn(&Path) -> AccessFlags) -> Vec<(PathBuf, AccessFlags)> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there: Vec<&Path> = path.ancestors().filter(|it| it.exists()).collect();
    let mut needs = Vec::new();
    for dir in there.iter().rev().filter(|dir| **dir != path) {
        needs.push((dir.to_path_buf(), AccessFlags::X_OK));
    }
    match there.first() {
        Some(first) if **first == path => needs.push((path.clone(), of_itself(&path))),
        Some(first) if !privileges::is_root() => {
            needs.push((first.to_path_buf(), AccessFlags::W_OK | AccessFlags::X_OK));
        }
        _ => {}
    }
    needs
}

/// Says what is not allowed, if anything is not.
fn refusal(
    user: Option<&str>,
    account: Option<&Account>,
    needs: &[(PathBuf, AccessFlags)],
) -> Option<String> {
    let (path, flags) = match first_refused(account, needs) {
        Ok(which) => needs.get(which?)?,
        Err(error) => return Some(format!("cannot be checked: {error}")),
    };
    let who = user.map_or_else(|| "this user".to_owned(), |user| format!("user \"{user}\""));
    let what = if *flags == AccessFlags::X_OK { "enter" } else { "write to" };
    Some(format!("{who} cannot {what} \"{}\" (change its owner or mode)", path.display()))
}

fn first_refused(
    account: Option<&Account>,
    needs: &[(PathBuf, AccessFlags)],
) -> io::Result<Option<usize>> {
    let look = || needs.iter().position(|(path, flags)| access(path, *flags).is_err());
    let Some(account) = account else { return Ok(look()) };
    let pid = fork_child(&[], || match account.assume() {
        Ok(()) => look().map_or(0, |which| i32::try_from(which + 1).unwrap_or(CODE_FAILED)),
        Err(_) => CODE_FAILED,
    })?;
    match wait_for(pid)? {
        ExitStatus::Exit(0) => Ok(None),
        ExitStatus::Exit(code) if code < CODE_FAILED => Ok(usize::try_from(code - 1).ok()),
        _ => Err(io::Error::other("no process could become the user")),
    }
}

/// More than any path has directories.
const CODE_FAILED: i32 = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_that_the_user_cannot_pass_is_named() {
        let (Ok(account), true) = (Account::of("nobody"), privileges::is_root()) else { return };
        let dir = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(dir.path(), 0o755);
        let (outer, inner) = (dir.path().join("outer"), dir.path().join("outer/cache"));
        let check = || refusal(Some("nobody"), Some(&account), &needs(&inner, has_to_enter));
        fs::create_dir(&outer).unwrap();
        set(&outer, 0o750);
        let message = check().unwrap();
        assert!(
            message.starts_with(&format!("user \"nobody\" cannot enter {outer:?}")),
            "{message}"
        );
        set(&outer, 0o755);
        assert_eq!(check(), None, "the master makes what is missing");
        fs::create_dir(&inner).unwrap();
        set(&inner, 0o700);
        assert_eq!(check(), None, "a directory of root is given to the user");
        std::os::unix::fs::chown(&inner, Some(1), None).unwrap();
        let message = check().unwrap();
        assert!(message.contains(&format!("cannot write to {inner:?}")), "{message}");
        assert_eq!(refusal(None, None, &needs(&inner, has_to_enter)), None, "root can");
    }
}
