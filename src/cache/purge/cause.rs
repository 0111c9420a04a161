//! The purge status of stored responses, and the purges that cause it: for people.

use std::path::Path;

use crate::cache::purge::Purges;
use crate::cache::purge::bucket::{Cause, NUMBER_BITS, NUMBER_MAX, PurgeStatus};
use crate::cache::purge::file::{OpenError, Parts};
use crate::cache::purge::journal::Record;
use crate::policy::purge::surrogate::{self, SurrogateKeys};

/// The table, mapped for reading only.
#[derive(Debug)]
pub struct Reader(Purges);

impl Reader {
    /// Opens the table in `dir`. Read permission is enough.
    ///
    /// # Errors
    ///
    /// When there is none, or not one of this version.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Parts::open_for_reading(dir).map(|parts| Self(Purges::over(parts)))
    }

    /// Whether nothing was ever purged.
    pub fn is_untouched(&self) -> bool {
        self.0.count() == 0
    }

    /// As [`Purges::purge_status`].
    pub fn purge_status(&self, key_text: &[u8], surrogates: &SurrogateKeys) -> PurgeStatus {
        self.0.purge_status(key_text, surrogates)
    }

    /// As [`Purges::records`].
    pub fn records(&self) -> Vec<Record> {
        self.0.records()
    }
}

impl Reader {
    /// The purges that cause the status of a response with this key text and these surrogate keys,
    /// the earliest first. Empty if it is valid, or if no purge in force is known: it was merged
    /// into a floor, or the response was stored under another table.
    pub fn causes(&self, key_text: &[u8], surrogates: &SurrogateKeys) -> Vec<Cause> {
        let Self(purges) = self;
        let asked = surrogates.purge_epoch & NUMBER_MAX;
        let mut causes: Vec<Cause> = Vec::new();
        if surrogates.purge_epoch >> NUMBER_BITS != purges.id {
            return causes;
        }
        surrogate::each_name(key_text, surrogates, purges, |hash| {
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
