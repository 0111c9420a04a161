//! `ktrix status`: what the running ktrix is doing, from its shared memory.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::cli::load::DEFAULT_FILE;
use crate::cli::output::{self, json_line};
use crate::cli::table::Running;
use crate::status::report::Status;
use crate::status::values::values;

/// Show the requests, workers, listeners, upstreams and servers of the running ktrix, and its cache
#[derive(Args, Debug)]
pub(super) struct StatusCommand {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// The configuration of the ktrix [default: /etc/ktrix/ktrix.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When no ktrix runs with the configuration, or another user runs it.
pub(super) fn run(command: &StatusCommand) -> Result<i32> {
    let file = command.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let running = Running::find(file)?;
    let view = running.view();
    let status = Status::of(&view, &values(&view));
    output::to_stdout(|out| {
        match command.json {
            true => json_line(out, &status)?,
            false => status.write(out)?,
        }
        Ok(0)
    })
}
