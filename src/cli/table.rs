//! The tables of a running ktrix, for commands.
//!
//! The master has their files open. They have no name in any directory; a command finds them below
//! `/proc`, which the kernel allows to root, and to the user of a master without capabilities.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::unistd::Pid;

use crate::cache::level::CacheLevel;
use crate::cli::signal;
use crate::master::generation::name_of_text;
use crate::shared::metrics::{self, MetricTable};
use crate::shared::servers::{self, ServerTable, TablePhase};
use crate::status::view::View;

/// A running ktrix and its tables.
pub(super) struct Running {
    pub(super) pid: Pid,
    table: ServerTable,
    metrics: MetricTable,
}

impl Running {
    /// The ktrix of this configuration.
    ///
    /// # Errors
    /// When none runs, or another user does.
    pub(super) fn find(file: &Path) -> Result<Self> {
        let pid = signal::find(file)?.pid;
        let deadline = Instant::now() + STARTS_WITHIN;
        loop {
            match Self::look(pid, memory_files(pid)?) {
                Ok(Some(running)) => return Ok(running),
                Ok(None) if Instant::now() >= deadline => {
                    bail!("the ktrix with pid {pid} has no tables (is it of another version?)")
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                // It has just been started, or a reload has closed one of them.
                Ok(None) | Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// As [`Self::find`], without waiting for its tables.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) fn find_now(file: &Path) -> Result<Self> {
        let pid = signal::find(file)?.pid;
        let running = Self::look(pid, memory_files(pid)?)?;
        running.with_context(|| format!("the ktrix with pid {pid} has no tables"))
    }

    /// The effective configuration that it serves by; empty if it has no file.
    ///
    /// # Errors
    /// When its file cannot be read, or a reload has just replaced it.
    pub(super) fn configuration(&self) -> Result<String> {
        let (generation, _) = self.table.phase();
        let wanted = name_of_text(generation);
        let mut files = memory_files(self.pid)?.into_iter();
        let file = files.find(|(name, _)| name.split(' ').next() == Some(&wanted));
        let (_, path) = file.context("it has just loaded another configuration (try again)")?;
        Ok(fs::read_to_string(path)?)
    }

    /// Looks at the open files of a master once.
    fn look(pid: Pid, files: Vec<(String, PathBuf)>) -> Result<Option<Self>> {
        let (mut table, mut metrics) = (None, None);
        for (name, path) in files {
            let is_of_servers = name.starts_with(servers::FILE_NAME);
            if !is_of_servers && !name.starts_with(metrics::FILE_NAME) {
                continue;
            }
            let file = match File::options().read(true).write(true).open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file.with_context(|| format!("cannot open the tables of pid {pid}"))?,
            };
            if !is_of_servers {
                metrics = Some(MetricTable::open(file.into())?);
            } else if table.is_none() {
                table = Some(ServerTable::open(&file)?)
                    .filter(|table| table.phase().1 == TablePhase::Current);
            }
        }
        Ok(table.zip(metrics).map(|(table, metrics)| Self { pid, table, metrics }))
    }

    /// All of it.
    pub(super) fn view(&self) -> View<'_> {
        let pid = self.pid.as_raw().cast_unsigned();
        let view = View::new(pid, &self.table, &self.metrics);
        let cache = view.named("cache").next().and_then(|path| CacheLevel::read(Path::new(path)));
        view.with_cache(cache)
    }
}

/// The files in memory that a process has open: their names, and the paths to open them by.
pub(super) fn memory_files(pid: Pid) -> Result<Vec<(String, PathBuf)>> {
    let dir = format!("/proc/{pid}/fd");
    let fds = fs::read_dir(dir).map_err(|error| refused(pid, error))?;
    let mut named = Vec::new();
    for path in fds.filter_map(|fd| Some(fd.ok()?.path())) {
        let target = match fs::read_link(&path) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(refused(pid, error));
            }
            read => read.unwrap_or_default(),
        };
        let name = target.to_str().and_then(|it| it.strip_prefix("/memfd:"));
        named.extend(name.map(|name| (name.to_owned(), path)));
    }
    Ok(named)
}

/// The kernel shows the files of a process to root, and to its user if that has all its capabilities.
fn refused(pid: Pid, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::PermissionDenied => anyhow!(
            "only root may look into the ktrix with pid {pid}: it is another user's, or has capabilities (try sudo)"
        ),
        _ => Error::new(error).context(format!("cannot look into the ktrix with pid {pid}")),
    }
}

/// How long a command waits for the tables of a master, and the time between two looks.
const STARTS_WITHIN: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);
