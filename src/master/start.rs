//! The start of a master: everything that can fail before the first child is forked.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit};
use thiserror::Error;

use crate::cache::marker;
use crate::config::Config;
use crate::master::dead_rings::DeadRings;
use crate::master::file_watch::FileWatch;
use crate::master::files::Logs;
use crate::master::generation::{self, Generation};
use crate::master::listeners::{ListenError, Listeners};
use crate::master::pidfile::{PidFile, PidFileError};
use crate::master::process_slots::ProcessSlots;
use crate::master::program::Program;
use crate::master::service_manager::ServiceManager;
use crate::master::shared_tables::SharedTables;
use crate::master::signals::Signals;
use crate::master::succession::Predecessor;
use crate::master::suspects::Suspects;
use crate::master::tls_watch::TlsWatch;
use crate::master::{Master, Mode, Reload, files, sandbox};
use crate::shared::meter::Meter;
use crate::shared::metrics::Counting;
use crate::sys::daemonize::ReadyPipe;
use crate::sys::memory::ResidentMemory;
use crate::sys::passed::Passed;
use crate::sys::privileges;
use crate::tls::sources::Sources;
use crate::worker::inherited::N_PROCESS_SLOTS;

/// The arguments of a start.
#[derive(Debug)]
pub(crate) struct Start {
    /// The configuration.
    pub(crate) config: Config,
    /// The file that the configuration is from, to be read again at a reload.
    pub(crate) file: Option<PathBuf>,
    /// The program that an upgrade runs.
    pub(crate) program: Option<Program>,
    /// Descriptors of the service manager, or of the ktrix before.
    pub(crate) passed: Vec<Passed>,
    /// The ktrix to take the place of.
    pub(crate) predecessor: Option<Predecessor>,
    /// Whether ktrix has no terminal.
    pub(crate) is_detached: bool,
    /// The pipe to the starting process or the ktrix before, which waits until this one is ready.
    pub(crate) ready_pipe: Option<ReadyPipe>,
}

/// Why a master does not start.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// Another master runs, or the pid file cannot be used.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The limit of open files is too low.
    #[error(
        "too many open files: the limit is {limit}, and the master needs {needed} for this \
         configuration, each worker about {}, which limits.connections says (raise it: \"ulimit -n\", \
         or LimitNOFILE= of the service)",
        per_worker
    )]
    OpenFiles {
        /// The limit in force.
        limit: u64,
        /// The least that the master needs.
        needed: usize,
        /// The most that a worker may need.
        per_worker: usize,
    },
    /// Another error of the system, which the message names.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

impl StartError {
    /// Names the limit, if that is what the system refused for.
    fn with_limit(self, (needed, per_worker): (usize, usize)) -> Self {
        let source = match &self {
            Self::Io(error) => error.raw_os_error(),
            Self::Listen(error) => error.raw_os_error(),
            Self::PidFile(_) | Self::OpenFiles { .. } => None,
        };
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        match source {
            Some(nix::libc::EMFILE) => Self::OpenFiles { limit, needed, per_worker },
            _ => self,
        }
    }
}

/// Listening sockets and a channel for each worker of two generations, an eventfd for each process
/// slot, and some for files.
fn files_of_master(config: &Config) -> usize {
    config.workers * (config.listen.len() + 2) + N_PROCESS_SLOTS + 32
}

/// A descriptor for each connection to clients and servers, for the open files of large objects,
/// and what it inherits.
fn files_of_worker(config: &Config) -> usize {
    let servers: usize = config.servers().map(|(_, server)| server.connections).sum();
    config.limits.connections + servers + 1_024 + files_of_master(config)
}

impl Master {
    /// Makes all that children share, and binds the sockets. [`Master::run`] forks the children.
    ///
    /// # Errors
    /// Whatever failed; the ready_pipe, if there is one, has been told.
    pub(crate) fn start(mut start: Start) -> Result<Self, StartError> {
        let ready_pipe = start.ready_pipe.take();
        let needs = (files_of_master(&start.config), files_of_worker(&start.config));
        let started = Self::try_start(start);
        match started.map_err(|error| error.with_limit(needs)) {
            Ok(mut master) => {
                master.ready_pipe = ready_pipe;
                Ok(master)
            }
            Err(error) => {
                if let Some(ready_pipe) = ready_pipe {
                    ready_pipe.failed(&error.to_string());
                }
                Err(error)
            }
        }
    }

    fn try_start(start: Start) -> Result<Self, StartError> {
        let Start { config, file, program, mut passed, mut predecessor, is_detached, .. } = start;
        let now = Instant::now();
        // Signals come first: one that arrives during the start is handled as soon as the master
        // runs.
        let signals = Signals::new()?;
        // The error log is opened before anything can be said in it.
        let account = generation::account_of(&config)?;
        files::write_error_log(
            &config,
            &Logs::open(&config, account.as_ref())?,
            is_detached,
            "master",
        );
        if let Some(cache) = &config.cache {
            marker::check_if_there(&cache.path).map_err(io::Error::other)?;
        }
        let service_manager = ServiceManager::of_environment(predecessor.is_some());
        // That of the ktrix before is replaced when this one serves.
        let pid_file = config.pid.as_deref().filter(|_| predecessor.is_none());
        let pid_file = pid_file.map(PidFile::lock).transpose()?;
        sandbox::enter_master(&config);
        if let Err(error) = privileges::raise_open_files() {
            log::warn!("cannot raise the limit of open files (RLIMIT_NOFILE): {error}");
        }
        let tables = SharedTables::new(&config, &mut passed)?;
        Meter { page: tables.page.clone(), rows: Rc::default() }.install(Counting::Master);
        let mut listeners = Listeners::new(&config.listen, passed);
        listeners.ensure(&config.listen, config.workers)?;
        let mut process_slots = ProcessSlots::borrowed(tables.slots_of_old);
        let keeper_slot = process_slots.take_unless(|slot| tables.fills.is_held(slot));
        let keeper_slot = keeper_slot.ok_or_else(|| io::Error::other("no process slot is free"))?;
        let before = predecessor.as_ref().and_then(|old| old.servers.as_ref());
        let number = before.map_or(1, |servers| servers.phase().0.saturating_add(1));
        let old = predecessor.as_mut();
        let generation = Generation::prepare(config, number, keeper_slot, &[], old, &tables, now)?;
        tables.names.set_keeper(keeper_slot);
        if let Err(finding) = generation.use_ticket_secrets(&Sources::of_disk(), &tables) {
            log::error!("{finding}; keeping the one in use");
        }
        Ok(Self {
            file,
            program,
            is_detached,
            service_manager,
            tables,
            memory: ResidentMemory::new().ok(),
            process_slots,
            dead_rings: DeadRings::default(),
            listeners,
            generations: vec![generation],
            mode: Mode::Serving,
            reload: Reload::None,
            is_upgrade_wanted: false,
            file_watch: FileWatch::new(now),
            tls_watch: TlsWatch::new(now),
            suspects: Suspects::default(),
            n_passed_on: 0,
            workers_looked_at: now,
            predecessor,
            successor: None,
            signals: Some(signals),
            pid_file,
            ready_pipe: None,
            was_ready: false,
            exit_code: 0,
        })
    }
}
