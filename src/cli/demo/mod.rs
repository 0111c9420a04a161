//! `ktrix demo`: a real ktrix in front of a small origin, for a first look.
//!
//! The proxy is a child process, forked before this one has a second thread. This process is the
//! origin and follows the requests. When it ends, however it ends, the child ends too.

mod origin;
mod invitation;
mod summary;

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::cli::colour;
use crate::cli::demo::summary::Summary;
use crate::cli::follower::Follower;
use crate::cli::line::Line;
use crate::cli::output;
use crate::config::Config;
use crate::log::feed::Fed;
use crate::sys::process;

/// Runs until Ctrl-C, and returns the exit code. Port 0 means any free port.
///
/// # Errors
/// When the port is taken, or there is no room for the cache.
pub fn demo(port: u16) -> anyhow::Result<i32> {
    let port = free_port(port)?;
    let temp = TempDir::make().context("cannot make a temporary directory")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the origin")?;
    let config = Config::demo(&temp.dir, port, listener.local_addr()?);
    // Forked first: in the child too, signal-hook would believe that its handlers are installed.
    let ktrix = process::fork_child(&[], || proxy(config))?;
    let has_to_stop = Arc::new(AtomicBool::new(false));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signal_hook::flag::register(signal as i32, Arc::clone(&has_to_stop))?;
    }
    let asked = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&asked);
    let origin = thread::Builder::new().name("origin".to_owned());
    origin.spawn(move || origin::serve(&listener, &counter))?;
    let mut screen = Screen::new();
    let watched = watch(ktrix, port, &temp.dir, &mut screen, &has_to_stop);
    let stopped = stop(ktrix);
    let code = watched?;
    stopped?;
    if has_to_stop.load(Ordering::Acquire) {
        screen.end(asked.load(Ordering::Relaxed))?;
    }
    Ok(code)
}

/// The port if it is free; any free port in the place of 0.
///
/// It is checked before ktrix starts, since the demonstration would take another listener for it.
fn free_port(port: u16) -> anyhow::Result<u16> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(listener) => Ok(listener.local_addr()?.port()),
        Err(error) => {
            let hint = "try another one with --port, or --port 0 for any";
            Err(error).with_context(|| format!("cannot listen on port {port} ({hint})"))
        }
    }
}

/// In the child: an ordinary ktrix.
fn proxy(config: Config) -> i32 {
    if process::set_death_signal(Signal::SIGTERM).is_err() {
        return 1;
    }
    match crate::cli::run::run(|| Ok(Ok(config)), None, false) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ktrix: {}", output::error_line(&error));
            1
        }
    }
}

/// Shows a line for every request until it has to stop, or ktrix has ended by itself.
fn watch(
    ktrix: Pid,
    port: u16,
    cache_dir: &Path,
    screen: &mut Screen,
    has_to_stop: &AtomicBool,
) -> anyhow::Result<i32> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + START_MAX;
    while !has_to_stop.load(Ordering::Acquire) {
        // The master listens a moment before it has its tables.
        let followed =
            TcpStream::connect(address).map_err(Into::into).and_then(|_| Follower::of(ktrix));
        match (followed, exit_code(ktrix)?) {
            (_, Some(code)) => return Ok(code.max(1)),
            (Ok(follower), None) => {
                screen.follower = Some(follower);
                break;
            }
            (Err(error), None) if Instant::now() >= deadline => return Err(error),
            (Err(_), None) => thread::sleep(STEP),
        }
    }
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("ktrix"));
    write!(io::stdout(), "{}", invitation::text(&program, port, cache_dir))?;
    while !has_to_stop.load(Ordering::Acquire) {
        let records = screen.follower.as_mut().map(Follower::new_records);
        screen.show(&records.unwrap_or_default())?;
        if let Some(code) = exit_code(ktrix)? {
            return Ok(code);
        }
        thread::sleep(STEP);
    }
    Ok(0)
}

/// The standard output, with the requests that it shows.
struct Screen {
    /// Once ktrix runs.
    follower: Option<Follower>,
    summary: Summary,
    has_colours: bool,
}

impl Screen {
    fn new() -> Self {
        let has_colours = colour::is_wanted(&io::stdout());
        Self { follower: None, summary: Summary::default(), has_colours }
    }

    fn show(&mut self, records: &[Fed]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for record in records.iter().map(Fed::record) {
            let line = Line(&record);
            self.summary.add(&line);
            writeln!(out, "{}", line.short(self.has_colours))?;
        }
        out.flush()
    }

    /// Shows the requests that ended with ktrix, and the summary.
    fn end(&mut self, n_asked: u64) -> io::Result<()> {
        let records = self.follower.as_mut().map(Follower::last_records);
        self.show(&records.unwrap_or_default())?;
        let summary = self.summary.text(n_asked);
        writeln!(io::stdout(), "\n{summary}\nktrix has ended. Its cache was removed.")
    }
}

/// The exit code of ktrix, if it has ended.
fn exit_code(ktrix: Pid) -> io::Result<Option<i32>> {
    match waitpid(ktrix, Some(WaitPidFlag::WNOHANG))? {
        WaitStatus::Exited(_, code) => Ok(Some(code)),
        WaitStatus::Signaled(..) => Ok(Some(1)),
        _ => Ok(None),
    }
}

/// Ends ktrix; Ctrl-C in a terminal has signalled it already.
fn stop(ktrix: Pid) -> io::Result<()> {
    if process::send_signal(ktrix, Signal::SIGTERM).is_ok() {
        // It may have been waited for already.
        let _ = process::wait_for(ktrix);
    }
    Ok(())
}

/// A temporary directory that is removed with its owner.
struct TempDir {
    dir: PathBuf,
}

impl TempDir {
    fn make() -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("ktrix-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Files that cannot be removed are in a temporary directory anyway.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

const STEP: Duration = Duration::from_millis(50);
/// How long ktrix may take to start.
const START_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_reported_with_a_hint() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = free_port(port).unwrap_err();
        assert!(error.to_string().contains("--port 0"), "{error}");
        drop(taken);
        assert_eq!(free_port(port).unwrap(), port);
        assert_ne!(free_port(0).unwrap(), 0);
    }

    #[test]
    fn a_temporary_directory_is_removed() {
        let temp = TempDir::make().unwrap();
        let dir = temp.dir.clone();
        fs::write(dir.join("file"), "x").unwrap();
        drop(temp);
        assert!(!dir.exists());
    }
}
