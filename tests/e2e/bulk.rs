//! Bodies of a gibibyte pass in either direction without growth of memory, however slow a client is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::support::process::Seen;
use crate::support::socket::Address;
use crate::support::{Ktrix, Plan, alone};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The bytes of every body: they differ by their place within a prime number of bytes.
fn block() -> Vec<u8> {
    crate::support::pattern(1_048_573)
}

/// Writes a body.
fn pour(to: &mut impl Write, len: u64) {
    let block = block();
    let mut left = len;
    while left > 0 {
        let part = left.min(block.len() as u64) as usize;
        to.write_all(&block[..part]).expect("write a body");
        left -= part as u64;
    }
}

/// Reads a body to its end and compares it; each mebibyte of it takes a token, if there are any.
fn drain(from: &mut impl Read, len: u64, tokens: Option<&Receiver<()>>) {
    let (block, mut buf, mut at) = (block(), vec![0; MIB as usize], 0);
    while at < len {
        if let Some(tokens) = tokens {
            // The last token is followed by as many as are needed.
            let _ = tokens.recv();
        }
        let place = (at % block.len() as u64) as usize;
        let room = (len - at).min((block.len() - place) as u64) as usize;
        let n_read = from.read(&mut buf[..room]).expect("read a body");
        assert!(n_read > 0, "the body ends at {at}");
        assert!(buf[..n_read] == block[place..place + n_read], "other bytes at {at}");
        at += n_read as u64;
    }
}

/// A head, byte by byte, so that nothing behind it is read.
fn head(from: &mut impl Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("a head of ASCII").to_lowercase()
}

fn content_length(head: &str) -> u64 {
    let value = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    value.map_or(0, |value| value.parse().expect("a length"))
}

/// An origin that takes a body of any length, and answers with one whose length is the target's.
fn origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind the origin's port");
    let address = listener.local_addr().expect("its address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            thread::spawn(move || {
                let mut first = [0];
                while stream.peek(&mut first).is_ok_and(|n| n > 0) {
                    let head = head(&mut stream);
                    drain(&mut stream, content_length(&head), None);
                    let len: u64 = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
                    stream.write_all(answer.as_bytes()).expect("write a head");
                    pour(&mut stream, len);
                }
            });
        }
    });
    address
}

fn plan(route: &str) -> Plan {
    Plan::to(&format!("{{servers: [\"{}\"]}}", origin()))
        .set("sites", &format!("[{{routes: [{{path: /, upstream: app, cache: off{route}}}]}}]"))
        .set("limits", "{bodies: 8 GiB}")
}

/// Memory of all processes, each shared page counted once.
fn memory(ktrix: &Ktrix<'_>) -> u64 {
    ktrix.living().into_iter().map(Seen::pss_bytes).sum()
}

/// Runs a conversation, and fails if the memory of all processes grows by 32 MiB meanwhile. Each of the
/// first measurements gives it a token.
fn watched(plan: &Plan, n_tokens: usize, talk: impl FnOnce(TcpStream, Receiver<()>) + Send) {
    let ktrix = plan.start();
    let Address::Ip(address) = plan.address else { unreachable!() };
    let connect = || TcpStream::connect(address).expect("connect");
    ask(&mut connect(), 10, 10, None);
    let before = memory(&ktrix);
    let (sender, tokens) = mpsc::sync_channel(0);
    let most = thread::scope(|scope| {
        let talking = scope.spawn(|| talk(connect(), tokens));
        let mut most = before;
        for _ in 0..n_tokens {
            most = most.max(memory(&ktrix));
            let _ = sender.send(());
        }
        drop(sender);
        while !talking.is_finished() {
            most = most.max(memory(&ktrix));
        }
        most
    });
    let grown = most - before;
    println!("{} KiB more", grown >> 10);
    assert!(grown < 32 * MIB, "{} MiB more", grown / MIB);
    ktrix.stop();
}

/// One request with a body of `up` bytes, answered by one of `down` bytes.
fn ask(stream: &mut TcpStream, up: u64, down: u64, tokens: Option<&Receiver<()>>) {
    let request = format!("POST /{down} HTTP/1.1\r\nHost: a\r\nContent-Length: {up}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("write a request");
    pour(stream, up);
    let head = head(stream);
    assert!(head.starts_with("http/1.1 200 ") && content_length(&head) == down, "{head}");
    drain(stream, down, tokens);
}

#[test]
fn a_gibibyte_up_and_one_down_leave_memory_as_it_is() {
    alone();
    let plan = plan(", request-buffering: off");
    watched(&plan, 0, |mut stream, _| ask(&mut stream, GIB, GIB, None));
}

#[test]
fn a_gibibyte_that_is_received_completely_first_is_in_a_file() {
    alone();
    watched(&plan(""), 0, |mut stream, _| ask(&mut stream, GIB, 10, None));
}

#[test]
fn a_slow_reader_leaves_memory_as_it_is() {
    alone();
    for route in ["", ", response-buffering: off", ", limits: {response-file: 50 MiB}"] {
        watched(&plan(route), 100, |mut stream, tokens| {
            ask(&mut stream, 10, GIB / 4, Some(&tokens));
        });
    }
}
