//! Connections that belong to one client: those for bytes, and those with a PROXY header.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use crate::http::proxy_protocol::Version;
use crate::origin::fetch::Tie;
use crate::origin::pools::Pools;
use crate::origin::raw::{RawConnection, connect};
use crate::origin::tests::sample::{ID, LIMITS, get, pools_to};
use crate::origin::tests::scripted::{OK, Peer, Place, ScriptedOrigin};
use crate::policy::reason::fetch::FetchError;
use crate::reactor::clock::run_by_test_clock;
use crate::reactor::{self, timer};
use crate::upstream::ids::ServerId;

async fn raw(pools: &Pools) -> Result<RawConnection, FetchError> {
    connect(pools, &ID, Tie::default(), pending::<()>()).await.expect("the client stays")
}

fn idle(pools: &Pools, n: usize) -> usize {
    pools.known().server(ServerId(n)).pool.borrow().n_idle()
}

#[test]
fn a_stream_has_a_connection_of_its_own_that_is_closed_at_its_end() {
    run_by_test_clock(async {
        let origin = ScriptedOrigin::serving(async |mut peer: Peer| {
            while peer.request().await.is_some() {
                peer.say(OK).await;
            }
        });
        let pools = pools_to([origin.address()], |upstream| {
            upstream.servers[0].connections = 1;
            upstream.pending_timeout = Duration::from_millis(300);
        });
        get(&pools).await.unwrap();
        assert_eq!(idle(&pools, 0), 1);
        let stream = raw(&pools).await.unwrap();
        assert_eq!((stream.server().id, idle(&pools, 0)), (ServerId(0), 0));
        timer::sleep(Duration::from_millis(1)).await;
        assert_eq!(origin.n_connections(), 2, "none that requests have used");
        assert_eq!(raw(&pools).await.unwrap_err(), FetchError::PendingTimeout);
        drop(stream);
        drop(raw(&pools).await.unwrap());
        assert_eq!(idle(&pools, 0), 0);
    });
}

#[test]
fn a_stream_goes_to_the_next_server_until_its_client_leaves() {
    run_by_test_clock(async {
        let good = ScriptedOrigin::serving(async |mut peer: Peer| peer.end().await);
        let (refusing, full) = (Place::new(), Place::new());
        let servers = [refusing.address(), full.address(), good.address()];
        let _held = full.full();
        let pools = pools_to(servers, |_| {});
        let begun_ms = reactor::now().mono_ms();
        assert_eq!(raw(&pools).await.unwrap().server().id, ServerId(2));
        assert_eq!(reactor::now().mono_ms() - begun_ms, LIMITS.connect_ms);
        assert!(pools.is_skipped(0) && pools.is_skipped(1));
        let pools = pools_to([full.address()], |_| {});
        let gone = timer::sleep(Duration::from_millis(1));
        assert!(connect(&pools, &ID, Tie::default(), gone).await.is_none());
    });
}

#[test]
fn a_connection_with_a_proxy_header_carries_one_request_and_a_trial_none() {
    run_by_test_clock(async {
        let place = Place::new();
        let seen = Rc::<RefCell<Vec<String>>>::default();
        let good = ScriptedOrigin::serving(async |mut peer: Peer| {
            while peer.request().await.is_some() {
                peer.say(OK).await;
            }
        });
        let pools = pools_to([place.address(), good.address()], |upstream| {
            upstream.proxy = Some(Version::V1);
            upstream.retries = 1;
        });
        for _ in 0..3 {
            get(&pools).await.unwrap();
        }
        assert_eq!((good.n_connections(), idle(&pools, 1)), (3, 0));
        // The server that refused is back, and is tried by a connection without a client.
        let all = Rc::clone(&seen);
        let back = ScriptedOrigin::at(place, async move |mut peer: Peer| {
            let header = peer.take(15).await.unwrap();
            peer.end().await;
            all.borrow_mut().push(String::from_utf8(header).unwrap());
        });
        timer::sleep(Duration::from_secs(10)).await;
        drop(pools.known().checkout(&Default::default()).await.unwrap());
        timer::sleep(Duration::from_millis(1)).await;
        assert_eq!(*seen.borrow(), ["PROXY UNKNOWN\r\n"], "it is closed");
        assert_eq!((back.n_connections(), idle(&pools, 0)), (1, 0));
        assert!(!pools.is_skipped(0));
    });
}
