//! How what is stored stands to the purges, and by which of them: for people.

use std::path::Path;

use crate::cache::purge::Purges;
use crate::cache::purge::bucket::{Cause, NUMBER_BITS, NUMBER_MAX, Standing};
use crate::cache::purge::file::{OpenError, Parts};
use crate::cache::purge::journal::Record;
use crate::policy::purge::surrogate::{self, Labels};

/// The table, for those who only look: nothing is stored into it.
#[derive(Debug)]
pub struct Reader(Purges);

impl Reader {
    /// The table in `dir`, to see how what is stored stands; the right to read is enough.
    ///
    /// # Errors
    ///
    /// When there is none, or none of ours.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Parts::open_for_reading(dir).map(|parts| Self(Purges::over(parts)))
    }

    /// Whether nothing was ever purged.
    pub fn is_untouched(&self) -> bool {
        self.0.count() == 0
    }

    /// As [`Purges::standing`].
    pub fn standing(&self, key_text: &[u8], labels: &Labels) -> Standing {
        self.0.standing(key_text, labels)
    }

    /// As [`Purges::records`].
    pub fn records(&self) -> Vec<Record> {
        self.0.records()
    }
}

impl Reader {
    /// The purges that make a response of this key text and these labels stand as it does, the
    /// earliest first. Empty if it counts, or if no purge in force can be named: it became part
    /// of a coarser one, or the table is not the one that the response was stored under.
    pub fn causes(&self, key_text: &[u8], labels: &Labels) -> Vec<Cause> {
        let Self(purges) = self;
        let asked = labels.asked_seq & NUMBER_MAX;
        let mut causes: Vec<Cause> = Vec::new();
        if labels.asked_seq >> NUMBER_BITS != purges.id {
            return causes;
        }
        surrogate::each_name(key_text, labels, purges, |hash| {
            purges.bucket(hash).each_cause(hash, asked, |cause| causes.push(cause));
            true
        });
        causes.sort_unstable_by_key(|cause| cause.number);
        causes.dedup_by_key(|cause| cause.number);
        for cause in &mut causes {
            let record = purges.line(cause.number).read();
            if let Some(record) = record.filter(|record| record.number == cause.number) {
                (cause.name, cause.who) = (record.name, record.who);
            }
        }
        causes
    }
}
