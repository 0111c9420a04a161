//! `ktrix server`: changes a server of the running ktrix, in the table that its workers read.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::cli::load::DEFAULT_FILE;
use crate::cli::table::Running;
use crate::upstream::state::Setting;

/// Change a server of the running ktrix, until it is changed again or restarted
#[derive(Args, Debug)]
pub(super) struct ServerCommand {
    #[command(subcommand)]
    action: Action,
    /// The configuration of the ktrix [default: /etc/ktrix/ktrix.yaml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Give it no new clients; those that have its cookie stay
    Drain {
        /// The upstream and the server's address, as in the configuration
        #[arg(value_name = "UPSTREAM/SERVER")]
        server: String,
    },
    /// Give it requests again
    Enable {
        /// The upstream and the server's address, as in the configuration
        #[arg(value_name = "UPSTREAM/SERVER")]
        server: String,
    },
    /// Give it no requests
    Disable {
        /// The upstream and the server's address, as in the configuration
        #[arg(value_name = "UPSTREAM/SERVER")]
        server: String,
    },
    /// Change its share of the requests
    Weight {
        /// The upstream and the server's address, as in the configuration
        #[arg(value_name = "UPSTREAM/SERVER")]
        server: String,
        /// The weight; 0 takes no new clients
        #[arg(value_parser = clap::value_parser!(u32).range(0..=1000))]
        weight: u32,
    },
}

/// Runs the command.
///
/// # Errors
/// When no ktrix runs with the configuration, another user runs it, or it has no such server.
pub(super) fn run(command: &ServerCommand) -> Result<i32> {
    let file = command.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let running = Running::find(file)?;
    let running = running.view();
    let (name, setting) = match &command.action {
        Action::Drain { server } => (server, Some(Setting::Draining)),
        Action::Enable { server } => (server, Some(Setting::Enabled)),
        Action::Disable { server } => (server, Some(Setting::Disabled)),
        Action::Weight { server, .. } => (server, None),
    };
    let found: Vec<_> = running.servers().filter(|(named, _)| named.is(name)).collect();
    if found.is_empty() {
        let known: Vec<_> = running.servers().map(|(named, _)| named.to_string()).collect();
        bail!("{name:?} is no server of this ktrix (try one of: {})", known.join(", "));
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for (named, server) in found {
        let row = running.table.row(server);
        if let Action::Weight { weight, .. } = command.action {
            row.set_weight(weight, now_s);
        }
        if let Some(setting) = setting {
            row.set(setting, now_s);
        }
        let mut others = running.table.servers(server.upstream);
        let takes = |server| {
            let row = running.table.row(server);
            row.setting() == Setting::Enabled && row.weight() > 0
        };
        if !others.any(takes) {
            eprintln!("ktrix: warn: no server of {} takes new clients now", named.upstream);
        }
        println!("{named}: {}, weight {}", row.state().word(), row.weight());
    }
    Ok(0)
}
