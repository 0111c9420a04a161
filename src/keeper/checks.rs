//! Active checks: one task for each server of an upstream that has `check`.

use std::io;
use std::rc::Rc;

use nix::errno::Errno;

use crate::config::{Config, ServerAddress};
use crate::http::proxy_protocol::Version;
use crate::policy::reason::fetch::FetchError;
use crate::reactor;
use crate::reactor::address::Address;
use crate::reactor::connect::connect;
use crate::reactor::stream::Stream;
use crate::reactor::timer;
use crate::shared::servers::ServerTable;
use crate::tls::client::{Client, Clients};
use crate::tls::connect::connect as secure;
use crate::tls::handshake::Secured;
use crate::tls::turns::Turns;
use crate::transport::Transport;
use crate::upstream::check::{Check, CheckFailure, CheckResult, Reading};
use crate::upstream::ids::Server;
use crate::upstream::method;
use crate::upstream::state::Setting;

/// Starts the checks of all servers that have some.
pub(super) fn start(config: &Config, table: &Rc<ServerTable>, clients: &Clients) {
    let turns = Rc::<Turns>::default();
    for (server, wanted) in config.servers() {
        let upstream = &config.upstreams[server.upstream.0];
        if let Some(check) = &upstream.check {
            let checked = Checked {
                server,
                name: format!("{}/{}", upstream.name, wanted.address),
                address: wanted.address.clone(),
                check: check.clone(),
                tls: clients.of(server.upstream).cloned(),
                proxy: upstream.proxy,
                turns: Rc::clone(&turns),
                table: Rc::clone(table),
            };
            reactor::spawn(checked.check_forever());
        }
    }
}

/// A server that is checked.
struct Checked {
    server: Server,
    /// The name in the log.
    name: String,
    address: ServerAddress,
    check: Check,
    tls: Option<Rc<Client>>,
    proxy: Option<Version>,
    turns: Rc<Turns>,
    table: Rc<ServerTable>,
}

/// No result: the cause may be this process.
struct Unclear;

impl Checked {
    async fn check_forever(self) {
        let interval_ms = self.check.interval.as_millis() as u64;
        let row = self.table.row(self.server);
        let mut next_ms = reactor::now().mono_ms();
        for n in 0_u64.. {
            timer::sleep_until(next_ms + self.jitter_ms(n)).await;
            next_ms = reactor::now().mono_ms() + interval_ms;
            if row.setting() != Setting::Disabled
                && let Ok(result) = self.check_once().await
            {
                self.note(result);
            }
        }
    }

    /// Up to a tenth of the interval, so that the checks of many servers do not stay in step.
    fn jitter_ms(&self, n: u64) -> u64 {
        let most_ms = self.check.interval.as_millis() as u64 / 10;
        method::hash(format!("{n} {}", self.name).as_bytes()) % (most_ms + 1)
    }

    fn note(&self, result: CheckResult) {
        let (row, name) = (self.table.row(self.server), &self.name);
        let has_changed = row.checked(&self.check, result, reactor::now());
        match result {
            Err(failure) if has_changed => log::warn!("server {name} is down: {failure}"),
            Ok(()) if has_changed => log::warn!("server {name} is up: its checks passed"),
            Err(failure) => log::debug!("server {name}: {failure}"),
            Ok(()) => {}
        }
    }

    async fn check_once(&self) -> Result<CheckResult, Unclear> {
        let deadline_ms = timer::deadline(self.check.timeout);
        let result = match self.connect(deadline_ms).await {
            Ok(transport) => self.ask(&transport, deadline_ms).await,
            Err(failure) => Err(failure.ok_or(Unclear)?),
        };
        // A chore that waited for the disk may have held up this task.
        let is_late = reactor::now().mono_ms() > deadline_ms + LATE_MS;
        if is_late && result.is_err() { Err(Unclear) } else { Ok(result) }
    }

    /// Connects to the first of the addresses that accepts. The error is `None` if this process
    /// lacks something.
    async fn connect(&self, deadline_ms: u64) -> Result<Transport, Option<CheckFailure>> {
        let addresses = match &self.address {
            ServerAddress::Ip(address) => vec![Address::Ip(*address)],
            ServerAddress::Unix(path) => vec![Address::Unix(path.clone())],
            ServerAddress::Name { .. } => {
                let mut known = Vec::new();
                self.table.addresses(self.server, &mut known);
                known.into_iter().map(Address::Ip).collect()
            }
        };
        let mut failure = addresses.is_empty().then_some(CheckFailure::Unresolved);
        for (n_left, address) in (1..=addresses.len() as u64).rev().zip(addresses) {
            // An address that does not answer leaves time for the others.
            let now_ms = reactor::now().mono_ms();
            let until_ms = now_ms + deadline_ms.saturating_sub(now_ms) / n_left;
            match connect(&address, until_ms).await {
                Ok(stream) => return self.begin(stream, deadline_ms).await,
                Err(error) => failure = failure_of(&error, CheckFailure::Connect).or(failure),
            }
        }
        Err(failure)
    }

    /// Says by a PROXY header that the connection is no client's, and shakes hands.
    async fn begin(
        &self,
        stream: Stream,
        deadline_ms: u64,
    ) -> Result<Transport, Option<CheckFailure>> {
        if let Some(version) = self.proxy {
            let written = stream.write_all(&version.local(), deadline_ms).await;
            written.map_err(|error| failure_of(&error, CheckFailure::Closed))?;
        }
        self.secure(stream, deadline_ms).await.map_err(Some)
    }

    async fn secure(&self, stream: Stream, deadline_ms: u64) -> Result<Transport, CheckFailure> {
        let Some(tls) = &self.tls else { return Ok(Transport::plain(stream)) };
        match secure(stream, tls, &self.address, &self.turns, deadline_ms).await {
            Ok(Secured { stream, session, .. }) => Ok(Transport::secured(stream, session)),
            Err((FetchError::ConnectTimeout, _)) => Err(CheckFailure::Timeout),
            Err((_, why)) => {
                log::warn!("server {}: check failed: {why}", self.name);
                Err(CheckFailure::Tls)
            }
        }
    }

    async fn ask(&self, transport: &Transport, deadline_ms: u64) -> CheckResult {
        let Some(http) = &self.check.http else { return Ok(()) };
        let failure = |error: io::Error| {
            failure_of(&error, CheckFailure::Closed).unwrap_or(CheckFailure::Closed)
        };
        let address = match &self.address {
            ServerAddress::Unix(_) => "localhost".to_owned(),
            address => address.to_string(),
        };
        transport.write_all(&http.request(&address), deadline_ms).await.map_err(failure)?;
        let mut reading = Reading::new(http);
        let mut buf = vec![0; 4 << 10];
        loop {
            if reactor::now().mono_ms() >= deadline_ms {
                return Err(CheckFailure::Timeout);
            }
            let n_bytes = transport.read(&mut buf, deadline_ms).await.map_err(failure)?;
            if n_bytes == 0 {
                return reading.end();
            }
            if let Some(result) = reading.take(&buf[..n_bytes]) {
                return result;
            }
        }
    }
}

/// The failure behind an error of a socket; `None` if this process or machine lacks something.
fn failure_of(error: &io::Error, other: CheckFailure) -> Option<CheckFailure> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EADDRNOTAVAIL,
        ) => None,
        _ if error.kind() == io::ErrorKind::TimedOut => Some(CheckFailure::Timeout),
        _ => Some(other),
    }
}

/// A timer that fires this late shows that the process was held up.
const LATE_MS: u64 = 100;
