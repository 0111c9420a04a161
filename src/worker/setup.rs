//! Builds the context of a worker's exchanges from what the worker inherited.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::resource::{Resource, getrlimit};

use crate::cache::Cache;
use crate::cache::files::store::TMP;
use crate::config::Config;
use crate::config::request_log::{PerLog, RequestLog};
use crate::log::access::AccessLog;
use crate::origin::names::Mailbox;
use crate::proxy::context::Context;
use crate::shared::in_flight::InFlight;
use crate::worker::inherited::Inherited;

/// Most files of objects that stay open.
const OPEN_FILES_MAX: usize = 1024;

/// The context of a worker's exchanges.
///
/// # Errors
/// When a log has no ring for this worker.
pub(super) fn context(inherited: &mut Inherited, number: usize) -> io::Result<Context> {
    let config = Rc::clone(&inherited.config);
    let logs = PerLog::try_of(|which| request_log(inherited, &config, which))?;
    let cache = cache(inherited).map(Rc::new);
    let servers = &inherited.servers;
    servers.pid(number).store(std::process::id(), Ordering::Relaxed);
    let bodies = Rc::clone(&inherited.bodies);
    let (clients, temporary) = (&inherited.tls.clients, temporary(inherited));
    let mailbox = Mailbox {
        names: Rc::clone(&inherited.names),
        wakes: Rc::clone(&inherited.wakes),
        process_slot: inherited.process_slot,
    };
    let in_flight = InFlight::new(Rc::clone(&inherited.in_flight), inherited.process_slot);
    let feed = (Rc::clone(&inherited.feed), inherited.process_slot);
    Context::new(config, (servers, number), clients, cache, logs, temporary, bodies)
        .noting(in_flight)
        .shown_by(servers, &inherited.metrics)
        .feeding(feed)
        .forwarding(mailbox)
}

fn request_log(
    inherited: &mut Inherited,
    config: &Config,
    which: RequestLog,
) -> io::Result<Option<AccessLog>> {
    let Some(config) = config.log.requests(which) else { return Ok(None) };
    let rings = Arc::clone(&inherited.rings[which]);
    let mut log = AccessLog::new(config.clone(), rings, inherited.process_slot)?;
    if let Some(file) = inherited.logs[which].file.take() {
        log.write_to(file);
    }
    if let Some(spill) = inherited.logs[which].spill.take() {
        log.spill_to(spill);
    }
    Ok(Some(log))
}

/// How many files of objects may stay open: most descriptors are for connections.
fn open_files() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    (usize::try_from(limit).unwrap_or(usize::MAX) / 8).min(OPEN_FILES_MAX)
}

/// The cache, if there is one.
fn cache(inherited: &Inherited) -> Option<Cache> {
    let (config, shared) = inherited.config.cache.as_ref().zip(inherited.cache.as_ref())?;
    let (process_slot, keeper_slot) = (inherited.process_slot, inherited.keeper_slot);
    Some(Cache::new(Rc::clone(shared), config, process_slot, keeper_slot, open_files()))
}

/// The directory for large request bodies: that of the cache's unfinished files, which the worker
/// may write to, or else the system's.
fn temporary(inherited: &Inherited) -> PathBuf {
    match &inherited.cache {
        Some(cache) => cache.store.dir().join(TMP),
        None => std::env::temp_dir(),
    }
}
