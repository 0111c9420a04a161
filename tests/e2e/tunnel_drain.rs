//! Tunnels over reloads and stops: which ones go on, for how long, and how many configurations they keep
//! in memory.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use nix::sys::signal::Signal;

use crate::reloads::reload_beside;
use crate::support::process::Seen;
use crate::support::socket::Address;
use crate::support::{Client, Origin, PATIENCE, Plan, until, until_true};
use crate::tunnels::{echoing, expect_echo, n_tunnels, open};

/// A site whose routes `/a` and `/b` end silent tunnels after these times.
fn sites(a: &str, b: &str) -> String {
    let route = |path: &str, tunnel: &str| {
        format!("{{path: {path}, upstream: app, timeouts: {{tunnel: {tunnel}}}}}")
    };
    format!("[{{routes: [{}, {}]}}]", route("/a", a), route("/b", b))
}

fn plan(origin: &Origin) -> Plan {
    Plan::new(origin).set("workers", "1").set("sites", &sites("1h", "1h"))
}

fn address(plan: &Plan) -> SocketAddr {
    let Address::Ip(address) = plan.address else { unreachable!() };
    address
}

fn expect_end(client: &mut Client) {
    assert_eq!(client.read(), b"");
}

#[test]
fn tunnels_of_changed_routes_end_after_their_time_and_others_go_on() {
    let origin = echoing();
    let plan = plan(&origin).set("timeouts", "{stop: 100ms, tunnel-drain: 200ms}");
    let ktrix = plan.start();
    let [mut unchanged, mut changed] = ["/a", "/b"].map(|target| open(&ktrix, target));
    plan.put("sites", &sites("1h", "2h"));
    plan.write_config();
    reload_beside(&ktrix);
    expect_end(&mut changed);
    expect_echo(&mut unchanged, b"still here");
    // The next configuration is compared with that of the tunnel, and not with the last one.
    plan.put("sites", &sites("3h", "1h"));
    plan.write_config();
    let mut newer = open(&ktrix, "/b");
    reload_beside(&ktrix);
    expect_end(&mut newer);
    expect_echo(&mut unchanged, b"and here");
    drop(unchanged);
    until_true("the end of the last tunnel", || n_tunnels(&ktrix) == 0);
}

#[test]
fn tunnels_of_the_oldest_configuration_end_when_there_are_too_many() {
    let origin = echoing();
    let plan = plan(&origin).set("limits", "{generations: 2}").set("timeouts", "{stop: 100ms}");
    let ktrix = plan.start();
    let port = address(&plan).port();
    // An old worker accepts until it is told of the new one.
    let open_at = |worker: Seen| {
        until("a tunnel of the new worker", PATIENCE, || {
            let tunnel = open(&ktrix, "/a");
            worker.serves(port).then_some(tunnel)
        })
    };
    let mut tunnels = vec![open(&ktrix, "/a")];
    for _ in 0..2 {
        tunnels.push(open_at(reload_beside(&ktrix)));
    }
    tunnels.iter_mut().for_each(|tunnel| expect_echo(tunnel, b"still here"));
    reload_beside(&ktrix);
    expect_end(&mut tunnels[0]);
    tunnels[1..].iter_mut().for_each(|tunnel| expect_echo(tunnel, b"still here"));
    let log = ktrix.wait_error("limits.generations is reached");
    assert_eq!(log.matches("limits.generations is reached").count(), 1, "{log}");
    assert!(log.contains("closing the tunnels of configuration 1: "), "{log}");
}

#[test]
fn a_graceful_stop_waits_for_tunnels_within_its_bound() {
    let origin = echoing();
    let patient = plan(&origin);
    let ktrix = patient.start();
    let mut tunnel = open(&ktrix, "/a");
    ktrix.signal(Signal::SIGQUIT);
    ktrix.wait_error("graceful shutdown");
    expect_echo(&mut tunnel, b"still here");
    drop(tunnel);
    assert!(ktrix.wait_exit().success());

    let impatient = plan(&origin).set("timeouts", "{stop: 300ms}");
    let ktrix = impatient.start();
    let mut tunnel = open(&ktrix, "/a");
    ktrix.signal(Signal::SIGQUIT);
    expect_end(&mut tunnel);
    assert!(ktrix.wait_exit().success());
}

#[test]
fn connections_of_tcp_listeners_go_on_while_these_lead_to_the_same_servers() {
    let origins = [(); 2].map(|()| raw_echo());
    let plan = Plan::to("{servers: [\"127.0.0.1:9\"]}");
    let [Address::Ip(first), Address::Ip(second)] =
        [&plan, &Plan::new(&origins[0])].map(|plan| plan.address.clone())
    else {
        unreachable!("plans have IP addresses")
    };
    let listen = format!(
        "[{{address: \"{first}\", mode: tcp, upstream: a}}, {{address: \"{second}\", mode: tcp, upstream: b}}]"
    );
    let upstreams = |b: &Origin| {
        format!(
            "{{a: {{servers: [\"{}\"]}}, b: {{servers: [\"{}\"]}}}}",
            origins[0].name(),
            b.name()
        )
    };
    let plan = plan
        .set("listen", &listen)
        .set("upstreams", &upstreams(&origins[0]))
        .set("workers", "1")
        .set("timeouts", "{stop: 100ms, tunnel-drain: 200ms}")
        .without("sites");
    let ktrix = plan.start();
    let [mut unchanged, mut changed] = [first, second].map(|address| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        expect_back(&mut stream);
        stream
    });
    plan.put("upstreams", &upstreams(&origins[1]));
    plan.write_config();
    reload_beside(&ktrix);
    let mut rest = Vec::new();
    let _ = changed.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    expect_back(&mut unchanged);
    drop(unchanged);
    until_true("the end of the last connection", || n_tunnels(&ktrix) == 0);
}

/// A server that gives back the bytes that it gets.
fn raw_echo() -> Origin {
    Origin::wired(|connection| {
        while matches!(connection.read(), Ok(1..)) {
            let bytes = connection.take();
            if connection.write(&bytes).is_err() {
                return;
            }
        }
    })
}

fn expect_back(stream: &mut TcpStream) {
    stream.write_all(b"ping").unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ping");
}
