//! The values that a child of the master inherits.
//!
//! Everything here was made before the fork and is inherited by it: nothing is passed by name and
//! nothing has to be opened again. The tables in shared memory are the same for all children of
//! all generations; configuration, index and servers are those of the child's generation.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use crate::cache::Shared;
use crate::config::Config;
use crate::config::Listen;
use crate::config::request_log::PerLog;
use crate::log::feed::Feed;
use crate::log::file::LogFile;
use crate::log::ring::Rings;
use crate::log::spill::Spill;
use crate::shared::beats::Beats;
use crate::shared::bodies::Bodies;
use crate::shared::in_flight::InFlightTable;
use crate::shared::meter::Meter;
use crate::shared::metrics::MetricTable;
use crate::shared::names::Names;
use crate::shared::servers::ServerTable;
use crate::shared::wake::Wakes;
use crate::tls::secrets::Secrets;
use crate::tls::server::Servers;

/// How many children there can be at once, those of older generations included: the tables in
/// shared memory have this many rows.
pub const N_PROCESS_SLOTS: usize = 128;

/// The role of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The worker of this number, from 0; its successor after a death carries the same.
    Worker(usize),
    /// The keeper.
    Keeper,
}

impl std::fmt::Display for Role {
    /// `worker 3` or `keeper`: the words of the error log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Worker(number) => write!(f, "worker {number}"),
            Self::Keeper => f.write_str("keeper"),
        }
    }
}

/// A listening socket, non-blocking, with the number of the worker that accepts from it.
#[derive(Debug)]
pub struct ListenSocket {
    /// The socket.
    pub fd: OwnedFd,
    /// The number of the worker that it belongs to. A worker listens on its own sockets, and on
    /// those of a worker whose sockets it has taken over. It may have several of one address.
    pub worker: usize,
    /// The listener as configured: a port of 0 is still 0 here.
    pub listen: Rc<Listen>,
}

/// The files of a log of requests.
#[derive(Debug, Default)]
pub struct LogFiles {
    /// Its file, with a lock of its own; `None` if there is no such log, or the file cannot be opened
    /// for now.
    pub file: Option<LogFile>,
    /// The file for lines that it does not take for now.
    pub spill: Option<Spill>,
}

/// All that a worker or the keeper needs; the master has already dropped privileges, opened the
/// error log and attached the index when it hands this over.
#[derive(Debug)]
pub struct Inherited {
    /// The configuration of this generation.
    pub config: Rc<Config>,
    /// The role of this child.
    pub role: Role,
    /// This child's row in the shared tables, below [`N_PROCESS_SLOTS`].
    pub process_slot: usize,
    /// The sockets of all workers; none for the keeper.
    pub sockets: Vec<ListenSocket>,
    /// The TLS of the listeners.
    pub tls: Rc<Servers>,
    /// The secrets of TLS session tickets.
    pub secrets: Arc<Secrets>,
    /// To the master, SOCK_SEQPACKET and non-blocking. It carries the messages of
    /// `worker/message.rs`. End of file means that the master is dead.
    pub channel: OwnedFd,
    /// The files of the logs of requests.
    pub logs: PerLog<LogFiles>,
    /// The cache; `None` when nothing is to be cached.
    pub cache: Option<Rc<Shared>>,
    /// The rings of the logs of requests.
    pub rings: PerLog<Arc<Rings>>,
    /// The last requests of each process, for those who follow them.
    pub feed: Rc<Feed>,
    /// The names that workers ask the keeper for.
    pub(crate) names: Rc<Names>,
    /// The eventfds that wake the process in a process slot.
    pub wakes: Rc<Wakes>,
    /// The signs of life of the process in a process slot.
    pub beats: Rc<Beats>,
    /// The bytes of its request bodies, and the bound of all.
    pub bodies: Rc<Bodies>,
    /// The counters of all processes.
    pub(crate) metrics: Rc<MetricTable>,
    /// Its own counters.
    pub(crate) meter: Meter,
    /// The requests in flight, of all processes.
    pub(crate) in_flight: Rc<InFlightTable>,
    /// The servers.
    pub(crate) servers: Rc<ServerTable>,
    /// The keeper's process slot, to wake it when there is something to evict.
    pub keeper_slot: usize,
    /// Whether the keeper must first check or rebuild the index.
    pub reconcile: Reconcile,
}

/// How far the index of a cache can be trusted when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconcile {
    /// It was closed cleanly.
    None,
    /// It was not: slots and files are to be compared.
    Check,
    /// It is new: the files that are there are to be taken in.
    Rebuild,
}
