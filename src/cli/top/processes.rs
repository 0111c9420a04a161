//! The processes of a running ktrix: what they take of processor and memory, from /proc.

use std::collections::HashMap;
use std::fs;
use std::time::Instant;

use nix::unistd::{SysconfVar, sysconf};

/// The processor time and the memory of a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Of one core, since it was asked last.
    pub(super) cpu_share: f64,
    /// Memory in use, shared memory included.
    pub(super) memory_bytes: u64,
    /// Requests in a second, since it was asked last.
    pub(super) requests: f64,
    /// When it started, in clock ticks since the boot.
    pub(super) started_ticks: u64,
}

/// The processes as they were at the last look.
#[derive(Debug)]
pub(super) struct Processes {
    /// The processor time of each, in clock ticks, its requests, and when that was.
    seen: HashMap<u32, (u64, u64, Instant)>,
    ticks_per_s: f64,
    page_bytes: u64,
}

impl Processes {
    pub(super) fn new() -> Self {
        let system = |name, default| sysconf(name).ok().flatten().unwrap_or(default);
        Self {
            seen: HashMap::new(),
            ticks_per_s: system(SysconfVar::CLK_TCK, 100) as f64,
            page_bytes: system(SysconfVar::PAGE_SIZE, 4_096).cast_unsigned(),
        }
    }

    /// The load of this process, which has ended `n_requests`; none if it is gone.
    pub(super) fn load(&mut self, pid: u32, n_requests: u64) -> Load {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some(Stat { ticks, started_ticks, pages }) = Stat::parse(&stat) else {
            self.seen.remove(&pid);
            return Load::default();
        };
        let now = Instant::now();
        let (ticks_before, requests_before, at) =
            self.seen.insert(pid, (ticks, n_requests, now)).unwrap_or((ticks, n_requests, now));
        let seconds = now.duration_since(at).as_secs_f64().max(0.01);
        let in_a_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        Load {
            cpu_share: in_a_second(ticks, ticks_before) / self.ticks_per_s,
            memory_bytes: pages * self.page_bytes,
            requests: in_a_second(n_requests, requests_before),
            started_ticks,
        }
    }
}

/// Fields of proc_pid_stat(5).
#[derive(Debug, PartialEq)]
struct Stat {
    /// utime + stime.
    ticks: u64,
    started_ticks: u64,
    /// rss.
    pages: u64,
}

impl Stat {
    fn parse(stat: &str) -> Option<Self> {
        // The name may have spaces and parentheses.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks: number(14)? + number(15)?,
            started_ticks: number(22)?,
            pages: number(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_memory_and_one_that_is_gone_nothing() {
        let mut processes = Processes::new();
        let own = processes.load(std::process::id(), 5);
        assert!(own.memory_bytes > 100_000 && own.cpu_share == 0.0, "{own:?}");
        assert!(own.requests == 0.0 && processes.load(std::process::id(), 6).requests > 0.0);
        assert_eq!(processes.load(u32::MAX, 0), Load::default());
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 30 12 0 0 20 0 1 0 5 9000 77 18446744";
        let parsed = Stat { ticks: 42, started_ticks: 5, pages: 77 };
        assert_eq!(Stat::parse(stat), Some(parsed));
        assert_eq!(Stat::parse("7 (a"), None);
    }
}
