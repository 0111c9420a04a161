//! `ktrix -s WORD`: sends the running master a signal.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use nix::sys::signal::Signal;

use crate::cli::load::load;
use crate::master::pidfile;
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
}

impl Word {
    /// The signal of the command.
    pub const fn signal(self) -> Signal {
        match self {
            Self::Reload => Signal::SIGHUP,
            Self::Stop => Signal::SIGTERM,
            Self::Quit => Signal::SIGQUIT,
            Self::Reopen => Signal::SIGUSR1,
        }
    }
}

/// Sends it to the master that holds the pid file: the named one, or else the configuration's.
///
/// # Errors
/// When no ktrix runs there, or it belongs to another user.
pub fn signal(word: Word, file: &Path, pid_file: Option<&Path>) -> anyhow::Result<i32> {
    let path = match pid_file {
        Some(path) => path.to_owned(),
        None => configured(file)?,
    };
    let pid = pidfile::running(&path)?;
    process::send_signal(pid, word.signal()).with_context(|| format!("cannot signal pid {pid}"))?;
    Ok(0)
}

fn configured(file: &Path) -> anyhow::Result<PathBuf> {
    let name = file.display();
    match load(file)? {
        Some(config) => config.pid.with_context(|| {
            format!("\"{name}\" names no pid file (add a line like \"pid: /run/ktrix.pid\")")
        }),
        None => bail!("\"{name}\" is not valid; name the pid file itself with --pid"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::signals::SIGNALS;

    #[test]
    fn every_word_is_a_signal_that_the_master_acts_on() {
        for word in Word::value_variants() {
            assert!(SIGNALS.iter().any(|(signal, _)| *signal == word.signal()), "{word:?}");
        }
    }

    #[test]
    fn a_ktrix_that_does_not_run_is_not_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ktrix.pid");
        let error = signal(Word::Stop, Path::new("/nonexistent"), Some(&path)).unwrap_err();
        let expected = format!("ktrix is not running (no process holds the lock of {path:?})");
        assert_eq!(error.to_string(), expected);
    }
}
