//! A new connection to a server: where the server is, and connect(2).

use std::io;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use crate::config::ServerAddress;
use crate::origin::pools::{ServerPool, Upstream};
use crate::policy::reason::fetch::FetchError;
use crate::reactor;
use crate::reactor::address::Address;
use crate::reactor::connect::connect;
use crate::reactor::timer;
use crate::transport::Transport;
use crate::upstream::balance::Tried;
use crate::upstream::ids::ServerId;

/// The pause between two looks for the address of a name that the keeper has not resolved yet.
const RESOLVE_LOOK: Duration = Duration::from_millis(20);

impl Upstream {
    /// Connects to a server; `tried` are those that were tried before.
    pub(super) async fn connect(
        &self,
        id: ServerId,
        tried: &Tried,
    ) -> Result<Rc<Transport>, FetchError> {
        let deadline_ms = reactor::now().mono_ms() + self.limits.connect_ms;
        let address = self.address(id, tried, deadline_ms).await;
        let address = address.ok_or(FetchError::Unresolved)?;
        let stream = connect(&address, deadline_ms).await.map_err(|error| error_of(&error))?;
        let transport = Transport::plain(stream);
        // Without TCP_NODELAY small requests may wait for acknowledgements, so an error does no
        // other harm.
        let _ = transport.set_nodelay();
        Ok(Rc::new(transport))
    }

    /// The address of a server. Waits for a name that the keeper has not resolved yet, unless
    /// another server has an address.
    async fn address(&self, id: ServerId, tried: &Tried, deadline_ms: u64) -> Option<Address> {
        let mut tried = tried.clone();
        tried.insert(id);
        loop {
            if let Some(address) = self.known_address(self.server(id)) {
                return Some(address);
            }
            let is_late = reactor::now().mono_ms() >= deadline_ms;
            if is_late || self.not_in(&tried).any(|server| self.has_address(server)) {
                return None;
            }
            timer::sleep(RESOLVE_LOOK).await;
        }
    }

    /// The known address of a server. The addresses of a name take turns.
    fn known_address(&self, server: &ServerPool) -> Option<Address> {
        match &server.address {
            ServerAddress::Ip(address) => Some(Address::Ip(*address)),
            ServerAddress::Unix(path) => Some(Address::Unix(path.clone())),
            ServerAddress::Name { .. } => {
                let mut addresses = Vec::new();
                self.table.addresses(server.server, &mut addresses);
                let turn = server.turn.get();
                let address = addresses.get(turn.checked_rem(addresses.len())?)?;
                server.turn.set(turn.wrapping_add(1));
                Some(Address::Ip(*address))
            }
        }
    }

    pub(super) fn has_address(&self, server: &ServerPool) -> bool {
        let ServerAddress::Name { .. } = server.address else { return true };
        let mut addresses = Vec::new();
        self.table.addresses(server.server, &mut addresses);
        !addresses.is_empty()
    }
}

/// The failure behind an error of connect(2).
fn error_of(error: &io::Error) -> FetchError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EADDRNOTAVAIL,
        ) => FetchError::Resources,
        _ if error.kind() == io::ErrorKind::TimedOut => FetchError::ConnectTimeout,
        _ => FetchError::Connect,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use super::*;
    use crate::origin::tests::sample::{ID, LIMITS, name, pools_to};
    use crate::reactor::clock::run_by_test_clock;

    /// The address that is found for the first of these servers, if the keeper resolves its name
    /// after `after`, and how many milliseconds that takes.
    fn found<const N: usize>(
        servers: [ServerAddress; N],
        resolved_after: Duration,
    ) -> (Option<Address>, u64) {
        let pools = Rc::new(pools_to(servers, |_| {}));
        run_by_test_clock(async {
            let begun_ms = reactor::now().mono_ms();
            let keeper = Rc::clone(&pools);
            reactor::spawn(async move {
                timer::sleep(resolved_after).await;
                keeper.resolve(0, RESOLVED);
            });
            let deadline_ms = begun_ms + LIMITS.connect_ms;
            let upstream = pools.upstream(ID);
            let address = upstream.address(ServerId(0), &Tried::default(), deadline_ms).await;
            (address, reactor::now().mono_ms() - begun_ms)
        })
    }

    const RESOLVED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);

    #[test]
    fn a_name_is_waited_for_until_it_is_resolved_or_too_late() {
        let ms = Duration::from_millis;
        assert_eq!(found([name(0), name(1)], ms(90)), (Some(Address::Ip(RESOLVED)), 100));
        assert_eq!(found([name(0), name(1)], ms(301)), (None, 300));
    }

    #[test]
    fn a_name_is_not_waited_for_if_another_server_has_an_address() {
        let other = ServerAddress::Ip(RESOLVED);
        assert_eq!(found([name(0), other], Duration::from_millis(90)), (None, 0));
    }

    #[test]
    fn a_local_lack_of_resources_is_no_failure_of_the_server() {
        let of = |errno: Errno| error_of(&io::Error::from(errno));
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EADDRNOTAVAIL] {
            assert_eq!(of(errno), FetchError::Resources, "{errno}");
        }
        assert_eq!(of(Errno::ECONNREFUSED), FetchError::Connect);
        assert_eq!(of(Errno::ETIMEDOUT), FetchError::ConnectTimeout);
        let late = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(error_of(&late), FetchError::ConnectTimeout);
    }
}
