//! Listeners, connects and other descriptors.

use std::cell::Cell;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::reactor::address::{Address, PeerAddress};
use crate::reactor::connect::{connect, connect_first};
use crate::reactor::listener::Listener;
use crate::reactor::readable::Readable;
use crate::reactor::timer::{deadline, timeout};
use crate::reactor::{counts, spawn, spawn_task};

fn listening() -> (Listener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (Listener::from_fd(socket.into()).unwrap(), address)
}

#[test]
fn a_burst_of_connections_is_accepted_whole() {
    run(async {
        let (listener, address) = listening();
        let clients = std::thread::spawn(move || {
            (0..500)
                .map(|_| {
                    let mut client = TcpStream::connect(address).unwrap();
                    client.write_all(b"x").unwrap();
                    client
                })
                .collect::<Vec<_>>()
        });
        let n_served = Rc::new(Cell::new(0));
        for _ in 0..500 {
            let (stream, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip(), Some(address.ip()));
            let n_served = Rc::clone(&n_served);
            spawn(async move {
                let until = deadline(Duration::from_secs(10));
                assert_eq!(stream.read(&mut [0; 8], until).await.unwrap(), 1);
                n_served.set(n_served.get() + 1);
            });
        }
        drop(clients.join().unwrap());
        while n_served.get() < 500 {
            settle().await;
        }
        assert_eq!(listener.local_addr().unwrap(), Some(address));
    });
}

#[test]
fn a_dropped_listener_frees_its_slot_though_others_share_it() {
    run(async {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let shared = socket.try_clone().unwrap();
        let n_sources = counts().n_sources;
        let listener = Listener::from_fd(socket.into()).unwrap();
        assert!(timeout(Duration::from_millis(2), listener.accept()).await.is_err());
        assert_eq!(counts().n_sources, n_sources + 1);
        drop(listener);
        assert_eq!(counts().n_sources, n_sources);
        let _client = TcpStream::connect(address).unwrap();
        let again = Listener::from_fd(shared.into()).unwrap();
        again.accept().await.unwrap();
    });
}

#[test]
fn a_connection_is_made_both_ways() {
    run(async {
        let (listener, address) = listening();
        let server = spawn_task(async move {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay().unwrap();
            let mut buf = [0; 16];
            let n = stream.read(&mut buf, 0).await.unwrap();
            stream.write_all(&buf[..n], 0).await.unwrap();
        });
        let until = deadline(Duration::from_secs(5));
        let stream = connect(&Address::Ip(address), until).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), Some(address));
        stream.write_all(b"echo", until).await.unwrap();
        let mut buf = [0; 16];
        assert_eq!(stream.read(&mut buf, until).await.unwrap(), 4);
        server.await;
        assert_eq!(stream.read(&mut buf, until).await.unwrap(), 0);
    });
}

#[test]
fn a_refused_connection_says_so() {
    run(async {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let until = deadline(Duration::from_secs(5));
        let error = connect(&Address::Ip(address), until).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let missing = Address::Unix("/nowhere/at/all".into());
        let error = connect(&missing, until).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_connection_that_is_not_answered_times_out() {
    run(async {
        // A full accept queue drops further connections on Linux: no answer at all.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut fillers = Vec::new();
        for _ in 0..4 {
            let until = deadline(Duration::from_millis(40));
            match connect(&Address::Ip(address), until).await {
                Ok(stream) => fillers.push(stream),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut);
                    return;
                }
            }
        }
        panic!("the queue never filled");
    });
}

#[test]
fn the_first_address_that_accepts_is_connected() {
    run(async {
        let (_listener, good) = listening();
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let silent =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        silent.listen(0).unwrap();
        let full = silent.local_addr().unwrap().as_socket().unwrap();
        let mut fillers = Vec::new();
        while let Ok(stream) =
            connect(&Address::Ip(full), deadline(Duration::from_millis(40))).await
        {
            fillers.push(stream);
        }
        let until = deadline(Duration::from_secs(60));
        for addresses in [&[good][..], &[refusing, good], &[full, good], &[full, refusing, good]] {
            let addresses: Vec<_> = addresses.iter().copied().map(Address::Ip).collect();
            let stream = connect_first(&addresses, until).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), Some(good));
        }
        let none = connect_first(&[], until).await.unwrap_err();
        assert_eq!(none.kind(), ErrorKind::NotFound);
        let refused = connect_first(&[Address::Ip(refusing), Address::Ip(refusing)], until).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn unix_sockets_work_the_same() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let listener = Listener::from_fd(listener.into()).unwrap();
        let server = spawn_task(async move {
            let (stream, peer) = listener.accept().await.unwrap();
            assert_eq!(peer, PeerAddress::Unix);
            stream.set_nodelay().unwrap();
            stream.write_all(&[9; 1_000_000], 0).await.unwrap();
        });
        let until = deadline(Duration::from_secs(10));
        let stream = connect(&Address::Unix(path), until).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), None);
        let (mut buf, mut n_read) = (vec![0; 30_000], 0);
        loop {
            match stream.read(&mut buf, until).await.unwrap() {
                0 => break,
                n => n_read += n,
            }
        }
        assert_eq!(n_read, 1_000_000);
        server.await;
    });
}

#[test]
fn a_full_unix_listener_is_tried_again() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let address = socket2::SockAddr::unix(&path).unwrap();
        let socket =
            socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.bind(&address).unwrap();
        socket.listen(0).unwrap();
        let target = Address::Unix(path);
        let _first = connect(&target, 0).await.unwrap();
        let late = connect(&target, deadline(Duration::from_millis(10))).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
        let second = spawn_task(async move { connect(&target, 0).await.is_ok() });
        settle().await;
        let listener = Listener::from_fd(socket.into()).unwrap();
        listener.accept().await.unwrap();
        assert!(second.await);
    });
}

#[test]
fn any_descriptor_can_be_waited_for() {
    run(async {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let readable = Readable::new(ours);
        assert!(timeout(Duration::from_millis(3), readable.readable()).await.is_err());
        for _ in 0..3 {
            theirs.write_all(b"x").unwrap();
            timeout(Duration::from_secs(2), readable.readable()).await.unwrap().unwrap();
            let mut from = readable.fd();
            assert_eq!(from.read(&mut [0; 8]).unwrap(), 1);
        }
        drop(theirs);
        timeout(Duration::from_secs(2), readable.readable()).await.unwrap().unwrap();
        let n_sources = counts().n_sources;
        drop(readable);
        assert_eq!(counts().n_sources, n_sources - 1);
    });
}

#[test]
fn bytes_from_before_the_first_wait_are_seen() {
    run(async {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"x").unwrap();
        let readable = Readable::new(ours);
        timeout(Duration::from_secs(2), readable.readable()).await.unwrap().unwrap();
    });
}

#[test]
fn a_plain_file_cannot_be_waited_for() {
    run(async {
        let readable = Readable::new(tempfile::tempfile().unwrap());
        assert!(readable.readable().await.is_err());
    });
}
