//! Syslog: messages to the local socket, in the form of RFC 3164.
//!
//! The `syslog` crate formats; the socket is ktrix's own, since it must not block, must reconnect
//! when the syslog daemon is restarted, and must not lose messages meanwhile:
//!
//! ```text
//! send ─ accepted ─▶ done
//!   └─ refused ─▶ spool, oldest first ─ with every send and tick ─▶ done
//!                   └─ full: the newest are dropped and counted
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use ::log::Level;
use ::syslog::{Facility, Formatter3164, LogFormat};

/// Where the local syslog daemon listens.
pub const SOCKET_PATH: &str = "/dev/log";

/// The limit of messages that are kept while syslog accepts none.
pub const SPOOL_MESSAGES_MAX: usize = 1024;

/// A connection to the local syslog daemon.
#[derive(Debug)]
pub struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    format: Formatter3164,
    spool: VecDeque<Vec<u8>>,
    n_dropped: u64,
}

impl Syslog {
    /// A connection to the daemon that listens at `path`; `process` and `pid` make the tag. It
    /// connects with the first message.
    pub fn new(path: &Path, process: &str, pid: u32) -> Self {
        let facility = Facility::LOG_DAEMON;
        let format = Formatter3164 { facility, hostname: None, process: process.to_owned(), pid };
        Self { path: path.to_owned(), socket: None, format, spool: VecDeque::new(), n_dropped: 0 }
    }

    /// Sends the message, or keeps it until it can be sent.
    ///
    /// # Errors
    /// When syslog does not accept the message, the first time since it last did. The message is
    /// kept all the same.
    pub fn send(&mut self, level: Level, message: &str) -> io::Result<()> {
        let was_clear = self.spool.is_empty();
        let datagram = self.datagram(level, message);
        if self.spool.len() < SPOOL_MESSAGES_MAX {
            self.spool.push_back(datagram);
        } else {
            self.n_dropped += 1;
        }
        match self.drain() {
            Err(error) if was_clear => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends the kept messages; returns whether none is left.
    pub fn tick(&mut self) -> bool {
        self.drain().is_ok()
    }

    /// Messages that wait to be sent.
    pub fn n_spooled(&self) -> usize {
        self.spool.len()
    }

    /// Connects again with the next message.
    pub fn reopen(&mut self) {
        self.socket = None;
    }

    /// Sends the messages that another connection has kept, before its own.
    pub fn take_over(&mut self, mut old: Self) {
        old.spool.append(&mut self.spool);
        self.spool = old.spool;
        self.n_dropped += old.n_dropped;
    }

    fn drain(&mut self) -> io::Result<()> {
        while let Some(datagram) = self.spool.pop_front() {
            if let Err(error) = self.pass_on(&datagram) {
                self.spool.push_front(datagram);
                return Err(error);
            }
        }
        if self.n_dropped > 0 {
            let text = format!("{} messages lost, syslog accepted none", self.n_dropped);
            let datagram = self.datagram(Level::Warn, &text);
            self.pass_on(&datagram)?;
            self.n_dropped = 0;
        }
        Ok(())
    }

    /// Sends one datagram; on a socket that has died, once more on a new one.
    fn pass_on(&mut self, datagram: &[u8]) -> io::Result<()> {
        let Some(socket) = &self.socket else { return self.connect_and_send(datagram) };
        match send_once(socket, datagram) {
            Ok(()) => Ok(()),
            // Its queue is full; it is alive.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(_) => self.connect_and_send(datagram),
        }
    }

    fn connect_and_send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.socket = None;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        let sent = send_once(&socket, datagram);
        self.socket = Some(socket);
        sent
    }

    fn datagram(&self, level: Level, message: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() + 64);
        let format = &self.format;
        let written = match level {
            Level::Error => LogFormat::err(&mut format.clone(), &mut out, message),
            Level::Warn => LogFormat::warning(&mut format.clone(), &mut out, message),
            Level::Info => LogFormat::info(&mut format.clone(), &mut out, message),
            Level::Debug | Level::Trace => LogFormat::debug(&mut format.clone(), &mut out, message),
        };
        // Writing to a Vec cannot fail.
        debug_assert!(written.is_ok());
        out
    }
}

/// Sends one datagram, cut if the daemon takes none of its length.
fn send_once(socket: &UnixDatagram, datagram: &[u8]) -> io::Result<()> {
    let too_long = Some(nix::libc::EMSGSIZE);
    match socket.send(datagram) {
        Err(error) if error.raw_os_error() == too_long && datagram.len() > DATAGRAM_BYTES => {
            socket.send(datagram.get(..DATAGRAM_BYTES).unwrap_or(datagram)).map(drop)
        }
        sent => sent.map(drop),
    }
}

/// The length that every syslog daemon accepts (RFC 3164 section 4.1).
const DATAGRAM_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(path: &Path) -> UnixDatagram {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut buf = [0; 4096];
        std::iter::from_fn(|| {
            let n = socket.recv(&mut buf).ok()?;
            Some(String::from_utf8(buf[..n].to_vec()).unwrap())
        })
        .collect()
    }

    #[test]
    fn a_message_has_priority_tag_and_pid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let socket = listener(&path);
        let mut syslog = Syslog::new(&path, "ktrix", 811);
        for (level, priority) in [
            (Level::Error, "<27>"),
            (Level::Warn, "<28>"),
            (Level::Info, "<30>"),
            (Level::Debug, "<31>"),
        ] {
            syslog.send(level, "hello").unwrap();
            let message = received(&socket).pop().unwrap();
            assert!(message.starts_with(priority), "{message}");
            assert!(message.ends_with(" ktrix[811]: hello"), "{message}");
        }
    }

    #[test]
    fn nothing_is_lost_while_the_daemon_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut syslog = Syslog::new(&path, "ktrix", 1);
        assert!(syslog.send(Level::Info, "1").is_err());
        assert!(syslog.send(Level::Info, "2").is_ok());
        assert_eq!(syslog.n_spooled(), 2);

        let first = listener(&path);
        syslog.send(Level::Info, "3").unwrap();
        assert_eq!((received(&first).len(), syslog.n_spooled()), (3, 0));

        drop(first);
        std::fs::remove_file(&path).unwrap();
        assert!(syslog.send(Level::Info, "4").is_err());
        let second = listener(&path);
        assert!(syslog.tick());
        let messages = received(&second);
        assert!(messages.len() == 1 && messages[0].ends_with(": 4"));
    }

    #[test]
    fn a_daemon_that_reads_nothing_does_not_block_and_the_loss_is_logged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let socket = listener(&path);
        let mut syslog = Syslog::new(&path, "ktrix", 1);
        let n_all = 3 * SPOOL_MESSAGES_MAX;
        for n in 0..n_all {
            let _ = syslog.send(Level::Info, &n.to_string());
        }
        assert_eq!(syslog.n_spooled(), SPOOL_MESSAGES_MAX);
        let mut messages = Vec::new();
        while !syslog.tick() {
            messages.extend(received(&socket));
        }
        messages.extend(received(&socket));
        let last = messages.pop().unwrap();
        let n_lost = n_all - messages.len();
        assert!(last.ends_with(&format!(": {n_lost} messages lost, syslog accepted none")));
        for (n, message) in messages.iter().enumerate() {
            assert!(message.ends_with(&format!(": {n}")), "{message}");
        }
    }
}
