//! Many clients at once: a steady load that counts every failure and stall, and a burst of
//! connections with one request each.

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::client::{Answer, Ask, Client};
use super::message::Broken;
use super::quiet;
use super::socket::Address;

/// A steady load: threads that send one request after another.
pub struct Load {
    is_over: Arc<AtomicBool>,
    n_answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Report>>,
}

/// The results of a load.
#[derive(Debug, Default)]
pub struct Report {
    /// Correct answers.
    pub n_ok: usize,
    /// Wrong answers: an unexpected status or body.
    pub wrong: Vec<String>,
    /// Connections that ended with a request on the way.
    pub cut: Vec<String>,
    /// The longest time from a request to the end of its answer.
    pub longest: Duration,
    /// `User-Agent` of every request that was answered, for comparing with a log.
    pub answered: Vec<String>,
}

impl Load {
    /// Starts `n` clients on keep-alive connections. `ask` makes request number `i` of client `c`,
    /// `judge` returns the fault of its answer.
    pub fn start(
        address: &Address,
        n: usize,
        ask: impl Fn(usize, usize) -> Ask + Send + Sync + 'static,
        judge: impl Fn(&Ask, &Answer) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let n_answered = Arc::new(AtomicUsize::new(0));
        let (ask, judge) = (Arc::new(ask), Arc::new(judge));
        let threads = (0..n)
            .map(|client| {
                let (address, is_over) = (address.clone(), Arc::clone(&is_over));
                let (ask, judge) = (Arc::clone(&ask), Arc::clone(&judge));
                let n_answered = Arc::clone(&n_answered);
                let run = move || {
                    let mut report = Report::default();
                    let mut link = None;
                    let mut i = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        let ask = ask(client, i);
                        if report.step(&address, &mut link, &ask, &*judge) {
                            n_answered.fetch_add(1, Ordering::Relaxed);
                        }
                        i += 1;
                    }
                    report
                };
                thread::Builder::new().stack_size(256 * 1024).spawn(run).expect("a load thread")
            })
            .collect();
        Self { is_over, n_answered, threads }
    }

    /// Requests `paths` in turn; each of them always has the same body.
    pub fn of_pages(address: &Address, n: usize, paths: Vec<(String, Arc<[u8]>)>) -> Self {
        let bodies: HashMap<String, Arc<[u8]>> = paths.iter().cloned().collect();
        let ask = move |client: usize, i: usize| {
            let (path, _) = &paths[(client * 7 + i) % paths.len()];
            Ask::get(path).field("User-Agent", format!("load-{client}-{i}"))
        };
        Self::start(address, n, ask, move |ask, answer| {
            let body = bodies.get(ask.target()).map_or(&[][..], |body| body);
            match (answer.status, answer.body == body) {
                (200, true) => Ok(()),
                (status, _) => Err(format!(
                    "{}: {status}, {} bytes, not {}: {}",
                    ask.target(),
                    answer.body.len(),
                    body.len(),
                    answer.text().chars().take(80).collect::<String>()
                )),
            }
        })
    }

    /// Answers so far.
    pub fn n_answered(&self) -> usize {
        self.n_answered.load(Ordering::Relaxed)
    }

    /// Ends the load after the current requests.
    pub fn stop(self) -> Report {
        self.is_over.store(true, Ordering::Relaxed);
        let mut sum = Report::default();
        for thread in self.threads {
            let one = thread.join().expect("a load thread");
            sum.n_ok += one.n_ok;
            sum.wrong.extend(one.wrong);
            sum.cut.extend(one.cut);
            sum.longest = sum.longest.max(one.longest);
            sum.answered.extend(one.answered);
        }
        sum
    }
}

impl Report {
    /// One request; true if a whole answer came.
    fn step(
        &mut self,
        address: &Address,
        link: &mut Option<Client>,
        ask: &Ask,
        judge: &dyn Fn(&Ask, &Answer) -> Result<(), String>,
    ) -> bool {
        let start = Instant::now();
        let is_new = link.is_none();
        if is_new {
            match Client::try_connect(address) {
                Ok(client) => *link = Some(client),
                Err(e) => {
                    self.cut.push(format!("connect: {e}"));
                    thread::sleep(Duration::from_millis(10));
                    return false;
                }
            }
        }
        let Some(client) = link else { return false };
        let outcome = client.try_ask(ask);
        match outcome {
            Ok(answer) => {
                self.longest = self.longest.max(start.elapsed());
                self.answered.extend(ask.agent().map(str::to_owned));
                match judge(ask, &answer) {
                    Ok(()) => self.n_ok += 1,
                    Err(why) => self.wrong.push(why),
                }
                if answer.field("connection").is_some_and(|v| v.eq_ignore_ascii_case("close")) {
                    *link = None;
                }
                true
            }
            // The server may close an idle connection at any time; the request was not processed.
            Err(Broken::Closed) if !is_new => {
                *link = None;
                self.step(address, link, ask, judge)
            }
            Err(broken) => {
                self.cut.push(format!("{broken:?}"));
                *link = None;
                false
            }
        }
    }

    #[track_caller]
    pub fn expect_faultless(&self) {
        assert!(self.n_ok > 0, "no request was answered: {self:?}");
        assert!(self.wrong.is_empty(), "{} wrong: {:?}", self.wrong.len(), first(&self.wrong));
        assert!(self.cut.is_empty(), "{} cut: {:?}", self.cut.len(), first(&self.cut));
    }
}

fn first(all: &[String]) -> &[String] {
    &all[..all.len().min(5)]
}

/// The answers of a burst, by status; other results, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Burst {
    pub by_status: BTreeMap<u16, usize>,
    pub failed: BTreeMap<String, usize>,
    pub took: Duration,
}

/// Connects `n` clients at once; each sends `request`, gets an answer with `Content-Length`, and
/// closes. All connections exist at the same time.
pub fn burst(address: SocketAddr, n: usize, request: &[u8], limit: Duration) -> Burst {
    quiet::share();
    let start = Instant::now();
    let mut result = Burst::default();
    let mut poll = Poll::new().expect("epoll");
    let mut events = Events::with_capacity(1024);
    let mut open = HashMap::new();
    for i in 0..n {
        match TcpStream::connect(address) {
            Ok(mut stream) => {
                let both = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut stream, Token(i), both).expect("register");
                open.insert(i, One { stream, sent: 0, got: Vec::new(), result: None });
            }
            Err(e) => *result.failed.entry(format!("connect: {e}")).or_default() += 1,
        }
    }
    // No client closes before the last is served: all are connected at once.
    let mut waiting = open.len();
    while waiting > 0 && start.elapsed() < limit {
        poll.poll(&mut events, Some(Duration::from_millis(200))).expect("poll");
        for event in &events {
            let Some(one) = open.get_mut(&event.token().0) else { continue };
            if one.result.is_none() {
                one.turn(request);
                waiting -= usize::from(one.result.is_some());
            }
        }
    }
    for one in open.into_values() {
        // A reset leaves no TIME_WAIT, of which there would be tens of thousands.
        let _ = socket2::SockRef::from(&one.stream).set_linger(Some(Duration::ZERO));
        match one.result {
            Some(Ok(status)) => *result.by_status.entry(status).or_default() += 1,
            Some(Err(why)) => *result.failed.entry(why).or_default() += 1,
            None => *result.failed.entry("no answer in time".into()).or_default() += 1,
        }
    }
    result.took = start.elapsed();
    result
}

struct One {
    stream: TcpStream,
    sent: usize,
    got: Vec<u8>,
    result: Option<Result<u16, String>>,
}

impl One {
    fn turn(&mut self, request: &[u8]) {
        self.result = self.try_turn(request).unwrap_or_else(|e| Some(Err(e)));
    }

    fn try_turn(&mut self, request: &[u8]) -> Result<Option<Result<u16, String>>, String> {
        if let Ok(Some(e)) = self.stream.take_error() {
            return Err(format!("connect: {e}"));
        }
        while self.sent < request.len() {
            match self.stream.write(&request[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if would_block(&e) => break,
                Err(e) => return Err(format!("send: {e}")),
            }
        }
        let mut part = [0; 16_384];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return Err(format!("closed after {} bytes", self.got.len())),
                Ok(n) => self.got.extend_from_slice(&part[..n]),
                Err(e) if would_block(&e) => return Ok(None),
                Err(e) => return Err(format!("receive: {e}")),
            }
            if let Some(status) = whole(&self.got) {
                return Ok(Some(Ok(status)));
            }
        }
    }
}

fn would_block(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

/// The status, once head and body are complete.
fn whole(got: &[u8]) -> Option<u16> {
    let end = got.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&got[..end]).ok()?.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?;
    (got.len() >= end + length.parse::<usize>().ok()?).then(|| head.get(9..12)?.parse().ok())?
}
