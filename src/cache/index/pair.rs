//! The two buckets of a key, locked together, and the place of the key in them.
//!
//! Home first, then its neighbour: always in ascending order, so that writers never wait for one
//! another in a circle. Before it locks, the process notes the home in its owner row.

use crate::cache::index::bucket::{LockedBucket, SLOTS};
use crate::cache::index::slot::{SlotAt, State};
use crate::cache::index::table::Table;
use crate::shared::owner::Owner;

/// The two buckets. The fields' order is the order of their release.
pub(super) struct Pair<'a> {
    buckets: [LockedBucket<'a>; 2],
    home: usize,
    _note: Note<'a>,
}

/// Where a key is to be written: which of the two buckets, and its slot there.
pub(super) enum Place {
    /// It is there.
    Own(usize, usize),
    /// Nothing is there.
    Empty(usize, usize),
    /// The least valuable slot is there.
    Worst(usize, usize),
}

impl Place {
    /// The bucket, 0 or 1, and the slot in it.
    pub(super) const fn slot(&self) -> (usize, usize) {
        match *self {
            Self::Own(bucket, i) | Self::Empty(bucket, i) | Self::Worst(bucket, i) => (bucket, i),
        }
    }
}

impl<'a> Pair<'a> {
    /// Locks bucket `home` and the next one, which must be there; `None` if a living writer keeps
    /// one for too long.
    pub(super) fn lock(table: &'a Table, owner: Owner, home: usize) -> Option<Self> {
        let note = Note { table, owner };
        table.owners.note(owner, home as u64 + 1);
        let lock = |number: usize| table.buckets.get(number)?.lock(owner, &table.owners);
        Some(Self { buckets: [lock(home)?, lock(home + 1)?], home, _note: note })
    }

    /// Whether one of them had to be repaired.
    pub(super) fn was_repaired(&self) -> bool {
        self.buckets.iter().any(|bucket| bucket.n_emptied().is_some())
    }

    /// One of the two.
    pub(super) const fn bucket(&self, bucket: usize) -> &LockedBucket<'a> {
        &self.buckets[bucket]
    }

    /// The index's name for a slot.
    pub(super) const fn at(&self, bucket: usize, i: usize) -> SlotAt {
        SlotAt(((self.home + bucket) * SLOTS + i) as u32)
    }

    /// The slot of the key with these halves.
    pub(super) fn find(&self, halves: [u64; 2]) -> Option<(usize, usize)> {
        (0..2).find_map(|bucket| Some((bucket, self.buckets[bucket].find(halves)?)))
    }

    /// The place to write the key with these halves. A slot is stale at `now_s`. If the index
    /// `is_full`, a new key takes the place of another one, if there is one.
    pub(super) fn place_for(&self, halves: [u64; 2], now_s: u64, is_full: bool) -> Place {
        if let Some((bucket, i)) = self.find(halves) {
            return Place::Own(bucket, i);
        }
        // The emptier one, so that buckets fill evenly; home on a tie, since it is looked at first.
        let first = usize::from(self.buckets[1].n_taken() < self.buckets[0].n_taken());
        let mut vacancies = [first, 1 - first]
            .into_iter()
            .filter_map(|bucket| Some((bucket, self.buckets[bucket].vacancy()?)));
        let vacancy = vacancies.next();
        let worst = || {
            (0..2)
                .flat_map(|bucket| (0..SLOTS).map(move |i| (bucket, i)))
                .filter(|&(bucket, i)| self.buckets[bucket].is_taken(i))
                .min_by_key(|&(bucket, i)| self.worth(bucket, i, now_s))
        };
        match (vacancy, is_full) {
            (Some((bucket, i)), false) => Place::Empty(bucket, i),
            (Some((bucket, i)), true) => {
                worst().map_or(Place::Empty(bucket, i), |(bucket, i)| Place::Worst(bucket, i))
            }
            (None, _) => worst().map_or(Place::Worst(0, 0), |(bucket, i)| Place::Worst(bucket, i)),
        }
    }

    /// The worth of a slot. The least is evicted first, and a torn slot before all.
    fn worth(&self, bucket: usize, i: usize, now_s: u64) -> Option<(Worth, bool, u64, u64)> {
        let view = self.buckets[bucket].view(i, self.at(bucket, i))?;
        let until_s = view.fresh_until_s.max(view.swr_until_s).max(view.sie_until_s);
        let worth = match view.state {
            State::Pass => Worth::Pass,
            State::Vary => Worth::Vary,
            State::Ready if until_s < now_s => Worth::Stale,
            State::Ready if !view.is_visited => Worth::Unused,
            State::Ready => Worth::Used,
        };
        Some((worth, view.is_visited, view.fresh_until_s, view.stored_s))
    }
}

/// The worth of a slot when one has to be evicted, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// A hit-for-miss.
    Pass,
    /// Stale, and not usable without the origin.
    Stale,
    /// Not used since eviction last looked.
    Unused,
    /// In use.
    Used,
    /// The marker of all variants of a key.
    Vary,
}

/// Clears the owner's note once the locks are gone.
struct Note<'a> {
    table: &'a Table,
    owner: Owner,
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        self.table.owners.note(self.owner, 0);
    }
}
