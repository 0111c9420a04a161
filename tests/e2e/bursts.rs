//! Bursts: up to ten thousand clients at once, with one request each; all are answered with 200.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

use crate::support::socket::Address;
use crate::support::{Origin, Plan, Response, alone, burst};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn every_client_of_a_burst_is_answered() {
    alone();
    let origin = Origin::answering(|_| Response::ok(vec![b'x'; 1024]).cache("max-age=600"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/page").expect_status(200);
    ktrix.wait_hit("/page");
    let Address::Ip(address) = plan.address else { unreachable!() };
    let request = format!("GET /page HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    for n in [100, 500, 1_000, 2_000, 4_000, 6_000, 8_000, 10_000] {
        if files < n as u64 + 500 {
            eprintln!("{n} clients are too many for {files} open files: not tried");
            continue;
        }
        let result = burst(address, n, request.as_bytes(), LIMIT);
        assert_eq!(result.by_status.get(&200), Some(&n), "{n} clients: {result:?}");
        println!("{n} clients: {:?}", result.took);
    }
    origin.expect_requests(1);
    assert!(ktrix.exit_status().is_none());
}

#[test]
fn a_burst_for_an_unstored_object_is_answered_too() {
    alone();
    let origin = Origin::answering(|_| Response::ok("mine").cache("no-store"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    let Address::Ip(address) = plan.address else { unreachable!() };
    let request = format!("GET /mine HTTP/1.1\r\nHost: {address}\r\n\r\n");
    for n in [500, 3_000] {
        let result = burst(address, n, request.as_bytes(), LIMIT);
        assert_eq!(result.by_status.get(&200), Some(&n), "{n} clients: {result:?}");
    }
    drop(ktrix);
}
