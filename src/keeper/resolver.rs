//! Names of servers, turned into addresses, again and again.
//!
//! getaddrinfo(3) may block for many seconds, so it runs in a thread of its own: the one thread
//! besides the first that any process of ktrix has. Answers come back over a channel, and a byte
//! on a pipe wakes the keeper's loop. A name that cannot be resolved keeps its last good answer.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{Config, ServerAddress, ServerConfig};
use crate::shared::servers::ServerTable;
use crate::upstream::ids::Server;

/// A server that is configured by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// Which server it is.
    pub(crate) server: Server,
    /// The host.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
}

/// Every server of the configuration that is a name.
pub(crate) fn names_in(config: &Config) -> Vec<Name> {
    let name = |(server, ServerConfig { address, .. }): (Server, &ServerConfig)| match address {
        ServerAddress::Name { host, port } => {
            Some(Name { server, host: host.clone(), port: *port })
        }
        ServerAddress::Ip(_) | ServerAddress::Unix(_) => None,
    };
    config.servers().filter_map(name).collect()
}

/// How a name is resolved: getaddrinfo(3), or a stand-in in tests.
pub(crate) type Resolve = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// getaddrinfo(3): /etc/hosts, DNS and whatever else this machine knows names by.
///
/// # Errors
/// When the name is unknown, or nobody could be asked.
pub(crate) fn getaddrinfo(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(addresses)
}

/// The names of a generation and what is known of them.
pub(crate) struct Resolver {
    known: Vec<(Name, LastAnswer)>,
    answers: Receiver<Answer>,
    pipe: PipeReader,
}

/// How a name fared the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastAnswer {
    None,
    Good,
    Failed,
}

/// An answer of the thread: which name, and its addresses.
type Answer = (usize, io::Result<Vec<SocketAddr>>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Starts to resolve; no thread is made if there is nothing to resolve.
    ///
    /// # Errors
    /// When no thread or pipe can be had.
    pub(crate) fn start(names: Vec<Name>, resolve: Resolve) -> io::Result<Self> {
        let (sender, answers) = channel();
        let (pipe, writer) = io::pipe()?;
        if !names.is_empty() {
            let asked: Vec<_> = names.iter().map(|n| (n.host.clone(), n.port)).collect();
            thread::Builder::new()
                .name("ktrix-names".to_owned())
                .spawn(move || resolve_forever(&asked, resolve, &sender, writer))?;
        }
        let known = names.into_iter().map(|name| (name, LastAnswer::None)).collect();
        Ok(Self { known, answers, pipe })
    }

    /// What is readable when there are answers; `None` if there never will be any.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        (!self.known.is_empty()).then(|| self.pipe.as_fd())
    }

    /// Takes the answers that have come, and publishes those that say something new. To be called
    /// when the pipe is readable.
    pub(crate) fn publish(&mut self, table: &ServerTable) {
        // One byte is one answer or more; the rest of the bytes find the channel empty.
        let mut buf = [0; 64];
        let _ = self.pipe.read(&mut buf);
        loop {
            match self.answers.try_recv() {
                Ok((which, answer)) => self.apply(which, answer, table),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn apply(&mut self, which: usize, answer: io::Result<Vec<SocketAddr>>, table: &ServerTable) {
        let Some((name, last)) = self.known.get_mut(which) else { return };
        let mut current = Vec::new();
        let is_known = table.addresses(name.server, &mut current) != 0;
        match answer {
            Ok(addresses) => {
                if *last == LastAnswer::Failed {
                    log::info!("resolved \"{}\" again", name.host);
                }
                *last = LastAnswer::Good;
                if !is_known || !is_same_set(&current, &addresses) {
                    table.publish_addresses(name.server, &addresses);
                }
            }
            Err(error) => {
                if *last != LastAnswer::Failed {
                    let rest = if is_known {
                        "using its last known addresses"
                    } else {
                        "requests for it wait or fail"
                    };
                    log::warn!("cannot resolve \"{}\": {error}; {rest}", name.host);
                }
                *last = LastAnswer::Failed;
            }
        }
    }
}

/// Resolvers rotate the order of addresses; that alone is no news.
fn is_same_set(old: &[SocketAddr], new: &[SocketAddr]) -> bool {
    let mut new =
        new.get(..new.len().min(crate::shared::servers::N_ADDRESSES_MAX)).unwrap_or(new).to_vec();
    let mut old = old.to_vec();
    old.sort_unstable();
    new.sort_unstable();
    old == new
}

/// The thread: asks for every name when its time has come, until nobody listens any more.
fn resolve_forever(
    names: &[(String, u16)],
    resolve: Resolve,
    answers: &Sender<Answer>,
    mut pipe: PipeWriter,
) {
    let start = Instant::now();
    let mut schedules: Vec<_> =
        names.iter().map(|_| Schedule { at: start, n_failures: 0 }).collect();
    loop {
        let Some(which) = (0..schedules.len()).min_by_key(|&which| schedules[which].at) else {
            return;
        };
        thread::sleep(schedules[which].at.saturating_duration_since(Instant::now()));
        let (host, port) = &names[which];
        let answer = resolve(host, *port);
        schedules[which].next(answer.is_ok(), Instant::now());
        if answers.send((which, answer)).is_err() || pipe.write_all(b"!").is_err() {
            return;
        }
    }
}

/// When a name is asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Schedule {
    at: Instant,
    n_failures: u32,
}

impl Schedule {
    /// After a success in half a minute; after failures sooner, but ever later up to that.
    fn next(&mut self, is_good: bool, now: Instant) {
        self.n_failures = if is_good { 0 } else { self.n_failures.saturating_add(1) };
        let pause = match self.n_failures {
            0 => PAUSE,
            n => (PAUSE_FAILED * 2_u32.saturating_pow(n - 1)).min(PAUSE),
        };
        self.at = now + pause;
    }
}

/// A name is resolved again after this.
const PAUSE: Duration = Duration::from_secs(30);
/// The same after the first failure.
const PAUSE_FAILED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::ids::{ServerId, UpstreamId};

    fn server(n: usize) -> Server {
        Server { upstream: UpstreamId(0), id: ServerId(n) }
    }

    fn name(n: usize, host: &str) -> Name {
        Name { server: server(n), host: host.to_owned(), port: 80 }
    }

    fn stand_in(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match host {
            "good" => Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
        }
    }

    #[test]
    fn answers_reach_the_table_and_failures_do_not() {
        let table = ServerTable::create([2]).unwrap();
        let mut resolver =
            Resolver::start(vec![name(0, "bad"), name(1, "good")], stand_in).unwrap();
        while resolver.known.iter().any(|(_, last)| *last == LastAnswer::None) {
            resolver.publish(&table);
        }
        let mut out = Vec::new();
        assert_eq!(table.addresses(server(0), &mut out), 0);
        assert_eq!(table.addresses(server(1), &mut out), 1);
        assert_eq!(out, [SocketAddr::from(([10, 0, 0, 1], 80))]);
    }

    #[test]
    fn a_failure_keeps_the_last_good_answer_and_rotation_is_no_news() {
        let table = ServerTable::create([1]).unwrap();
        let mut resolver = Resolver::start(Vec::new(), stand_in).unwrap();
        resolver.known.push((name(0, "x"), LastAnswer::None));
        let (a, b) = (SocketAddr::from(([10, 0, 0, 1], 80)), SocketAddr::from(([10, 0, 0, 2], 80)));
        resolver.apply(0, Ok(vec![a, b]), &table);
        resolver.apply(0, Ok(vec![b, a]), &table);
        resolver.apply(0, Err(io::ErrorKind::TimedOut.into()), &table);
        let mut out = Vec::new();
        assert_eq!((table.addresses(server(0), &mut out), &out[..]), (1, &[a, b][..]));
        resolver.apply(0, Ok(vec![b]), &table);
        assert_eq!((table.addresses(server(0), &mut out), &out[..]), (2, &[b][..]));
    }

    #[test]
    fn failures_are_asked_about_sooner_but_ever_later() {
        let now = Instant::now();
        let mut schedule = Schedule { at: now, n_failures: 0 };
        let mut pause_s = |is_good| {
            schedule.next(is_good, now);
            schedule.at.duration_since(now).as_secs()
        };
        let pauses: Vec<_> = (0..7).map(|_| pause_s(false)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!((pause_s(true), pause_s(false)), (30, 1));
    }

    #[test]
    fn nothing_to_resolve_makes_no_pipe() {
        assert!(Resolver::start(Vec::new(), stand_in).unwrap().fd().is_none());
    }
}
