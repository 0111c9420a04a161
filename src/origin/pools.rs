//! The pools of a worker: its upstreams, and the destinations of its forward proxy.

use std::io;
use std::rc::Rc;

use crate::config::UpstreamConfig;
use crate::config::forward::ForwardConfig;
use crate::http::fields::Fields;
use crate::http::proxy_protocol::Version;
use crate::origin::destinations::Destinations;
use crate::origin::names::Mailbox;
use crate::origin::upstream::{OriginLimits, Upstream};
use crate::policy::reason::fetch::FetchError;
use crate::reactor;
use crate::shared::servers::ServerTable;
use crate::tls::client::Clients;
use crate::tls::turns::Turns;
use crate::upstream::destination::Destination;
use crate::upstream::ids::{ServerId, UpstreamId};

/// All pools of a worker.
#[derive(Debug)]
pub struct Pools {
    upstreams: Vec<Rc<Upstream>>,
    destinations: Option<Destinations>,
}

impl Pools {
    /// Pools for the upstreams of `table`, in the worker of this number. Their handshakes have turns
    /// of their own, so that those of clients do not delay them.
    pub(crate) fn new(
        upstreams: &[UpstreamConfig],
        (table, worker): (&Rc<ServerTable>, usize),
        clients: &Clients,
        limits: OriginLimits,
    ) -> Self {
        let turns = Rc::<Turns>::default();
        let upstreams = (0..).map(UpstreamId).zip(upstreams);
        let upstream = |(id, config)| {
            let tls = (clients.of(id).cloned(), Rc::clone(&turns));
            let upstream = Upstream::new(id, config, (Rc::clone(table), worker), tls, limits);
            Rc::new(upstream.counted_as(Some(id)))
        };
        Self { upstreams: upstreams.map(upstream).collect(), destinations: None }
    }

    /// With pools for the destinations of a forward proxy, whose names are looked up by a keeper.
    ///
    /// # Errors
    /// When the kernel refuses the memory.
    pub(crate) fn forwarding(
        self,
        config: &Rc<ForwardConfig>,
        limits: OriginLimits,
        mailbox: Mailbox,
    ) -> io::Result<Self> {
        let destinations = Some(Destinations::new(config, limits, mailbox)?);
        Ok(Self { destinations, ..self })
    }

    /// Takes the answers of the keeper, after it has woken this process.
    pub(crate) fn woken(&self) {
        if let Some(destinations) = &self.destinations {
            destinations.lookups().woken();
        }
    }

    /// The pools of a destination; `None` if a forward proxy has none for it now.
    pub(crate) fn upstream(&self, destination: &Destination) -> Option<Rc<Upstream>> {
        match destination {
            Destination::Upstream(id) => self.upstreams.get(id.0).cloned(),
            Destination::Address(address) => self.destinations.as_ref()?.known(address),
        }
    }

    /// As [`Self::upstream`], once the addresses of a host are known.
    ///
    /// # Errors
    /// [`FetchError::Resources`] if too many are in use, and why a host cannot be asked.
    pub(super) async fn resolved(
        &self,
        destination: &Destination,
    ) -> Result<Rc<Upstream>, FetchError> {
        match (destination, &self.destinations) {
            (Destination::Address(address), Some(destinations)) => {
                destinations.resolved(address).await
            }
            _ => self.upstream(destination).ok_or(FetchError::Resources),
        }
    }

    /// Whether all servers of a destination are skipped now.
    pub(crate) fn is_down(&self, destination: &Destination) -> bool {
        self.upstream(destination).is_some_and(|upstream| upstream.is_down())
    }

    /// The version of the PROXY header that the servers of a destination are sent.
    pub(crate) fn proxy(&self, destination: &Destination) -> Option<Version> {
        self.upstreams.get(destination.upstream()?.0)?.proxy
    }

    /// Takes the cookie that names a server of this upstream out of a request, and gives the server.
    pub(crate) fn take_sticky(
        &self,
        destination: &Destination,
        request: &mut Fields,
    ) -> Option<ServerId> {
        let Destination::Upstream(id) = destination else { return None };
        // A route that answers itself needs no upstream, and there may be none.
        self.upstreams.get(id.0)?.sticky.as_ref()?.take(request)
    }

    /// Closes the connections that were idle for too long, that are more than is needed, or that lead
    /// to an address that the name of their server has lost. Each leaves room for a fetch that waits.
    /// To be called each second.
    pub(crate) fn expire(&self) {
        let now_ms = reactor::now().mono_ms();
        let dynamic = self.destinations.as_ref().map_or_else(Vec::new, Destinations::upstreams);
        for upstream in self.upstreams.iter().chain(&dynamic) {
            for server in &upstream.servers {
                let old = server.pool.borrow_mut().expire(now_ms);
                let surplus = server.pool.borrow_mut().shrink();
                let lost = upstream.take_lost(server);
                old.iter().chain(&surplus).chain(&lost).for_each(|_| upstream.call_next());
                upstream.count_idle(server);
                upstream.log_command(server);
            }
            // A server may be used again that was skipped or drained.
            if !upstream.pending.borrow().is_empty() && upstream.has_room() {
                upstream.call_next();
            }
        }
    }

    /// Makes the connections that are to be kept ready.
    pub(crate) fn open_ahead(&self) {
        for upstream in &self.upstreams {
            upstream.servers.iter().for_each(|server| upstream.open_ahead(server));
        }
    }
}
