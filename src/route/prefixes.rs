//! The literal path prefixes of one site.
//!
//! In sorted order, every prefix of a path stands at or before it, and all entries between the
//! longest one and the path begin with that one. So the last entry at or before the path either is
//! its longest prefix or begins with it; prefixes of one another are linked.

use std::collections::BTreeMap;
use std::iter;

/// The prefixes, each with a value.
#[derive(Debug)]
pub(super) struct Prefixes<T> {
    sorted: Vec<Prefix<T>>,
}

#[derive(Debug)]
struct Prefix<T> {
    path: Box<[u8]>,
    value: T,
    /// The longest other entry that is a prefix of this one.
    shorter: Option<usize>,
}

impl<T> Prefixes<T> {
    pub(super) fn new(entries: BTreeMap<Box<[u8]>, T>) -> Self {
        let mut prefixes = Self { sorted: Vec::with_capacity(entries.len()) };
        for (path, value) in entries {
            let shorter = prefixes.find(&path);
            prefixes.sorted.push(Prefix { path, value, shorter });
        }
        prefixes
    }

    /// The values of all prefixes of a path, that of the longest one first.
    pub(super) fn longest_first<'p>(&'p self, path: &[u8]) -> impl Iterator<Item = &'p T> + 'p {
        let longest = self.find(path).map(|at| &self.sorted[at]);
        iter::successors(longest, |it| it.shorter.map(|at| &self.sorted[at])).map(|it| &it.value)
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        let mut at = self.sorted.partition_point(|it| *it.path <= *path).checked_sub(1);
        while let Some(n) = at
            && !path.starts_with(&self.sorted[n].path)
        {
            at = self.sorted[n].shorter;
        }
        at
    }
}
