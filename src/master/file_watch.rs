//! What others do to the cache directory and the pid file, which may lie in it, while ktrix runs.
//!
//! ```text
//! in place ─ removed or replaced ─▶ told, once; a reload opens it anew
//!    └───── cut ─▶ told; no child gets it any more ─▶ a generation of the same configuration opens it anew
//! ```
//!
//! A process that touches what was cut off a mapped file dies of SIGBUS. The master looks at
//! the file before it touches it ([`Index::sweep_dead`](crate::cache::index::Index::sweep_dead)), and
//! its children's deaths make it look here.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::master::generation::{Generation, Phase};
use crate::master::{Master, Mode};

/// What the master remembers of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileWatch {
    looks_at: Instant,
    /// The cache was given up, and is to be opened anew.
    is_given_up: bool,
    /// The pid file cannot be made again, which has been said.
    has_no_pid_file: bool,
}

impl FileWatch {
    /// Looks from now on.
    pub(super) fn new(now: Instant) -> Self {
        Self { looks_at: now, is_given_up: false, has_no_pid_file: false }
    }

    /// The cache is not missing any more when a reload came first that has one, or wants none.
    fn heed(&mut self, lacks_cache: bool) {
        self.is_given_up &= lacks_cache;
    }

    /// Looks again as soon as it can.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.looks_at = now;
    }
}

impl Master {
    /// Looks if it is time to, and acts on what others did.
    pub(super) fn watch_files(&mut self, now: Instant) {
        // A generation that starts may be about to replace the index.
        let is_starting = |it: &Generation| matches!(it.phase, Phase::Starting { .. });
        if self.generations.iter().any(is_starting) {
            return;
        }
        if now >= self.file_watch.looks_at {
            self.file_watch.looks_at = now + PAUSE;
            self.restore_pid_file();
            self.file_watch.is_given_up |= self
                .generations
                .iter_mut()
                .find(|generation| generation.phase == Phase::Current)
                .is_some_and(Generation::gives_up_cache);
        }
        let current = self.generations.iter().find(|it| it.phase == Phase::Current);
        if let Some(current) = current {
            self.file_watch
                .heed(lacks_cache(current.config.cache.is_some(), current.cache.is_some()));
        }
        if self.file_watch.is_given_up
            && self.mode == Mode::Serving
            && let Some(config) = self.config_without_cache()
        {
            self.file_watch.is_given_up = false;
            if let Err(why) = self.begin_generation(config, now) {
                log::error!("{why}; ktrix goes on without its cache");
            }
        }
    }

    /// Without its pid file, a ktrix is not reached by `ktrix -s`, and does not keep others away.
    fn restore_pid_file(&mut self) {
        let Some(pid_file) = &mut self.pid_file else { return };
        let path = pid_file.path().to_owned();
        match pid_file.restore() {
            Ok(false) => {}
            Ok(true) => {
                self.file_watch.has_no_pid_file = false;
                log::warn!("the pid file {path:?} was removed or replaced: it is made again");
            }
            Err(error) if !self.file_watch.has_no_pid_file => {
                self.file_watch.has_no_pid_file = true;
                log::error!("the pid file {path:?} was removed or replaced: {error}");
            }
            Err(_) => {}
        }
    }

    /// What the current generation, which has lost its cache, runs by, if there is room for another.
    fn config_without_cache(&self) -> Option<Config> {
        let current = self.generations.iter().find(|it| it.phase == Phase::Current)?;
        let has_seats = self.seats.n_free() >= Generation::n_children(&current.config);
        has_seats.then(|| (*current.config).clone())
    }
}

impl Generation {
    /// Says what others did to its cache; gives it up, and says so, if it cannot be touched any more.
    fn gives_up_cache(&mut self) -> bool {
        let Some(cache) = self.cache.as_ref().map(|cache| &cache.shared) else { return false };
        let dir = cache.store.dir();
        if !cache.is_whole() {
            log::error!(
                "the index or the purges of the cache {dir:?} were cut while they were in use, which kills \
                 who uses them: the cache is opened anew"
            );
            self.cache = None;
            return true;
        }
        let is_displaced = !cache.is_in_place();
        if is_displaced && !self.is_displaced {
            log::warn!(
                "the index or the purges of the cache {dir:?} were removed or replaced: \"ktrix cache\" \
                 does not see what is in use any more; a reload opens the cache anew"
            );
        }
        self.is_displaced = is_displaced;
        false
    }
}

/// Whether a generation is without the cache that its configuration says.
const fn lacks_cache(is_wanted: bool, is_there: bool) -> bool {
    is_wanted && !is_there
}

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_that_comes_first_leaves_nothing_to_open_anew() {
        for (is_wanted, is_there, stays) in
            [(true, false, true), (true, true, false), (false, false, false)]
        {
            let mut watch = FileWatch { is_given_up: true, ..FileWatch::new(Instant::now()) };
            watch.heed(lacks_cache(is_wanted, is_there));
            assert_eq!(watch.is_given_up, stays, "{is_wanted} {is_there}");
            watch.heed(true);
            assert_eq!(watch.is_given_up, stays, "it is not given up again");
        }
    }
}
