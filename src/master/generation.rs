//! A generation: the children that were forked for one configuration.
//!
//! ```text
//! Starting ─ all are ready ─▶ Current ─ its successor is ready ─▶ Draining ─ all have ended ─▶ gone
//!    └────── one dies, or it takes too long ─────────────────────────▲
//! ```
//!
//! The first one is current from its start. Only the current one has its dead children replaced.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::cache::directory_lock::DirectoryLock;
use crate::config::request_log::RequestLog;
use crate::config::{CacheConfig, Config, ServerAddress};
use crate::log::file::LogFile;
use crate::master::access_check;
use crate::master::cache::{Cache, OpenError};
use crate::master::child::Child;
use crate::master::files::{self as log_files, Logs};
use crate::master::listeners::Mark;
use crate::master::pidfile::PidFile;
use crate::master::shared_tables::{self, SharedTables};
use crate::master::socket_takeover::SocketTakeovers;
use crate::master::succession::{CacheOfOld, Predecessor};
use crate::shared::metric_rows::RowMap;
use crate::shared::server_names::ServerNames;
use crate::shared::servers::{ServerTable, TablePhase};
use crate::sys::file;
use crate::sys::privileges::{self, Account};
use crate::tls::certificate::Finding;
use crate::tls::secrets::Secrets;
use crate::tls::server::{self, Servers};
use crate::tls::sources::{Sources, Stamps};
use crate::upstream::ids::UpstreamId;
use crate::worker::inherited::{Reconcile, Role};
use crate::worker::message::ControlMessage;

/// The children of one configuration, and what only they share.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Counts from 1.
    pub(crate) number: u64,
    /// Its configuration.
    pub(crate) config: Rc<Config>,
    /// The account of its children; `None` if it is that of the master.
    pub(crate) account: Option<Account>,
    /// Its log files.
    pub(crate) logs: Logs,
    /// Its cache, if it has one.
    pub(crate) cache: Option<Cache>,
    /// What has happened to the files of the cache.
    pub(crate) cache_files: CacheFiles,
    /// `limits.bodies`, in bytes.
    pub(crate) bodies_bytes_max: u64,
    /// The servers of its upstreams.
    pub(crate) servers: Rc<ServerTable>,
    /// Its effective configuration, for commands, which find the file by its name.
    _text: File,
    /// The rows of its sites, upstreams and servers in the metrics.
    pub(crate) rows: Rc<RowMap>,
    /// The TLS of its listeners.
    pub(crate) tls: Rc<Servers>,
    /// The files that it was made of first.
    pub(crate) tls_files: Stamps,
    /// Its keeper's process slot, through all the processes that are its keeper.
    pub(crate) keeper_slot: usize,
    /// Its workers, in the order of their numbers, then its keeper.
    pub(crate) children: Vec<Child>,
    /// Its phase.
    pub(crate) phase: Phase,
    /// It drains, and no tunnel may go on.
    pub(crate) is_ending: bool,
    /// Which workers listen for which.
    pub(crate) takeovers: SocketTakeovers,
    /// How many workers in a row have died before they served.
    pub(crate) n_failed_starts: u32,
    /// While it starts: its pid file, if that is another than the one in use.
    pub(crate) pid_file: Option<PidFile>,
    /// The listening sockets before its start, while it starts.
    pub(crate) mark: Option<Mark>,
}

/// Where a generation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It was forked and is not complete.
    Starting {
        /// It fails if it is not complete by then.
        until: Instant,
    },
    /// It serves.
    Current,
    /// It finishes what it began.
    Draining,
}

/// What other programs have done to the mapped files of a generation's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheFiles {
    /// Nothing.
    InPlace,
    /// They removed or replaced a file; the log has said so.
    Displaced,
    /// They truncated a file: the cache is given up and not yet opened again.
    Lost,
}

impl Generation {
    /// Makes all that is needed before the first of its children is forked. Takes over from the
    /// current one of the `others`, or from the `old` master, what has not changed.
    ///
    /// # Errors
    /// When the user is unknown, a log file cannot be opened, memory runs out, or the cache
    /// directory is in use by another ktrix. A cache that cannot be opened for another reason is no
    /// error, and the generation goes without, unless the current one has a cache that would be
    /// lost by that.
    pub(crate) fn prepare(
        config: Config,
        number: u64,
        keeper_slot: usize,
        others: &[Self],
        mut old: Option<&mut Predecessor>,
        tables: &SharedTables,
        now: Instant,
    ) -> io::Result<Self> {
        let cache_of_old = old.as_mut().and_then(|old| old.cache.take());
        let previous = others.iter().find(|other| other.phase == Phase::Current);
        let account = account_of(&config)?;
        let (tls, tls_files) = tls_of(&config, &tables.secrets)?;
        warn_of_user(&config, account.as_ref());
        let mut logs = Logs::open(&config, account.as_ref())?;
        let cache = match &config.cache {
            Some(wanted) => cache_for(wanted, account.as_ref(), others, cache_of_old, tables)?,
            None => None,
        };
        for which in RequestLog::ALL {
            let configured = config.log.requests(which);
            let (Some(file), Some(log)) = (&mut logs.requests[which], configured) else { continue };
            let dir = cache.as_ref().map(|cache| cache.shared.store.dir());
            let last = previous.and_then(|it| it.logs.requests[which].as_ref()?.spill.as_ref());
            file.spill = log_files::open_spill(log, dir, last);
            if file.spill.as_ref().is_some_and(|spill| spill.has_lines().unwrap_or(true)) {
                tables.rings[which].set_spill_in_use(true);
            }
        }
        for problem in access_check::problems(&config, account.as_ref()) {
            log::error!("{}: {}", problem.keys.first().unwrap_or(&""), problem.message);
        }
        let bodies_bytes_max = bodies_bytes_max(&config, cache.as_ref());
        let before = previous.map(|it| &*it.servers).or(old.and_then(|old| old.servers.as_ref()));
        let servers = Rc::new(servers_of(&config, &tls, before)?);
        let text = file::in_memory(&name_of_text(number), config.effective.as_bytes())?;
        let rows: Vec<_> = others.iter().map(|other| &*other.rows).collect();
        let rows = Rc::new(tables.rows_of(&config, &rows));
        // The first generation is current at once; another one when it is ready.
        let phase = if previous.is_none() { TablePhase::Current } else { TablePhase::Starting };
        servers.set_phase(number, phase);
        let workers = (0..config.workers).map(Role::Worker);
        let children = workers.chain([Role::Keeper]).map(|role| Child::new(role, now)).collect();
        Ok(Self {
            number,
            config: Rc::new(config),
            account,
            logs,
            cache,
            cache_files: CacheFiles::InPlace,
            bodies_bytes_max,
            servers,
            _text: text,
            rows,
            tls: Rc::new(tls),
            tls_files,
            keeper_slot,
            children,
            phase: Phase::Current,
            is_ending: false,
            takeovers: SocketTakeovers::default(),
            n_failed_starts: 0,
            pid_file: None,
            mark: None,
        })
    }

    /// Opens the log files again, for all its children.
    ///
    /// # Errors
    /// The file that cannot be opened; then all files in use stay so.
    pub(crate) fn reopen_logs(&mut self) -> io::Result<()> {
        let account = self.account.as_ref();
        let mut logs = Logs::open(&self.config, account)?;
        for which in RequestLog::ALL {
            if let (Some(new), Some(old)) = (&mut logs.requests[which], &self.logs.requests[which])
            {
                new.spill = old.spill.clone();
            }
        }
        for child in &mut self.children {
            for which in RequestLog::ALL {
                if let (Some(log), Role::Worker(_)) = (&logs.requests[which], child.role) {
                    let file = log.for_child(account)?;
                    child.send_with(ControlMessage::RequestLog(which), Some(file.as_fd()));
                }
            }
            child.send_with(ControlMessage::ErrorLog, logs.error.as_ref().map(LogFile::as_fd));
        }
        self.logs = logs;
        Ok(())
    }

    /// Uses the secrets of its configuration for session tickets, as their file is now.
    ///
    /// # Errors
    /// Why the file cannot be used; then the secrets in use stay.
    pub(crate) fn use_ticket_secrets(
        &self,
        sources: &Sources,
        tables: &SharedTables,
    ) -> Result<(), Finding> {
        let of_file = server::ticket_secrets(&self.config, sources)?;
        if let Err(error) = tables.secrets.use_file(&of_file, shared_tables::unix_s()) {
            log::error!("cannot make secrets for TLS session tickets: {error}");
        }
        Ok(())
    }

    /// Shows commands when its certificates expire.
    pub(crate) fn publish_expiries(&self) {
        publish_expiries(&self.servers, &self.tls);
    }

    /// How many children a generation of this configuration has.
    pub(crate) fn n_children(config: &Config) -> usize {
        config.workers + 1
    }

    /// Whether all its children serve.
    pub(crate) fn is_complete(&self) -> bool {
        self.children.iter().all(Child::is_serving)
    }

    /// Passes a connection on to one of its workers, which take turns.
    pub(crate) fn pass_on(&self, turn: usize, listener: SocketAddr, connection: &OwnedFd) {
        let is_worker = |child: &&Child| child.role != Role::Keeper && child.is_serving();
        let workers: Vec<_> = self.children.iter().filter(is_worker).collect();
        if let Some(turn) = turn.checked_rem(workers.len()) {
            workers[turn].pass_on(listener, connection);
        }
    }

    /// Whether none of its children is alive.
    pub(crate) fn is_empty(&self) -> bool {
        self.children.iter().all(|child| child.process.is_none())
    }

    /// Takes over what a command has changed since this generation was prepared. What was seen of the
    /// servers since then is newer here: the keeper of this generation resolves and checks already.
    pub(crate) fn take_over_settings(&self, before: &ServerNames<'_>) {
        for (server, wanted) in self.config.servers() {
            let upstream = &self.config.upstreams[server.upstream.0].name;
            if let Some(before) = before.row(upstream, &wanted.address.to_string()) {
                self.servers.row(server).take_over_settings(before);
            }
        }
    }

    /// Gives back what a worker that is dead has counted.
    pub(crate) fn release_worker(&self, worker: usize) {
        let method = |upstream: UpstreamId| self.config.upstreams[upstream.0].balance;
        self.servers.release_worker(worker, |upstream| method(upstream).needs_active());
    }

    fn lock(&self) -> Option<Rc<DirectoryLock>> {
        self.cache.as_ref().map(|cache| Rc::clone(&cache.lock))
    }

    /// Its cache, if it is the wanted one, and its files are still in the directory.
    fn cache_like(&self, wanted: &CacheConfig) -> Option<Cache> {
        let have = self.config.cache.as_ref()?;
        let is_same = have.path == wanted.path && have.objects == wanted.objects;
        let cache = self.cache.as_ref().filter(|_| is_same)?;
        if cache.shared.is_in_place() {
            return Some(cache.clone());
        }
        log::warn!(
            "index or purge file of cache \"{}\" was removed or replaced while ktrix was running; \
             reopening the cache",
            wanted.path.display()
        );
        None
    }
}

/// The name of the file in memory with the effective configuration of a generation.
pub(crate) fn name_of_text(number: u64) -> String {
    format!("ktrix-configuration-{number}")
}

fn cache_for(
    wanted: &CacheConfig,
    account: Option<&Account>,
    others: &[Generation],
    of_old: Option<CacheOfOld>,
    tables: &SharedTables,
) -> io::Result<Option<Cache>> {
    let current = others.iter().find(|other| other.phase == Phase::Current);
    let kept = current.and_then(|current| current.cache_like(wanted));
    let mut locks: Vec<_> = others.iter().filter_map(Generation::lock).collect();
    let is_unchecked = of_old.as_ref().is_some_and(|old| old.is_unchecked);
    let (lock, uses) = of_old.map_or((None, None), |old| (Some(old.lock), old.uses));
    locks.extend(lock.map(Rc::new));
    let cache = match kept.map_or_else(|| Cache::open(wanted, account, &locks, uses, tables), Ok) {
        Ok(cache) if is_unchecked && cache.reconcile == Reconcile::None => {
            Cache { reconcile: Reconcile::Check, ..cache }
        }
        Ok(cache) => cache,
        // A lock is there if one of them has a cache.
        Err(why @ OpenError::Unusable { .. })
            if locks.is_empty() || current.is_some_and(|current| current.cache.is_none()) =>
        {
            log::error!("running without a cache: {why}");
            return Ok(None);
        }
        Err(why) => return Err(io::Error::other(why)),
    };
    cache.shared.index.set_size(wanted.size_bytes);
    Ok(Some(cache))
}

/// The TLS of the listeners, from the files of their certificates.
fn tls_of(config: &Config, secrets: &Arc<Secrets>) -> io::Result<(Servers, Stamps)> {
    let sources = Sources::of_disk();
    let servers = Servers::load(config, &sources, Some(secrets)).map_err(|findings| {
        let lines: Vec<_> = findings.iter().map(Finding::to_string).collect();
        io::Error::other(lines.join("; "))
    })?;
    for warning in &servers.warnings {
        log::warn!("{warning}");
    }
    Ok((servers, sources.stamps()))
}

/// `limits.bodies`, or else a tenth of what is free now where they are written.
fn bodies_bytes_max(config: &Config, cache: Option<&Cache>) -> u64 {
    config.limits.bodies_bytes.unwrap_or_else(|| {
        let free = match cache {
            Some(cache) => cache.shared.store.free_bytes(),
            None => file::free_bytes(&std::env::temp_dir()),
        };
        free.map_or(config.limits.route.body_bytes, |bytes| bytes / 10)
    })
}

/// The account that the children become, if that is another than the master's.
pub(crate) fn account_of(config: &Config) -> io::Result<Option<Account>> {
    let Some(name) = &config.user else { return Ok(None) };
    let account = Account::of(name).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot change the user to \"{name}\": {error}"))
    })?;
    Ok(privileges::is_root().then_some(account))
}

fn warn_of_user(config: &Config, account: Option<&Account>) {
    match (&config.user, account) {
        (None, _) if privileges::is_root() => {
            log::warn!(
                "the workers run as root, because no \"user\" is configured (add a line like \"user: \
                 ktrix\")"
            );
        }
        (Some(name), None) if Account::of(name).is_ok_and(|account| !account.is_current()) => {
            log::warn!("user \"{name}\" is ignored: only root can change the user");
        }
        _ => {}
    }
}

/// The table of servers. Configured addresses are in it from the start; a name has the addresses
/// that it had in the table before.
fn servers_of(
    config: &Config,
    tls: &Servers,
    before: Option<&ServerTable>,
) -> io::Result<ServerTable> {
    let before = before.map(ServerNames::of);
    let n_servers = config.upstreams.iter().map(|it| it.servers.len());
    let table = ServerTable::create(n_servers, config.workers, &names_of(config, tls))?;
    publish_expiries(&table, tls);
    configure_servers(&table, config, before.as_ref());
    for (server, wanted) in config.servers() {
        let addresses = match &wanted.address {
            ServerAddress::Ip(address) => vec![*address],
            ServerAddress::Unix(_) => Vec::new(),
            name @ ServerAddress::Name { .. } => {
                let name = name.to_string();
                before.as_ref().map(|before| before.addresses(&name)).unwrap_or_default()
            }
        };
        if !addresses.is_empty() {
            table.publish_addresses(server, &addresses);
        }
    }
    Ok(table)
}

/// Writes when the certificates in use expire to the table.
fn publish_expiries(table: &ServerTable, tls: &Servers) {
    for (word, (_, certificate)) in table.expiries().iter().zip(tls.certificates()) {
        word.store(certificate.expires_s, Ordering::Relaxed);
    }
}

fn configure_servers(table: &ServerTable, config: &Config, before: Option<&ServerNames<'_>>) {
    for (server, wanted) in config.servers() {
        let upstream = &config.upstreams[server.upstream.0].name;
        let before = before.and_then(|it| it.row(upstream, &wanted.address.to_string()));
        table.configure(server, wanted.weight, wanted.setting, before);
        if config.upstreams[server.upstream.0].check.is_none() {
            table.row(server).forget_checks();
        }
    }
}

/// The names of what is in the table of servers, for commands.
fn names_of(config: &Config, tls: &Servers) -> String {
    let mut text = String::new();
    let mut line = |what: &str, name: &str| {
        let name = name.replace(char::is_control, "?");
        text.push_str(&format!("{what}\t{name}\n"));
    };
    config.listen.iter().for_each(|listen| line("listen", &listen.address.to_string()));
    for (key, certificate) in tls.certificates() {
        line("certificate", &format!("{key} {}", certificate.file.display()));
    }
    if let Some(cache) = &config.cache {
        line("cache", &cache.path.display().to_string());
    }
    for upstream in &config.upstreams {
        line("upstream", &upstream.name);
        upstream.servers.iter().for_each(|server| line("server", &server.address.to_string()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_index_waits_until_its_generation_serves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let config = |n_objects: u32| {
            let text = format!(
                "upstreams: {{a: {{servers: [x]}}}}\nupstream: a\ncache: {{path: {path:?}, objects: {n_objects}}}\n"
            );
            Config::load_for(std::path::Path::new("f"), &text, 1).unwrap()
        };
        let tables = SharedTables::new(&config(1_000), &mut Vec::new()).unwrap();
        let prepare = |n_objects, number, others: &[Generation]| {
            Generation::prepare(config(n_objects), number, 0, others, None, &tables, Instant::now())
                .unwrap()
        };
        let first = [prepare(1_000, 1, &[])];
        let in_place = |it: &Generation| it.cache.as_ref().unwrap().shared.is_in_place();
        assert!(in_place(&first[0]));
        let failed = prepare(2_000, 2, &first);
        assert!(in_place(&first[0]) && !in_place(&failed));
        failed.cache.unwrap().shared.withdraw();
        let second = prepare(3_000, 3, &first);
        assert!(in_place(&first[0]) && !in_place(&second));
        second.cache.as_ref().unwrap().shared.take_place().unwrap();
        assert!(in_place(&second) && !in_place(&first[0]));
    }
}
