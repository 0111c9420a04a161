//! Looks up the names that workers ask for, whose clients have named them to a forward proxy.
//!
//! getaddrinfo(3) may block for many seconds, so it runs in threads. Answers come back over a channel; a
//! byte on a pipe wakes the keeper's loop. An answer serves all workers for a while.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::keeper::resolver::Resolve;
use crate::shared::names::{AskedName, Names};
use crate::shared::wake::Wakes;

/// The lookups for workers.
pub(super) struct Lookups {
    names: Rc<Names>,
    wakes: Rc<Wakes>,
    keeper_slot: usize,
    /// The questions that [`Names::asked`] has given.
    seen: Vec<u32>,
    /// The questions that wait for an answer, by their names.
    waiting: HashMap<String, Vec<AskedName>>,
    known: HashMap<String, Known>,
    kept: Duration,
    jobs: Sender<String>,
    answers: Receiver<Answer>,
    pipe: PipeReader,
}

type Answer = (String, Vec<IpAddr>);

struct Known {
    addresses: Vec<IpAddr>,
    until: Instant,
}

/// Threads that look names up. A name that hangs holds one of them.
const N_THREADS: usize = 16;

/// The time for which workers share an answer; each keeps it for longer.
const SHARED_FOR: Duration = Duration::from_secs(5);

/// The most names that are looked up or wait for a thread; another one counts as unknown.
const WAITING_MAX: usize = 1_024;

/// The most answers that are kept.
const KNOWN_MAX: usize = 4_096;

impl Lookups {
    /// Starts the threads. Answers are shared for at most `kept`.
    ///
    /// # Errors
    /// When the kernel has no thread or descriptor left.
    pub(super) fn start(
        names: Rc<Names>,
        wakes: Rc<Wakes>,
        keeper_slot: usize,
        kept: Duration,
        resolve: Resolve,
    ) -> io::Result<Self> {
        let (jobs, receiver) = channel();
        let (sender, answers) = channel();
        let (pipe, writer) = io::pipe()?;
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..N_THREADS {
            let (jobs, answers) = (Arc::clone(&receiver), sender.clone());
            let writer = writer.try_clone()?;
            let look_up = move || look_up_forever(&jobs, &answers, writer, resolve);
            thread::Builder::new().name("ktrix-lookups".to_owned()).spawn(look_up)?;
        }
        Ok(Self {
            names,
            wakes,
            keeper_slot,
            seen: Vec::new(),
            waiting: HashMap::new(),
            known: HashMap::new(),
            kept: kept.min(SHARED_FOR),
            jobs,
            answers,
            pipe,
        })
    }

    /// Readable when there are answers.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Reads the questions of the workers, after one of them has woken this process.
    pub(super) fn read_questions(&mut self) {
        let now = Instant::now();
        for asked in self.names.asked(self.keeper_slot, &mut self.seen) {
            if let Some(known) = self.known.get(&asked.name).filter(|known| now < known.until) {
                self.names.answer(&asked, &known.addresses);
                self.wakes.wake(asked.process_slot);
                continue;
            }
            if self.waiting.len() >= WAITING_MAX && !self.waiting.contains_key(&asked.name) {
                self.names.answer(&asked, &[]);
                self.wakes.wake(asked.process_slot);
                continue;
            }
            let name = asked.name.clone();
            let waiting = self.waiting.entry(name.clone()).or_default();
            let is_first = waiting.is_empty();
            // A worker whose slots were scanned again is waiting for the same answer already.
            if !waiting.contains(&asked) {
                waiting.push(asked);
            }
            if is_first {
                // The threads end with this process, and not before.
                let _ = self.jobs.send(name);
            }
        }
    }

    /// Gives the answers that have come to the workers.
    pub(super) fn publish(&mut self) {
        while let Ok((name, addresses)) = self.answers.try_recv() {
            // The thread writes one byte after each answer, so this read does not wait for long.
            let _ = self.pipe.read(&mut [0]);
            for asked in self.waiting.remove(&name).unwrap_or_default() {
                self.names.answer(&asked, &addresses);
                self.wakes.wake(asked.process_slot);
            }
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            let until = Instant::now() + self.kept;
            self.known.insert(name, Known { addresses, until });
        }
    }
}

/// A thread: looks up one name after the other, until the keeper drops the channel.
fn look_up_forever(
    jobs: &Mutex<Receiver<String>>,
    answers: &Sender<Answer>,
    mut pipe: PipeWriter,
    resolve: Resolve,
) {
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(name) = next() {
        let addresses = match resolve(&name, 0) {
            Ok(addresses) => both_families(addresses.iter().map(|address| address.ip())),
            Err(error) => {
                log::debug!("cannot resolve \"{name}\": {error}");
                Vec::new()
            }
        };
        if answers.send((name, addresses)).is_err() || pipe.write_all(b"!").is_err() {
            return;
        }
    }
}

/// Addresses of the two families in turn, beginning with the family of the first, RFC 8305 section 4.
/// One that occurs twice is given once.
fn both_families(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut rest: Vec<IpAddr> = Vec::new();
    for address in addresses {
        if !rest.contains(&address) {
            rest.push(address);
        }
    }
    let mut ordered = Vec::with_capacity(rest.len());
    let mut is_ipv6 = rest.first().is_some_and(IpAddr::is_ipv6);
    while !rest.is_empty() {
        let next = rest.iter().position(|address| address.is_ipv6() == is_ipv6).unwrap_or(0);
        ordered.push(rest.remove(next));
        is_ipv6 = !is_ipv6;
    }
    ordered
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    const KEEPER: usize = 1;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match host {
            "good" => Ok(addresses(&["2001:db8::1", "2001:db8::2", "192.0.2.1"])
                .into_iter()
                .map(|ip| (ip, port).into())
                .collect()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    #[test]
    fn families_take_turns() {
        let sorted = |texts: &[&str]| both_families(addresses(texts).into_iter());
        assert_eq!(
            sorted(&["::1", "::2", "192.0.2.1", "::1", "192.0.2.2", "192.0.2.3"]),
            addresses(&["::1", "192.0.2.1", "::2", "192.0.2.2", "192.0.2.3"])
        );
        assert_eq!(sorted(&["192.0.2.1", "::1"]), addresses(&["192.0.2.1", "::1"]));
        assert_eq!(sorted(&[]), addresses(&[]));
    }

    #[test]
    fn workers_get_the_addresses_of_their_names() {
        let names = Rc::new(Names::create(2).unwrap());
        names.set_keeper(KEEPER);
        let wakes = Rc::new(Wakes::new(2).unwrap());
        let (shared, kept) = (Rc::clone(&names), Duration::from_secs(60));
        let mut lookups = Lookups::start(shared, wakes.clone(), KEEPER, kept, resolve).unwrap();
        let slots = ["good", "bad", "good"].map(|name| names.ask(0, name).unwrap());
        lookups.read_questions();
        let answered = || {
            let mut fds = [PollFd::new(lookups.pipe.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::NONE).unwrap();
        };
        answered();
        let mut taken = slots.map(|_| None);
        while taken.iter().any(Option::is_none) {
            lookups.publish();
            for (slot, taken) in slots.iter().zip(&mut taken) {
                *taken = taken.take().or_else(|| names.take(0, *slot));
            }
            thread::yield_now();
        }
        let good = addresses(&["2001:db8::1", "192.0.2.1", "2001:db8::2"]);
        assert_eq!(taken, [Some(good.clone()), Some(Vec::new()), Some(good.clone())]);
        assert!(wakes.drain(0).unwrap());
        let again = names.ask(0, "good").unwrap();
        lookups.read_questions();
        assert_eq!(names.take(0, again), Some(good), "the answer is kept");
    }
}
