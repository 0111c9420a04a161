//! The death of a child: clear what it held, and decide who follows.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::base::units::format_duration;
use crate::master::child::Child;
use crate::master::generation::{Generation, Phase};
use crate::master::spawn::EXIT_CANNOT_BEGIN;
use crate::master::{Master, Mode};
use crate::sys::process::{self, Death};
use crate::worker::inherited::Role;

/// One death, as far as those who decide need to know it.
struct Passing {
    role: Role,
    child: Child,
    death: Death,
    was_serving: bool,
}

impl Master {
    /// Takes leave of all children that have ended.
    pub(super) fn reap(&mut self, now: Instant) {
        while let Some((pid, death)) = process::reap() {
            // Its last words may be `ready`, and count.
            self.hear_children(now);
            let found = self.generations.iter().enumerate().find_map(|(index, generation)| {
                let is_his = |child: &Child| child.pid == pid;
                let post = generation.posts.iter().position(|p| p.child().is_some_and(is_his))?;
                Some((index, post))
            });
            let Some((index, post)) = found else { continue };
            let held = &mut self.generations[index].posts[post];
            let (role, was_serving) = (held.role, held.is_serving());
            if let Some(child) = held.vacate(None, now) {
                let passing = Passing { role, child, death, was_serving };
                self.clear(index, &passing, now);
                self.follow(index, post, &passing, now);
            }
        }
    }

    /// Frees what the dead child held in the shared tables, and takes over its log lines.
    fn clear(&mut self, index: usize, passing: &Passing, now: Instant) {
        let mut swept: Vec<&Rc<_>> = Vec::new();
        for cache in self.generations.iter().filter_map(|generation| generation.cache.as_ref()) {
            if !swept.iter().any(|other| Rc::ptr_eq(other, &cache.shared)) {
                cache.shared.index.sweep_dead();
                swept.push(&cache.shared);
            }
        }
        self.watch.hurry(now);
        let seat = passing.child.seat;
        self.tree.wakes.wake_all(self.tree.fills.abandon_seat(seat));
        match (&self.generations[index].config.log.access, passing.role) {
            // The keeper keeps its seat for its successor, and has no answers to log.
            (_, Role::Keeper) => {}
            (None, Role::Worker(_)) => self.seats.free(seat),
            (Some(access), Role::Worker(_)) => {
                let who = format!("{} (pid {})", passing.role, passing.child.pid);
                self.estates.open(seat, who, access.file.clone(), now);
            }
        }
    }

    /// Decides what becomes of the post.
    fn follow(&mut self, index: usize, post: usize, passing: &Passing, now: Instant) {
        let phase = self.generations[index].phase;
        let is_clean = passing.death == Death::Exit(0);
        match (self.mode, phase) {
            (Mode::Serving, Phase::Current) => {
                if !self.has_announced && passing.death == Death::Exit(EXIT_CANNOT_BEGIN) {
                    self.give_up(passing, now);
                } else {
                    self.restart(index, post, passing, now);
                }
            }
            (Mode::Serving, Phase::Starting { .. }) => {
                log::error!("{passing} while it started; the reload is given up");
                self.abandon(index, now);
            }
            (_, _) if is_clean => log::debug!("{passing}"),
            (Mode::Stopping { .. }, _) => log::debug!("{passing}"),
            (_, _) => log::warn!("{passing} while it drained"),
        }
    }

    /// Nobody serves yet and a child cannot begin: neither could the next.
    fn give_up(&mut self, passing: &Passing, now: Instant) {
        let why = format!("cannot start: {passing}; the error log says why");
        log::error!("{why}");
        if let Some(announcer) = self.announcer.take() {
            announcer.failed(&why);
        }
        self.exit_code = 1;
        self.stop(now);
    }

    fn restart(&mut self, index: usize, post: usize, passing: &Passing, now: Instant) {
        let lived = now.saturating_duration_since(passing.child.born);
        let generation = &mut self.generations[index];
        let pause = generation.posts[post].backoff.died(lived);
        generation.posts[post].vacate(Some(now + pause), now);
        if pause.is_zero() {
            log::warn!("{passing}; restarted at once");
        } else if pause < PAUSE_GRAVE {
            log::warn!("{passing}; restarted in {}", format_duration(pause));
        } else {
            log::error!("{passing}; restarted in {}", format_duration(pause));
        }
        if generation.config.workers > 1 && passing.role != Role::Keeper {
            generation.n_stillborn = match passing.was_serving {
                true => 0,
                false => generation.n_stillborn.saturating_add(1),
            };
            keep_one(generation, now + last_pause(generation.n_stillborn));
        }
    }
}

/// When no worker of several is left, clients wait: then the pause of the one whose turn is next
/// is cut short. A lone worker that crashes has to bear its pauses.
fn keep_one(generation: &mut Generation, latest: Instant) {
    let workers = || generation.posts.iter().filter(|post| post.role != Role::Keeper);
    if workers().any(|post| post.child().is_some()) {
        return;
    }
    let next =
        workers().filter_map(|post| Some((post.restart_at()?, post.role))).min_by_key(|n| n.0);
    if let Some((at, role)) = next
        && at > latest
        && let Some(post) = generation.posts.iter_mut().find(|post| post.role == role)
    {
        log::warn!("no worker is left; {role} is started early");
        let now = post.down_since;
        post.vacate(Some(latest), now);
    }
}

impl fmt::Display for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}) {}", self.role, self.child.pid, self.death)
    }
}

/// From this pause on somebody should look into it.
const PAUSE_GRAVE: Duration = Duration::from_secs(1);
/// The longest pause of the last worker, when so many in a row have died before they served: each
/// may have been killed by somebody else, or crash as the next one will.
fn last_pause(n_stillborn: u32) -> Duration {
    LAST_PAUSE.saturating_mul(1 << n_stillborn.min(LAST_DOUBLINGS_MAX)).min(LAST_PAUSE_MAX)
}

/// The longest pause of the last worker, if the one that died had served.
const LAST_PAUSE: Duration = Duration::from_millis(20);
/// The same if many died before they served.
const LAST_PAUSE_MAX: Duration = Duration::from_secs(1);
/// After so many doublings it is longer than that.
const LAST_DOUBLINGS_MAX: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_worker_is_missed_for_a_moment_and_ever_longer_if_it_cannot_start() {
        let pauses_ms: Vec<_> = (0..9).map(|n| last_pause(n).as_millis()).collect();
        assert_eq!(pauses_ms, [20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000]);
        assert_eq!(last_pause(u32::MAX), LAST_PAUSE_MAX);
    }
}
