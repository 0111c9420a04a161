//! `ktrix [FILE]`: runs the master, in the foreground or detached.

use std::path::Path;

use anyhow::{Context, anyhow};

use crate::config::Config;
use crate::config::error::ConfigErrors;
use crate::master::Master;
use crate::master::program::Program;
use crate::master::start::Start;
use crate::master::succession::Predecessor;
use crate::sys::daemonize::{Daemonized, daemonize};
use crate::sys::passed;

/// Serves until it is told to stop, and returns the exit code. With `is_daemon` that is the
/// starter's code: 0 as soon as the daemon serves.
///
/// # Errors
/// The reason why it cannot serve.
pub(super) fn run(
    load: impl FnOnce() -> anyhow::Result<Result<Config, ConfigErrors>>,
    file: Option<&Path>,
    is_daemon: bool,
) -> anyhow::Result<i32> {
    // Read before detaching: they are for the process that was started.
    let mut passed = passed::take();
    let predecessor = Predecessor::of(&mut passed);
    let report = |why: &str| {
        if let Some(ready_pipe) = predecessor.as_ref().and_then(|old| old.ready_pipe().ok()) {
            ready_pipe.failed(why);
        }
    };
    let config = match load() {
        Ok(Ok(config)) => config,
        Ok(Err(errors)) => {
            report(&errors.to_string());
            eprintln!("{errors}");
            return Ok(1);
        }
        Err(error) => {
            report(&format!("{error:#}"));
            return Err(error);
        }
    };
    // A reload must find the file in whatever directory the daemon runs by then.
    let file = file.map(std::path::absolute).transpose().context("no current directory")?;
    let program = file.is_some().then(Program::of_this_process).transpose();
    let program = program.context("cannot tell which program this is")?;
    let ready_pipe = match &predecessor {
        Some(old) => Some(old.ready_pipe().context("cannot take the place of the old ktrix")?),
        None if is_daemon => match daemonize().context("cannot daemonize")? {
            Daemonized::Starter(Ok(())) => return Ok(0),
            Daemonized::Starter(Err(why)) => return Err(anyhow!(why)),
            Daemonized::Daemon(ready_pipe) => Some(ready_pipe),
        },
        None => None,
    };
    let is_detached = is_daemon;
    let start = Start { config, file, program, passed, predecessor, is_detached, ready_pipe };
    Ok(Master::start(start)?.run())
}
