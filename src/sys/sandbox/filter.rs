//! The rules for system calls (seccomp), for each role and architecture.
//!
//! Three programs are loaded, and the strictest answer of them counts:
//!
//! ```text
//! forbidden ─▶ SIGSYS, which ends the process     (what only an intruder does)
//! refused   ─▶ EPERM                              (a known call with arguments that are not allowed)
//! unknown   ─▶ ENOSYS                             (what a library may try, and do in another way)
//! ```

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::sys::sandbox::syscalls::{
    EVENTS, EXECUTING, FILES, FORBIDDEN, LISTENING, MEMORY, NETWORK, SIGNALS, Syscall, THREADS,
};

/// The system calls that a process needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// It forks, binds and executes: only the forbidden calls are refused, by EPERM, since the end of
    /// this process is the end of all.
    Parent,
    /// It accepts connections, and connects by TCP and Unix sockets.
    Server,
    /// It connects as a server does, and asks for names: by UDP, by the C library's modules, which are
    /// loaded when they are needed, and by the kernel's list of addresses.
    Resolver,
}

impl Calls {
    const fn allowed(self) -> &'static [&'static [Syscall]] {
        match self {
            Self::Parent => &[],
            Self::Server | Self::Resolver => {
                &[FILES, EVENTS, NETWORK, MEMORY, THREADS, SIGNALS, LISTENING]
            }
        }
    }

    const fn forbidden(self) -> &'static [&'static [Syscall]] {
        match self {
            Self::Parent => &[FORBIDDEN],
            Self::Server | Self::Resolver => &[EXECUTING, FORBIDDEN],
        }
    }

    /// The uses of allowed calls that are refused: the call, and the conditions that all must hold.
    fn refused(self) -> Vec<(&'static str, Vec<Condition>)> {
        let mut refused = Vec::new();
        if self == Self::Parent {
            return refused;
        }
        // No terminal is typed at.
        for request in [TIOCSTI, TIOCLINUX] {
            refused.push(("ioctl", vec![(1, SeccompCmpOp::Eq, request)]));
        }
        // No core is dumped again.
        refused.push(("prctl", vec![(0, SeccompCmpOp::Eq, libc::PR_SET_DUMPABLE as u64)]));
        refused.push(("listen", Vec::new()));
        let unix = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
        let n_families = if self == Self::Resolver { 4 } else { 3 };
        let no_family = unix.iter().take(n_families);
        let no_family = no_family.map(|family| (0, SeccompCmpOp::Ne, *family as u64)).collect();
        refused.push(("socket", no_family));
        let datagram = (self == Self::Server).then_some(libc::SOCK_DGRAM);
        let kinds = [libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, SOCK_DCCP, SOCK_PACKET];
        for family in [libc::AF_INET, libc::AF_INET6] {
            for kind in kinds.into_iter().chain(datagram) {
                let kind = (1, SeccompCmpOp::MaskedEq(SOCK_KIND), kind as u64);
                refused.push(("socket", vec![(0, SeccompCmpOp::Eq, family as u64), kind]));
            }
            // No other protocol than the one of streams, TCP, whatever the kernel has.
            let stream = (1, SeccompCmpOp::MaskedEq(SOCK_KIND), libc::SOCK_STREAM as u64);
            let not = |protocol: i32| (2, SeccompCmpOp::Ne, protocol as u64);
            let other = [not(libc::IPPROTO_IP), not(libc::IPPROTO_TCP)];
            let family = (0, SeccompCmpOp::Eq, family as u64);
            refused.push(("socket", [&[family, stream][..], &other].concat()));
        }
        match self {
            Self::Server | Self::Parent => {
                refused.push(("bind", Vec::new()));
                // All code is there when it starts.
                for call in ["mmap", "mprotect"] {
                    let exec = libc::PROT_EXEC as u64;
                    refused.push((call, vec![(2, SeccompCmpOp::MaskedEq(exec), exec)]));
                }
            }
            Self::Resolver => {
                let other = (2, SeccompCmpOp::Ne, libc::NETLINK_ROUTE as u64);
                let netlink = (0, SeccompCmpOp::Eq, libc::AF_NETLINK as u64);
                refused.push(("socket", vec![netlink, other]));
            }
        }
        refused
    }

    /// How many calls are allowed on this architecture.
    pub(crate) fn n_allowed(self) -> Option<usize> {
        let arch = native()?;
        let calls = self.allowed().iter().flat_map(|calls| calls.iter());
        Some(calls.filter(|call| call.number(arch).is_some()).count()).filter(|n| *n > 0)
    }

    /// An option of prctl(2) that no kernel has. The program of a process that executes others refuses it,
    /// by which the executed one sees that it is there. Another program has another option.
    pub(super) fn mark(self, arch: TargetArch) -> Result<Option<u32>, seccompiler::Error> {
        if self != Self::Parent {
            return Ok(None);
        }
        let add = |sum: u32, word: u32| (sum ^ word).wrapping_mul(0x0100_0193);
        let program = self.forbidding(arch, None)?.into_iter();
        let words = program.flat_map(|it| [it.code.into(), it.jt.into(), it.jf.into(), it.k]);
        Ok(Some(0x6b00_0000 | words.fold(0x811c_9dc5, add) >> 8))
    }

    /// The program that refuses the forbidden calls, and its mark.
    fn forbidding(
        self,
        arch: TargetArch,
        mark: Option<u32>,
    ) -> Result<BpfProgram, seccompiler::Error> {
        let action = match self {
            Self::Parent => SeccompAction::Errno(libc::EPERM as u32),
            Self::Server | Self::Resolver => SeccompAction::Trap,
        };
        let calls = numbers(self.forbidden(), arch);
        let mut rules: Rules = calls.map(|number| (number, Vec::new())).collect();
        if let Some(mark) = mark {
            let prctl = THREADS.iter().find(|call| call.name == "prctl");
            let number = prctl.and_then(|call| call.number(arch));
            let is_mark = rule(vec![(0, SeccompCmpOp::Eq, mark.into())])?;
            rules.extend(number.map(|number| (number, vec![is_mark])));
        }
        program(rules, SeccompAction::Allow, action, arch)
    }

    /// The programs for this architecture, in the order in which they are to be loaded: the last one
    /// refuses to load another one.
    pub(super) fn programs(self, arch: TargetArch) -> Result<Vec<BpfProgram>, seccompiler::Error> {
        let error = |number: i32| SeccompAction::Errno(number as u32);
        let mut programs = vec![self.forbidding(arch, self.mark(arch)?)?];
        let allowed = self.allowed();
        if allowed.is_empty() {
            return Ok(programs);
        }
        let mut rules: Rules = BTreeMap::new();
        for (name, conditions) in self.refused() {
            let all = allowed.iter().flat_map(|calls| calls.iter());
            let number = all.filter(|call| call.name == name).find_map(|call| call.number(arch));
            let Some(number) = number else { continue };
            let rules = rules.entry(number).or_default();
            if !conditions.is_empty() {
                rules.push(rule(conditions)?);
            }
        }
        programs.push(program(rules, SeccompAction::Allow, error(libc::EPERM), arch)?);
        let mut rules: Rules = numbers(allowed, arch).map(|number| (number, Vec::new())).collect();
        // Only a thread, and not a process, may be started. Since clone3(2) has its flags in memory,
        // where no rule sees them, the C library is told to use this one.
        let clone = THREADS.iter().filter(|call| call.name == "clone");
        for number in clone.filter_map(|call| call.number(arch)) {
            let thread = libc::CLONE_THREAD as u64;
            let is_thread = rule(vec![(0, SeccompCmpOp::MaskedEq(thread), thread)])?;
            rules.insert(number, vec![is_thread]);
        }
        programs.push(program(rules, error(libc::ENOSYS), SeccompAction::Allow, arch)?);
        Ok(programs)
    }
}

/// The index of an argument, and what its lower half is compared with.
type Condition = (u8, SeccompCmpOp, u64);
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The requests of ioctl(2) that type at a terminal; the C libraries differ in their types.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

/// The kind of a socket, without its flags.
const SOCK_KIND: u64 = 0xf;
const SOCK_DCCP: i32 = 6;
const SOCK_PACKET: i32 = 10;

/// The architecture of this program, if there are rules for it.
pub(super) fn native() -> Option<TargetArch> {
    match std::env::consts::ARCH {
        "x86_64" => Some(TargetArch::x86_64),
        "aarch64" => Some(TargetArch::aarch64),
        _ => None,
    }
}

fn numbers(lists: &[&'static [Syscall]], arch: TargetArch) -> impl Iterator<Item = i64> {
    lists.iter().flat_map(|calls| calls.iter()).filter_map(move |call| call.number(arch))
}

fn rule(conditions: Vec<Condition>) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = |(index, operator, value)| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
    };
    SeccompRule::new(conditions.into_iter().map(condition).collect::<Result<_, _>>()?)
}

fn program(
    rules: Rules,
    other: SeccompAction,
    listed: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, seccompiler::Error> {
    let filter = SeccompFilter::new(rules, other, listed, arch)?;
    Ok(BpfProgram::try_from(filter)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{ExitStatus, fork_child, wait_for};
    use crate::sys::sandbox;

    #[test]
    fn the_programs_of_each_role_are_made_for_each_architecture() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            for (calls, n_programs) in
                [(Calls::Parent, 1), (Calls::Server, 3), (Calls::Resolver, 3)]
            {
                let programs = calls.programs(arch).unwrap();
                assert_eq!(programs.len(), n_programs, "{calls:?} {arch:?}");
                assert!(programs.iter().all(|it| it.len() > 10), "{calls:?} {arch:?}");
            }
        }
    }

    #[test]
    fn programs_of_others_are_not_taken_for_that_of_a_master() {
        let Some(arch) = native().filter(|_| sandbox::has_calls()) else {
            return eprintln!("skipped: this kernel has no rules for system calls");
        };
        let n_filters = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
            line.and_then(|n| n.trim().parse::<u32>().ok())
        };
        let Some(before) = n_filters() else {
            return eprintln!("skipped: this kernel counts no filters");
        };
        let mark = u64::from(Calls::Parent.mark(arch).unwrap().unwrap());
        let prctl = THREADS.iter().find(|call| call.name == "prctl").unwrap();
        // One refuses every unknown option, and the other one has a mark of its own.
        for condition in [(0, SeccompCmpOp::Ge, 0x6b00_0000), (0, SeccompCmpOp::Eq, mark ^ 2)] {
            let rules = [(prctl.number(arch).unwrap(), vec![rule(vec![condition]).unwrap()])];
            let refused = SeccompAction::Errno(libc::EPERM as u32);
            let other = program(rules.into(), SeccompAction::Allow, refused, arch).unwrap();
            let child = fork_child(&[], || {
                let is_there = seccompiler::apply_filter(&other).is_ok()
                    && sandbox::limit_calls(Calls::Parent).is_ok();
                i32::from(!is_there || n_filters() != Some(before + 2))
            });
            assert_eq!(wait_for(child.unwrap()).unwrap(), ExitStatus::Exit(0));
        }
    }

    #[test]
    fn what_is_refused_is_of_a_call_that_is_allowed() {
        for calls in [Calls::Server, Calls::Resolver] {
            let is_allowed = |name: &str| {
                calls.allowed().iter().flat_map(|it| it.iter()).any(|call| call.name == name)
            };
            for (name, _) in calls.refused() {
                assert!(is_allowed(name), "{calls:?} {name}");
            }
        }
    }
}
