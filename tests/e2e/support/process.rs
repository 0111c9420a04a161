//! Processes as /proc shows them: children, start times, memory. Signals go to single pids only.

use std::fs;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// A process that was seen at some moment: its pid may be reused, its start time then differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub pid: i32,
    start: u64,
}

impl Seen {
    /// The process with this pid, if there is one that is not a zombie.
    pub fn now(pid: i32) -> Option<Self> {
        let stat = Stat::of(pid)?;
        (stat.state != 'Z' && stat.state != 'X').then_some(Self { pid, start: stat.start })
    }

    pub fn is_alive(self) -> bool {
        Self::now(self.pid) == Some(self)
    }

    /// Sends a signal, if it is still the same process.
    pub fn signal(self, signal: Signal) {
        if self.is_alive() {
            let _ = signal::kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// The name that the process gives itself.
    pub fn name(self) -> String {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        name.trim().to_owned()
    }

    /// User memory that belongs to this process alone, in bytes: private dirty pages.
    pub fn private_bytes(self) -> u64 {
        self.smaps(&["Private_Dirty:", "Swap:"])
    }

    /// Its share of the memory that it has mapped, in bytes (PSS).
    pub fn pss_bytes(self) -> u64 {
        self.smaps(&["Pss:", "Swap:"])
    }

    fn smaps(self, names: &[&str]) -> u64 {
        let text =
            fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap_or_default();
        text.lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .filter_map(|l| l.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
            .sum::<u64>()
            * 1024
    }

    /// Whether it has a TCP connection to this port of 127.0.0.1.
    pub fn talks_to(self, port: u16) -> bool {
        self.has_connection(2, port)
    }

    /// Whether it has a TCP connection at this port of 127.0.0.1.
    pub fn serves(self, port: u16) -> bool {
        self.has_connection(1, port)
    }

    /// `column` of /proc/net/tcp has the address.
    fn has_connection(self, column: usize, port: u16) -> bool {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.pid)).unwrap_or_default();
        let address = format!("0100007F:{port:04X}");
        let inodes: Vec<String> = table
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
            .filter(|words| words.get(column) == Some(&&*address) && words.get(3) == Some(&"01"))
            .filter_map(|words| words.get(9).map(|inode| format!("socket:[{inode}]")))
            .collect();
        let fds = fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten().flatten();
        fds.filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
    }

    /// A line of /proc/PID/status, without its name.
    pub fn status(self, name: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }

    /// A line of /proc/PID/io: `rchar` and `wchar` are the bytes that it read and wrote by calls for
    /// files.
    pub fn io(self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/io", self.pid)).expect("what was read");
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|it| it.trim().parse().ok()).expect("a number")
    }

    /// Number of descriptors the process holds.
    pub fn n_fds(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }
}

/// The living children of a process, oldest pid first.
pub fn children(parent: i32) -> Vec<Seen> {
    let mut found: Vec<Seen> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&pid| Stat::of(pid).is_some_and(|s| s.parent == parent))
        .filter_map(Seen::now)
        .collect();
    found.sort_unstable();
    found
}

/// The pids of the children of a process with one thread, dead ones included: a quick look.
pub fn child_pids(parent: i32) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

struct Stat {
    state: char,
    parent: i32,
    start: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut words = text.get(text.rfind(')')? + 2..)?.split_ascii_whitespace();
        let state = words.next()?.chars().next()?;
        let parent = words.next()?.parse().ok()?;
        let start = words.nth(17)?.parse().ok()?;
        Some(Self { state, parent, start })
    }
}
