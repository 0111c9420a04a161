//! The path prefixes of one site.
//!
//! In sorted order, every prefix of a path stands at or before it, and all entries between the
//! longest one and the path begin with that one. So the last entry at or before the path either is
//! its longest prefix or begins with it; prefixes of one another are linked.

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

impl<T: Copy + Ord> Prefixes<T> {
    /// Of two entries with one path, the smaller value counts.
    pub(super) fn new(mut entries: Vec<(Box<[u8]>, T)>) -> Self {
        entries.sort();
        entries.dedup_by(|later, first| later.0 == first.0);
        let mut prefixes = Self { sorted: Vec::with_capacity(entries.len()) };
        for (path, value) in entries {
            let shorter = prefixes.find(&path);
            prefixes.sorted.push(Prefix { path, value, shorter });
        }
        prefixes
    }

    /// The value of the longest prefix of a path.
    pub(super) fn longest_of(&self, path: &[u8]) -> Option<T> {
        self.find(path).map(|at| self.sorted[at].value)
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
