//! The conversation of two masters: the one that is replaced, and the one that takes its place.
//!
//! ```text
//! new ── "\0": it serves, or why it cannot ──▶ old
//! old ── main: the service manager knows the new one; adopt: a connection that is idle ──▶ new
//! new ── reopen, quit, stop: signals that concern what the old one still does ──▶ old
//! ```
//!
//! The channel ends when one of them has ended.

use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::cache::directory_lock::DirectoryLock;
use crate::shared::servers::ServerTable;
use crate::sys::daemonize::{READY, ReadyPipe, WORDS_MAX};
use crate::sys::passed::{self, Passed};
use crate::sys::socket;
use crate::worker::message::ControlMessage;

/// The master that this one takes the place of.
#[derive(Debug)]
pub(crate) struct Predecessor {
    channel: OwnedFd,
    /// Its pid file.
    pub(crate) pid_file: Option<File>,
    /// Its servers.
    pub(crate) servers: Option<ServerTable>,
    /// Its cache.
    pub(crate) cache: Option<CacheOfOld>,
}

/// The cache of the master that this one takes the place of.
#[derive(Debug)]
pub(crate) struct CacheOfOld {
    /// The lock on its directory, which both hold.
    pub(crate) lock: DirectoryLock,
    /// Whether the keeper still compared that with the index.
    pub(crate) is_unchecked: bool,
    /// Its sketch of uses.
    pub(crate) uses: Option<OwnedFd>,
}

/// A message of the old master.
#[derive(Debug)]
pub(crate) enum FromOld {
    /// This process is the service's main one.
    Main,
    /// Serve this connection.
    Adopt(SocketAddr, OwnedFd),
    /// It has ended.
    Ended,
}

impl Predecessor {
    /// The one that passed its channel to this process, if this is an upgrade.
    pub(crate) fn of(passed: &mut Vec<Passed>) -> Option<Self> {
        let channel = passed::find(passed, CHANNEL)?;
        let mut file = |name| passed::find(passed, name).map(File::from);
        let checked = file(LOCK).map(|dir| (dir, false));
        let dir = checked.or_else(|| Some((file(LOCK_UNCHECKED)?, true)));
        let uses = file(USES).map(OwnedFd::from);
        let cache = dir.map(|(dir, is_unchecked)| CacheOfOld {
            lock: DirectoryLock::passed(dir),
            is_unchecked,
            uses,
        });
        let pid_file = file(PID_FILE);
        // A table of another version is as good as none.
        let servers = file(SERVERS).and_then(|file| ServerTable::open(&file).ok());
        Some(Self { channel, pid_file, servers, cache })
    }

    /// Where this process reports that it is ready, or why it is not.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(crate) fn ready_pipe(&self) -> std::io::Result<ReadyPipe> {
        Ok(ReadyPipe::over(self.channel.try_clone()?))
    }

    /// Its next message; `None` if there is none now.
    pub(crate) fn hear(&self) -> Option<FromOld> {
        let mut buf = [0; 128];
        loop {
            return match socket::receive_message(self.channel.as_fd(), &mut buf) {
                Ok(None) => Some(FromOld::Ended),
                Ok(Some((len, file))) => {
                    let message = buf.get(..len).unwrap_or_default();
                    match (ControlMessage::parse(message), file) {
                        _ if message == MAIN => Some(FromOld::Main),
                        (Some(ControlMessage::Adopt(listener)), Some(connection)) => {
                            Some(FromOld::Adopt(listener, connection))
                        }
                        _ => continue,
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(_) => Some(FromOld::Ended),
            };
        }
    }

    /// Passes a signal on.
    pub(crate) fn tell(&self, message: &ToOld) {
        // If it has ended, nothing is left to do.
        let _ = socket::send_message(self.channel.as_fd(), message.word(), None);
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// The master that takes the place of this one.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) pid: Pid,
    channel: Option<OwnedFd>,
    /// It has to serve by then; `None` once it does.
    pub(crate) until: Option<Instant>,
}

/// A message of the new master.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToOld {
    /// It serves.
    Ready,
    /// Why it does not.
    Failed(String),
    /// Open the log files again.
    Reopen,
    /// End gracefully.
    Quit,
    /// End now.
    Stop,
}

impl ToOld {
    fn word(&self) -> &[u8] {
        match self {
            Self::Ready => READY,
            Self::Failed(why) => why.as_bytes(),
            Self::Reopen => b"reopen",
            Self::Quit => b"quit",
            Self::Stop => b"stop",
        }
    }
}

impl Successor {
    pub(crate) fn new(pid: Pid, channel: OwnedFd, until: Instant) -> Self {
        Self { pid, channel: Some(channel), until: Some(until) }
    }

    /// Its next message; `None` if there is none now.
    pub(crate) fn hear(&mut self) -> Option<ToOld> {
        let mut buf = vec![0; WORDS_MAX as usize];
        loop {
            match socket::receive_message(self.channel.as_ref()?.as_fd(), &mut buf) {
                Ok(Some((len, _))) => {
                    let message = buf.get(..len).unwrap_or_default();
                    let known = [ToOld::Ready, ToOld::Reopen, ToOld::Quit, ToOld::Stop];
                    let known = known.into_iter().find(|it| it.word() == message);
                    let text = || ToOld::Failed(String::from_utf8_lossy(message).into_owned());
                    return Some(known.unwrap_or_else(text));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                // Its exit says more.
                Ok(None) | Err(_) => self.channel = None,
            }
        }
    }

    /// Tells it that the service manager knows it.
    pub(crate) fn tell_main(&self) {
        if let Some(channel) = &self.channel {
            let _ = socket::send_message(channel.as_fd(), MAIN, None);
        }
    }

    /// Passes a connection on. It is closed if the new master does not read for long.
    pub(crate) fn pass_on(&self, listener: SocketAddr, connection: &OwnedFd) {
        let Some(channel) = &self.channel else { return };
        let message = ControlMessage::Adopt(listener).text();
        let send =
            || socket::send_message(channel.as_fd(), message.as_bytes(), Some(connection.as_fd()));
        let sent = send().or_else(|error| {
            if error.kind() != ErrorKind::WouldBlock {
                return Err(error);
            }
            let timeout = PollTimeout::from(PATIENCE_MS);
            let _ = poll(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLOUT)], timeout);
            send()
        });
        if let Err(error) = sent {
            log::warn!("cannot pass a connection on to the new master: {error}; closing it");
        }
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }
}

const MAIN: &[u8] = b"main";
/// The names of what is passed beside sockets and tables. The channel is the first.
pub(crate) const CHANNEL: &str = "upgrade";
pub(crate) const PID_FILE: &str = "pid-file";
pub(crate) const SERVERS: &str = "servers";
pub(crate) const LOCK: &str = "cache-lock";
pub(crate) const LOCK_UNCHECKED: &str = "cache-lock-unchecked";
/// With the number of its layout.
pub(crate) const USES: &str = "uses.1";
const PATIENCE_MS: u16 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn pair() -> (Predecessor, Successor) {
        let (ours, theirs) = socket::channel().unwrap();
        let mut passed = vec![Passed { name: CHANNEL.to_owned(), fd: theirs }];
        let predecessor = Predecessor::of(&mut passed).unwrap();
        (predecessor, Successor::new(Pid::this(), ours, Instant::now()))
    }

    #[test]
    fn the_old_master_hears_readiness_failures_and_signals() {
        let (new, mut old) = pair();
        assert_eq!(old.hear(), None);
        new.ready_pipe().unwrap().failed("k.yaml:1:1: no");
        new.ready_pipe().unwrap().failed(&"x".repeat(1 << 20));
        new.ready_pipe().unwrap().ready();
        assert_eq!(old.hear(), Some(ToOld::Failed("k.yaml:1:1: no".to_owned())));
        assert!(matches!(old.hear(), Some(ToOld::Failed(why)) if why.len() == WORDS_MAX as usize));
        assert_eq!(old.hear(), Some(ToOld::Ready));
        for message in [ToOld::Reopen, ToOld::Quit, ToOld::Stop] {
            new.tell(&message);
            assert_eq!(old.hear(), Some(message));
        }
        assert!(old.hear().is_none() && old.fd().is_some());
        drop(new);
        // A child that another test has forked has a copy of the channel until it ends.
        let mut ended = [PollFd::new(old.fd().unwrap(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ended, PollTimeout::MAX), Ok(1));
        assert!(old.hear().is_none() && old.fd().is_none());
    }

    #[test]
    fn the_new_master_gets_connections_until_the_old_one_has_ended() {
        let (new, old) = pair();
        assert!(new.hear().is_none());
        let listener = "127.0.0.1:80".parse().unwrap();
        old.tell_main();
        old.pass_on(listener, &tempfile::tempfile().unwrap().into());
        assert!(matches!(new.hear(), Some(FromOld::Main)));
        assert!(matches!(new.hear(), Some(FromOld::Adopt(by, _)) if by == listener));
        drop(old);
        assert!(matches!(new.hear(), Some(FromOld::Ended)));
    }
}
