//! Follows the requests of a running ktrix, and puts those of all processes in order.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::cli::table::memory_files;
use crate::log::feed::{FILE_NAME, Fed, Feed};

/// A follower of the feed of a running ktrix, which is announced there while it reads.
pub(super) struct Follower {
    feed: Feed,
    inode: u64,
    /// The next record of each process slot.
    next: Vec<u64>,
    /// Records that wait for earlier ones of another process, in order.
    waiting: Vec<Fed>,
    n_missed: u64,
    announced_at: Instant,
}

impl Follower {
    /// Follows the ktrix with this master, from now on.
    ///
    /// # Errors
    /// When another user runs it, or it is of another version.
    pub(super) fn of(pid: Pid) -> Result<Self> {
        let (feed, inode) = open(pid)?;
        let next = (0..feed.n_slots()).map(|slot| feed.end(slot)).collect();
        Ok(Self::from(feed, inode, next))
    }

    fn from(feed: Feed, inode: u64, next: Vec<u64>) -> Self {
        let announced_at = Instant::now();
        let follower = Self { feed, inode, next, waiting: Vec::new(), n_missed: 0, announced_at };
        follower.announce();
        follower
    }

    /// Goes on with the ktrix that has this master now. After an upgrade the feed is that of both
    /// masters; if it is another one, the last records of the one before are given.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub(super) fn turn_to(&mut self, pid: Pid) -> Result<Option<Vec<Fed>>> {
        let (_, inode) = open(pid)?;
        if inode == self.inode {
            return Ok(None);
        }
        let last = self.last_records();
        *self = Self { n_missed: self.n_missed, ..Self::of(pid)? };
        Ok(Some(last))
    }

    /// The records to show, in the order of their times. A process writes a record as its exchange
    /// ends, so a record waits from one call to the next for earlier ones of other processes.
    pub(super) fn new_records(&mut self) -> Vec<Fed> {
        if self.announced_at.elapsed() >= ANNOUNCE_EVERY {
            self.announce();
            self.announced_at = Instant::now();
        }
        let newest_us = self.waiting.last().map(|fed| fed.record().time_us);
        self.read();
        let is_due = |fed: &Fed| newest_us.is_some_and(|newest| fed.record().time_us <= newest);
        let n_due = self.waiting.partition_point(is_due);
        self.waiting.drain(..n_due).collect()
    }

    /// All other records, once no process writes any more.
    pub(super) fn last_records(&mut self) -> Vec<Fed> {
        self.read();
        std::mem::take(&mut self.waiting)
    }

    /// How many records were overwritten before they were read, since this was asked last.
    pub(super) fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.n_missed)
    }

    fn announce(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let until = now.saturating_add(ANNOUNCED_FOR);
        self.feed.follow_until(u64::try_from(until.as_micros()).unwrap_or(0));
    }

    fn read(&mut self) {
        for (slot, next) in self.next.iter_mut().enumerate() {
            let (end, oldest) = (self.feed.end(slot), self.feed.oldest(slot));
            self.n_missed += oldest.saturating_sub(*next);
            for n in (*next).max(oldest)..end {
                match self.feed.read(slot, n) {
                    Some(fed) => self.waiting.push(fed),
                    None => self.n_missed += 1,
                }
            }
            *next = end;
        }
        self.waiting.sort_by_key(|fed| fed.record().time_us);
    }
}

/// The feed of the ktrix with this master, and the number of its file.
fn open(pid: Pid) -> Result<(Feed, u64)> {
    let why = || format!("the ktrix with pid {pid} has no feed (is it of another version?)");
    let mut files = memory_files(pid)?.into_iter();
    let (_, path) = files.find(|(name, _)| name.starts_with(FILE_NAME)).with_context(why)?;
    let file = File::options().read(true).write(true).open(path);
    let file = file.with_context(|| format!("cannot open the feed of pid {pid}"))?;
    Ok((Feed::open(&file).with_context(why)?, file.metadata()?.ino()))
}

/// How often a follower announces itself, and for how long: it may be stopped for a moment.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);
const ANNOUNCED_FOR: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::Record;

    fn times(records: &[Fed]) -> Vec<u64> {
        records.iter().map(|fed| fed.record().time_us).collect()
    }

    #[test]
    fn a_record_waits_for_earlier_ones_of_another_process() {
        let feed = Feed::create(2).unwrap();
        let write = |follower: &Follower, slot, time_us| {
            follower.feed.write(slot, &Record { time_us, ..Record::default() });
        };
        let mut follower = Follower::from(feed, 0, vec![0; 2]);
        assert!(follower.new_records().is_empty());
        write(&follower, 0, 2);
        assert!(follower.new_records().is_empty());
        // Records without a pause hold none of them back.
        write(&follower, 0, 3);
        write(&follower, 1, 1);
        assert_eq!(times(&follower.new_records()), [1, 2]);
        write(&follower, 1, 4);
        assert_eq!(times(&follower.new_records()), [3]);
        write(&follower, 0, 5);
        assert_eq!(times(&follower.last_records()), [4, 5]);
        assert!(follower.new_records().is_empty());
        assert_eq!(follower.take_missed(), 0);
    }

    #[test]
    fn records_that_were_overwritten_are_counted() {
        let mut follower = Follower::from(Feed::create(1).unwrap(), 0, vec![0]);
        for time_us in 0..2_000 {
            follower.feed.write(0, &Record { time_us, ..Record::default() });
        }
        let seen = times(&follower.last_records());
        assert_eq!(seen.len() as u64 + follower.take_missed(), 2_000);
        assert_eq!(seen.last(), Some(&1_999));
        assert_eq!(follower.take_missed(), 0);
    }
}
