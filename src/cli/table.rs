//! The table of servers of a running ktrix, for commands.
//!
//! The master has the file of the table open. It has no name in any directory; a command finds it
//! below `/proc`, which the kernel allows to root and to the user of the master.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;

use crate::cli::signal;
use crate::master::generation::name_of_text;
use crate::shared::servers::{FILE_NAME, ServerTable, TablePhase};
use crate::upstream::ids::Server;

/// A running ktrix and its table.
pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) table: ServerTable,
    /// The names in the table: what each is, and its name.
    pub(super) names: Vec<(String, String)>,
}

/// A server by its names.
pub(super) struct Named<'r> {
    pub(super) upstream: &'r str,
    pub(super) address: &'r str,
}

impl Running {
    /// The ktrix of this configuration.
    ///
    /// # Errors
    /// When none runs, or another user does.
    pub(super) fn find(file: &Path) -> Result<Self> {
        let pid = signal::find(file)?.pid;
        for path in files_in_memory(pid, FILE_NAME)? {
            let file = File::options().read(true).write(true).open(&path);
            let file = file.with_context(|| format!("cannot open the servers of pid {pid}"))?;
            let table = ServerTable::open(&file)?;
            if table.phase().1 == TablePhase::Current {
                let text = table.text();
                let names = text.lines().filter_map(|line| line.split_once('\t'));
                let names = names.map(|(what, name)| (what.to_owned(), name.to_owned()));
                return Ok(Self { pid, names: names.collect(), table });
            }
        }
        bail!("the ktrix with pid {pid} has no table of servers (is it of another version?)")
    }

    /// The effective configuration that it serves by; empty if it has no file.
    ///
    /// # Errors
    /// When its file cannot be read, or a reload has just replaced it.
    pub(super) fn configuration(&self) -> Result<String> {
        let (generation, _) = self.table.phase();
        let files = files_in_memory(self.pid, &name_of_text(generation))?;
        let path = files.first().context("it has just loaded another configuration (try again)")?;
        Ok(fs::read_to_string(path)?)
    }

    /// The names of one kind.
    pub(super) fn named<'r>(&'r self, what: &'r str) -> impl Iterator<Item = &'r str> {
        self.names.iter().filter(move |(it, _)| it == what).map(|(_, name)| name.as_str())
    }

    /// All servers, in the order of the configuration.
    pub(super) fn servers(&self) -> impl Iterator<Item = (Named<'_>, Server)> {
        let ids = self.table.upstreams().flat_map(|upstream| self.table.servers(upstream));
        let mut upstream = "";
        let named = self.names.iter().filter_map(move |(what, name)| match what.as_str() {
            "upstream" => {
                upstream = name;
                None
            }
            "server" => Some(Named { upstream, address: name }),
            _ => None,
        });
        named.zip(ids)
    }
}

/// The open files of this name, which are in memory, of a master.
fn files_in_memory(pid: Pid, name: &str) -> Result<Vec<PathBuf>> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd"));
    let fds = fds.with_context(|| format!("cannot look into the ktrix with pid {pid}"))?;
    let is_it = |path: &PathBuf| {
        let target = fs::read_link(path).unwrap_or_default();
        let target = target.to_string_lossy();
        target.strip_prefix("/memfd:").and_then(|it| it.split(' ').next()) == Some(name)
    };
    Ok(fds.filter_map(|fd| Some(fd.ok()?.path())).filter(is_it).collect())
}

impl Named<'_> {
    /// Whether a person means this server.
    pub(super) fn is(&self, text: &str) -> bool {
        text.split_once('/').is_some_and(|(upstream, address)| {
            upstream == self.upstream && (address == self.address || self.is_on_port_80(address))
        })
    }

    fn is_on_port_80(&self, address: &str) -> bool {
        self.address.strip_suffix(":80") == Some(address)
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.upstream, self.address)
    }
}
