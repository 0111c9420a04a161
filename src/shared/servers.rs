//! The servers of all upstreams, as every process of one generation sees them.
//!
//! The master makes the table before it forks the generation, and keeps its file open, so that `ktrix
//! status` and `ktrix server` can map it too. There is no lock.
//!
//! ```text
//! header       16 words: magic, version, generation, phase, n_servers, n_upstreams, n_workers, bytes of text,
//!              n_certificates, 7 unused
//! rows         one for each server, see `server_row`
//! addresses    72 words for each server
//! counts       for each worker: its pid, its open tunnels, 14 unused, then 3 for each server (active and idle connections, and
//!              those in a row that could not be made), then 1 for each upstream (requests that wait);
//!              each 4 bytes, up to whole cache lines
//! certificates 1 word for each: when it expires, in seconds since 1970
//! text         the names, one in a line: what it is, a tab, and the name
//! ```
//!
//! The addresses of a server, which the keeper writes:
//!
//! ```text
//! word  0      generation: 0 = never resolved; its lowest bit chooses the list that is valid
//! word  1      since when its upstream is down, milliseconds of the monotonic clock; 0 = it is not
//! words 2..35  list 0: count, then 8 addresses of 4 words
//! words 35..68 list 1
//! words 68..72 unused, up to whole cache lines
//! ```
//!
//! A writer fills the list that is not valid and then steps the generation, so one that is killed
//! half way leaves the valid list as it was. A reader copies, and copies again if the generation
//! has moved meanwhile.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use crate::shared::server_row::ServerRow;
use crate::sys::shm::{SharedMap, SharedSlice};
use crate::upstream::ids::{Server, ServerId, UpstreamId};
use crate::upstream::state::Setting;

/// How many addresses of one server are kept.
pub(crate) const N_ADDRESSES_MAX: usize = 8;

/// The name of the table's file, by which a command finds it among the open files of the master.
pub(crate) const FILE_NAME: &str = "ktrix-servers";

const N_WORDS_HEADER: usize = 16;
const N_WORDS_ADDRESS: usize = 4;
const N_WORDS_LIST: usize = 1 + N_ADDRESSES_MAX * N_WORDS_ADDRESS;
const N_WORDS_ADDRESSES: usize = 72;
const OUTAGE_SINCE: usize = 1;
const LISTS: usize = 2;
const N_COUNTS_FIRST: usize = 16;
/// Counts of a server.
const N_COUNTS_SERVER: usize = 3;
const LINE_COUNTS: usize = 16;

const _: () = assert!(LISTS + 2 * N_WORDS_LIST <= N_WORDS_ADDRESSES, "both lists fit");
const _: () = assert!(N_WORDS_ADDRESSES.is_multiple_of(8), "addresses are whole cache lines");

const MAGIC: u64 = u64::from_le_bytes(*b"ktrixsrv");
const VERSION: u64 = 3;

/// The phase of a generation, as commands see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TablePhase {
    Starting,
    Current,
    Draining,
}

/// The table: made by the master for a generation, before that is forked.
#[derive(Debug)]
pub(crate) struct ServerTable {
    header: SharedSlice<AtomicU64>,
    rows: SharedSlice<ServerRow>,
    addresses: SharedSlice<AtomicU64>,
    counts: SharedSlice<AtomicU32>,
    certificates: SharedSlice<AtomicU64>,
    text: SharedSlice<AtomicU8>,
    /// The first row of each upstream, then the number of all rows.
    firsts: Vec<usize>,
    n_workers: usize,
    /// Keeps the file open in the master.
    map: SharedMap,
}

/// The numbers of things in a table.
#[derive(Clone, Copy, Debug)]
struct Shape {
    n_servers: usize,
    n_upstreams: usize,
    n_workers: usize,
    n_certificates: usize,
    n_text: usize,
}

impl Shape {
    /// Counts of one worker.
    fn n_counts(self) -> usize {
        let n = N_COUNTS_FIRST + N_COUNTS_SERVER * self.n_servers + self.n_upstreams;
        n.next_multiple_of(LINE_COUNTS)
    }

    /// The offsets of rows, addresses, counts, certificates and text, and the end, in bytes.
    fn offsets(self) -> [usize; 6] {
        let rows = N_WORDS_HEADER * size_of::<u64>();
        let addresses = rows + self.n_servers * size_of::<ServerRow>();
        let counts = addresses + self.n_servers * N_WORDS_ADDRESSES * size_of::<u64>();
        let certificates = counts + self.n_workers * self.n_counts() * size_of::<u32>();
        let text = certificates + self.n_certificates * size_of::<u64>();
        [rows, addresses, counts, certificates, text, text + self.n_text]
    }
}

impl ServerTable {
    /// A table for upstreams with these numbers of servers, none resolved and none skipped, all of
    /// weight 1. The text has the names of what is in the table.
    ///
    /// # Errors
    /// When the kernel refuses the memory.
    pub(crate) fn create(
        n_servers: impl IntoIterator<Item = usize>,
        n_workers: usize,
        text: &str,
    ) -> io::Result<Self> {
        let mut firsts = vec![0];
        let mut n_rows = 0;
        for n_servers in n_servers {
            n_rows += n_servers;
            firsts.push(n_rows);
        }
        let n_upstreams = firsts.len() - 1;
        let n_text = text.len();
        let is_certificate = |line: &&str| line.split('\t').next() == Some("certificate");
        let n_certificates = text.lines().filter(is_certificate).count();
        let shape = Shape { n_servers: n_rows, n_upstreams, n_workers, n_certificates, n_text };
        let [.., end] = shape.offsets();
        let table = Self::over(SharedMap::named(FILE_NAME, end)?, shape, firsts)?;
        let counts = [n_rows, n_upstreams, n_workers, n_text, n_certificates].map(|n| n as u64);
        let values = [MAGIC, VERSION, 0, 0].into_iter().chain(counts);
        for (word, value) in table.header.iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        for (byte, value) in table.text.iter().zip(text.bytes()) {
            byte.store(value, Ordering::Relaxed);
        }
        table.rows.iter().for_each(|row| row.configure(1, Setting::Enabled));
        Ok(table)
    }

    /// The table in a file that a running master has open.
    ///
    /// # Errors
    /// When it is no table of this version.
    pub(crate) fn open(file: &File) -> io::Result<Self> {
        let not_one = || io::Error::new(io::ErrorKind::InvalidData, "no table of this version");
        let len = usize::try_from(file.metadata()?.len()).map_err(|_| not_one())?;
        let map = SharedMap::file(file, len)?;
        let header = map.slice::<AtomicU64>(0, N_WORDS_HEADER)?;
        let value = |n: usize| header[n].load(Ordering::Relaxed);
        let count = |n: usize| usize::try_from(value(n)).ok().filter(|n| *n <= len);
        if value(0) != MAGIC || value(1) != VERSION {
            return Err(not_one());
        }
        let (
            Some(n_servers),
            Some(n_upstreams),
            Some(n_workers),
            Some(n_text),
            Some(n_certificates),
        ) = (count(4), count(5), count(6), count(7), count(8))
        else {
            return Err(not_one());
        };
        let shape = Shape { n_servers, n_upstreams, n_workers, n_certificates, n_text };
        let mut table = Self::over(map, shape, Vec::new())?;
        for line in table.text().lines() {
            match line.split('\t').next() {
                Some("upstream") => table.firsts.push(table.firsts.last().copied().unwrap_or(0)),
                Some("server") => *table.firsts.last_mut().ok_or_else(not_one)? += 1,
                _ => {}
            }
        }
        table.firsts.insert(0, 0);
        let is_whole = table.firsts.len() == n_upstreams + 1;
        let is_whole = is_whole && table.firsts.last() == Some(&n_servers);
        if is_whole { Ok(table) } else { Err(not_one()) }
    }

    fn over(map: SharedMap, shape: Shape, firsts: Vec<usize>) -> io::Result<Self> {
        let [rows, addresses, counts, certificates, text, _] = shape.offsets();
        Ok(Self {
            header: map.slice(0, N_WORDS_HEADER)?,
            rows: map.slice(rows, shape.n_servers)?,
            addresses: map.slice(addresses, shape.n_servers * N_WORDS_ADDRESSES)?,
            counts: map.slice(counts, shape.n_workers * shape.n_counts())?,
            certificates: map.slice(certificates, shape.n_certificates)?,
            text: map.slice(text, shape.n_text)?,
            firsts,
            n_workers: shape.n_workers,
            map,
        })
    }

    /// Its file.
    pub(crate) fn file(&self) -> Option<&File> {
        self.map.opened_file()
    }

    pub(crate) fn set_phase(&self, generation: u64, phase: TablePhase) {
        self.header[2].store(generation, Ordering::Relaxed);
        let code = match phase {
            TablePhase::Starting => 0,
            TablePhase::Current => 1,
            TablePhase::Draining => 2,
        };
        self.header[3].store(code, Ordering::Release);
    }

    /// The number of its generation, and how far that is.
    pub(crate) fn phase(&self) -> (u64, TablePhase) {
        let phase = match self.header[3].load(Ordering::Acquire) {
            0 => TablePhase::Starting,
            1 => TablePhase::Current,
            _ => TablePhase::Draining,
        };
        (self.header[2].load(Ordering::Relaxed), phase)
    }

    /// The names of what is in it, one in a line.
    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> = self.text.iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// When each certificate expires, in the order of their names.
    pub(crate) fn expiries(&self) -> &[AtomicU64] {
        &self.certificates
    }

    pub(crate) fn n_workers(&self) -> usize {
        self.n_workers
    }

    /// Replaces the addresses of a server; those after the first [`N_ADDRESSES_MAX`] are left out.
    /// There must be one writer at a time.
    pub(crate) fn publish_addresses(&self, server: Server, addresses: &[SocketAddr]) {
        let words = self.addresses_of(server);
        let next = words[0].load(Ordering::Relaxed).wrapping_add(1).max(1);
        let list = list_of(words, next);
        let n_kept = addresses.len().min(N_ADDRESSES_MAX);
        // Readers that still copy this list from two generations ago must see the step between.
        fence(Ordering::SeqCst);
        list[0].store(n_kept as u64, Ordering::Relaxed);
        for (address, slot) in addresses.iter().zip(list[1..].chunks_exact(N_WORDS_ADDRESS)) {
            for (word, value) in slot.iter().zip(encode(*address)) {
                word.store(value, Ordering::Relaxed);
            }
        }
        words[0].store(next, Ordering::Release);
    }

    /// Copies the addresses of a server to `out`, which is emptied first, and gives their
    /// generation: 0, with no address, if it was never resolved.
    pub(crate) fn addresses(&self, server: Server, out: &mut Vec<SocketAddr>) -> u64 {
        let words = self.addresses_of(server);
        loop {
            out.clear();
            let generation = words[0].load(Ordering::Acquire);
            if generation == 0 {
                return 0;
            }
            let list = list_of(words, generation);
            let n_kept = list[0].load(Ordering::Relaxed).min(N_ADDRESSES_MAX as u64) as usize;
            for slot in list[1..].chunks_exact(N_WORDS_ADDRESS).take(n_kept) {
                let value = |n: usize| slot[n].load(Ordering::Relaxed);
                out.extend(decode([value(0), value(1), value(2), value(3)]));
            }
            fence(Ordering::Acquire);
            if words[0].load(Ordering::Relaxed) == generation {
                return generation;
            }
        }
    }

    /// Sets the weight and setting that the configuration has for a server, and takes over the state
    /// of `before`, the row of the same server in the generation before.
    pub(crate) fn configure(
        &self,
        server: Server,
        weight: u32,
        setting: Setting,
        before: Option<&ServerRow>,
    ) {
        let row = self.row(server);
        row.configure(weight, setting);
        if let Some(before) = before {
            row.take_over(before);
        }
    }

    /// The state of a server that all processes share.
    pub(crate) fn row(&self, server: Server) -> &ServerRow {
        &self.rows[self.index(server)]
    }

    /// The connections of one worker to a server: how many are active.
    pub(crate) fn n_active(&self, worker: usize, server: Server) -> &AtomicU32 {
        self.count_of(worker, server, 0)
    }

    /// The connections of one worker to a server: how many are idle.
    pub(crate) fn n_idle(&self, worker: usize, server: Server) -> &AtomicU32 {
        self.count_of(worker, server, 1)
    }

    /// The connections of one worker to a server: how many in a row could not be made.
    pub(crate) fn n_failed(&self, worker: usize, server: Server) -> &AtomicU32 {
        self.count_of(worker, server, 2)
    }

    fn count_of(&self, worker: usize, server: Server, which: usize) -> &AtomicU32 {
        let first = N_COUNTS_FIRST + N_COUNTS_SERVER * self.index(server);
        &self.counts_of(worker)[first + which]
    }

    /// How many requests of one worker wait for a connection to a server of this upstream.
    pub(crate) fn n_pending(&self, worker: usize, upstream: UpstreamId) -> &AtomicU32 {
        let first = N_COUNTS_FIRST + N_COUNTS_SERVER * self.rows.len();
        &self.counts_of(worker)[first + upstream.0]
    }

    /// The process that is this worker; 0 while there is none.
    pub(crate) fn pid(&self, worker: usize) -> &AtomicU32 {
        &self.counts_of(worker)[0]
    }

    /// How many tunnels of this worker are open.
    pub(crate) fn n_tunnels(&self, worker: usize) -> &AtomicU32 {
        &self.counts_of(worker)[1]
    }

    /// Gives back what a worker that is dead has counted, also in the rows of the upstreams that are
    /// counted there. If it was killed between the two counts of a connection, one stays counted.
    pub(crate) fn release_worker(&self, worker: usize, is_in_row: impl Fn(UpstreamId) -> bool) {
        for upstream in self.upstreams().filter(|upstream| is_in_row(*upstream)) {
            for server in self.servers(upstream) {
                let n_active = self.n_active(worker, server).load(Ordering::Relaxed);
                self.row(server).remove_active(n_active);
            }
        }
        self.counts_of(worker).iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }

    fn counts_of(&self, worker: usize) -> &[AtomicU32] {
        let n_counts = self.counts.len() / self.n_workers().max(1);
        &self.counts[worker * n_counts..][..n_counts]
    }

    pub(crate) fn upstreams(&self) -> impl Iterator<Item = UpstreamId> {
        (0..self.firsts.len() - 1).map(UpstreamId)
    }

    /// The servers of an upstream.
    pub(crate) fn servers(&self, upstream: UpstreamId) -> impl Iterator<Item = Server> {
        let n_servers = self.firsts[upstream.0 + 1] - self.firsts[upstream.0];
        (0..n_servers).map(move |n| Server { upstream, id: ServerId(n) })
    }

    /// Notes that an upstream is down, in the row of its first server. `true` for the one caller
    /// that began the outage.
    pub(crate) fn begin_outage(&self, upstream: UpstreamId, now_mono_ms: u64) -> bool {
        let Some(server) = self.servers(upstream).next() else { return false };
        let since = &self.addresses_of(server)[OUTAGE_SINCE];
        let begun_ms = now_mono_ms.max(1);
        since.compare_exchange(0, begun_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Notes that an upstream is not down. The one caller that ends the outage gets the time when
    /// it began. This is one load if there is no outage.
    pub(crate) fn end_outage(&self, upstream: UpstreamId) -> Option<u64> {
        let since = &self.addresses_of(self.servers(upstream).next()?)[OUTAGE_SINCE];
        if since.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(since.swap(0, Ordering::Relaxed)).filter(|since_ms| *since_ms != 0)
    }

    fn index(&self, server: Server) -> usize {
        let row = self.firsts[server.upstream.0] + server.id.0;
        assert!(row < self.firsts[server.upstream.0 + 1], "the upstream has {server:?}");
        row
    }

    fn addresses_of(&self, server: Server) -> &[AtomicU64] {
        &self.addresses[self.index(server) * N_WORDS_ADDRESSES..][..N_WORDS_ADDRESSES]
    }
}

fn list_of(words: &[AtomicU64], generation: u64) -> &[AtomicU64] {
    let which = (generation & 1) as usize;
    &words[LISTS + which * N_WORDS_LIST..][..N_WORDS_LIST]
}

fn encode(address: SocketAddr) -> [u64; N_WORDS_ADDRESS] {
    let port = u64::from(address.port());
    match address {
        SocketAddr::V4(v4) => [(4 << 32) | port, u64::from(v4.ip().to_bits()), 0, 0],
        SocketAddr::V6(v6) => {
            let bits = v6.ip().to_bits();
            let scope = (u64::from(v6.scope_id()) << 32) | u64::from(v6.flowinfo());
            [(6 << 32) | port, (bits >> 64) as u64, bits as u64, scope]
        }
    }
}

fn decode(words: [u64; N_WORDS_ADDRESS]) -> Option<SocketAddr> {
    let port = words[0] as u16;
    match words[0] >> 32 {
        4 => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(words[1] as u32)), port)),
        6 => {
            let ip = Ipv6Addr::from_bits((u128::from(words[1]) << 64) | u128::from(words[2]));
            let (flow, scope) = (words[3] as u32, (words[3] >> 32) as u32);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicBool;

    /// A server of the first upstream.
    fn server(n: usize) -> Server {
        Server { upstream: UpstreamId(0), id: ServerId(n) }
    }

    fn v4(n: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], port))
    }

    #[test]
    fn a_name_has_no_address_until_one_is_published() {
        let table = ServerTable::create([2], 1, "").unwrap();
        let mut out = vec![v4(9, 9)];
        assert_eq!((table.addresses(server(1), &mut out), out.len()), (0, 0));
        table.publish_addresses(server(1), &[v4(1, 80), v4(2, 80)]);
        assert_eq!(
            (table.addresses(server(1), &mut out), &out[..]),
            (1, &[v4(1, 80), v4(2, 80)][..])
        );
        table.publish_addresses(server(1), &[v4(3, 80)]);
        assert_eq!((table.addresses(server(1), &mut out), &out[..]), (2, &[v4(3, 80)][..]));
        assert_eq!(table.addresses(server(0), &mut out), 0);
    }

    #[test]
    fn a_command_maps_the_table_that_the_master_has_open() {
        let text = "listen\t0.0.0.0:80\nupstream\ta\nserver\tx:80\nupstream\tb\nupstream\tc\n\
                    server\ty:80\nserver\tz:80\n";
        let table = ServerTable::create([1, 0, 2], 3, text).unwrap();
        table.set_phase(7, TablePhase::Current);
        let last = Server { upstream: UpstreamId(2), id: ServerId(1) };
        let seen = ServerTable::open(table.map.opened_file().unwrap()).unwrap();
        assert_eq!((seen.phase(), seen.text()), ((7, TablePhase::Current), text.to_owned()));
        assert_eq!((seen.n_workers(), seen.firsts.clone()), (3, vec![0, 1, 1, 3]));
        assert_eq!(seen.row(last).weight(), 1);
        seen.row(last).set_weight(5, 1);
        table.n_pending(2, last.upstream).store(9, Ordering::Relaxed);
        assert_eq!(table.row(last).weight(), 5);
        assert_eq!(seen.n_pending(2, last.upstream).load(Ordering::Relaxed), 9);
        let other = tempfile::tempfile().unwrap();
        other.set_len(4096).unwrap();
        assert!(ServerTable::open(&other).is_err());
    }

    #[test]
    fn what_a_dead_worker_has_counted_is_given_back() {
        let table = ServerTable::create([2], 2, "").unwrap();
        let count = |worker, server, n| {
            table.n_active(worker, server).store(n, Ordering::Relaxed);
            (0..n).for_each(|_| table.row(server).add_active());
        };
        count(0, server(0), 3);
        count(1, server(0), 4);
        count(1, server(1), 5);
        table.pid(1).store(77, Ordering::Relaxed);
        table.release_worker(1, |_| true);
        assert_eq!([0, 1].map(|n| table.row(server(n)).n_active()), [3, 0]);
        assert_eq!(table.n_active(1, server(0)).load(Ordering::Relaxed), 0);
        assert_eq!(table.pid(1).load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_live_change_outlives_a_reload_that_does_not_contradict_it() {
        let before = ServerTable::create([1], 1, "").unwrap();
        let old = before.row(server(0));
        old.set_weight(9, 1);
        old.set(Setting::Draining, 1);
        for (weight, setting, kept) in [
            (1, Setting::Enabled, (9, Setting::Draining)),
            (2, Setting::Enabled, (2, Setting::Draining)),
            (1, Setting::Disabled, (9, Setting::Disabled)),
        ] {
            let table = ServerTable::create([1], 1, "").unwrap();
            table.configure(server(0), weight, setting, Some(old));
            let row = table.row(server(0));
            assert_eq!((row.weight(), row.setting()), kept);
        }
    }

    #[test]
    fn one_begins_an_outage_and_one_ends_it() {
        let table = ServerTable::create([1, 2, 0], 1, "").unwrap();
        let [a, b, none] = [0, 1, 2].map(UpstreamId);
        assert_eq!(table.end_outage(b), None);
        assert!(table.begin_outage(b, 7) && !table.begin_outage(b, 8));
        assert_eq!([1, 2].map(|_| table.end_outage(b)), [Some(7), None]);
        assert!(table.begin_outage(b, 0) && table.begin_outage(a, 0));
        assert_eq!(table.end_outage(b), Some(1));
        assert_eq!((table.begin_outage(none, 7), table.end_outage(none)), (false, None));
    }

    #[test]
    fn a_reader_never_sees_half_of_two_lists() {
        let table = ServerTable::create([1], 1, "").unwrap();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..20_000_u32 {
                    let list = [v4(n as u8, 1); N_ADDRESSES_MAX];
                    table.publish_addresses(server(0), &list[..1 + n as usize % N_ADDRESSES_MAX]);
                }
                is_done.store(true, Ordering::Release);
            });
            let mut out = Vec::new();
            while !is_done.load(Ordering::Acquire) {
                let generation = table.addresses(server(0), &mut out);
                if let Some(first) = out.first() {
                    assert!(out.iter().all(|address| address == first), "{generation}: {out:?}");
                    assert_eq!(out.len(), 1 + (generation as usize - 1) % N_ADDRESSES_MAX);
                }
            }
        });
    }

    proptest! {
        #[test]
        fn every_address_survives_the_table(bits in any::<u128>(), port in any::<u16>(),
                                            flow in any::<u32>(), scope in any::<u32>()) {
            let v6 = SocketAddrV6::new(Ipv6Addr::from_bits(bits), port, flow, scope);
            let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(bits as u32)), port);
            for address in [SocketAddr::V6(v6), v4] {
                prop_assert_eq!(decode(encode(address)), Some(address));
            }
        }
    }
}
