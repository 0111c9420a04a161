//! The system calls that the rules of a sandbox speak of, with their numbers on each architecture.
//!
//! The lists follow what a process does, and not what was seen in a run: a newer C library or kernel does
//! the same by newer calls. A call that an architecture does not have has the number -1 there.

use seccompiler::TargetArch;

/// A system call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syscall {
    pub(super) name: &'static str,
    x86_64: i16,
    aarch64: i16,
}

impl Syscall {
    /// Its number, if the architecture has it.
    pub(super) fn number(&self, arch: TargetArch) -> Option<i64> {
        let number = match arch {
            TargetArch::x86_64 => self.x86_64,
            TargetArch::aarch64 => self.aarch64,
            TargetArch::riscv64 => -1,
        };
        (number >= 0).then_some(number.into())
    }
}

const fn call(name: &'static str, x86_64: i16, aarch64: i16) -> Syscall {
    Syscall { name, x86_64, aarch64 }
}

/// The name of a call of this architecture, if a list has it.
pub(crate) fn name_of(number: i64) -> Option<&'static str> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    let mut all = ALL.iter().flat_map(|calls| calls.iter());
    all.find(|call| call.number(arch) == Some(number)).map(|call| call.name)
}

/// Files: opening, reading, writing, renaming, removing. The kernel's rules for paths say which.
#[rustfmt::skip]
pub(super) const FILES: &[Syscall] = &[
    call("read", 0, 63), call("write", 1, 64), call("open", 2, -1), call("close", 3, 57),
    call("stat", 4, -1), call("fstat", 5, 80), call("lstat", 6, -1), call("newfstatat", 262, 79),
    call("statx", 332, 291), call("lseek", 8, 62), call("pread64", 17, 67), call("pwrite64", 18, 68),
    call("readv", 19, 65), call("writev", 20, 66), call("preadv", 295, 69), call("pwritev", 296, 70),
    call("preadv2", 327, 286), call("pwritev2", 328, 287), call("access", 21, -1),
    call("faccessat", 269, 48), call("faccessat2", 439, 439), call("openat", 257, 56),
    call("openat2", 437, 437), call("creat", 85, -1), call("fcntl", 72, 25), call("flock", 73, 32),
    call("ioctl", 16, 29), call("fsync", 74, 82), call("fdatasync", 75, 83),
    call("sync_file_range", 277, 84), call("syncfs", 306, 267), call("truncate", 76, 45),
    call("ftruncate", 77, 46), call("fallocate", 285, 47), call("fadvise64", 221, 223),
    call("readahead", 187, 213), call("cachestat", 451, 451), call("getdents", 78, -1),
    call("getdents64", 217, 61), call("getcwd", 79, 17), call("rename", 82, -1),
    call("renameat", 264, 38), call("renameat2", 316, 276), call("mkdir", 83, -1),
    call("mkdirat", 258, 34), call("rmdir", 84, -1), call("unlink", 87, -1), call("unlinkat", 263, 35),
    call("link", 86, -1), call("linkat", 265, 37), call("readlink", 89, -1),
    call("readlinkat", 267, 78), call("fchmod", 91, 52), call("umask", 95, 166),
    call("statfs", 137, 43), call("fstatfs", 138, 44), call("dup", 32, 23), call("dup2", 33, -1),
    call("dup3", 292, 24), call("pipe", 22, -1), call("pipe2", 293, 59), call("splice", 275, 76),
    call("tee", 276, 77), call("vmsplice", 278, 75), call("sendfile", 40, 71),
    call("copy_file_range", 326, 285), call("utimensat", 280, 88), call("close_range", 436, 436),
    call("memfd_create", 319, 279), call("inotify_init", 253, -1), call("inotify_init1", 294, 26),
    call("inotify_add_watch", 254, 27), call("inotify_rm_watch", 255, 28),
];

/// Waiting for descriptors and for the time.
#[rustfmt::skip]
pub(super) const EVENTS: &[Syscall] = &[
    call("poll", 7, -1), call("ppoll", 271, 73), call("select", 23, -1), call("pselect6", 270, 72),
    call("epoll_create", 213, -1), call("epoll_create1", 291, 20), call("epoll_ctl", 233, 21),
    call("epoll_wait", 232, -1), call("epoll_pwait", 281, 22), call("epoll_pwait2", 441, 441),
    call("eventfd", 284, -1), call("eventfd2", 290, 19), call("signalfd", 282, -1),
    call("signalfd4", 289, 74), call("timerfd_create", 283, 85), call("timerfd_settime", 286, 86),
    call("timerfd_gettime", 287, 87), call("clock_gettime", 228, 113), call("clock_getres", 229, 114),
    call("clock_nanosleep", 230, 115), call("nanosleep", 35, 101), call("gettimeofday", 96, 169),
    call("time", 201, -1), call("times", 100, 153),
];

/// Sockets that connect, or that were accepted.
#[rustfmt::skip]
pub(super) const NETWORK: &[Syscall] = &[
    call("socket", 41, 198), call("socketpair", 53, 199), call("connect", 42, 203),
    call("accept", 43, 202), call("accept4", 288, 242), call("sendto", 44, 206),
    call("recvfrom", 45, 207), call("sendmsg", 46, 211), call("recvmsg", 47, 212),
    call("sendmmsg", 307, 269), call("recvmmsg", 299, 243), call("shutdown", 48, 210),
    call("getsockname", 51, 204), call("getpeername", 52, 205), call("setsockopt", 54, 208),
    call("getsockopt", 55, 209),
];

/// Memory.
#[rustfmt::skip]
pub(super) const MEMORY: &[Syscall] = &[
    call("mmap", 9, 222), call("mprotect", 10, 226), call("munmap", 11, 215), call("mremap", 25, 216),
    call("brk", 12, 214), call("madvise", 28, 233), call("msync", 26, 227), call("mincore", 27, 232),
    call("mlock", 149, 228), call("mlock2", 325, 284), call("munlock", 150, 229),
    call("membarrier", 324, 283), call("map_shadow_stack", 453, 453), call("mseal", 462, 462),
];

/// Threads of this process, and what a process asks about itself.
#[rustfmt::skip]
pub(super) const THREADS: &[Syscall] = &[
    call("clone", 56, 220), call("futex", 202, 98), call("futex_waitv", 449, 449),
    call("futex_wake", 454, 454), call("futex_wait", 455, 455), call("futex_requeue", 456, 456),
    call("set_robust_list", 273, 99), call("get_robust_list", 274, 100), call("rseq", 334, 293),
    call("set_tid_address", 218, 96), call("sched_yield", 24, 124), call("sched_getaffinity", 204, 123),
    call("sched_getparam", 143, 121), call("sched_getscheduler", 145, 120), call("exit", 60, 93),
    call("exit_group", 231, 94), call("restart_syscall", 219, 128), call("gettid", 186, 178),
    call("getpid", 39, 172), call("getppid", 110, 173), call("getpgrp", 111, -1),
    call("getpgid", 121, 155), call("getsid", 124, 156), call("getcpu", 309, 168),
    call("prctl", 157, 167), call("arch_prctl", 158, -1), call("getrandom", 318, 278),
    call("uname", 63, 160), call("sysinfo", 99, 179), call("getrlimit", 97, 163),
    call("prlimit64", 302, 261), call("getrusage", 98, 165), call("getuid", 102, 174),
    call("geteuid", 107, 175), call("getgid", 104, 176), call("getegid", 108, 177),
    call("getgroups", 115, 158), call("getresuid", 118, 148), call("getresgid", 120, 150),
    call("getpriority", 140, 141), call("capget", 125, 90),
];

/// Signals. To which processes, the rights of the process say.
#[rustfmt::skip]
pub(super) const SIGNALS: &[Syscall] = &[
    call("rt_sigaction", 13, 134), call("rt_sigprocmask", 14, 135), call("rt_sigreturn", 15, 139),
    call("rt_sigpending", 127, 136), call("rt_sigtimedwait", 128, 137), call("rt_sigsuspend", 130, 133),
    call("sigaltstack", 131, 132), call("kill", 62, 129), call("tkill", 200, 130),
    call("tgkill", 234, 131), call("pause", 34, -1),
];

/// The calls that make a socket listen.
#[rustfmt::skip]
pub(super) const LISTENING: &[Syscall] = &[
    call("bind", 49, 200), call("listen", 50, 201),
];

/// The calls that start another program.
#[rustfmt::skip]
pub(super) const EXECUTING: &[Syscall] = &[
    call("execve", 59, 221), call("execveat", 322, 281),
];

/// The calls that no process of ktrix ever makes, and only a program that has taken it over would: on other
/// processes, other name spaces, the kernel and its settings.
#[rustfmt::skip]
pub(super) const FORBIDDEN: &[Syscall] = &[
    call("ptrace", 101, 117), call("process_vm_readv", 310, 270), call("process_vm_writev", 311, 271),
    call("kcmp", 312, 272), call("pidfd_getfd", 438, 438), call("init_module", 175, 105),
    call("finit_module", 313, 273), call("delete_module", 176, 106), call("kexec_load", 246, 104),
    call("kexec_file_load", 320, 294), call("mount", 165, 40), call("umount2", 166, 39),
    call("pivot_root", 155, 41), call("chroot", 161, 51), call("move_mount", 429, 429),
    call("open_tree", 428, 428), call("open_tree_attr", 467, 467), call("fsopen", 430, 430),
    call("fsconfig", 431, 431), call("fsmount", 432, 432), call("fspick", 433, 433),
    call("mount_setattr", 442, 442), call("add_key", 248, 217), call("request_key", 249, 218),
    call("keyctl", 250, 219), call("bpf", 321, 280), call("perf_event_open", 298, 241),
    call("userfaultfd", 323, 282), call("unshare", 272, 97), call("setns", 308, 268),
    call("reboot", 169, 142), call("swapon", 167, 224), call("swapoff", 168, 225),
    call("sethostname", 170, 161), call("setdomainname", 171, 162), call("settimeofday", 164, 170),
    call("clock_settime", 227, 112), call("clock_adjtime", 305, 266), call("adjtimex", 159, 171),
    call("acct", 163, 89), call("quotactl", 179, 60), call("quotactl_fd", 443, 443),
    call("iopl", 172, -1), call("ioperm", 173, -1), call("modify_ldt", 154, -1),
    call("uselib", 134, -1), call("_sysctl", 156, -1), call("nfsservctl", 180, 42),
    call("lookup_dcookie", 212, 18), call("mknod", 133, -1), call("mknodat", 259, 33),
    call("fanotify_init", 300, 262), call("open_by_handle_at", 304, 265), call("syslog", 103, 116),
    call("vhangup", 153, 58),
];

/// All lists.
const ALL: [&[Syscall]; 9] =
    [FILES, EVENTS, NETWORK, MEMORY, THREADS, SIGNALS, LISTENING, EXECUTING, FORBIDDEN];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nix::libc;

    use super::*;

    #[test]
    fn no_call_is_in_two_lists_and_no_number_is_of_two_calls() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            let all = || ALL.iter().flat_map(|calls| calls.iter());
            let numbers: Vec<_> = all().filter_map(|call| call.number(arch)).collect();
            assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len(), "{arch:?}");
            assert_eq!(all().map(|call| call.name).collect::<BTreeSet<_>>().len(), all().count());
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_c_library() {
        for (name, number) in [
            ("read", libc::SYS_read),
            ("openat2", libc::SYS_openat2),
            ("execve", libc::SYS_execve),
            ("ptrace", libc::SYS_ptrace),
            ("socket", libc::SYS_socket),
            ("clone", libc::SYS_clone),
            ("rseq", libc::SYS_rseq),
            ("futex_waitv", libc::SYS_futex_waitv),
            ("keyctl", libc::SYS_keyctl),
        ] {
            assert_eq!(name_of(number), Some(name));
        }
        assert_eq!(name_of(9_999), None);
    }
}
