//! Forking a child, and its first steps until it is a worker or the keeper.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::config::request_log::{PerLog, RequestLog};
use crate::master::child::Process;
use crate::master::files::Logs;
use crate::master::pulse::Pulse;
use crate::master::signals::IGNORED_BY_CHILDREN;
use crate::master::tls_watch::TlsWatch;
use crate::master::{Master, files, sandbox};
use crate::shared::bodies::Bodies;
use crate::shared::meter::Meter;
use crate::shared::metrics::{Counting, Page};
use crate::sys::privileges::Account;
use crate::sys::sandbox::trap::keep_forbidden_call;
use crate::sys::{process, socket};
use crate::worker::inherited::{Inherited, Reconcile, Role};
use crate::{keeper, worker};

/// The exit code of a child that could not start; the error log has the reason.
pub(super) const EXIT_START_FAILED: i32 = 71;

impl Master {
    /// Forks a child that is down.
    ///
    /// # Errors
    /// When the kernel has no process or descriptor left, or no process slot is free.
    pub(super) fn spawn(
        &mut self,
        generation: usize,
        which: usize,
        now: Instant,
    ) -> io::Result<()> {
        let role = self.generations[generation].children[which].role;
        let slot = match role {
            Role::Keeper => self.generations[generation].keeper_slot,
            Role::Worker(_) => self.take_process_slot()?,
        };
        let forked = socket::channel().and_then(|(ours, theirs)| {
            let page = self.tables.claim_page()?;
            let mut ours = Some(ours);
            let pid = process::fork_child(&IGNORED_BY_CHILDREN, || {
                ours = None;
                let (mut inherited, account, logs) =
                    self.hand_over(generation, role, (slot, &page), theirs);
                open_logs(&mut inherited, account.as_ref(), logs, self.is_detached);
                run_child(inherited, account.as_ref())
            });
            let pid = pid.inspect_err(|_| page.release())?;
            let (channel, pulse) = (ours, Pulse::default());
            Ok(Process { pid, slot, forked_at: now, channel, is_serving: false, page, pulse })
        });
        match forked {
            Ok(process) => {
                log::debug!("started {role}: pid {}, process slot {slot}", process.pid);
                let child = &mut self.generations[generation].children[which];
                (child.process, child.restart_at) = (Some(process), None);
                Ok(())
            }
            Err(error) => {
                if role != Role::Keeper {
                    self.process_slots.free(slot);
                }
                Err(error)
            }
        }
    }

    pub(super) fn take_process_slot(&mut self) -> io::Result<usize> {
        // Children of an upgrade that failed, or of a master that was killed, may drain in some.
        let slot = self.process_slots.take_unless(|slot| self.tables.fills.is_held(slot));
        slot.or_else(|| self.dead_rings.discard_oldest())
            .ok_or_else(|| io::Error::other("no process slot is free"))
    }

    /// In the child: takes what the child needs out of the master and closes the rest. The lock of
    /// the pid file and the channels of the other processes would otherwise outlive the master.
    fn hand_over(
        &mut self,
        generation: usize,
        role: Role,
        (slot, page): (usize, &Page),
        channel: OwnedFd,
    ) -> (Inherited, Option<Account>, Logs) {
        self.pid_file = None;
        self.ready_pipe = None;
        self.signals = None;
        (self.predecessor, self.successor) = (None, None);
        self.tls_watch = TlsWatch::new(Instant::now());
        let generation = self.generations.swap_remove(generation);
        self.generations.clear();
        let listeners = std::mem::take(&mut self.listeners);
        let config = generation.config;
        let bodies_bytes_max = generation.bodies_bytes_max;
        let sockets = match role {
            Role::Worker(number) => listeners.into_sockets(&config.listen, number, config.workers),
            Role::Keeper => Vec::new(),
        };
        let reconcile = generation.cache.as_ref().map_or(Reconcile::None, |cache| cache.reconcile);
        let inherited = Inherited {
            config,
            role,
            process_slot: slot,
            sockets,
            tls: generation.tls,
            secrets: Arc::clone(&self.tables.secrets),
            channel,
            logs: PerLog::default(),
            cache: generation.cache.map(|cache| cache.shared),
            rings: self.tables.rings.clone(),
            feed: Rc::clone(&self.tables.feed),
            names: Rc::clone(&self.tables.names),
            wakes: Rc::clone(&self.tables.wakes),
            beats: Rc::clone(&self.tables.beats),
            bodies: Rc::new(Bodies::new(Rc::clone(&self.tables.bodies), slot, bodies_bytes_max)),
            metrics: Rc::clone(&self.tables.metrics),
            meter: Meter { page: page.clone(), rows: generation.rows },
            in_flight: Rc::clone(&self.tables.in_flight),
            servers: generation.servers,
            keeper_slot: generation.keeper_slot,
            reconcile,
        };
        (inherited, generation.account, generation.logs)
    }
}

/// In the child, while it still has the rights of the master.
fn open_logs(inherited: &mut Inherited, account: Option<&Account>, logs: Logs, is_detached: bool) {
    let role = inherited.role;
    files::write_error_log(&inherited.config, &logs, is_detached, &role.to_string());
    for which in RequestLog::ALL {
        let (Some(log), Role::Worker(_)) = (&logs.requests[which], role) else { continue };
        let files = &mut inherited.logs[which];
        match log.for_child(account) {
            Ok(file) => files.file = Some(file),
            Err(error) => log::error!("{error}; retrying"),
        }
        match log.spill.as_ref().map(|spill| spill.open_again()).transpose() {
            Ok(spill) => files.spill = spill,
            Err(error) => log::warn!("no spill file for the {}: {error}", which.name()),
        }
    }
}

/// In the child: prepares the process and runs its role.
fn run_child(inherited: Inherited, account: Option<&Account>) -> i32 {
    let role = inherited.role;
    name_process(role);
    inherited.meter.clone().install(match role {
        Role::Worker(number) => Counting::Worker(number),
        Role::Keeper => Counting::Keeper,
    });
    // A daemon has no stderr, so the default hook would lose this. It reads "worker 3 panicked at".
    std::panic::set_hook(Box::new(move |panic| log::error!("{role} {panic}")));
    if let Err(error) = prepare_child(&inherited, account) {
        log::error!("cannot start {role}: {error}");
        return EXIT_START_FAILED;
    }
    match role {
        Role::Worker(_) => worker::run(inherited),
        Role::Keeper => keeper::run(inherited),
    }
}

fn prepare_child(inherited: &Inherited, account: Option<&Account>) -> io::Result<()> {
    // The table lives as long as this process.
    let in_flight = Box::leak(Box::new(Rc::clone(&inherited.in_flight)));
    if let Some(word) = in_flight.call(inherited.process_slot) {
        keep_forbidden_call(word);
    }
    let dir = inherited.cache.as_ref().map(|cache| cache.store.dir());
    sandbox::enter_child(inherited.role, &inherited.config, account, dir)?;
    let is_worker = inherited.role != Role::Keeper;
    match &inherited.cache {
        Some(cache) => cache.attach(is_worker.then_some(inherited.process_slot)),
        None => Ok(()),
    }
}

fn name_process(role: Role) {
    match role {
        Role::Worker(number) => process::set_name(&format!("ktrix-worker-{number}")),
        Role::Keeper => process::set_name("ktrix-keeper"),
    }
}
