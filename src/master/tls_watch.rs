//! Takes up new certificates, keys and authorities when their files change, without a reload.
//!
//! The master watches the folders of all files that the TLS of the configuration was made of. It
//! waits until they have been quiet for a moment, because a certificate and its key are two files,
//! and reads them. A part that is bad stays as it was. The rest goes to the children over their
//! channels; connections stay, and the next handshake uses it. The configuration is not read.
//!
//! ```text
//! Quiet ─ a folder changes ─▶ Settling ─ no change for a moment ─▶ look ─▶ Quiet
//!    │ a minute                    ▲                                     │
//!    └─▶ a file has changed ───────┴── a file has changed meanwhile ◀────┘
//! ```

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::master::expiry::Expiries;
use crate::master::generation::Generation;
use crate::master::shared_tables::{self, SharedTables};
use crate::sys::watch::FolderWatch;
use crate::tls::certificate::{Finding, day};
use crate::tls::server::Renewal;
use crate::tls::sources::{Sources, Stamps};
use crate::worker::message::ControlMessage;

/// The files of the TLS in use, and when they are looked at next.
#[derive(Debug)]
pub(crate) struct TlsWatch {
    /// The number of the generation that uses them; 0 for none yet.
    generation: u64,
    files: Stamps,
    watch: Option<FolderWatch>,
    settling: Settling,
    /// Whether a child has not got the files in use: they are handed over again at the next look.
    is_owed: bool,
    /// The findings about the files that the log has.
    told: Vec<Finding>,
    expiries: Expiries,
}

impl TlsWatch {
    pub(crate) fn new(now: Instant) -> Self {
        let (files, settling) = (Stamps::default(), Settling::new(now));
        let expiries = Expiries::default();
        let (watch, is_owed, told) = (None, false, Vec::new());
        Self { generation: 0, files, watch, settling, is_owed, told, expiries }
    }

    /// Readable when a folder has changed.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(FolderWatch::fd)
    }

    /// When the files are to be looked at.
    pub(crate) fn look_at(&self) -> Instant {
        self.settling.look_at
    }

    /// Takes up what has changed in the files of the current generation.
    pub(crate) fn look(&mut self, current: &mut Generation, tables: &SharedTables, now: Instant) {
        if self.generation != current.number {
            self.generation = current.number;
            self.is_owed = false;
            self.told = current.tls.warnings.clone();
            self.follow(current.tls_files.clone());
            self.settling.look_at = now;
        }
        if self.watch.as_ref().is_some_and(FolderWatch::take_change) {
            self.settling.change(now);
        }
        let is_settled = self.settling.since.is_some();
        if self.settling.take_due(now) {
            let is_wanted = match self.files.are_current() {
                true => self.is_owed,
                false => is_settled,
            };
            if is_wanted {
                current.renew_tls(self, tables);
            }
            // A look of each minute finds files that may be half written, and a new watch does not see
            // a change from before.
            if !self.files.are_current() {
                self.settling.change(now);
            }
            let in_use = current.tls.certificates();
            let certificates: Vec<_> = in_use.into_iter().map(|(_, it)| it).collect();
            let now_s = shared_tables::unix_s();
            let due = self.expiries.take_due(&certificates, now_s);
            let ended = self.expiries.take_ended(&current.tls.lists(), now_s);
            for warning in due.iter().chain(&ended) {
                log::warn!("{warning}");
            }
        }
    }

    /// A child says that it could not receive the files.
    pub(crate) const fn owe(&mut self) {
        self.is_owed = true;
    }

    fn follow(&mut self, files: Stamps) {
        let folders = files.folders();
        self.watch = match folders.is_empty() {
            true => None,
            false => watch(&folders),
        };
        self.files = files;
    }

    /// Logs what is new among the findings about the files.
    fn tell(&mut self, renewal: &Renewal) {
        let Renewal { kept, warnings, .. } = renewal;
        for finding in kept.iter().filter(|finding| !self.told.contains(finding)) {
            log::error!("{finding}; keeping the one in use");
        }
        for warning in warnings.iter().filter(|warning| !self.told.contains(warning)) {
            log::warn!("{warning}");
        }
        self.told = kept.iter().chain(warnings).cloned().collect();
    }
}

fn watch(folders: &[PathBuf]) -> Option<FolderWatch> {
    let watch = FolderWatch::new(folders.iter().map(PathBuf::as_path));
    let warn = |error| {
        log::warn!(
            "cannot watch the folders of certificates: {error}; looking at the files each minute \
             (raise fs.inotify.max_user_instances and fs.inotify.max_user_watches)"
        );
    };
    watch.map_err(warn).ok()
}

impl Generation {
    /// Reads the files again, and hands them to the children if something has changed.
    fn renew_tls(&mut self, watch: &mut TlsWatch, tables: &SharedTables) {
        let sources = Sources::of_disk();
        let mut renewal = self.tls.renew(&self.config, &sources, Some(&tables.secrets));
        renewal.kept.extend(self.use_ticket_secrets(&sources, tables).err());
        watch.follow(sources.stamps());
        watch.tell(&renewal);
        if renewal.is_change || watch.is_owed {
            // A part that is bad now stays in each child as it was there.
            watch.is_owed &= !renewal.kept.is_empty();
            watch.is_owed |= !self.hand_over_tls(&sources);
        }
        if !renewal.is_change {
            return;
        }
        self.publish_expiries();
        for certificate in &renewal.certificates {
            let (file, day) = (certificate.file.display(), day(certificate.expires_s));
            log::info!("using the new certificate {file}, which expires on {day}");
        }
        if renewal.certificates.is_empty() {
            log::info!("using new authorities or lists of revoked certificates");
        }
    }

    /// Whether it could.
    fn hand_over_tls(&mut self, sources: &Sources) -> bool {
        match sources.to_file() {
            Ok(file) => {
                for child in &mut self.children {
                    child.send_with(ControlMessage::Tls, Some(file.as_fd()));
                }
                true
            }
            Err(error) => {
                log::error!("cannot hand new certificates to the workers: {error}; trying again");
                false
            }
        }
    }
}

/// When files that change are looked at.
#[derive(Debug)]
struct Settling {
    look_at: Instant,
    /// The first change that was not looked at.
    since: Option<Instant>,
}

impl Settling {
    fn new(now: Instant) -> Self {
        Self { look_at: now, since: None }
    }

    fn change(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        self.look_at = (now + QUIET).min(since + UNQUIET_MAX);
    }

    fn take_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.look_at;
        if is_due {
            *self = Self { look_at: now + LOOK_EVERY, since: None };
        }
        is_due
    }
}

/// Files that were not changed for this long are whole.
const QUIET: Duration = Duration::from_millis(500);
/// In a folder that is never quiet, the files are looked at this long after a change.
const UNQUIET_MAX: Duration = Duration::from_secs(5);
/// The files are looked at this often in any case: a watch does not see the changes of other machines,
/// nor a folder that takes the place of a watched one.
const LOOK_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_looked_at_once_they_are_quiet() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut settling = Settling::new(start);
        assert!(settling.take_due(at(0)), "the first look is at once");
        assert!(!settling.take_due(at(59_999)));
        settling.change(at(10_000));
        settling.change(at(10_300));
        assert!(!settling.take_due(at(10_799)) && settling.take_due(at(10_800)));
        // Changes without an end.
        for n in 0..60 {
            settling.change(at(20_000 + n * 100));
        }
        assert!(!settling.take_due(at(24_999)) && settling.take_due(at(25_000)));
        assert!(!settling.take_due(at(84_999)) && settling.take_due(at(85_000)));
    }
}
