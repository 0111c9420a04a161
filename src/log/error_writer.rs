//! A thread that writes the file of the error log, so that a worker does not wait for its disk.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::log::file::LogFile;
use crate::log::message::write_if_ready;
use crate::sys::process;

/// The most lines that wait for the file.
const LINES_MAX: usize = 256;

const STACK_BYTES: usize = 128 << 10;

/// The worker's side of the thread, which ends with it.
#[derive(Debug)]
pub(super) struct ErrorWriter {
    lines: SyncSender<String>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The file to go on in.
    next_file: Mutex<Option<LogFile>>,
    n_waiting: AtomicUsize,
    n_lost: AtomicU64,
}

impl ErrorWriter {
    /// Starts the thread.
    pub(super) fn start(file: LogFile) -> io::Result<Self> {
        let (lines, receiver) = sync_channel(LINES_MAX);
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        process::start_thread("ktrix-error-log", STACK_BYTES, move || {
            write_all(&receiver, file, &theirs);
        })?;
        Ok(Self { lines, shared })
    }

    /// Gives a line to the thread; whether there was room for it.
    pub(super) fn put(&self, line: String) -> bool {
        self.shared.n_waiting.fetch_add(1, Ordering::AcqRel);
        let is_taken = self.lines.try_send(line).is_ok();
        if !is_taken {
            self.shared.n_waiting.fetch_sub(1, Ordering::AcqRel);
        }
        is_taken
    }

    /// The number of lines that the file has not taken since the last call.
    pub(super) fn take_lost(&self) -> u64 {
        self.shared.n_lost.swap(0, Ordering::AcqRel)
    }

    /// Goes on in this file.
    pub(super) fn write_to(&self, file: LogFile) {
        *self.shared.next_file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        // An empty line wakes the thread, which closes the old file.
        self.put(String::new());
    }

    /// Waits until all lines are written, for at most this long.
    pub(super) fn settle(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.shared.n_waiting.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(STEP);
        }
    }
}

fn write_all(lines: &Receiver<String>, mut file: LogFile, shared: &Shared) {
    while let Ok(line) = lines.recv() {
        let next = shared.next_file.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(next) = next {
            file = next;
        }
        if !write_if_ready(file.as_fd(), line.as_bytes()) {
            shared.n_lost.fetch_add(1, Ordering::AcqRel);
        }
        shared.n_waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

const STEP: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lines_are_written_in_order_and_to_the_newest_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let writer = ErrorWriter::start(LogFile::open(&path("a")).unwrap()).unwrap();
        let put = |line: &str| {
            assert!(writer.put(line.to_owned()));
            writer.settle(Duration::from_secs(20));
        };
        put("one\n");
        put("two\n");
        writer.write_to(LogFile::open(&path("b")).unwrap());
        put("three\n");
        assert_eq!(fs::read_to_string(path("a")).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(path("b")).unwrap(), "three\n");
        assert_eq!(writer.take_lost(), 0);
    }

    #[test]
    fn lines_that_find_no_room_are_refused_and_not_waited_for() {
        let Ok(full) = LogFile::open(std::path::Path::new("/dev/full")) else { return };
        let writer = ErrorWriter::start(full).unwrap();
        let n_taken = (0..10 * LINES_MAX).filter(|_| writer.put("x\n".to_owned())).count() as u64;
        writer.settle(Duration::from_secs(20));
        assert_eq!(writer.take_lost(), n_taken);
    }
}
