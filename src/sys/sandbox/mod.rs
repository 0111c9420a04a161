//! The sandbox of a process: the rights that it keeps once it knows its work.
//!
//! A process gives its rights away for good: capabilities, paths and ports (Landlock), system calls
//! (seccomp). Rules are of a thread and its descendants, so they come before the second thread. Each part
//! is best effort: a kernel without it takes nothing away.

pub(crate) mod syscalls;
pub(crate) mod filter;
pub(crate) mod trap;

use std::io;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope, make_bitflags, path_beneath_rules,
};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::sys::sandbox::filter::Calls;

/// The rights of a process to the files at a path and below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileAccess {
    /// Read them.
    Read,
    /// Read them, write to them, and make new ones.
    Write,
    /// All that, rename and remove them, and make and remove directories.
    Change,
}

impl FileAccess {
    fn rights(self) -> BitFlags<AccessFs> {
        match self {
            Self::Read => make_bitflags!(AccessFs::{ReadFile | ReadDir}),
            Self::Write => {
                make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate | MakeReg})
            }
            Self::Change => {
                Self::Read.rights()
                    | Self::Write.rights()
                    | make_bitflags!(AccessFs::{MakeDir | RemoveFile | RemoveDir | Refer})
            }
        }
    }
}

/// The paths that a process may touch, and how.
pub(crate) type Paths = Vec<(PathBuf, FileAccess)>;

/// The newest rules for paths, ports and signals that are asked for: those of Linux 6.12.
const LANDLOCK: ABI = ABI::V6;

/// Takes all capabilities but these from this process, and out of the set that its descendants could
/// regain.
///
/// # Errors
/// An error of capset(2).
pub(crate) fn keep_capabilities(kept: &[Capability]) -> io::Result<()> {
    bound_capabilities(kept);
    // A program that is executed keeps what is ambient, which is a part of all others.
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        let have = caps::read(None, set).map_err(io::Error::other)?;
        let kept: CapsHashSet = have.iter().copied().filter(|it| kept.contains(it)).collect();
        if kept != have {
            caps::set(None, set, &kept).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// Takes all capabilities but these from the bounding set, which a process can do while it has
/// CAP_SETPCAP.
pub(crate) fn bound_capabilities(kept: &[Capability]) {
    for capability in caps::all().into_iter().filter(|it| !kept.contains(it)) {
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
}

/// Whether this process leaves a core file when it crashes. Its memory holds requests and keys.
///
/// # Errors
/// An error of setrlimit(2) or prctl(2).
pub(crate) fn dump_core(is_wanted: bool) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, if is_wanted { hard } else { 0 }, hard)?;
    nix::sys::prctl::set_dumpable(is_wanted).map_err(io::Error::from)
}

/// As [`dump_core`] says no, but other processes of the same user may look at the descriptors of this
/// one in `/proc`.
///
/// # Errors
/// An error of setrlimit(2).
pub(crate) fn limit_core(is_wanted: bool) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, if is_wanted { hard } else { 0 }, hard)
        .map_err(io::Error::from)
}

/// Limits this process to these paths; it binds no TCP port, and no signal of it leaves it. Paths that
/// are not there are left out.
///
/// # Errors
/// When the kernel refuses a rule.
pub(crate) fn limit_paths(paths: &[(PathBuf, FileAccess)]) -> io::Result<()> {
    restrict(paths).map_err(io::Error::other)
}

fn restrict(paths: &[(PathBuf, FileAccess)]) -> Result<(), RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    for (path, access) in paths {
        ruleset = ruleset.add_rules(path_beneath_rules([path], access.rights()))?;
    }
    ruleset.restrict_self().map(drop)
}

/// Limits this process to these system calls. A program that this process has executed in an upgrade has
/// the same limit from its start, and adds none: the kernel bounds the sum of them.
///
/// # Errors
/// When the kernel has no such rules.
pub(crate) fn limit_calls(calls: Calls) -> io::Result<()> {
    let Some(arch) = filter::native() else {
        return Err(io::Error::other("there is no list of system calls for this architecture"));
    };
    let mark = calls.mark(arch).map_err(io::Error::other)?;
    // A process that may not ask for anything is not marked.
    if mark.is_some_and(|mark| is_refused(mark) && !is_refused(mark ^ 1)) {
        return Ok(());
    }
    let programs = calls.programs(arch).map_err(io::Error::other)?;
    programs.iter().try_for_each(|it| seccompiler::apply_filter(it)).map_err(io::Error::other)
}

/// Whether this option of prctl(2), which no kernel has, is refused, and not unknown.
fn is_refused(option: u32) -> bool {
    // SAFETY: the kernel knows no such option, and the call has no arguments.
    let result =
        unsafe { libc::syscall(libc::SYS_prctl, option, 0_usize, 0_usize, 0_usize, 0_usize) };
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// The parts of the sandbox that this kernel lacks, in words for the log.
pub(crate) fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    match landlock_version() {
        version if version < 2 => {
            missing.push("Landlock (paths, ports and signals are not limited)".to_owned());
        }
        version if version < 4 => missing.push("Landlock's rules for ports".to_owned()),
        version if version < 6 => missing.push("Landlock's rules for signals".to_owned()),
        _ => {}
    }
    if filter::native().is_none() {
        missing.push("a list of system calls for this architecture".to_owned());
    } else if !has_calls() {
        missing.push("seccomp (system calls are not limited)".to_owned());
    }
    missing
}

/// Whether system calls can be limited.
pub(crate) fn has_calls() -> bool {
    filter::native().is_some() && Path::new("/proc/sys/kernel/seccomp").exists()
}

/// The version of Landlock; below 1 there is none.
pub(crate) fn landlock_version() -> i64 {
    const VERSION: u32 = 1;
    let none = std::ptr::null::<u8>();
    // SAFETY: with this flag the call takes no attributes, makes nothing, and gives a number.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION) }
}
