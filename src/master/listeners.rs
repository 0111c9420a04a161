//! The listening sockets, kept for the life of their address.
//!
//! The sockets outlive the workers: a connection in an accept queue waits there for the next
//! worker. An address has a socket for every worker, and keeps them all when there are fewer
//! workers later: then a worker has several. Unix sockets and sockets handed over by systemd are
//! single, and every worker listens on them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::config::{Listen, ListenAddress};
use crate::sys::privileges::Owner;
use crate::sys::socket::{self, BoundTo};
use crate::worker::inherited::ListenSocket;

/// All sockets that the master listens on.
#[derive(Debug, Default)]
pub struct Listeners {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    address: ListenAddress,
    sockets: Vec<OwnedFd>,
    origin: Origin,
}

/// Where the sockets of an entry come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Bound by ktrix, one per worker.
    Bound,
    /// A Unix socket bound by ktrix, for all workers.
    BoundShared,
    /// Handed over by the service manager, for all workers; never closed.
    HandedOver,
}

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {}: {source}", text_of(address))]
pub struct ListenError {
    address: ListenAddress,
    source: io::Error,
}

impl ListenError {
    /// The number of the system's error.
    pub(crate) fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// How many sockets each address had; see [`Listeners::roll_back`].
#[derive(Debug)]
pub struct Mark {
    n_sockets: Vec<usize>,
}

impl Listeners {
    /// Starts with the sockets that the service manager handed over.
    pub fn new(handed_over: Vec<OwnedFd>) -> Self {
        let mut entries = Vec::new();
        for fd in handed_over {
            match socket::bound_to(fd.as_fd()) {
                Ok(bound) => {
                    let address = match bound {
                        BoundTo::Ip(address) => ListenAddress::Ip(address),
                        BoundTo::Unix(path) => ListenAddress::Unix(path),
                    };
                    log::info!("listening on {} (handed over)", text_of(&address));
                    entries.push(Entry { address, sockets: vec![fd], origin: Origin::HandedOver });
                }
                Err(error) => log::warn!("a socket that was handed over is not used: {error}"),
            }
        }
        Self { entries }
    }

    /// The state to roll back to if the next step fails.
    pub fn mark(&self) -> Mark {
        Mark { n_sockets: self.entries.iter().map(|entry| entry.sockets.len()).collect() }
    }

    /// Closes the sockets that were bound since `mark`.
    pub fn roll_back(&mut self, mark: &Mark) {
        self.entries.truncate(mark.n_sockets.len());
        for (entry, &n_sockets) in self.entries.iter_mut().zip(&mark.n_sockets) {
            entry.sockets.truncate(n_sockets);
        }
    }

    /// Binds what is missing so that `n_workers` can listen on all of `wanted`.
    ///
    /// # Errors
    /// The first address that cannot be bound; whatever was bound before is kept until
    /// [`Self::roll_back`].
    pub fn ensure(&mut self, wanted: &[Listen], n_workers: usize) -> Result<(), ListenError> {
        for listen @ Listen { address, is_optional, .. } in wanted {
            let failed = |source| ListenError { address: address.clone(), source };
            let known = self.entries.iter_mut().find(|entry| entry.address == *address);
            match (known, address) {
                (Some(entry), ListenAddress::Ip(ip)) if entry.origin == Origin::Bound => {
                    entry.add_sockets(*ip, n_workers).map_err(failed)?;
                }
                (Some(entry), ListenAddress::Unix(path)) if entry.origin == Origin::BoundShared => {
                    let owner = owner_of(listen).map_err(failed)?;
                    socket::set_access(path, listen.permissions, owner).map_err(failed)?;
                }
                (Some(_), _) => {}
                (None, ListenAddress::Ip(ip)) => {
                    if *is_optional && ip.is_ipv6() && !socket::has_ipv6() {
                        log::info!("not listening on {ip}: this machine has no IPv6");
                        continue;
                    }
                    patiently(|| check_free(*ip)).map_err(failed)?;
                    let mut entry = Entry {
                        address: address.clone(),
                        sockets: Vec::new(),
                        origin: Origin::Bound,
                    };
                    entry.add_sockets(*ip, n_workers).map_err(failed)?;
                    log::info!("listening on {}", entry.bound_text());
                    self.entries.push(entry);
                }
                (None, ListenAddress::Unix(path)) => {
                    let owner = owner_of(listen).map_err(failed)?;
                    let bind = || socket::listen_unix(path, listen.permissions, owner);
                    let fd = patiently(bind).map_err(failed)?;
                    let sockets = vec![fd];
                    let origin = Origin::BoundShared;
                    log::info!("listening on {}", text_of(address));
                    self.entries.push(Entry { address: address.clone(), sockets, origin });
                }
            }
        }
        Ok(())
    }

    /// Closes every address that is not in `wanted`.
    pub fn keep_only(&mut self, wanted: &[Listen]) {
        self.entries.retain(|entry| {
            let is_wanted = entry.origin == Origin::HandedOver
                || wanted.iter().any(|listen| listen.address == entry.address);
            if !is_wanted {
                log::info!("no longer listening on {}", entry.bound_text());
                entry.remove_file();
            }
            is_wanted
        });
    }

    /// Removes the Unix sockets from the file system: the end of a clean stop.
    pub fn remove_files(&self) {
        self.entries.iter().for_each(Entry::remove_file);
    }

    /// The sockets that this worker of `n_workers` inherits; all others are closed.
    pub fn into_sockets(
        self,
        wanted: &[Listen],
        worker: usize,
        n_workers: usize,
    ) -> Vec<ListenSocket> {
        let mut sockets = Vec::new();
        for entry in self.entries {
            let listen = wanted.iter().find(|listen| listen.address == entry.address).cloned();
            // Sockets that were handed over are served even if the configuration does not name
            // them.
            let listen = match (listen, entry.origin) {
                (Some(listen), _) => Rc::new(listen),
                (None, Origin::HandedOver) => Rc::new(Listen::at(entry.address)),
                (None, _) => continue,
            };
            let is_shared = entry.origin != Origin::Bound;
            for (number, fd) in entry.sockets.into_iter().enumerate() {
                let whose = if is_shared { worker } else { number % n_workers.max(1) };
                sockets.push(ListenSocket { fd, worker: whose, listen: Rc::clone(&listen) });
            }
        }
        sockets
    }
}

impl Entry {
    fn add_sockets(&mut self, configured: SocketAddr, n_workers: usize) -> io::Result<()> {
        while self.sockets.len() < n_workers {
            let address = match self.sockets.first() {
                None => configured,
                Some(first) => match socket::bound_to(first.as_fd())? {
                    BoundTo::Ip(address) => address,
                    BoundTo::Unix(_) => configured,
                },
            };
            self.sockets.push(socket::listen_tcp(address)?);
        }
        Ok(())
    }

    /// The address with the port that the kernel chose, if it was to choose one.
    fn bound_text(&self) -> String {
        match self.sockets.first().and_then(|fd| socket::bound_to(fd.as_fd()).ok()) {
            Some(BoundTo::Ip(address)) => address.to_string(),
            _ => text_of(&self.address),
        }
    }

    fn remove_file(&self) {
        if let (ListenAddress::Unix(path), Origin::BoundShared) = (&self.address, self.origin) {
            remove_socket(path);
        }
    }
}

fn owner_of(listen: &Listen) -> io::Result<Owner> {
    listen.owner.as_deref().map_or_else(|| Ok(Owner::default()), Owner::of)
}

fn remove_socket(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        log::warn!("cannot remove socket \"{}\": {error}", path.display());
    }
}

fn text_of(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Ip(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// The workers of a killed master keep its sockets until they notice its death, so wait a moment
/// before the address counts as in use.
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + ORPHANS_MAX;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(ORPHANS_STEP);
            }
            done => return done,
        }
    }
}

fn check_free(address: SocketAddr) -> io::Result<()> {
    if socket::is_taken(address)? { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(()) }
}

const ORPHANS_MAX: Duration = Duration::from_secs(2);
const ORPHANS_STEP: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Listen {
        Listen::at(ListenAddress::Ip(text.parse().unwrap()))
    }

    fn unix(path: &Path) -> Listen {
        Listen::at(ListenAddress::Unix(path.to_owned()))
    }

    fn whose(listeners: Listeners, wanted: &[Listen], worker: usize, n: usize) -> Vec<usize> {
        listeners.into_sockets(wanted, worker, n).iter().map(|socket| socket.worker).collect()
    }

    #[test]
    fn every_worker_has_a_socket_of_the_same_port() {
        let wanted = [listen("127.0.0.1:0")];
        let mut listeners = Listeners::default();
        listeners.ensure(&wanted, 3).unwrap();
        let sockets = listeners.into_sockets(&wanted, 1, 3);
        let bound = |socket: &ListenSocket| socket::bound_to(socket.fd.as_fd()).unwrap();
        assert!(sockets.iter().all(|socket| bound(socket) == bound(&sockets[0])));
        assert_eq!(sockets.iter().map(|socket| socket.worker).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn fewer_workers_share_all_the_sockets() {
        let wanted = [listen("127.0.0.1:0")];
        let mut listeners = Listeners::default();
        listeners.ensure(&wanted, 5).unwrap();
        listeners.ensure(&wanted, 2).unwrap();
        assert_eq!(whose(listeners, &wanted, 0, 2), [0, 1, 0, 1, 0]);
    }

    #[test]
    fn a_failed_bind_is_rolled_back() {
        let kept = [listen("127.0.0.1:0")];
        let mut listeners = Listeners::default();
        listeners.ensure(&kept, 2).unwrap();
        let mark = listeners.mark();
        // An address of the documentation block is on no machine.
        let more = [listen("127.0.0.1:0"), listen("192.0.2.1:80")];
        let refusal = listeners.ensure(&more, 4).unwrap_err().to_string();
        assert!(refusal.starts_with("cannot listen on 192.0.2.1:80: "), "{refusal}");
        listeners.roll_back(&mark);
        assert_eq!(whose(listeners, &more, 0, 2), [0, 1]);
    }

    #[test]
    fn an_address_that_is_no_longer_wanted_is_closed_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ktrix.sock");
        let both = [listen("127.0.0.1:0"), unix(&path)];
        let mut listeners = Listeners::default();
        listeners.ensure(&both, 2).unwrap();
        assert!(path.exists());
        listeners.keep_only(&both[..1]);
        assert!(!path.exists());
        assert_eq!(whose(listeners, &both, 0, 2), [0, 1]);
    }

    #[test]
    fn every_worker_has_a_shared_socket() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = [unix(&dir.path().join("s"))];
        let mut listeners = Listeners::default();
        listeners.ensure(&wanted, 4).unwrap();
        assert_eq!(whose(listeners, &wanted, 3, 4), [3]);
    }

    #[test]
    fn every_socket_knows_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let handed_over = socket::listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let BoundTo::Ip(address) = socket::bound_to(handed_over.as_fd()).unwrap() else { panic!() };
        let optional = Listen { is_optional: true, ..listen("127.0.0.1:0") };
        let wanted = [optional, unix(&dir.path().join("s"))];
        let mut listeners = Listeners::new(vec![handed_over]);
        listeners.ensure(&wanted, 2).unwrap();
        let listens: Vec<Listen> = listeners
            .into_sockets(&wanted, 0, 2)
            .iter()
            .map(|socket| Listen::clone(&socket.listen))
            .collect();
        let [ip, unix] = wanted;
        let unnamed = Listen::at(ListenAddress::Ip(address));
        assert_eq!(listens, [unnamed, ip.clone(), ip, unix]);
    }
}
