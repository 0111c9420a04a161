//! `ktrix [FILE]`: runs the master, in the foreground or detached.

use std::path::Path;

use anyhow::{Context, anyhow};

use crate::config::Config;
use crate::master::Master;
use crate::master::start::Start;
use crate::sys::daemonize::{Daemonized, daemonize};
use crate::sys::socket;

/// Serves until it is told to stop, and returns the exit code. With `is_daemon` that is the
/// starter's code: 0 as soon as the daemon serves.
///
/// # Errors
/// The reason why it cannot serve.
pub fn run(config: Config, file: Option<&Path>, is_daemon: bool) -> anyhow::Result<i32> {
    // Read before detaching: the service manager addressed the process that it started.
    let handed_over = socket::handed_over();
    // A reload must find the file in whatever directory the daemon runs by then.
    let file = file.map(std::path::absolute).transpose().context("no current directory")?;
    let ready_pipe = if is_daemon {
        match daemonize().context("cannot daemonize")? {
            Daemonized::Starter(Ok(())) => return Ok(0),
            Daemonized::Starter(Err(why)) => return Err(anyhow!(why)),
            Daemonized::Daemon(ready_pipe) => Some(ready_pipe),
        }
    } else {
        None
    };
    let master = Master::start(Start { config, file, handed_over, ready_pipe })?;
    Ok(master.run())
}
