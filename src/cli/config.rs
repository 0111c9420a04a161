//! `ktrix config dump`: the effective configuration, and what the running ktrix has otherwise.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};

use crate::cli::colour::{self, GREEN, RED, painted};
use crate::cli::load::{DEFAULT_FILE, load_to_serve};
use crate::cli::output;
use crate::cli::table::Running;
use crate::config::difference::{self, Difference};
use crate::config::document;

/// Print the configuration
#[derive(Args, Debug)]
pub(super) struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
    /// The configuration [default: /etc/ktrix/ktrix.yaml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the effective configuration as YAML: with every default, and all included files in one
    Dump {
        /// Print what differs from that of the running ktrix instead; exit code 3 if anything does
        #[arg(long)]
        diff: bool,
    },
}

/// The exit code if the running configuration is another one.
const DIFFERS: i32 = 3;

/// Runs the command.
///
/// # Errors
/// When the file cannot be read, or the running ktrix cannot be asked.
pub(super) fn run(command: &ConfigCommand) -> Result<i32> {
    let file = command.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let Action::Dump { diff } = command.action;
    let Some(config) = load_to_serve(file)? else { return Ok(1) };
    if !diff {
        return output::to_stdout(|out| {
            out.write_all(config.effective.as_bytes())?;
            Ok(0)
        });
    }
    let running = Running::find(file)?;
    let text = running.configuration()?;
    if text.is_empty() {
        bail!("the ktrix with pid {} was started without a file", running.pid);
    }
    let tree = |text: &str| document::read(text).map_err(|flaw| anyhow!(flaw.message));
    let differences = difference::between(&tree(&text)?, &tree(&config.effective)?);
    if differences.is_empty() {
        return Ok(0);
    }
    let has_colours = colour::is_wanted(&io::stdout());
    output::to_stdout(|out| {
        writeln!(out, "--- running, pid {}\n+++ {}", running.pid, file.display())?;
        differences.iter().try_for_each(|it| write_difference(out, it, has_colours))?;
        Ok(DIFFERS)
    })
}

fn write_difference(out: &mut dyn Write, it: &Difference, has_colours: bool) -> io::Result<()> {
    for (sign, colour, value) in [('-', RED, &it.first), ('+', GREEN, &it.second)] {
        let Some(value) = value else { continue };
        let line = format!("{sign}{}: {value}", it.key);
        match has_colours {
            true => writeln!(out, "{}", painted(&line, colour))?,
            false => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}
