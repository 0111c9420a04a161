//! The error log: the far end of the `log` facade.
//!
//! A message goes to one [`Sink`]: syslog, stderr or a file. It is one line whatever is in it, it
//! is cut at a limit (`message.rs`), and a call site that repeats itself is limited (`limit.rs`).
//! Logging never waits: a sink that takes nothing keeps or loses the message, and what was lost
//! is told later.
//!
//! [`init`] is called by the master, and again by every process after its fork, to say who it is.
//! [`tick`] is called every second or so, so that what was kept back is told in time.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::log::{Level, LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::ErrorSink;
use crate::log::clock::LineClock;
use crate::log::file::LogFile;
use crate::log::limit::{KeptBack, Limits, UNLIMITED};
use crate::log::message::Message;
use crate::log::syslog::{SOCKET_PATH, Syslog};

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// The syslog daemon that listens at this path.
    Syslog(PathBuf),
    /// The standard error output: `ktrix[worker 2]: warn: message`.
    Stderr,
    /// A file, to append to: `2026-11-21T03:04:42.123Z ktrix[811 worker 2]: warn: message`.
    File(PathBuf),
}

impl Sink {
    /// The local syslog daemon, where it usually listens.
    pub fn syslog() -> Self {
        Self::Syslog(PathBuf::from(SOCKET_PATH))
    }

    /// What the operator chose; if nothing, stderr as long as ktrix is not detached from it.
    pub fn of(sink: &ErrorSink, is_detached: bool) -> Self {
        match sink {
            ErrorSink::Auto if is_detached => Self::syslog(),
            ErrorSink::Auto | ErrorSink::Stderr => Self::Stderr,
            ErrorSink::Syslog => Self::syslog(),
            ErrorSink::File(path) => Self::File(path.clone()),
        }
    }
}

/// Sends the facade's messages up to `level` to `sink` from now on; `ident` says which process
/// this is ("worker 2"; empty for the only one). May be called again.
///
/// # Errors
/// When the file cannot be opened, or the facade has another logger. What was set before stays.
pub fn init(sink: &Sink, level: LevelFilter, ident: &str) -> io::Result<()> {
    let mut new = ErrorLog::new(sink, ident)?;
    let mut log = GLOBAL.lock();
    if log.is_none() {
        ::log::set_logger(&GLOBAL).map_err(io::Error::other)?;
    }
    if let Some(old) = log.take() {
        new.take_over(old);
    }
    *log = Some(new);
    ::log::set_max_level(level);
    Ok(())
}

/// Opens the file, or connects to syslog, anew, as after a rotation.
///
/// # Errors
/// When the file cannot be opened; the old one is written on.
pub fn reopen() -> io::Result<()> {
    GLOBAL.lock().as_mut().map_or(Ok(()), ErrorLog::reopen)
}

/// Tells what call sites were kept from saying, and sends what syslog did not take before.
pub fn tick() {
    if let Some(log) = GLOBAL.lock().as_mut() {
        log.tick();
    }
}

/// The one logger of the process.
static GLOBAL: Global = Global(Mutex::new(None));

struct Global(Mutex<Option<ErrorLog>>);

impl Global {
    /// Nothing that runs under this lock logs, waits or calls out.
    fn lock(&self) -> MutexGuard<'_, Option<ErrorLog>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Global {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Made before the lock is taken, as what is shown might log itself.
        let mut message = Message::new();
        let _ = message.write_fmt(*record.args());
        let site = (record.file_static().unwrap_or("unknown"), record.line().unwrap_or(0));
        if let Some(log) = self.lock().as_mut() {
            match record.target() {
                UNLIMITED => log.pass_on(record.level(), message.text()),
                _ => log.write(site, record.level(), message.text()),
            }
        }
    }

    fn flush(&self) {
        tick();
    }
}

/// A sink, who speaks there, and how often.
#[derive(Debug)]
struct ErrorLog {
    out: Out,
    ident: String,
    pid: u32,
    limits: Limits,
    started: Instant,
    clock: LineClock,
    /// Lines that stderr or the file did not take.
    n_lost: u64,
}

#[derive(Debug)]
enum Out {
    Syslog(Syslog),
    Stderr,
    File { path: PathBuf, file: LogFile },
}

impl ErrorLog {
    fn new(sink: &Sink, ident: &str) -> io::Result<Self> {
        let pid = std::process::id();
        let out = match sink {
            Sink::Syslog(path) => Out::Syslog(Syslog::new(path, PROCESS, pid)),
            Sink::Stderr => Out::Stderr,
            Sink::File(path) => Out::File { path: path.clone(), file: LogFile::open(path)? },
        };
        Ok(Self {
            out,
            ident: ident.to_owned(),
            pid,
            limits: Limits::default(),
            started: Instant::now(),
            clock: LineClock::new(),
            n_lost: 0,
        })
    }

    /// Keeps what its predecessor in the same process could not send. What a parent could not
    /// send is the parent's to send.
    fn take_over(&mut self, old: Self) {
        if old.pid != self.pid {
            return;
        }
        self.n_lost = old.n_lost;
        self.limits = old.limits;
        self.started = old.started;
        if let (Out::Syslog(syslog), Out::Syslog(old)) = (&mut self.out, old.out) {
            syslog.take_over(old);
        }
    }

    fn write(&mut self, site: (&'static str, u32), level: Level, message: &str) {
        let (is_admitted, kept_back) = self.limits.admit(site, level, self.now_ms());
        if let Some(kept_back) = kept_back {
            self.tell_kept_back(&kept_back);
        }
        if is_admitted {
            self.pass_on(level, message);
        }
    }

    fn tick(&mut self) {
        for kept_back in self.limits.expire(self.now_ms()) {
            self.tell_kept_back(&kept_back);
        }
        if let Out::Syslog(syslog) = &mut self.out {
            syslog.tick();
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::Syslog(syslog) => syslog.reopen(),
            Out::Stderr => {}
            Out::File { path, file } => *file = LogFile::open(path)?,
        }
        Ok(())
    }

    fn tell_kept_back(&mut self, kept_back: &KeptBack) {
        let KeptBack { site: (file, line), level, n } = *kept_back;
        self.pass_on(level, &format!("suppressed {n} more messages from {file}:{line}"));
    }

    fn pass_on(&mut self, level: Level, message: &str) {
        if self.n_lost > 0 && !matches!(self.out, Out::Syslog(_)) {
            let lost = format!("{} messages lost while the error log took none", self.n_lost);
            if !self.put(Level::Warn, &lost) {
                self.n_lost += 1;
                return;
            }
            self.n_lost = 0;
        }
        if !self.put(level, message) {
            self.n_lost += 1;
        }
    }

    /// Hands the message to the sink; whether it is taken care of.
    fn put(&mut self, level: Level, message: &str) -> bool {
        match &mut self.out {
            Out::Syslog(syslog) => {
                let sent = match self.ident.as_str() {
                    "" => syslog.send(level, message),
                    ident => syslog.send(level, &format!("{ident}: {message}")),
                };
                if let Err(error) = sent {
                    let line = format!("{PROCESS}: warn: syslog takes no messages: {error}\n");
                    write_if_ready(io::stderr().as_fd(), line.as_bytes());
                }
                true
            }
            Out::Stderr => {
                let line = match self.ident.as_str() {
                    "" => format!("{PROCESS}: {}: {message}\n", word(level)),
                    ident => format!("{PROCESS}[{ident}]: {}: {message}\n", word(level)),
                };
                write_if_ready(io::stderr().as_fd(), line.as_bytes())
            }
            Out::File { file, .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                let time = String::from_utf8_lossy(self.clock.iso(since.as_secs())).into_owned();
                let line = format!(
                    "{time}.{:03}Z {PROCESS}[{}{}{}]: {}: {message}\n",
                    since.subsec_millis(),
                    self.pid,
                    if self.ident.is_empty() { "" } else { " " },
                    self.ident,
                    word(level)
                );
                write_if_ready(file.as_fd(), line.as_bytes())
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// The word of a level in stderr and files.
fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// Writes the line in one piece if that does not block; whether it did.
///
/// A pipe that is ready has room for PIPE_BUF bytes at least (4096), more than a line has. What
/// is not ours alone must not be made non-blocking, hence the question first.
fn write_if_ready(fd: BorrowedFd<'_>, line: &[u8]) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    let is_ready = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
        && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT));
    is_ready && nix::unistd::write(fd, line).is_ok_and(|n| n == line.len())
}

/// The name in every message.
const PROCESS: &str = "ktrix";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::limit::MESSAGES_MAX;
    use std::os::unix::net::UnixDatagram;

    const HERE: (&str, u32) = ("here.rs", 1);

    #[test]
    fn a_file_gets_whole_lines_and_can_be_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let mut log = ErrorLog::new(&Sink::File(path.clone()), "worker 2").unwrap();
        log.write(HERE, Level::Warn, "first");
        std::fs::rename(&path, &old).unwrap();
        log.reopen().unwrap();
        log.write(HERE, Level::Error, "second");
        let text = std::fs::read_to_string(&old).unwrap();
        let tail = format!("Z ktrix[{} worker 2]: warn: first\n", std::process::id());
        assert!(text.starts_with("20") && text.ends_with(&tail), "{text}");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("]: error: second\n"));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        assert!(ErrorLog::new(&Sink::File("/nonexistent/log".into()), "").is_err());
    }

    #[test]
    fn syslog_hears_who_speaks_and_what_was_suppressed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut log = ErrorLog::new(&Sink::Syslog(path), "worker 2").unwrap();
        let mut buf = [0; 4096];
        let mut n_heard = 0;
        for n in 0..MESSAGES_MAX + 5 {
            log.write(HERE, Level::Error, &format!("message {n}"));
            while let Ok(len) = socket.recv(&mut buf) {
                let text = String::from_utf8_lossy(&buf[..len]).into_owned();
                let tail = format!("ktrix[{}]: worker 2: message {n}", std::process::id());
                assert!(text.starts_with("<27>") && text.ends_with(&tail), "{text}");
                n_heard += 1;
            }
        }
        assert_eq!(n_heard, MESSAGES_MAX);
        log.started -= Duration::from_secs(11);
        log.tick();
        let len = socket.recv(&mut buf).unwrap();
        let text = String::from_utf8_lossy(&buf[..len]).into_owned();
        assert!(text.ends_with("worker 2: suppressed 5 more messages from here.rs:1"), "{text}");
    }

    #[test]
    fn a_new_log_sends_what_the_old_one_could_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut old = ErrorLog::new(&Sink::Syslog(path.clone()), "").unwrap();
        old.write(HERE, Level::Info, "kept");
        let mut new = ErrorLog::new(&Sink::Syslog(path.clone()), "").unwrap();
        new.take_over(old);
        let socket = UnixDatagram::bind(&path).unwrap();
        new.tick();
        let mut buf = [0; 4096];
        let len = socket.recv(&mut buf).unwrap();
        assert!(buf[..len].ends_with(b"]: kept"));
    }

    #[test]
    fn a_pipe_that_nobody_reads_blocks_nobody() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let line = [b'x'; 2000];
        let n_written = (0..1000).filter(|_| write_if_ready(writer.as_fd(), &line)).count();
        assert!((1..1000).contains(&n_written), "{n_written}");
        drop(reader);
    }

    #[test]
    fn the_facade_reaches_the_file_and_who_speaks_can_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        init(&Sink::File(path.clone()), LevelFilter::Info, "master").unwrap();
        ::log::info!("hello {}", 1);
        ::log::debug!("not this");
        init(&Sink::File(path.clone()), LevelFilter::Info, "worker 0").unwrap();
        ::log::warn!("hello {}", 2);
        reopen().unwrap();
        tick();
        let text = std::fs::read_to_string(&path).unwrap();
        let says = |end: &str| text.lines().filter(|line| line.ends_with(end)).count();
        assert_eq!(says(" master]: info: hello 1"), 1, "{text}");
        assert_eq!(says(" worker 0]: warn: hello 2"), 1, "{text}");
        assert!(!text.contains("not this"));
    }
}
