//! The privileges of a process: its account, and its limit of open files.
//!
//! Dropping them is final: first the supplementary groups, then the group, then the user, each in
//! all three ids. Afterwards no executed program can regain them (`no_new_privs`).

use std::ffi::CString;
use std::fs::Metadata;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Group, Uid, User};

/// A user of this machine, looked up once, before the first fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Account {
    /// The account of that name, with all the groups that it belongs to.
    ///
    /// # Errors
    /// When there is no such user, or the user database cannot be read.
    pub(crate) fn of(name: &str) -> io::Result<Self> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no user \"{name}\""));
        let user = User::from_name(name)?.ok_or_else(missing)?;
        let c_name = CString::new(name).map_err(|_| missing())?;
        let groups = nix::unistd::getgrouplist(&c_name, user.gid)?;
        Ok(Self { uid: user.uid, gid: user.gid, groups })
    }

    /// Whether this is the account's user.
    pub(crate) fn is_of(&self, uid: u32) -> bool {
        self.uid.as_raw() == uid
    }

    /// Whether this process already runs as this account.
    pub(crate) fn is_current(&self) -> bool {
        Uid::effective() == self.uid
    }

    /// Changes to this account. This cannot be undone.
    ///
    /// # Errors
    /// When this process may not, or when the privileges could be regained.
    pub(crate) fn assume(&self) -> io::Result<()> {
        nix::unistd::setgroups(&self.groups)?;
        nix::unistd::setresgid(self.gid, self.gid, self.gid)?;
        nix::unistd::setresuid(self.uid, self.uid, self.uid)?;
        if !self.uid.is_root() && nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
            return Err(io::Error::other("privileges can be regained after they were dropped"));
        }
        Ok(())
    }

    /// Whether this account may make, rename and remove files in the directory of this metadata.
    pub(crate) fn may_write(&self, dir: &Metadata) -> bool {
        let mode = dir.mode();
        let is_in_group =
            || self.groups.iter().chain([&self.gid]).any(|gid| gid.as_raw() == dir.gid());
        self.uid.is_root()
            || (dir.uid() == self.uid.as_raw())
            || (mode & 0o020 != 0 && is_in_group())
            || mode & 0o002 != 0
    }

    /// Gives an open file to this account.
    ///
    /// # Errors
    /// An error of fchown(2).
    pub(crate) fn own_file(&self, file: impl AsFd) -> io::Result<()> {
        nix::unistd::fchown(file, Some(self.uid), Some(self.gid)).map_err(io::Error::from)
    }

    /// Gives the file or directory at `path` to this account; a symbolic link is not followed.
    ///
    /// # Errors
    /// An error of fchownat(2).
    pub(crate) fn own_path(&self, path: &Path) -> io::Result<()> {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::unistd::fchownat(nix::fcntl::AT_FDCWD, path, Some(self.uid), Some(self.gid), flags)
            .map_err(io::Error::from)
    }
}

/// The owner of a file; what is missing stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

impl Owner {
    /// The owner that is written `user`, `user:group` or `:group`.
    ///
    /// # Errors
    /// When there is no such user or group.
    pub(crate) fn of(text: &str) -> io::Result<Self> {
        let missing = |kind: &str, name: &str| {
            io::Error::new(io::ErrorKind::NotFound, format!("no {kind} \"{name}\""))
        };
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let mut owner = Self::default();
        if !user.is_empty() {
            let found = User::from_name(user)?.ok_or_else(|| missing("user", user))?;
            owner.uid = Some(found.uid.as_raw());
        }
        if !group.is_empty() {
            let found = Group::from_name(group)?.ok_or_else(|| missing("group", group))?;
            owner.gid = Some(found.gid.as_raw());
        }
        Ok(owner)
    }
}

/// Whether this process runs as root and may change its user.
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// No program that this process or its children execute can have more rights than it has now.
///
/// # Errors
/// Only if the kernel is older than this request (Linux 3.5).
pub(crate) fn set_no_new_privileges() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs().map_err(io::Error::from)
}

/// Raises the limit of open files to the hard limit and says what it is now.
///
/// # Errors
/// An error of setrlimit(2); the limit is then as it was.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{ExitStatus, fork_child, wait_for};

    #[test]
    fn an_unknown_user_is_named() {
        let error = Account::of("nobody-of-that-name").unwrap_err();
        assert_eq!(error.to_string(), "no user \"nobody-of-that-name\"");
    }

    #[test]
    fn dropping_is_one_way() {
        if !is_root() {
            return;
        }
        let account = Account::of("nobody").unwrap();
        let child = fork_child(&[], move || {
            let dropped = account.assume().is_ok() && set_no_new_privileges().is_ok();
            let is_back = nix::unistd::setuid(Uid::from_raw(0)).is_ok();
            let is_account = account.is_current() && !is_root();
            if dropped && is_account && !is_back { 0 } else { 1 }
        });
        assert_eq!(wait_for(child.unwrap()).unwrap(), ExitStatus::Exit(0));
    }

    #[test]
    fn the_open_file_limit_ends_at_the_hard_limit() {
        let hard = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
