//! Resolves the names of servers periodically, and writes their addresses to the shared table.
//!
//! getaddrinfo(3) may block for many seconds, so it runs in threads, and a name that hangs delays no
//! other one unless there are several such names. Answers come back over a channel; a byte on a pipe wakes
//! the keeper's loop. A name that cannot be resolved keeps its last addresses; if it has none, its server
//! is held down.
//!
//! A name is resolved again after the interval of its upstream, or earlier if its TTL is shorter.
//! getaddrinfo(3) knows the hosts file and all other sources of names, but tells no TTL, so a name server
//! is asked for that, by another thread, once the addresses are known.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::base::time::Now;
use crate::config::Config;
use crate::config::ServerAddress;
use crate::config::ServerConfig;
use crate::policy::reason::server::ServerReason;
use crate::shared::servers::N_ADDRESSES_MAX;
use crate::shared::servers::ServerTable;
use crate::sys::names::{self, RecordKind};
use crate::upstream::dns;
use crate::upstream::ids::Server;
use crate::upstream::state::Hold;

/// A server that is configured by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    server: Server,
    host: String,
    port: u16,
    /// The time between two resolutions.
    pause: Duration,
}

/// Every server of the configuration that is a name.
pub(crate) fn names_in(config: &Config) -> Vec<Name> {
    let name = |(server, ServerConfig { address, .. }): (Server, &ServerConfig)| match address {
        ServerAddress::Name { host, port } => {
            let pause = config.upstreams[server.upstream.0].resolve;
            Some(Name { server, host: host.clone(), port: *port, pause })
        }
        ServerAddress::Ip(_) | ServerAddress::Unix(_) => None,
    };
    config.servers().filter_map(name).collect()
}

/// getaddrinfo(3), or its replacement in tests.
pub(crate) type Resolve = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// The time for which the addresses of a name may be used, if a name server tells one.
type Ttl = fn(&str) -> Option<Duration>;

pub(crate) fn getaddrinfo(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

pub(crate) fn dns_ttl(host: &str) -> Option<Duration> {
    let ttl_s = |kind| dns::least_ttl_s(&names::dns_answer(host, kind)?);
    let least = ttl_s(RecordKind::A).or_else(|| ttl_s(RecordKind::Aaaa))?;
    Some(Duration::from_secs(least.into()))
}

pub(crate) struct Resolver {
    /// Each name, and whether its last resolution failed.
    names: Vec<(Name, bool)>,
    answers: Receiver<Answer>,
    pipe: PipeReader,
}

/// The index of a name, and its addresses.
type Answer = (usize, io::Result<Vec<SocketAddr>>);

impl Resolver {
    /// Starts the threads, if there are names.
    ///
    /// # Errors
    /// When the kernel has no thread or descriptor left.
    pub(crate) fn start(names: Vec<Name>, resolve: Resolve, ttl: Ttl) -> io::Result<Self> {
        let (sender, answers) = channel();
        let (pipe, writer) = io::pipe()?;
        if !names.is_empty() {
            let due = Arc::new(Due::new(names.len(), Instant::now()));
            for _ in 0..names.len().min(N_THREADS_MAX) {
                let (names, due) = (names.clone(), Arc::clone(&due));
                let (sender, writer) = (sender.clone(), writer.try_clone()?);
                let resolve = move || resolve_forever(&names, &due, resolve, &sender, writer);
                thread::Builder::new().name("ktrix-names".to_owned()).spawn(resolve)?;
            }
            let names = names.clone();
            let ask = move || ask_ttl_forever(&names, &due, ttl);
            thread::Builder::new().name("ktrix-ttl".to_owned()).spawn(ask)?;
        }
        Ok(Self { names: names.into_iter().map(|name| (name, false)).collect(), answers, pipe })
    }

    /// Readable when there are answers; `None` without names.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        (!self.names.is_empty()).then(|| self.pipe.as_fd())
    }

    /// Writes the new answers to the table of servers.
    pub(crate) fn publish(&mut self, table: &ServerTable, now: Now) {
        while let Ok((which, answer)) = self.answers.try_recv() {
            // The thread writes one byte after each answer, so this read does not wait for long.
            let _ = self.pipe.read(&mut [0]);
            self.apply(which, answer, (table, now));
        }
    }

    fn apply(
        &mut self,
        which: usize,
        answer: io::Result<Vec<SocketAddr>>,
        (table, now): (&ServerTable, Now),
    ) {
        let Some((name, has_failed)) = self.names.get_mut(which) else { return };
        let mut current = Vec::new();
        let is_known = table.addresses(name.server, &mut current) != 0;
        let had_failed = std::mem::replace(has_failed, answer.is_err());
        let row = table.row(name.server);
        if answer.is_err() && !is_known {
            row.hold(Hold::Name, ServerReason::Unresolved, now);
        }
        match answer {
            Ok(addresses) => {
                if had_failed {
                    log::info!("resolved \"{}\" again", name.host);
                }
                if !is_known || !is_same_set(&current, &addresses) {
                    table.publish_addresses(name.server, &addresses);
                }
                row.release(Hold::Name, ServerReason::Resolved, now);
            }
            Err(_) if had_failed => {}
            Err(error) => {
                let rest = match is_known {
                    true => "using its last known addresses",
                    false => "its server is down",
                };
                log::warn!("cannot resolve \"{}\": {error}; {rest}", name.host);
            }
        }
    }
}

/// Compares without the order, which resolvers rotate.
fn is_same_set(old: &[SocketAddr], new: &[SocketAddr]) -> bool {
    let mut new = new.iter().take(N_ADDRESSES_MAX).collect::<Vec<_>>();
    let mut old = old.iter().collect::<Vec<_>>();
    old.sort_unstable();
    new.sort_unstable();
    old == new
}

/// A thread: resolves the names that are due and that no other thread resolves, until the keeper drops
/// the channel.
fn resolve_forever(
    names: &[Name],
    due: &Due,
    resolve: Resolve,
    answers: &Sender<Answer>,
    mut pipe: PipeWriter,
) {
    loop {
        let which = due.take();
        let Name { host, port, pause, .. } = &names[which];
        let answer = resolve(host, *port);
        let is_good = answer.is_ok();
        if answers.send((which, answer)).is_err() || pipe.write_all(b"!").is_err() {
            return;
        }
        due.change(|schedules| schedules[which].next(is_good, Instant::now(), *pause));
    }
}

/// A thread: asks for the TTL of names that were resolved. A name server that is silent makes it wait,
/// and nothing else.
fn ask_ttl_forever(names: &[Name], due: &Due, ttl: Ttl) {
    loop {
        let which = due.take_for_ttl();
        if let Some(ttl) = ttl(&names[which].host) {
            due.change(|schedules| schedules[which].expires(ttl));
        }
    }
}

/// When each name is resolved again. The threads wait here.
#[derive(Debug)]
struct Due {
    schedules: Mutex<Vec<Schedule>>,
    changed: Condvar,
}

impl Due {
    fn new(n_names: usize, now: Instant) -> Self {
        let schedules = Mutex::new(vec![Schedule::new(now); n_names]);
        Self { schedules, changed: Condvar::new() }
    }

    /// Waits for a name that is due.
    fn take(&self) -> usize {
        let mut schedules = self.lock();
        loop {
            let now = Instant::now();
            let free = schedules.iter_mut().enumerate().filter(|(_, it)| !it.is_taken);
            let left = match free.min_by_key(|(_, schedule)| schedule.at) {
                Some((which, schedule)) if schedule.at <= now => {
                    schedule.is_taken = true;
                    return which;
                }
                Some((_, schedule)) => schedule.at - now,
                None => WAIT_MAX,
            };
            let waited = self.changed.wait_timeout(schedules, left);
            schedules = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a name whose TTL is to be asked for, the one that was resolved first.
    fn take_for_ttl(&self) -> usize {
        let mut schedules = self.lock();
        loop {
            let wanted = schedules.iter_mut().enumerate().filter(|(_, it)| it.wants_ttl);
            if let Some((which, schedule)) = wanted.min_by_key(|(_, schedule)| schedule.since) {
                schedule.wants_ttl = false;
                return which;
            }
            schedules = self.changed.wait(schedules).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn change(&self, change: impl FnOnce(&mut [Schedule])) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Schedule>> {
        self.schedules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a name is resolved again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Schedule {
    at: Instant,
    /// A thread resolves the name.
    is_taken: bool,
    n_failures: u32,
    /// When it was resolved last.
    since: Instant,
    /// It was resolved, and the TTL is not known.
    wants_ttl: bool,
}

impl Schedule {
    const fn new(now: Instant) -> Self {
        Self { at: now, is_taken: false, n_failures: 0, since: now, wants_ttl: false }
    }

    /// The pause after a failure doubles up to the pause after a success.
    fn next(&mut self, is_good: bool, now: Instant, most: Duration) {
        self.n_failures = if is_good { 0 } else { self.n_failures.saturating_add(1) };
        let pause = match self.n_failures {
            0 => most,
            n => (PAUSE_FAILED * 2_u32.saturating_pow(n - 1)).min(most),
        };
        *self = Self { at: now + pause, is_taken: false, since: now, wants_ttl: is_good, ..*self };
    }

    /// The addresses may be used for this long.
    fn expires(&mut self, ttl: Duration) {
        if !self.is_taken {
            self.at = self.at.min(self.since + ttl.max(TTL_MIN));
        }
    }
}

/// Names that are resolved at once.
const N_THREADS_MAX: usize = 8;

/// A shorter TTL counts as this.
const TTL_MIN: Duration = Duration::from_secs(1);

/// A thread without a name to resolve looks again after this, if nothing wakes it before.
const WAIT_MAX: Duration = Duration::from_secs(60);

const PAUSE_FAILED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::ids::{ServerId, UpstreamId};
    use crate::upstream::state::State;

    const NOW: Now = Now { unix_us: 0, mono_us: 0 };
    const PAUSE: Duration = Duration::from_secs(30);

    fn server(n: usize) -> Server {
        Server { upstream: UpstreamId(0), id: ServerId(n) }
    }

    fn name(n: usize, host: &str) -> Name {
        Name { server: server(n), host: host.to_owned(), port: 80, pause: PAUSE }
    }

    fn stand_in(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match host {
            "hang" => loop {
                thread::park();
            },
            "good" => Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
        }
    }

    #[test]
    fn answers_reach_the_table_and_failures_do_not() {
        let table = ServerTable::create([2], 1, "").unwrap();
        let mut resolver =
            Resolver::start(vec![name(0, "bad"), name(1, "good")], stand_in, |_| None).unwrap();
        let mut out = Vec::new();
        while !resolver.names[0].1 || table.addresses(server(1), &mut out) == 0 {
            resolver.publish(&table, NOW);
            thread::yield_now();
        }
        assert_eq!(table.addresses(server(0), &mut out), 0);
        assert_eq!(table.addresses(server(1), &mut out), 1);
        assert_eq!(out, [SocketAddr::from(([10, 0, 0, 1], 80))]);
    }

    #[test]
    fn a_name_that_hangs_delays_no_other() {
        let table = ServerTable::create([2], 1, "").unwrap();
        let names = vec![name(0, "hang"), name(1, "good")];
        let mut resolver = Resolver::start(names, stand_in, |_| None).unwrap();
        while table.addresses(server(1), &mut Vec::new()) == 0 {
            resolver.publish(&table, NOW);
            thread::yield_now();
        }
    }

    #[test]
    fn silent_name_servers_delay_no_name() {
        let n_names = 3 * N_THREADS_MAX;
        let table = ServerTable::create([n_names], 1, "").unwrap();
        let names = (0..n_names).map(|n| name(n, "good")).collect();
        let silent = |_: &str| loop {
            thread::park();
        };
        let mut resolver = Resolver::start(names, stand_in, silent).unwrap();
        while (0..n_names).any(|n| table.addresses(server(n), &mut Vec::new()) == 0) {
            resolver.publish(&table, NOW);
            thread::yield_now();
        }
    }

    #[test]
    fn a_short_ttl_is_the_pause() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        let at_s = |schedule: &Schedule| schedule.at.duration_since(now).as_secs();
        schedule.next(true, now, PAUSE);
        assert!(schedule.wants_ttl);
        for (ttl_s, expected) in [(300, 30), (7, 7), (0, 1)] {
            schedule.expires(Duration::from_secs(ttl_s));
            assert_eq!(at_s(&schedule), expected);
        }
        schedule.next(false, now, PAUSE);
        assert!(!schedule.wants_ttl, "there are no new addresses");
        schedule.is_taken = true;
        let before = schedule;
        schedule.expires(Duration::from_secs(0));
        assert_eq!(schedule, before, "it is being resolved already");
    }

    #[test]
    fn failure_and_rotation_keep_the_published_addresses() {
        let table = ServerTable::create([1], 1, "").unwrap();
        let mut resolver = Resolver::start(Vec::new(), stand_in, |_| None).unwrap();
        resolver.names.push((name(0, "x"), false));
        let (a, b) = (SocketAddr::from(([10, 0, 0, 1], 80)), SocketAddr::from(([10, 0, 0, 2], 80)));
        resolver.apply(0, Err(io::ErrorKind::TimedOut.into()), (&table, NOW));
        let row = table.row(server(0));
        assert_eq!((row.state(), row.held()), (State::Down, Some(Hold::Name)));
        resolver.apply(0, Ok(vec![a, b]), (&table, NOW));
        assert_eq!(row.state(), State::Up);
        assert_eq!(row.last_change().reason, ServerReason::Resolved);
        resolver.apply(0, Ok(vec![b, a]), (&table, NOW));
        resolver.apply(0, Err(io::ErrorKind::TimedOut.into()), (&table, NOW));
        assert_eq!(row.state(), State::Up);
        let mut out = Vec::new();
        assert_eq!((table.addresses(server(0), &mut out), &out[..]), (1, &[a, b][..]));
        resolver.apply(0, Ok(vec![b]), (&table, NOW));
        assert_eq!((table.addresses(server(0), &mut out), &out[..]), (2, &[b][..]));
    }

    #[test]
    fn pause_after_failures_doubles_up_to_the_pause_after_a_success() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        let mut pause_s = |is_good| {
            schedule.next(is_good, now, PAUSE);
            schedule.at.duration_since(now).as_secs()
        };
        let pauses: Vec<_> = (0..7).map(|_| pause_s(false)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!((pause_s(true), pause_s(false)), (30, 1));
    }

    #[test]
    fn resolver_without_names_has_nothing_to_wait_for() {
        assert!(Resolver::start(Vec::new(), stand_in, |_| None).unwrap().fd().is_none());
    }
}
