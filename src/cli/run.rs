//! `ktrix [FILE]`: be the master, here or detached.

use std::path::Path;

use anyhow::{Context, anyhow};

use crate::config::Config;
use crate::master::Master;
use crate::master::start::Start;
use crate::sys::detach::{Detached, detach};
use crate::sys::socket;

/// Serves until told to end, and gives the exit code. With `is_daemon` this is the starter's code:
/// 0 as soon as the daemon serves.
///
/// # Errors
/// Whatever keeps it from serving.
pub fn run(config: Config, file: Option<&Path>, is_daemon: bool) -> anyhow::Result<i32> {
    // Asked for before detaching: the service manager meant the process that it started.
    let handed_over = socket::handed_over();
    // A reload must find the file wherever the daemon's directory is by then.
    let file = file.map(std::path::absolute).transpose().context("no current directory")?;
    let announcer = if is_daemon {
        match detach().context("cannot detach")? {
            Detached::Starter(Ok(())) => return Ok(0),
            Detached::Starter(Err(why)) => return Err(anyhow!(why)),
            Detached::Daemon(announcer) => Some(announcer),
        }
    } else {
        None
    };
    let master = Master::start(Start { config, file, handed_over, announcer })?;
    Ok(master.run())
}
