//! The listening sockets, kept for the life of their address.
//!
//! The sockets outlive the workers: a connection in an accept queue waits there for the next
//! worker. An address has a socket for every worker, and keeps them all when there are fewer
//! workers later: then a worker has several. Unix sockets and sockets of a systemd socket unit are
//! single, and every worker listens on them.
//!
//! The service manager keeps copies of the sockets that are bound here, and a ktrix that is
//! replaced passes them on. Their names have the address as configured, so that a port of 0 is found
//! again.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::config::{Listen, ListenAddress};
use crate::master::service_manager::ServiceManager;
use crate::sys::passed::Passed;
use crate::sys::privileges::Owner;
use crate::sys::socket::{self, BoundTo};
use crate::worker::inherited::ListenSocket;

/// All sockets that the master listens on.
#[derive(Debug, Default)]
pub struct Listeners {
    entries: Vec<Entry>,
    /// Names of sockets that the service manager keeps for nothing.
    given_up: Vec<String>,
}

#[derive(Debug)]
struct Entry {
    address: ListenAddress,
    sockets: Vec<OwnedFd>,
    origin: Origin,
    /// How many of the sockets the service manager keeps.
    n_stored: usize,
}

/// Where the sockets of an entry come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Bound by ktrix, one per worker.
    Bound,
    /// A Unix socket bound by ktrix, for all workers.
    BoundShared,
    /// Of a socket unit, for all workers.
    OfUnit,
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
    /// Takes those of the passed sockets that are wanted, and closes the others.
    pub(crate) fn new(wanted: &[Listen], passed: Vec<Passed>) -> Self {
        let mut listeners = Self::default();
        for Passed { name, fd } in passed {
            let bound = socket::bound_to(fd.as_fd());
            let is_ours = name.starts_with(NAME_PREFIX);
            let listen = wanted.iter().find(|listen| match (&bound, &listen.address) {
                (Ok(BoundTo::Unix(path)), ListenAddress::Unix(wanted)) => path == wanted,
                (Ok(BoundTo::Ip(_)), address @ ListenAddress::Ip(_)) if is_ours => {
                    name_of(address) == name
                }
                (Ok(BoundTo::Ip(bound)), ListenAddress::Ip(wanted)) => bound == wanted,
                _ => false,
            });
            let adopted = match (listen, bound) {
                (Some(listen), Ok(_)) => listeners.adopt(&listen.address, is_ours, fd),
                (None, Ok(bound)) => {
                    Err(io::Error::other(format!("no listener names {}", bound.text())))
                }
                (_, Err(error)) => Err(error),
            };
            if let Err(why) = adopted {
                log::warn!("closing {name:?}, which was passed to ktrix: {why}");
                if !listeners.given_up.contains(&name) {
                    listeners.given_up.push(name);
                }
            }
        }
        for entry in &listeners.entries {
            log::info!("listening on {} (sockets passed to ktrix)", entry.bound_text());
        }
        listeners
    }

    fn adopt(&mut self, address: &ListenAddress, is_ours: bool, fd: OwnedFd) -> io::Result<()> {
        let origin = match address {
            _ if !is_ours => Origin::OfUnit,
            ListenAddress::Ip(_) => Origin::Bound,
            ListenAddress::Unix(path) if path.exists() => Origin::BoundShared,
            ListenAddress::Unix(_) => return Err(io::Error::other("its file was removed")),
        };
        let fd = socket::adopt(fd)?;
        let known = self.entries.iter_mut().find(|entry| entry.address == *address);
        match known {
            Some(entry) => entry.sockets.push(fd),
            None => {
                let sockets = vec![fd];
                self.entries.push(Entry { address: address.clone(), sockets, origin, n_stored: 0 });
            }
        }
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.address == *address) {
            entry.n_stored = entry.sockets.len();
        }
        Ok(())
    }

    /// Has the service manager keep the sockets that are bound here, and no others.
    pub(crate) fn store(&mut self, manager: &ServiceManager) {
        for name in self.given_up.drain(..) {
            manager.discard(&name);
        }
        for entry in self.entries.iter_mut().filter(|it| it.origin != Origin::OfUnit) {
            let new = entry.sockets.get(entry.n_stored..).unwrap_or_default();
            if !new.is_empty() {
                let fds: Vec<_> = new.iter().map(AsFd::as_fd).collect();
                manager.keep(&name_of(&entry.address), &fds);
                entry.n_stored = entry.sockets.len();
            }
        }
    }

    /// All sockets with their names, for a ktrix that takes the place of this one.
    pub(crate) fn named(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        self.entries.iter().flat_map(|entry| {
            let name = match entry.origin {
                Origin::OfUnit => "unit".to_owned(),
                Origin::Bound | Origin::BoundShared => name_of(&entry.address),
            };
            entry.sockets.iter().map(move |fd| (name.clone(), fd.as_fd()))
        })
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
                        n_stored: 0,
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
                    let address = address.clone();
                    self.entries.push(Entry { address, sockets, origin, n_stored: 0 });
                }
            }
        }
        Ok(())
    }

    /// Closes every address that is not in `wanted`.
    pub fn keep_only(&mut self, wanted: &[Listen]) {
        self.entries.retain(|entry| {
            let is_wanted = wanted.iter().any(|listen| listen.address == entry.address);
            if !is_wanted {
                log::info!("no longer listening on {}", entry.bound_text());
                entry.remove_file();
                if entry.n_stored > 0 {
                    self.given_up.push(name_of(&entry.address));
                }
            }
            is_wanted
        });
    }

    /// Removes the Unix sockets from the file system, after which a copy of them is of no use: the end
    /// of a clean stop.
    pub(crate) fn remove_files(&mut self, manager: &ServiceManager) {
        for entry in self.entries.iter().filter(|entry| entry.origin == Origin::BoundShared) {
            entry.remove_file();
            manager.discard(&name_of(&entry.address));
        }
        self.entries.retain(|entry| entry.origin != Origin::BoundShared);
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
            let Some(listen) = wanted.iter().find(|listen| listen.address == entry.address) else {
                continue;
            };
            let listen = Rc::new(listen.clone());
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
            Some(bound @ BoundTo::Ip(_)) => bound.text(),
            _ => text_of(&self.address),
        }
    }

    fn remove_file(&self) {
        if let (ListenAddress::Unix(path), Origin::BoundShared) = (&self.address, self.origin) {
            remove_socket(path);
        }
    }
}

/// The name of the sockets of an address, without a colon, which separates names.
fn name_of(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Ip(ip) => format!("{NAME_PREFIX}{ip}").replace(':', "_"),
        ListenAddress::Unix(path) => {
            let hash = crc32c::crc32c(path.as_os_str().as_encoded_bytes());
            format!("{NAME_PREFIX}unix-{hash:08x}")
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

/// How the names of sockets begin that ktrix has bound itself.
const NAME_PREFIX: &str = "listen-";
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

    fn passed(name: &str, fd: impl AsFd) -> Passed {
        Passed { name: name.to_owned(), fd: fd.as_fd().try_clone_to_owned().unwrap() }
    }

    #[test]
    fn passed_sockets_are_matched_and_the_others_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bind = || socket::listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let (of_unit, stranger) = (bind(), bind());
        let address = |fd: &OwnedFd| match socket::bound_to(fd.as_fd()).unwrap() {
            BoundTo::Ip(address) => Listen::at(ListenAddress::Ip(address)),
            BoundTo::Unix(_) => panic!(),
        };
        let wanted = [address(&of_unit), listen("127.0.0.1:0"), unix(&path)];
        let mut before = Listeners::default();
        before.ensure(&wanted[1..], 2).unwrap();
        let named = before.named().map(|(name, fd)| passed(&name, fd));
        let all = [passed("web.socket", &of_unit), passed("other.socket", &stranger)];
        let all = all.into_iter().chain(named).chain([passed("x", tempfile::tempfile().unwrap())]);
        let mut after = Listeners::new(&wanted, all.collect());
        after.ensure(&wanted, 3).unwrap();
        assert_eq!(after.given_up, ["other.socket", "x"]);
        assert_eq!(address(&before.entries[0].sockets[0]), address(&after.entries[1].sockets[0]));
        let sockets = after.into_sockets(&wanted, 1, 3);
        let listens: Vec<_> = sockets.iter().map(|it| (&*it.listen, it.worker)).collect();
        let [unit, ip, unix] = &wanted;
        assert_eq!(listens, [(unit, 1), (ip, 0), (ip, 1), (ip, 2), (unix, 1)]);
    }

    #[test]
    fn the_manager_is_to_forget_what_no_listener_names_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let both = [listen("127.0.0.1:0"), unix(&dir.path().join("s"))];
        let mut before = Listeners::default();
        before.ensure(&both, 2).unwrap();
        let named = || before.named().map(|(name, fd)| passed(&name, fd)).collect();
        let names = |listeners: &Listeners| listeners.given_up.clone();
        assert_eq!(names(&Listeners::new(&both[1..], named())), ["listen-127.0.0.1_0"]);
        std::fs::remove_file(dir.path().join("s")).unwrap();
        let without_file = Listeners::new(&both, named());
        assert_eq!(names(&without_file), [name_of(&both[1].address)]);
        assert_eq!(without_file.entries.len(), 1);
    }
}
