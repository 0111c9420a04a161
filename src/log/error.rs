//! The error log: the logger behind the `log` facade.
//!
//! A message goes to one [`Sink`]: syslog, stderr or a file. It is always one line and cut at a
//! limit (`message.rs`), and a call site that repeats itself is limited (`limit.rs`). Logging never
//! waits: a sink that does not accept a message keeps or loses it, and the number of lost messages
//! is logged later.
//!
//! The master calls [`init`], and every process calls it again after its fork, to set its name.
//! [`tick`] is called about once a second, so that suppressed messages are reported in time.

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::log::{Level, LevelFilter, Log, Metadata, Record};

use crate::log::clock::LineClock;
use crate::log::error_writer::ErrorWriter;
use crate::log::file::LogFile;
use crate::log::limit::{Limits, Suppressed, UNLIMITED};
use crate::log::message::{Message, write_if_ready};
use crate::log::syslog::{SOCKET_PATH, Syslog};

/// Where messages go.
#[derive(Debug)]
pub enum Sink {
    /// The syslog daemon that listens at this path.
    Syslog(PathBuf),
    /// The standard error output: `ktrix[worker 2]: warn: message`.
    Stderr,
    /// A file, open to append: `2026-11-21T03:04:42.123Z ktrix[811 worker 2]: warn: message`.
    File(LogFile),
}

impl Sink {
    /// The local syslog daemon, at its usual path.
    pub fn syslog() -> Self {
        Self::Syslog(PathBuf::from(SOCKET_PATH))
    }
}

/// Sends the facade's messages up to `level` to `sink` from now on. `ident` names this process
/// ("worker 2"; empty for the only one). May be called again.
///
/// # Errors
/// When the facade has another logger.
pub fn init(sink: Sink, level: LevelFilter, ident: &str) -> io::Result<()> {
    let mut new = ErrorLog::new(sink, ident);
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

/// Goes on in this file, as after a rotation, or connects to syslog again.
pub fn reopen(file: Option<LogFile>) {
    if let Some(log) = GLOBAL.lock().as_mut() {
        log.reopen(file);
    }
}

/// Has a thread write the messages of this process to the file, if they go to one. No child is forked
/// after that.
///
/// # Errors
/// When there is no thread.
pub fn write_by_thread() -> io::Result<()> {
    let mut log = GLOBAL.lock();
    if let Some(log) = log.as_mut()
        && let Out::File(file) = &log.out
    {
        log.out = Out::Thread(ErrorWriter::start(file.try_clone()?)?);
    }
    Ok(())
}

/// Waits until the thread has written all messages, at the end of a process.
pub fn settle() {
    if let Some(ErrorLog { out: Out::Thread(writer), .. }) = GLOBAL.lock().as_ref() {
        writer.settle(SETTLE_MAX);
    }
}

/// The longest wait for the last messages.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// Reports suppressed messages, and sends the messages that syslog did not accept before.
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
        // Formatted before the lock is taken, since a value's `Display` might log.
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

/// A sink, the name of the process, and the limits of its call sites.
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
    File(LogFile),
    /// As `File`, by a thread.
    Thread(ErrorWriter),
}

impl ErrorLog {
    fn new(sink: Sink, ident: &str) -> Self {
        let pid = std::process::id();
        let out = match sink {
            Sink::Syslog(path) => Out::Syslog(Syslog::new(&path, PROCESS, pid)),
            Sink::Stderr => Out::Stderr,
            Sink::File(file) => Out::File(file),
        };
        Self {
            out,
            ident: ident.to_owned(),
            pid,
            limits: Limits::default(),
            started: Instant::now(),
            clock: LineClock::new(),
            n_lost: 0,
        }
    }

    /// Takes over the messages that its predecessor in the same process could not send. Those of a
    /// parent process stay with the parent.
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
        let (is_admitted, suppressed) = self.limits.admit(site, level, self.now_ms());
        if let Some(suppressed) = suppressed {
            self.report_suppressed(&suppressed);
        }
        if is_admitted {
            self.pass_on(level, message);
        }
    }

    fn tick(&mut self) {
        for suppressed in self.limits.expire(self.now_ms()) {
            self.report_suppressed(&suppressed);
        }
        if let Out::Syslog(syslog) = &mut self.out {
            syslog.tick();
        }
    }

    fn reopen(&mut self, new: Option<LogFile>) {
        match (&mut self.out, new) {
            (Out::Syslog(syslog), _) => syslog.reopen(),
            (Out::File(file), Some(new)) => *file = new,
            (Out::Thread(writer), Some(new)) => writer.write_to(new),
            (Out::Stderr | Out::File(_) | Out::Thread(_), _) => {}
        }
    }

    fn report_suppressed(&mut self, suppressed: &Suppressed) {
        let Suppressed { site: (file, line), level, n } = *suppressed;
        self.pass_on(level, &format!("suppressed {n} more messages from {file}:{line}"));
    }

    fn pass_on(&mut self, level: Level, message: &str) {
        if let Out::Thread(writer) = &self.out {
            self.n_lost += writer.take_lost();
        }
        if self.n_lost > 0 && !matches!(self.out, Out::Syslog(_)) {
            let lost = format!("{} messages lost, the error log could not be written", self.n_lost);
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

    /// Gives the message to the sink; returns whether it was written or kept.
    fn put(&mut self, level: Level, message: &str) -> bool {
        match &mut self.out {
            Out::Syslog(syslog) => {
                let sent = match self.ident.as_str() {
                    "" => syslog.send(level, message),
                    ident => syslog.send(level, &format!("{ident}: {message}")),
                };
                if let Err(error) = sent {
                    let line = format!("{PROCESS}: warn: cannot write to syslog: {error}\n");
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
            Out::File(_) | Out::Thread(_) => {
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
                match &self.out {
                    Out::File(file) => write_if_ready(file.as_fd(), line.as_bytes()),
                    Out::Thread(writer) => writer.put(line),
                    Out::Syslog(_) | Out::Stderr => false,
                }
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
        let file = || LogFile::open(&path).unwrap();
        let mut log = ErrorLog::new(Sink::File(file()), "worker 2");
        log.write(HERE, Level::Warn, "first");
        std::fs::rename(&path, &old).unwrap();
        log.reopen(Some(file()));
        log.write(HERE, Level::Error, "second");
        let text = std::fs::read_to_string(&old).unwrap();
        let tail = format!("Z ktrix[{} worker 2]: warn: first\n", std::process::id());
        assert!(text.starts_with("20") && text.ends_with(&tail), "{text}");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("]: error: second\n"));
    }

    #[test]
    fn syslog_messages_name_their_process_and_report_suppressed_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut log = ErrorLog::new(Sink::Syslog(path), "worker 2");
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
    fn a_new_log_sends_the_messages_that_the_old_one_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut old = ErrorLog::new(Sink::Syslog(path.clone()), "");
        old.write(HERE, Level::Info, "kept");
        let mut new = ErrorLog::new(Sink::Syslog(path.clone()), "");
        new.take_over(old);
        let socket = UnixDatagram::bind(&path).unwrap();
        new.tick();
        let mut buf = [0; 4096];
        let len = socket.recv(&mut buf).unwrap();
        assert!(buf[..len].ends_with(b"]: kept"));
    }

    #[test]
    fn a_pipe_without_reader_does_not_block() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let line = [b'x'; 2000];
        let n_written = (0..1000).filter(|_| write_if_ready(writer.as_fd(), &line)).count();
        assert!((1..1000).contains(&n_written), "{n_written}");
        drop(reader);
    }

    #[test]
    fn the_facade_reaches_the_file_and_the_process_name_can_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = || LogFile::open(&path).unwrap();
        init(Sink::File(file()), LevelFilter::Info, "master").unwrap();
        ::log::info!("hello {}", 1);
        ::log::debug!("not this");
        init(Sink::File(file()), LevelFilter::Info, "worker 0").unwrap();
        ::log::warn!("hello {}", 2);
        reopen(Some(file()));
        tick();
        let text = std::fs::read_to_string(&path).unwrap();
        let says = |end: &str| text.lines().filter(|line| line.ends_with(end)).count();
        assert_eq!(says(" master]: info: hello 1"), 1, "{text}");
        assert_eq!(says(" worker 0]: warn: hello 2"), 1, "{text}");
        assert!(!text.contains("not this"));
    }
}
