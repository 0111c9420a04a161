//! `ktrix -s WORD`: sends the running master a signal, and says what came of it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use nix::sys::signal::Signal;

use crate::cli::load::DEFAULT_FILE;
use crate::config::Config;
use crate::master::reload_report;
use crate::master::running::{self, Running};
use crate::sys::privileges::{Account, is_root};
use crate::sys::process;

/// The commands for a running ktrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Word {
    /// Load the configuration again; connections go on
    Reload,
    /// Shut down at once
    Stop,
    /// Finish the current requests, then shut down
    Quit,
    /// Open the log files again, after they were rotated
    Reopen,
    /// Start the program as it is now on the disk in the place of the running one
    Upgrade,
}

impl Word {
    /// The signal of the command.
    pub const fn signal(self) -> Signal {
        match self {
            Self::Reload => Signal::SIGHUP,
            Self::Stop => Signal::SIGTERM,
            Self::Quit => Signal::SIGQUIT,
            Self::Reopen => Signal::SIGUSR1,
            Self::Upgrade => Signal::SIGUSR2,
        }
    }
}

/// Sends it to the master that holds the pid file: the named one, or else the configuration's. Waits
/// for the end of the master and for the outcome of a reload or upgrade, unless told not to.
///
/// # Errors
/// When no ktrix runs there, it belongs to another user, or the reload or upgrade was refused.
pub fn signal(
    word: Word,
    file: &Path,
    pid_file: Option<&Path>,
    is_waiting: bool,
) -> anyhow::Result<i32> {
    let running = match pid_file {
        Some(path) => running::by_pid_file(path, None)?,
        None => find(file)?,
    };
    let pid = running.pid;
    let before = reload_report::read(&running.path);
    process::send_signal(pid, word.signal()).with_context(|| format!("cannot signal pid {pid}"))?;
    match word {
        Word::Stop | Word::Quit if is_waiting => running.wait_for_end()?,
        Word::Reload if is_waiting => {
            let refused = "reload refused; the current configuration stays in use";
            await_outcome(&running, before.as_ref(), RELOAD_MAX, refused)?;
        }
        Word::Upgrade if is_waiting => {
            let refused = "upgrade refused; the running ktrix goes on";
            await_outcome(&running, before.as_ref(), UPGRADE_MAX, refused)?;
        }
        _ => {}
    }
    Ok(0)
}

/// The master of the pid file that the configuration names now, or else the one that was started
/// with this configuration: `pid` or `cache.path` may have been edited since.
pub(super) fn find(file: &Path) -> anyhow::Result<Running> {
    let text = std::fs::read_to_string(file);
    let config = text.ok();
    let config = config.and_then(|text| Config::load_as(file, &text, is_root()).ok());
    let path = config.as_ref().and_then(|config| config.pid.as_deref());
    let user = config.as_ref().and_then(|config| Account::of(config.user.as_ref()?).ok());
    let named = path.map(|path| running::by_pid_file(path, user.as_ref()));
    if let Some(Ok(running)) = named {
        return Ok(running);
    }
    let default = Path::new(DEFAULT_FILE);
    if let Some(running) = running::by_configuration(file, default, user.as_ref()) {
        return Ok(running);
    }
    let name = file.display();
    match (named, config) {
        (Some(found), _) => Ok(found?),
        (None, Some(_)) => {
            bail!("\"{name}\" names no pid file (add a line like \"pid: /run/ktrix.pid\")")
        }
        (None, None) => {
            bail!("\"{name}\" is not a valid configuration; name the pid file itself with --pid")
        }
    }
}

fn await_outcome(
    running: &Running,
    before: Option<&reload_report::Outcome>,
    patience: Duration,
    refused: &'static str,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match reload_report::read(&running.path) {
            Some(outcome) if Some(&outcome) != before => {
                if outcome.refusal.is_empty() {
                    return Ok(());
                }
                eprintln!("{}", outcome.refusal);
                bail!(refused);
            }
            _ if running.has_ended() => bail!("ktrix has ended"),
            _ if Instant::now() >= deadline => {
                bail!("no outcome within {} s; see the error log", patience.as_secs())
            }
            _ => std::thread::sleep(STEP),
        }
    }
}

/// Longer than the children of a new configuration may take to start.
const RELOAD_MAX: Duration = Duration::from_secs(60);
/// Longer than `timeouts.upgrade` may be.
const UPGRADE_MAX: Duration = Duration::from_secs(2 * 60 * 60);
const STEP: Duration = Duration::from_millis(20);
