//! Messages to the service manager, if there is one: systemd's protocol (sd_notify(3)).
//!
//! ```text
//! start ─ READY ─▶ serving ─ RELOADING ─▶ reload or upgrade ─ READY ─▶ serving ─ STOPPING ─▶ end
//! ```
//!
//! The sign of life (WATCHDOG) is given only while the workers give theirs. The listening sockets
//! and some tables are kept by the manager (FDSTORE): the next ktrix gets them, even if this one is
//! killed.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::sys::notify::{self, NotifyAddress};

/// The service manager, which may be none.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    address: Option<NotifyAddress>,
    /// How often a sign of life is given.
    beat_every: Option<Duration>,
    beaten_at: Option<Instant>,
    status: String,
    /// Another ktrix is still the service's main process.
    is_muted: bool,
}

impl ServiceManager {
    /// The one that the environment names. It does not listen to a process that is not the service's
    /// main one; a ktrix that takes the place of another is mute until it is.
    pub(crate) fn of_environment(is_muted: bool) -> Self {
        let address = NotifyAddress::of_environment().unwrap_or_else(|error| {
            log::warn!("the service manager hears nothing of ktrix: {error}");
            None
        });
        let beat_every = notify::watchdog().filter(|_| address.is_some()).map(|every| every / 2);
        Self { address, beat_every, is_muted, ..Self::default() }
    }

    /// This process is the service's main one now.
    pub(crate) fn unmute(&mut self) {
        self.is_muted = false;
    }

    /// Nothing is said any more: another process is the service's main one.
    pub(crate) fn mute(&mut self) {
        self.is_muted = true;
    }

    /// ktrix serves, for the first time or after a reload or upgrade, whether that succeeded or not.
    pub(crate) fn ready(&self) {
        self.send("READY=1", &[]);
    }

    /// A reload or upgrade begins.
    pub(crate) fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", notify::monotonic_us()), &[]);
    }

    /// The end begins.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1", &[]);
    }

    /// Another process is the service's main one, and serves.
    pub(crate) fn replaced_by(&self, pid: nix::unistd::Pid) {
        self.send(&format!("MAINPID={pid}\nREADY=1"), &[]);
    }

    /// Shows this text to people, if it is not shown already.
    pub(crate) fn show(&mut self, status: String) {
        if self.status != status && !self.is_muted {
            self.send(&format!("STATUS={status}"), &[]);
            self.status = status;
        }
    }

    /// When the next sign of life is due.
    pub(crate) fn next_beat(&self) -> Option<Instant> {
        let beat_every = self.beat_every.filter(|_| !self.is_muted)?;
        self.beaten_at.map(|at| at + beat_every)
    }

    /// Gives a sign of life, if that is due.
    pub(crate) fn beat(&mut self, now: Instant) {
        if self.beat_every.is_some() && self.next_beat().is_none_or(|at| at <= now) {
            self.beaten_at = Some(now);
            self.send("WATCHDOG=1", &[]);
        }
    }

    /// Has these descriptors kept by this name, for the next ktrix.
    pub(crate) fn keep(&self, name: &str, fds: &[BorrowedFd<'_>]) {
        for fds in fds.chunks(FDS_MAX) {
            // A socket in the store needs no watching.
            self.send(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), fds);
        }
    }

    /// Has the descriptors of this name kept no longer.
    pub(crate) fn discard(&self, name: &str) {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
    }

    fn send(&self, message: &str, fds: &[BorrowedFd<'_>]) {
        let Some(address) = self.address.as_ref().filter(|_| !self.is_muted) else { return };
        if let Err(error) = address.send(message, fds) {
            let what = message.split('\n').next().unwrap_or_default();
            log::warn!("cannot send {what} to the service manager: {error}");
        }
    }
}

/// The most descriptors of one message; the kernel takes 253.
const FDS_MAX: usize = 128;
