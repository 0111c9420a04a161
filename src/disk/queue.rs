//! Jobs that wait for a helper, and the choice of the next one. Pure.

use std::collections::VecDeque;

/// The most reads that wait.
pub(super) const READS_MAX: usize = 1024;

/// The most writes that wait, and the most bytes that they hold.
pub(super) const WRITES_MAX: usize = 1024;
pub(super) const WRITE_BYTES_MAX: usize = 64 << 20;

/// The kind of a job, which decides its place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It reads what a client waits for.
    Read,
    /// It writes, and holds this many bytes.
    Write(usize),
    /// It removes or closes a file. Such a job holds no more than a path, and is never refused:
    /// tasks that have begun something wait for it, and they are bounded in number.
    Remove,
}

/// Jobs that wait for a helper.
#[derive(Debug)]
pub(super) struct Queue<J> {
    reads: VecDeque<J>,
    writes: VecDeque<(Kind, J)>,
    write_bytes: usize,
    n_writing: usize,
    n_writing_max: usize,
}

impl<J> Queue<J> {
    /// A queue for this many helpers.
    pub(super) fn new(n_helpers: usize) -> Self {
        Self {
            reads: VecDeque::new(),
            writes: VecDeque::new(),
            write_bytes: 0,
            n_writing: 0,
            n_writing_max: (n_helpers / 2).max(1),
        }
    }

    /// Adds a job; gives it back if there are too many of its kind.
    pub(super) fn push(&mut self, kind: Kind, job: J) -> Result<(), J> {
        match kind {
            Kind::Read if self.reads.len() >= READS_MAX => return Err(job),
            Kind::Read => self.reads.push_back(job),
            Kind::Write(bytes) => {
                let bytes = self.write_bytes.saturating_add(bytes);
                if self.writes.len() >= WRITES_MAX || bytes > WRITE_BYTES_MAX {
                    return Err(job);
                }
                self.write_bytes = bytes;
                self.writes.push_back((kind, job));
            }
            Kind::Remove => self.writes.push_back((kind, job)),
        }
        Ok(())
    }

    /// The next job, and its kind for [`Queue::done`].
    pub(super) fn take(&mut self) -> Option<(Kind, J)> {
        // One helper always writes, so that reads without end do not keep writes back.
        let may_write =
            self.n_writing == 0 || (self.reads.is_empty() && self.n_writing < self.n_writing_max);
        if may_write && let Some((kind, job)) = self.writes.pop_front() {
            self.n_writing += 1;
            return Some((kind, job));
        }
        Some((Kind::Read, self.reads.pop_front()?))
    }

    /// A job of this kind is done.
    pub(super) fn done(&mut self, kind: Kind) {
        match kind {
            Kind::Read => return,
            Kind::Write(bytes) => self.write_bytes -= bytes,
            Kind::Remove => {}
        }
        self.n_writing -= 1;
    }

    /// How many jobs helpers could begin with now.
    pub(super) fn n_ready(&self) -> usize {
        self.reads.len() + self.writes.len().min(self.n_writing_max - self.n_writing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_first_and_one_helper_writes() {
        let mut queue = Queue::new(8);
        for n in 0..5 {
            queue.push(Kind::Read, n).unwrap();
            queue.push(Kind::Write(10), 10 + n).unwrap();
        }
        queue.push(Kind::Remove, 20).unwrap();
        let mut order = Vec::new();
        while let Some((_, job)) = queue.take() {
            order.push(job);
        }
        assert_eq!(order, [10, 0, 1, 2, 3, 4, 11, 12, 13], "four of eight write");
        assert_eq!(queue.n_ready(), 0);
        queue.done(Kind::Write(10));
        assert_eq!((queue.n_ready(), queue.take()), (1, Some((Kind::Write(10), 14))));
        queue.done(Kind::Write(10));
        assert_eq!(queue.take(), Some((Kind::Remove, 20)));
        queue.done(Kind::Remove);
        (0..3).for_each(|_| queue.done(Kind::Write(10)));
        assert_eq!((queue.write_bytes, queue.n_writing, queue.take()), (0, 0, None));
    }

    #[test]
    fn writes_are_bounded_in_bytes_and_number_and_removals_are_not() {
        let mut queue = Queue::new(2);
        assert_eq!(queue.push(Kind::Write(WRITE_BYTES_MAX), 0), Ok(()));
        assert_eq!(queue.push(Kind::Write(1), 1), Err(1));
        assert_eq!(queue.take(), Some((Kind::Write(WRITE_BYTES_MAX), 0)));
        assert_eq!(queue.push(Kind::Write(1), 1), Err(1), "its bytes are held until it is done");
        queue.done(Kind::Write(WRITE_BYTES_MAX));
        (0..WRITES_MAX).for_each(|_| queue.push(Kind::Write(0), 2).unwrap());
        assert_eq!(queue.push(Kind::Write(0), 3), Err(3));
        assert_eq!(queue.push(Kind::Remove, 4), Ok(()));
        (0..READS_MAX).for_each(|_| queue.push(Kind::Read, 5).unwrap());
        assert_eq!(queue.push(Kind::Read, 6), Err(6));
    }
}
