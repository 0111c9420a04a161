//! Many handshakes at once: they wait for one another, and the requests of other clients do not wait for
//! them.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use nix::sys::signal::Signal;
use rustls::ClientConnection;

use crate::support::ktrix::CERTIFICATE;
use crate::support::socket::Address;
use crate::support::tls::authority;
use crate::support::{Ask, Client, Origin, Plan, Response, alone, until_true};

/// The handshakes that are begun at once.
const HANDSHAKES: usize = 1_000;

fn is_answered(socket: &TcpStream) -> bool {
    socket.peek(&mut [0]).is_ok_and(|n_bytes| n_bytes > 0)
}

#[test]
fn a_hot_request_is_answered_while_handshakes_wait() {
    alone();
    let origin = Origin::answering(|_| Response::ok("hello").cache("max-age=600"));
    let plan = Plan::new(&origin).with_tls().set("workers", "1");
    let Address::Ip(ip) = plan.address else { unreachable!() };
    let tls = format!("{{address: \"{ip}\", tls: {{certificates: {CERTIFICATE}}}}}");
    plan.put("listen", &format!("[\"unix:$DIR/sock\", {tls}]"));
    let ktrix = plan.start();
    let mut secured = ktrix.client();
    let mut clear = Client::connect(&Address::Unix(plan.dir().join("sock")));
    until_true("hits", || secured.get("/x").is_hit() && clear.get("/x").is_hit());
    let sockets: Vec<TcpStream> = (0..HANDSHAKES)
        .map(|_| {
            let socket = TcpStream::connect(ip).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(authority().client()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let worker = ktrix.workers()[0];
    // The worker finds the first step of every handshake and then the requests.
    worker.signal(Signal::SIGSTOP);
    sockets.iter().for_each(|mut socket| socket.write_all(&hello).unwrap());
    secured.send(&Ask::get("/x"));
    clear.send(&Ask::get("/x"));
    worker.signal(Signal::SIGCONT);
    secured.answer().expect_hit();
    clear.answer().expect_hit();
    worker.signal(Signal::SIGSTOP);
    let n_done = sockets.iter().filter(|socket| is_answered(socket)).count();
    worker.signal(Signal::SIGCONT);
    assert!(n_done < HANDSHAKES / 2, "{n_done} handshakes went before two hot requests");
    until_true("every handshake to go on", || sockets.iter().all(is_answered));
}
