//! The addresses of the hosts that clients of a forward proxy name.
//!
//! The keeper looks names up, since getaddrinfo(3) may block. A worker keeps the answers for a while, and
//! failures for a shorter one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::reactor;
use crate::reactor::event::Event;
use crate::reactor::timer;
use crate::shared::names::Names;
use crate::shared::wake::Wakes;

/// The lookups of one worker.
#[derive(Debug)]
pub(crate) struct Lookups {
    mailbox: Mailbox,
    kept_ms: u64,
    known: RefCell<HashMap<Rc<str>, Known>>,
    /// The names that the keeper is asked for, with the numbers of their slots.
    asked: RefCell<Vec<(usize, Rc<str>)>>,
    /// Posted when an answer came.
    answered: Event,
}

/// Where a worker asks, and where it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    pub(crate) names: Rc<Names>,
    pub(crate) wakes: Rc<Wakes>,
    pub(crate) process_slot: usize,
}

#[derive(Debug)]
struct Known {
    addresses: Rc<[IpAddr]>,
    until_ms: u64,
}

/// The time for which a failure is kept.
const FAILURE_MS: u64 = 5_000;

/// The most names that are kept.
const KNOWN_MAX: usize = 4_096;

impl Mailbox {
    /// A mailbox of process slot 0, and a keeper of slot 1.
    #[cfg(test)]
    pub(crate) fn of_two() -> Self {
        let names = Rc::new(Names::create(2).expect("memory"));
        names.set_keeper(1);
        let wakes = Rc::new(Wakes::new(2).expect("descriptors"));
        Self { names, wakes, process_slot: 0 }
    }
}

impl Lookups {
    /// Lookups by the keeper of a mailbox. Addresses are used for `kept`.
    pub(crate) fn new(mailbox: Mailbox, kept: Duration) -> Self {
        mailbox.names.reset(mailbox.process_slot);
        Self {
            mailbox,
            kept_ms: kept.as_millis() as u64,
            known: RefCell::default(),
            asked: RefCell::default(),
            answered: Event::default(),
        }
    }

    /// The addresses of a host, which may be an address itself; none if it has none, if the keeper has
    /// too much to look up, or if no answer comes in time.
    pub(crate) async fn addresses(&self, host: &str, deadline_ms: u64) -> Rc<[IpAddr]> {
        if let Ok(address) = host.parse() {
            return Rc::new([address]);
        }
        loop {
            let now_ms = reactor::now().mono_ms();
            if let Some(known) = self.known.borrow().get(host)
                && now_ms < known.until_ms
            {
                return Rc::clone(&known.addresses);
            }
            let since = self.answered.version();
            if now_ms >= deadline_ms {
                self.give_up(host);
                return Rc::default();
            }
            self.ask(host);
            let _ = timer::timeout_at(deadline_ms, self.answered.after(since)).await;
        }
    }

    /// Asks for a name, unless that is done, or the keeper has enough to do for now.
    fn ask(&self, host: &str) {
        let mut asked = self.asked.borrow_mut();
        if asked.iter().any(|(_, name)| &**name == host) {
            return;
        }
        let Mailbox { names, wakes, process_slot } = &self.mailbox;
        if let Some(number) = names.ask(*process_slot, host) {
            asked.push((number, host.into()));
            wakes.wake(names.keeper());
        }
    }

    /// Takes a question back, which others may ask again.
    fn give_up(&self, host: &str) {
        let Mailbox { names, process_slot, .. } = &self.mailbox;
        self.asked.borrow_mut().retain(|(number, name)| {
            let is_other = &**name != host;
            if !is_other {
                names.cancel(*process_slot, *number);
            }
            is_other
        });
        // Room for another question.
        self.answered.notify();
    }

    /// Takes the answers of the keeper, after it has woken this process.
    pub(crate) fn woken(&self) {
        let now_ms = reactor::now().mono_ms();
        let Mailbox { names, process_slot, .. } = &self.mailbox;
        let mut known = self.known.borrow_mut();
        self.asked.borrow_mut().retain(|(number, name)| {
            let Some(addresses) = names.take(*process_slot, *number) else { return true };
            let kept_ms = if addresses.is_empty() { FAILURE_MS } else { self.kept_ms };
            if known.len() >= KNOWN_MAX {
                known.retain(|_, known| now_ms < known.until_ms);
            }
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            let (addresses, until_ms) = (addresses.into(), now_ms + kept_ms);
            known.insert(Rc::clone(name), Known { addresses, until_ms });
            false
        });
        self.answered.notify();
    }
}
