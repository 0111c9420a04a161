//! The hosts that clients of a forward proxy name: for each an upstream of one server, which a worker
//! makes when it is first asked for.
//!
//! Only addresses that the configuration allows are written to the table of the servers, and connections
//! are made to no others. A name is not looked up a second time between the check and the connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::config::bounds::OriginTimeouts;
use crate::config::forward::ForwardConfig;
use crate::config::{ServerAddress, ServerConfig, UpstreamConfig};
use crate::origin::names::{Lookups, Mailbox};
use crate::origin::upstream::{OriginLimits, Upstream};
use crate::policy::reason::fetch::FetchError;
use crate::reactor;
use crate::shared::servers::{N_ADDRESSES_MAX, ServerTable};
use crate::tls::turns::Turns;
use crate::upstream::destination::HostPort;
use crate::upstream::ids::{Server, ServerId, UpstreamId};
use crate::upstream::method::{HashOf, Method};
use crate::upstream::retry::RetryOn;
use crate::upstream::state::Setting;

/// The destinations of one worker.
#[derive(Debug)]
pub(super) struct Destinations {
    config: Rc<ForwardConfig>,
    limits: OriginLimits,
    lookups: Lookups,
    /// One server for each upstream, for this worker alone.
    table: Rc<ServerTable>,
    known: RefCell<HashMap<Rc<HostPort>, Known>>,
}

/// An upstream in use, and when it was asked for last.
#[derive(Debug)]
struct Known {
    upstream: Rc<Upstream>,
    asked_ms: u64,
}

/// The number of the worker in the table, which is for it alone.
const WORKER: usize = 0;

impl Destinations {
    /// # Errors
    /// When the kernel refuses the memory.
    pub(super) fn new(
        config: &Rc<ForwardConfig>,
        limits: OriginLimits,
        mailbox: Mailbox,
    ) -> io::Result<Self> {
        let table = ServerTable::create(std::iter::repeat_n(1, config.destinations), 1, "")?;
        Ok(Self {
            config: Rc::clone(config),
            limits,
            lookups: Lookups::new(mailbox, config.resolve),
            table: Rc::new(table),
            known: RefCell::default(),
        })
    }

    /// The lookups of names.
    pub(super) const fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    /// The upstreams in use.
    pub(super) fn upstreams(&self) -> Vec<Rc<Upstream>> {
        self.known.borrow().values().map(|known| Rc::clone(&known.upstream)).collect()
    }

    /// The upstream of a destination, if it is in use.
    pub(super) fn known(&self, address: &Rc<HostPort>) -> Option<Rc<Upstream>> {
        let mut known = self.known.borrow_mut();
        let known = known.get_mut(address)?;
        known.asked_ms = reactor::now().mono_ms();
        Some(Rc::clone(&known.upstream))
    }

    /// The upstream of a destination, with the addresses that ktrix may connect to. The one that was asked
    /// for longest ago makes room for a new one.
    ///
    /// # Errors
    /// [`FetchError::Unresolved`] if the host has no address, [`FetchError::Denied`] if ktrix may not connect
    /// to any of them, [`FetchError::Resources`] if all destinations are in use.
    pub(super) async fn resolved(
        &self,
        address: &Rc<HostPort>,
    ) -> Result<Rc<Upstream>, FetchError> {
        let deadline_ms = reactor::now().mono_ms() + self.limits.connect_ms;
        let found = self.lookups.addresses(&address.host, deadline_ms).await;
        let allowed = found.iter().filter(|address| self.config.allows_address(**address));
        let allowed = allowed.map(|ip| SocketAddr::new(*ip, address.port));
        let allowed: Vec<_> = allowed.take(N_ADDRESSES_MAX).collect();
        if allowed.is_empty() {
            if let Some(upstream) = self.known(address) {
                let server = Server { upstream: upstream.id(), id: ServerId(0) };
                self.table.publish_addresses(server, &[]);
            }
            return Err(match found.is_empty() {
                true => FetchError::Unresolved,
                false => FetchError::Denied,
            });
        }
        let upstream = self.upstream(address).ok_or(FetchError::Resources)?;
        let server = Server { upstream: upstream.id(), id: ServerId(0) };
        let mut published = Vec::new();
        self.table.addresses(server, &mut published);
        if published != allowed {
            self.table.publish_addresses(server, &allowed);
        }
        Ok(upstream)
    }

    fn upstream(&self, address: &Rc<HostPort>) -> Option<Rc<Upstream>> {
        let asked_ms = reactor::now().mono_ms();
        let mut known = self.known.borrow_mut();
        if let Some(known) = known.get_mut(address) {
            known.asked_ms = asked_ms;
            return Some(Rc::clone(&known.upstream));
        }
        let id = match known.len() < self.config.destinations {
            // None was removed while there was room for more.
            true => UpstreamId(known.len()),
            false => {
                // The table of destinations has the only reference to one without a fetch.
                let idle = known.iter().filter(|(_, it)| Rc::strong_count(&it.upstream) == 1);
                let oldest = idle.min_by_key(|(_, it)| it.asked_ms);
                let oldest = oldest.map(|(address, _)| Rc::clone(address))?;
                known.remove(&oldest)?.upstream.id()
            }
        };
        let server = Server { upstream: id, id: ServerId(0) };
        self.table.configure(server, 1, Setting::Enabled, None);
        self.table.publish_addresses(server, &[]);
        let upstream = Rc::new(self.make(id, address));
        known.insert(Rc::clone(address), Known { upstream: Rc::clone(&upstream), asked_ms });
        Some(upstream)
    }

    fn make(&self, id: UpstreamId, address: &HostPort) -> Upstream {
        let ForwardConfig { connections, resolve, .. } = *self.config;
        let config = UpstreamConfig {
            name: "forward".to_owned(),
            balance: Method::First,
            hash: HashOf::Client,
            sticky: None,
            servers: vec![ServerConfig {
                address: ServerAddress::Name { host: address.host.to_string(), port: address.port },
                connections,
                weight: 1,
                is_backup: false,
                setting: Setting::Enabled,
            }],
            keep_open: 0,
            requests: 0,
            pending: connections.saturating_mul(16),
            pending_timeout: Duration::from_millis(self.limits.connect_ms),
            // A server that fails is nobody's concern but of the clients that name it.
            skip: Duration::ZERO,
            slow_start: Duration::ZERO,
            retries: 0,
            retry_on: RetryOn {
                connect: false,
                timeout: false,
                broken: true,
                statuses: Vec::new(),
            },
            retry_budget: 100,
            timeouts: OriginTimeouts::default(),
            head_bytes: None,
            headers: None,
            resolve,
            tls: None,
            proxy: None,
            check: None,
        };
        let tls = (None, Rc::<Turns>::default());
        let table = (Rc::clone(&self.table), WORKER);
        Upstream::new(id, &config, table, tls, self.limits).counted_as(None)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::config::forward::Denied;
    use crate::origin::tests::sample::LIMITS;
    use crate::reactor::clock::run_by_test_clock;
    use crate::reactor::timer;

    const KEPT: Duration = Duration::from_secs(30);

    fn config() -> Rc<ForwardConfig> {
        Rc::new(ForwardConfig {
            clients: Vec::new(),
            users: None,
            ports: vec![80],
            connect_ports: vec![443],
            hosts: Vec::new(),
            deny: vec![Denied::Private, Denied::Loopback, Denied::LinkLocal],
            via: true,
            forwarded: false,
            destinations: 2,
            connections: 1,
            resolve: KEPT,
        })
    }

    fn host(name: &str) -> Rc<HostPort> {
        Rc::new(HostPort { host: name.into(), port: 80 })
    }

    /// Destinations, and a keeper that finds these addresses for every name, as often as there are.
    fn destinations(answers: Vec<&'static [&'static str]>) -> Rc<Destinations> {
        let mailbox = Mailbox::of_two();
        let made = Destinations::new(&config(), LIMITS, mailbox.clone()).unwrap();
        let destinations = Rc::new(made);
        let asker = Rc::clone(&destinations);
        reactor::spawn(async move {
            let (mut seen, mut answers) = (Vec::new(), answers.into_iter());
            while answers.len() > 0 {
                for asked in mailbox.names.asked(mailbox.names.keeper(), &mut seen) {
                    let texts = answers.next().unwrap_or_default();
                    let found: Vec<IpAddr> = texts.iter().map(|it| it.parse().unwrap()).collect();
                    mailbox.names.answer(&asked, &found);
                    asker.lookups().woken();
                }
                timer::sleep(Duration::from_millis(1)).await;
            }
        });
        destinations
    }

    /// The result of resolving a host, and the addresses that connections may be made to.
    async fn resolved(
        destinations: &Destinations,
        name: &str,
    ) -> (Result<(), FetchError>, Vec<String>) {
        let address = host(name);
        let result = destinations.resolved(&address).await.map(drop);
        let mut known = Vec::new();
        if let Some(upstream) = destinations.known(&address) {
            let server = Server { upstream: upstream.id(), id: ServerId(0) };
            destinations.table.addresses(server, &mut known);
        }
        (result, known.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_name_that_comes_to_point_inside_leads_nowhere() {
        run_by_test_clock(async {
            let good = || (Ok(()), vec!["192.0.2.1:80".to_owned()]);
            let destinations = destinations(vec![
                &["192.0.2.1"],
                &["127.0.0.1", "::1"],
                &["10.0.0.1", "192.0.2.1", "::ffff:127.0.0.1"],
                &[],
            ]);
            assert_eq!(resolved(&destinations, "h").await, good());
            // The answer is kept, so that the keeper is not asked again.
            assert_eq!(resolved(&destinations, "h").await, good());
            timer::sleep(KEPT).await;
            assert_eq!(resolved(&destinations, "h").await, (Err(FetchError::Denied), vec![]));
            timer::sleep(KEPT).await;
            assert_eq!(resolved(&destinations, "h").await, good());
            timer::sleep(KEPT).await;
            assert_eq!(resolved(&destinations, "h").await, (Err(FetchError::Unresolved), vec![]));
        });
    }

    #[test]
    fn an_address_is_judged_as_a_name_is() {
        run_by_test_clock(async {
            let destinations = destinations(Vec::new());
            let good = (Ok(()), vec!["[2001:db8::1]:80".to_owned()]);
            assert_eq!(resolved(&destinations, "2001:db8::1").await, good);
            assert_eq!(resolved(&destinations, "::1").await, (Err(FetchError::Denied), vec![]));
        });
    }

    #[test]
    fn the_destination_that_was_asked_for_longest_ago_makes_room() {
        run_by_test_clock(async {
            let destinations = destinations(Vec::new());
            let first = destinations.upstream(&host("192.0.2.1")).unwrap();
            timer::sleep(Duration::from_millis(5)).await;
            let (result, _) = resolved(&destinations, "192.0.2.2").await;
            assert_eq!(result, Ok(()));
            // The first one is in use, though it is older.
            let (result, known) = resolved(&destinations, "192.0.2.3").await;
            assert_eq!((result, known), (Ok(()), vec!["192.0.2.3:80".to_owned()]));
            let third = destinations.upstream(&host("192.0.2.3")).unwrap();
            assert_ne!(first.id(), third.id());
            assert!(destinations.upstream(&host("192.0.2.2")).is_none(), "all are in use");
            drop(first);
            assert!(destinations.upstream(&host("192.0.2.2")).is_some());
        });
    }
}
