//! The servers of all upstreams, as every process of one generation sees them.
//!
//! There is one row per server: the addresses that its name resolves to, and whether it is used or
//! skipped. The keeper writes addresses, workers write what they see of a server, and all read.
//! There is no lock.
//!
//! ```text
//! word  0      generation: 0 = never resolved; its lowest bit chooses the list that is valid
//! word  1      whether it is used or skipped, see `health`
//! words 2..35  list 0: count, then 8 addresses of 4 words
//! words 35..68 list 1
//! word  68     since when its upstream is down, milliseconds of the monotonic clock; 0 = it is not
//! words 69..72 unused, up to whole cache lines
//! ```
//!
//! A writer fills the list that is not valid and then steps the generation, so one that is killed
//! half way leaves the valid list as it was. A reader copies, and copies again if the generation
//! has moved meanwhile.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::shared::health::Health;
use crate::sys::shm::{SharedMap, SharedSlice};
use crate::upstream::ids::{Server, ServerId, UpstreamId};

/// How many addresses of one server are kept.
pub(crate) const N_ADDRESSES_MAX: usize = 8;

const N_WORDS_ADDRESS: usize = 4;
const N_WORDS_LIST: usize = 1 + N_ADDRESSES_MAX * N_WORDS_ADDRESS;
const N_WORDS_ROW: usize = 72;
const HEALTH: usize = 1;
const LISTS: usize = 2;
const OUTAGE_SINCE: usize = LISTS + 2 * N_WORDS_LIST;

const _: () = assert!(OUTAGE_SINCE < N_WORDS_ROW, "both lists fit in a row");
const _: () = assert!(N_WORDS_ROW.is_multiple_of(8), "a row is whole cache lines");

/// The table: made by the master for a generation, before that is forked.
#[derive(Debug)]
pub(crate) struct ServerTable {
    words: SharedSlice<AtomicU64>,
    /// The first row of each upstream, then the number of all rows.
    firsts: Vec<usize>,
}

impl ServerTable {
    /// A table for upstreams with these numbers of servers, none resolved and none skipped.
    ///
    /// # Errors
    /// When the kernel refuses the memory.
    pub(crate) fn create(n_servers: impl IntoIterator<Item = usize>) -> io::Result<Self> {
        let mut firsts = vec![0];
        let mut n_rows = 0;
        for n_servers in n_servers {
            n_rows += n_servers;
            firsts.push(n_rows);
        }
        let n_words = n_rows.max(1) * N_WORDS_ROW;
        let map = SharedMap::anonymous(n_words * size_of::<u64>())?;
        Ok(Self { words: map.slice(0, n_words)?, firsts })
    }

    /// Replaces the addresses of a server; those after the first [`N_ADDRESSES_MAX`] are left out.
    /// There must be one writer at a time.
    pub(crate) fn publish_addresses(&self, server: Server, addresses: &[SocketAddr]) {
        let words = self.row(server);
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
        let words = self.row(server);
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

    /// Whether a server is used or skipped.
    pub(crate) fn health(&self, server: Server) -> Health<'_> {
        Health::of(&self.row(server)[HEALTH])
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
        let since = &self.row(server)[OUTAGE_SINCE];
        let begun_ms = now_mono_ms.max(1);
        since.compare_exchange(0, begun_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Notes that an upstream is not down. The one caller that ends the outage gets the time when
    /// it began. This is one load if there is no outage.
    pub(crate) fn end_outage(&self, upstream: UpstreamId) -> Option<u64> {
        let since = &self.row(self.servers(upstream).next()?)[OUTAGE_SINCE];
        if since.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(since.swap(0, Ordering::Relaxed)).filter(|since_ms| *since_ms != 0)
    }

    fn row(&self, server: Server) -> &[AtomicU64] {
        let row = self.firsts[server.upstream.0] + server.id.0;
        assert!(row < self.firsts[server.upstream.0 + 1], "the upstream has {server:?}");
        &self.words[row * N_WORDS_ROW..][..N_WORDS_ROW]
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
        let table = ServerTable::create([2]).unwrap();
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
    fn one_begins_an_outage_and_one_ends_it() {
        let table = ServerTable::create([1, 2, 0]).unwrap();
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
        let table = ServerTable::create([1]).unwrap();
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
