//! ktrix as a service: what it tells the service manager, and what that keeps for it.

use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::HandshakeKind;
use rustls::version::TLS13;
use socket2::{Domain, Socket, Type};

use crate::support::socket::Address;
use crate::support::supervisor::Supervisor;
use crate::support::tls::authority;
use crate::support::{Ask, Client, Origin, Plan, Response, until_true};

fn origin() -> Origin {
    Origin::answering(|_| Response::ok("hello").cache("max-age=600"))
}

/// A listening socket as a socket unit has it: one, and without SO_REUSEPORT of its own.
fn unit(address: std::net::SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(64).unwrap();
    socket
}

#[test]
fn start_reload_and_stop_are_told_to_the_service_manager() {
    for of in [Supervisor::of, Supervisor::abstracted] {
        let origin = origin();
        let plan = Plan::new(&origin);
        let manager = of(&plan);
        let ktrix = manager.start(&plan, 0, &[]);
        manager.wait("READY=1");
        manager.wait("STATUS=serving, 2 workers, generation 1");
        ktrix.signal(Signal::SIGHUP);
        assert!(manager.wait("RELOADING=1").contains("\nMONOTONIC_USEC="));
        manager.wait("READY=1");
        manager.wait("STATUS=serving, 2 workers, generation 2");
        fs::write(plan.config_path(), "nonsense").unwrap();
        ktrix.signal(Signal::SIGHUP);
        manager.wait("RELOADING=1");
        manager.wait("READY=1");
        ktrix.signal(Signal::SIGTERM);
        manager.wait("STOPPING=1");
        ktrix.wait_exit();
    }
}

#[test]
fn the_watchdog_is_fed_while_every_worker_gives_signs_of_life() {
    let origin = origin();
    let plan = Plan::new(&origin).set("timeouts", "{worker-stuck: 0s}");
    let manager = Supervisor::of(&plan);
    let ktrix = manager.start(&plan, 400_000, &[]);
    ktrix.wait_children(3);
    for _ in 0..8 {
        manager.wait("WATCHDOG=1");
    }
    let worker = ktrix.workers()[1];
    worker.signal(Signal::SIGSTOP);
    until_true("the end of the signs of life", || {
        manager.last_beat().is_some_and(|at| at.elapsed() > Duration::from_secs(3))
    });
    let last = manager.last_beat();
    worker.signal(Signal::SIGCONT);
    until_true("another sign of life", || manager.last_beat() > last);
}

#[test]
fn a_killed_master_loses_neither_a_waiting_connection_nor_the_cache() {
    let origin = origin();
    let plan = Plan::new(&origin).set("timeouts", "{stop: 2s}");
    let manager = Supervisor::of(&plan);
    let ktrix = manager.start(&plan, 0, &[]);
    ktrix.get("/a").expect_status(200);
    ktrix.wait_hit("/a");
    let n_sockets = |names: &[String]| names.iter().filter(|it| it.starts_with("listen")).count();
    until_true("the stored sockets", || n_sockets(&manager.stored()) == 2);
    let workers = ktrix.workers();
    let orphans = ktrix.wait_children(3);
    workers.iter().for_each(|worker| worker.signal(Signal::SIGSTOP));
    let mut clients: Vec<Client> = (0..16).map(|_| ktrix.client()).collect();
    clients.iter_mut().for_each(|client| client.send(&Ask::get("/a")));
    ktrix.signal(Signal::SIGKILL);
    ktrix.wait_exit();
    // One worker is killed too, as systemd may do; the other one wakes up beside the next ktrix.
    workers[0].signal(Signal::SIGKILL);
    let next = manager.start(&plan, 0, &[]);
    workers[1].signal(Signal::SIGCONT);
    for client in &mut clients {
        client.answer().expect_status(200).expect_hit();
    }
    until_true("the end of the workers of the killed ktrix", || {
        orphans.iter().all(|orphan| !orphan.is_alive())
    });
    next.get("/a").expect_hit();
    next.ask(&Ask::post("/b", "x")).expect_status(200);
    origin.expect_requests(2);
    assert_eq!(n_sockets(&manager.stored()), 2, "as before: {:?}", manager.stored());
    plan.verify_cache();
}

#[test]
fn sessions_are_resumed_by_the_successor_of_a_killed_master() {
    let origin = origin();
    let plan = Plan::new(&origin).with_tls();
    let manager = Supervisor::of(&plan);
    let config = authority().client_of(&[&TLS13]);
    let kind = || {
        let mut client = Client::secured(&plan.address, config.clone(), "localhost");
        client.get("/").expect_status(200);
        client.tls().handshake_kind()
    };
    let ktrix = manager.start(&plan, 0, &[]);
    assert_eq!(kind(), Some(HandshakeKind::Full));
    until_true("the stored secrets", || {
        manager.stored().iter().any(|name| name.starts_with("ticket-secrets"))
    });
    let children = ktrix.children();
    ktrix.signal(Signal::SIGKILL);
    ktrix.wait_exit();
    until_true("the end of its children", || children.iter().all(|child| !child.is_alive()));
    let _next = manager.start(&plan, 0, &[]);
    assert_eq!(kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn all_workers_share_the_socket_of_a_unit_and_others_are_closed() {
    let origin = origin();
    let plan = Plan::new(&origin).set("workers", "3");
    let Address::Ip(ip) = plan.address else { unreachable!() };
    let manager = Supervisor::of(&plan);
    let (web, stranger) = (unit(ip), unit("127.0.0.1:0".parse().unwrap()));
    let other = stranger.local_addr().unwrap().as_socket().unwrap();
    let units = [("web.socket", web.as_fd()), ("other.socket", stranger.as_fd())];
    let ktrix = manager.start(&plan, 0, &units);
    drop(stranger);
    ktrix.wait_error("closing \"other.socket\"");
    assert!(Client::try_connect(&other.into()).is_err());
    ktrix.get("/").expect_status(200);
    ktrix.wait_children(4);
    // Whichever worker is left, it accepts.
    let workers = ktrix.workers();
    let (alive, stopped) = workers.split_first().unwrap();
    assert!(alive.is_alive());
    stopped.iter().for_each(|worker| worker.signal(Signal::SIGSTOP));
    for _ in 0..8 {
        ktrix.get("/").expect_status(200);
    }
    stopped.iter().for_each(|worker| worker.signal(Signal::SIGCONT));
    assert!(manager.stored().iter().all(|name| !name.starts_with("listen")), "it is the unit's");
}

#[test]
fn the_manager_keeps_a_socket_as_long_as_a_listener_names_it() {
    let origin = origin();
    let plan = Plan::new(&origin);
    let Address::Ip(first) = plan.address else { unreachable!() };
    let path = plan.dir().join("ktrix.sock");
    plan.put("listen", &format!("[\"{first}\", \"unix:{}\"]", path.display()));
    let manager = Supervisor::of(&plan);
    let ktrix = manager.start(&plan, 0, &[]);
    let n_unix = || manager.stored().iter().filter(|it| it.starts_with("listen-unix-")).count();
    until_true("the stored socket", || n_unix() == 1);
    plan.put("listen", &format!("[\"{first}\"]"));
    plan.write_config();
    ktrix.signal(Signal::SIGHUP);
    until_true("the removed socket", || n_unix() == 0);
    ktrix.stop();
    assert!(!manager.stored().is_empty(), "those of TCP are there for the next start");
}
