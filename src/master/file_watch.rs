//! Notices what other programs do to the pid file and to the mapped files of the cache.
//!
//! ```text
//! InPlace ─ removed or replaced ─▶ Displaced: the log says so once; a reload opens the cache again
//!    └───── truncated ─▶ Lost: no new child maps it; a generation of the same configuration opens it again
//! ```
//!
//! A process that touches pages behind the end of a truncated file dies of SIGBUS. The master
//! therefore checks the length before it touches the index
//! ([`Index::sweep_dead`](crate::cache::index::Index::sweep_dead)), and each death of a child makes
//! it check the files here.

use std::time::{Duration, Instant};

use crate::master::generation::{CacheFiles, Generation};
use crate::master::pidfile::PidFile;

/// When the files are checked next, and what the log has said about the pid file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileWatch {
    check_at: Instant,
    has_no_pid_file: bool,
}

impl FileWatch {
    pub(crate) fn new(now: Instant) -> Self {
        Self { check_at: now, has_no_pid_file: false }
    }

    pub(crate) fn check_soon(&mut self, now: Instant) {
        self.check_at = now;
    }

    /// Checks the files once per [`PAUSE`].
    pub(crate) fn check(
        &mut self,
        pid_file: Option<&mut PidFile>,
        current: &mut Generation,
        now: Instant,
    ) {
        if now >= self.check_at {
            self.check_at = now + PAUSE;
            if let Some(pid_file) = pid_file {
                self.restore(pid_file);
            }
            current.check_cache_files();
        }
    }

    /// Without the pid file, `ktrix -s` does not find this ktrix, and another one can start.
    fn restore(&mut self, pid_file: &mut PidFile) {
        let path = pid_file.path().to_owned();
        match pid_file.restore() {
            Ok(false) => {}
            Ok(true) => {
                self.has_no_pid_file = false;
                log::warn!("pid file {path:?} was removed or replaced; restored it");
            }
            Err(error) if !self.has_no_pid_file => {
                self.has_no_pid_file = true;
                log::error!(
                    "pid file {path:?} was removed or replaced; cannot restore it: {error}"
                );
            }
            Err(_) => {}
        }
    }
}

impl Generation {
    /// Says in the log what happened to the cache's files; gives the cache up if a file is truncated.
    fn check_cache_files(&mut self) {
        let Some(cache) = self.cache.as_ref().map(|cache| &cache.shared) else { return };
        let dir = cache.store.dir();
        if !cache.is_whole() {
            log::error!(
                "index or purge file of cache {dir:?} was truncated while in use, which kills the \
                 processes that map it; reopening the cache"
            );
            self.cache = None;
            self.cache_files = CacheFiles::Lost;
        } else if cache.is_in_place() {
            self.cache_files = CacheFiles::InPlace;
        } else if self.cache_files != CacheFiles::Displaced {
            self.cache_files = CacheFiles::Displaced;
            log::warn!(
                "index or purge file of cache {dir:?} was removed or replaced; \"ktrix cache\" does not \
                 see the one in use; reload to reopen the cache"
            );
        }
    }
}

/// The time between two checks.
const PAUSE: Duration = Duration::from_secs(1);
