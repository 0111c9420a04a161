//! The tables that all children of all generations share, made once, before the first fork.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cache::fills::Fills;
use crate::config::request_log::{PerLog, RequestLog};
use crate::config::{Config, HostPattern, SiteConfig};
use crate::log::feed::{self, Feed};
use crate::log::ring::Rings;
use crate::shared::beats::Beats;
use crate::shared::bodies::BodyTable;
use crate::shared::in_flight::InFlightTable;
use crate::shared::metric_rows::{RowMap, RowNames};
use crate::shared::metrics::{self, MetricTable, Page};
use crate::shared::names::Names;
use crate::shared::wake::Wakes;
use crate::sys::passed::{self, Passed};
use crate::sys::process;
use crate::tls::secrets::{self, Secrets};
use crate::worker::inherited::N_PROCESS_SLOTS;

/// The tables that live as long as the master.
#[derive(Debug)]
pub(crate) struct SharedTables {
    /// The running fills.
    pub(crate) fills: Rc<Fills>,
    /// The rings of the logs of requests.
    pub(crate) rings: PerLog<Arc<Rings>>,
    /// The last requests of each process, for those who follow them.
    pub(crate) feed: Rc<Feed>,
    /// The eventfds that wake the process in a process slot.
    pub(crate) wakes: Rc<Wakes>,
    /// The signs of life of the process in a process slot.
    pub(crate) beats: Rc<Beats>,
    /// The names that workers ask the keepers for.
    pub(crate) names: Rc<Names>,
    /// The bytes of request bodies.
    pub(crate) bodies: Rc<BodyTable>,
    /// The requests in flight.
    pub(crate) in_flight: Rc<InFlightTable>,
    /// The secrets of TLS session tickets.
    pub(crate) secrets: Arc<Secrets>,
    /// The counters of all processes.
    pub(crate) metrics: Rc<MetricTable>,
    /// Those of the master.
    pub(crate) page: Page,
    /// The process slots of the ktrix before this one, a bit for each; none if the tables of fills and
    /// wake-ups are not its.
    pub(crate) slots_of_old: u128,
    /// The size of a ring of the access log; a reload cannot change it.
    pub(crate) ring_bytes: usize,
}

impl SharedTables {
    /// Makes them, or takes over what the ktrix before this one has passed. Memory that no child uses
    /// costs nothing.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub(crate) fn new(config: &Config, passed: &mut Vec<Passed>) -> io::Result<Self> {
        let ring_bytes = config.log.access.as_ref().map_or(RING_BYTES, |log| log.buffer_bytes);
        let metrics = metrics_of(passed)?;
        let page = claim_page(&metrics)?;
        let feed = passed::find(passed, feed::FILE_NAME);
        let (fills, wakes, slots_of_old, feed) = match FillsOfOld::take(passed) {
            Some(FillsOfOld { fills, wakes, slots }) => (fills, wakes, slots, feed),
            // Two processes of one slot would write to the feed of the old one.
            None => (Fills::create(N_FILLS)?, Wakes::new(N_PROCESS_SLOTS)?, 0, None),
        };
        let feed = feed.and_then(|fd| Feed::passed(fd, N_PROCESS_SLOTS).ok());
        Ok(Self {
            fills: Rc::new(fills),
            rings: PerLog::try_of(|which| {
                let bytes = if which == RequestLog::Access { ring_bytes } else { RING_BYTES };
                Rings::create(N_PROCESS_SLOTS, bytes).map(Arc::new)
            })?,
            feed: Rc::new(feed.map_or_else(|| Feed::create(N_PROCESS_SLOTS), Ok)?),
            wakes: Rc::new(wakes),
            slots_of_old,
            beats: Rc::new(Beats::create(N_PROCESS_SLOTS)?),
            names: Rc::new(Names::create(N_PROCESS_SLOTS)?),
            bodies: Rc::new(BodyTable::create(N_PROCESS_SLOTS)?),
            secrets: Arc::new(secrets_of(passed)?),
            metrics: Rc::new(metrics),
            page,
            in_flight: Rc::new(InFlightTable::create(N_PROCESS_SLOTS)?),
            ring_bytes,
        })
    }

    /// A page of counters for a child.
    ///
    /// # Errors
    /// When there are too many processes.
    pub(crate) fn claim_page(&self) -> io::Result<Page> {
        claim_page(&self.metrics)
    }

    /// The rows of metrics for the names of a configuration; `others` are those of living children.
    pub(crate) fn rows_of(&self, config: &Config, others: &[&RowMap]) -> RowMap {
        let site = |site: &SiteConfig| {
            site.hosts.first().map_or_else(|| HostPattern::Any.to_string(), HostPattern::to_string)
        };
        let unconfigured = ["none", "default"].map(str::to_owned);
        let upstreams = config.upstreams.iter().map(|upstream| {
            let servers = upstream.servers.iter().map(|server| server.address.to_string());
            (upstream.name.clone(), servers.collect())
        });
        let names = RowNames {
            // In the order of the numbers of sites.
            sites: unconfigured.into_iter().chain(config.sites.iter().map(site)).collect(),
            upstreams: upstreams.collect(),
        };
        let own = (std::process::id(), &self.page);
        self.metrics.assign(&names, others, own, process::exists)
    }
}

fn claim_page(metrics: &MetricTable) -> io::Result<Page> {
    metrics.claim(std::process::id(), process::exists)
}

impl SharedTables {
    /// The tables that outlive this ktrix, by the names that they are passed by.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>)> {
        let secrets = self.secrets.file().map(|file| (secrets::PASSED_BY, file.as_fd()));
        let metrics = self.metrics.file().map(|file| (metrics::FILE_NAME, file.as_fd()));
        secrets.into_iter().chain(metrics)
    }

    /// The tables for a ktrix that takes the place of this one, which may not use `slots`.
    pub(crate) fn named_for_upgrade(
        &self,
        slots: u128,
    ) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        let fills = self.fills.file().map(|file| (format!("{FILLS}{slots:x}"), file.as_fd()));
        let wakes = self.wakes.fds().map(|fd| (WAKE.to_owned(), fd));
        let feed = self.feed.file().map(|file| (feed::FILE_NAME, file.as_fd()));
        let others = feed.into_iter().chain(self.named()).map(|(name, fd)| (name.to_owned(), fd));
        fills.into_iter().chain(wakes).chain(others)
    }
}

/// The tables that the children of two masters share, so that one fetches and all follow.
struct FillsOfOld {
    fills: Fills,
    wakes: Wakes,
    /// Taken by the old master.
    slots: u128,
}

impl FillsOfOld {
    fn take(passed: &mut Vec<Passed>) -> Option<Self> {
        let (wakes, others) =
            std::mem::take(passed).into_iter().partition::<Vec<_>, _>(|it| it.name == WAKE);
        *passed = others;
        let at = passed.iter().position(|it| it.name.starts_with(FILLS))?;
        let Passed { name, fd } = passed.remove(at);
        let slots = u128::from_str_radix(name.strip_prefix(FILLS)?, 16).ok()?;
        let fills = Fills::passed(fd, N_FILLS).ok()?;
        let wakes = Wakes::passed(wakes.into_iter().map(|it| it.fd).collect());
        (wakes.fds().count() == N_PROCESS_SLOTS).then_some(Self { fills, wakes, slots })
    }
}

/// The name of the table of fills: the number of its layout, and the process slots of the old master.
const FILLS: &str = "fills.1-";
/// The name of each eventfd.
const WAKE: &str = "wake";

fn secrets_of(passed: &mut Vec<Passed>) -> io::Result<Secrets> {
    let before = passed::find(passed, secrets::PASSED_BY).map(Secrets::passed);
    match before {
        Some(Ok(secrets)) => Ok(secrets),
        _ => Secrets::create(unix_s()),
    }
}

/// Those of the ktrix before this one, if they have the same layout.
fn metrics_of(passed: &mut Vec<Passed>) -> io::Result<MetricTable> {
    match passed::find(passed, metrics::FILE_NAME).map(MetricTable::open) {
        Some(Ok(metrics)) => Ok(metrics),
        Some(Err(error)) => {
            ::log::warn!("the counters begin again: {error}");
            MetricTable::create(unix_s())
        }
        None => MetricTable::create(unix_s()),
    }
}

/// The time since 1970, in seconds.
pub(super) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How many fills there can be at once, in all workers together; a fetch beyond that is not
/// shared and not stored.
const N_FILLS: usize = 16_384;
/// The size of a ring of the slow log, and of the access log when none is configured; one may be at the
/// next reload.
const RING_BYTES: usize = 256 * 1_024;
