//! A whole ktrix with many objects.
//!
//! `cargo bench --bench daemon -- churn` sends a million distinct URLs through a cache of a hundred
//! thousand objects, and fails if it leaves its bounds or slows down: the last tenth must be at
//! least 0.8 times as fast as the first, by the clock or by the processor time of ktrix, which also
//! holds on a machine that others use. `cargo bench --bench daemon -- restart` starts ktrix on a
//! million objects, most of them sparse files, after a clean stop and after a crash, and fails if
//! it does not answer within a second. `cargo bench --bench daemon -- answers` prints how many stored
//! and how many proxied answers one worker and two workers give in a second, by the clock and for each
//! second on a processor; clients and origin are threads of the benchmark, so that the clock says
//! little on a machine of few processors. `cargo bench --bench daemon -- persistent 20` has a client of
//! the forward proxy load 20 pages of many small objects, with pauses of 0.25 and 0.75 s, once with a
//! connection for each object and then with persistent connections that end after 0.5 and 1 s without a
//! request. A number after the word replaces the million, and `KTRIX_BENCH_BINARY` names another build to
//! measure.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ktrix::cache::files::store::Store;
use ktrix::cache::index::Index;
use ktrix::cache::index::slot::{NewSlot, State};
use ktrix::policy::key::{Key, key_of};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let n = words.get(1).and_then(|it| it.parse().ok()).unwrap_or(1_000_000);
    match words.first().map(String::as_str) {
        Some("churn") => churn(n),
        Some("restart") => restart(n),
        Some("answers") => answers(n),
        Some("persistent") => persistent(n),
        _ => println!("name one of: churn, restart, answers, persistent"),
    }
}

/// Distinct URLs through a cache of a tenth as many objects.
fn churn(n_urls: usize) {
    let place = Place::new();
    let n_objects = n_urls / 10;
    // A page takes a block, so that bytes are the limit before objects are.
    let size_bytes = n_objects as u64 * 4096 / 10 * 9;
    let more = format!("size: {size_bytes} B, objects: {n_objects}, admission: off");
    let ktrix = Ktrix::start(&place, &more);
    ask(&mut connect(place.address), &[REAL], Vec::new());
    let index = Index::open_existing(&place.cache()).expect("the index");
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut most = (0, 0);
    let begun = Instant::now();
    let mut tenths = Vec::new();
    let (mut work, work_at_first) = (Vec::new(), ktrix.work());
    std::thread::scope(|scope| {
        for _ in 0..N_CLIENTS {
            scope.spawn(|| ask_all(place.address, &next, n_urls));
        }
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                most = (index.objects().max(most.0), index.bytes().max(most.1));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for tenth in 1..=10 {
            while next.load(Ordering::Relaxed) < n_urls * tenth / 10 {
                std::thread::sleep(Duration::from_millis(1));
            }
            tenths.push(begun.elapsed());
            work.push(ktrix.work());
            let took = tenths.len().checked_sub(2).map_or(Duration::ZERO, |at| tenths[at]);
            let rate = n_urls as f64 / 10.0 / (tenths[tenth - 1] - took).as_secs_f64();
            println!("tenth {tenth:2}: {rate:8.0} requests/s, {} objects", index.objects());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let first = tenths[0].as_secs_f64();
    let last = (tenths[9] - tenths[8]).as_secs_f64();
    let ratio = first / last;
    let (objects, bytes) = most;
    println!("at most {objects} of {n_objects} objects, {bytes} of {size_bytes} bytes");
    let work_ratio = (work[0] - work_at_first) as f64 / (work[9] - work[8]).max(1) as f64;
    println!("the last tenth ran at {ratio:.2} of the speed of the first");
    println!("and at {work_ratio:.2} of it by the time on processors");
    drop(ktrix);
    assert!(objects <= n_objects as u64 && bytes <= size_bytes / 20 * 21, "out of bounds");
    assert!(objects >= n_objects as u64 / 10 * 8, "it was never full");
    assert!(ratio.max(work_ratio) >= 0.8, "it slows down");
}

/// The time from the start of the program to the first hit.
fn restart(n_objects: usize) {
    let place = Place::new();
    let begun = Instant::now();
    fill(&place, n_objects);
    println!("made {n_objects} objects in {:.1} s", begun.elapsed().as_secs_f64());
    let more = format!("size: 100 GiB, objects: {n_objects}, scrub: 0 B");
    // One of them is a complete one.
    {
        let _ktrix = Ktrix::start(&place, &more);
        ask(&mut connect(place.address), &[REAL], Vec::new());
    }
    for how in ["a clean stop", "a crash"] {
        let begun = Instant::now();
        let ktrix = Ktrix::start(&place, &more);
        let mut client = connect(place.address);
        let accepts = begun.elapsed();
        let (answer, _) = ask(&mut client, &[REAL], Vec::new());
        let first_hit = begun.elapsed();
        assert!(answer.windows(4).any(|it| it == b"hit;"), "{}", String::from_utf8_lossy(&answer));
        println!(
            "after {how}: accepts after {:.0} ms, first hit after {:.0} ms",
            accepts.as_secs_f64() * 1e3,
            first_hit.as_secs_f64() * 1e3
        );
        if how == "a clean stop" {
            ktrix.crash();
        }
        assert!(first_hit < Duration::from_secs(1), "it takes too long");
    }
}

/// The rate of answers of one worker and of two.
fn answers(n_asked: usize) {
    for n_workers in [1, 2] {
        for (what, target, n_at_once) in [
            ("stored, one request at a time", "/stored", 1),
            ("stored, 16 requests at once", "/stored", 16),
            ("proxied, one request at a time", "/passed", 1),
        ] {
            let place = Place::new();
            let ktrix = Ktrix::start_with(&place, "size: 1 GiB", n_workers);
            ask(&mut connect(place.address), &[target], Vec::new());
            let next = AtomicUsize::new(0);
            let (begun, work_before) = (Instant::now(), ktrix.work());
            std::thread::scope(|scope| {
                for _ in 0..N_CLIENTS {
                    scope.spawn(|| {
                        let mut client = connect(place.address);
                        let (targets, mut buf) = (vec![target; n_at_once], Vec::new());
                        while next.fetch_add(n_at_once, Ordering::Relaxed) < n_asked {
                            buf = ask(&mut client, &targets, buf).0;
                        }
                    });
                }
            });
            let (took_s, n) = (begun.elapsed().as_secs_f64(), next.load(Ordering::Relaxed) as f64);
            // clock(3): the kernel counts in hundredths of a second.
            let work_s = (ktrix.work() - work_before).max(1) as f64 / 100.0;
            let (by_clock, by_work) = (n / took_s, n / work_s);
            println!(
                "workers {n_workers}, {what:32}{by_clock:8.0}/s, {by_work:8.0} in a processor second"
            );
        }
    }
}

/// The time that pages of small objects take through the forward proxy, by the life of connections.
fn persistent(n_pages: usize) {
    const N_OBJECTS: usize = 40;
    for (what, target, idle) in [
        ("a connection for each object", "/close", "1s"),
        ("persistent, 0.5 s", "/", "500ms"),
        ("persistent, 1 s", "/", "1s"),
    ] {
        let place = Place::new();
        let text = format!(
            "listen: [{{address: \"{}\", mode: forward}}]\nforward: {{deny: off, ports: [{}]}}\n\
             timeouts: {{client-idle: {idle}}}\nlog: {{error: {}}}\n",
            place.address,
            place.origin.port(),
            place.dir.join("error.log").display(),
        );
        let ktrix = Ktrix::run(&place, &text);
        drop(connect(place.address));
        let n_before = N_ORIGIN_CONNECTIONS.load(Ordering::Relaxed);
        let work_before = ktrix.work();
        let (mut loading, mut n_connections, mut client) = (Duration::ZERO, 0, None);
        let url = format!("http://{}{target}", place.origin);
        let mut buf = Vec::new();
        for page in 0..n_pages {
            std::thread::sleep(Duration::from_millis(if page % 2 == 0 { 250 } else { 750 }));
            let begun = Instant::now();
            for _ in 0..N_OBJECTS {
                let mut connection = client.take().filter(is_open).unwrap_or_else(|| {
                    n_connections += 1;
                    connect(place.address)
                });
                buf = ask(&mut connection, &[&url], buf).0;
                client = (target == "/").then_some(connection);
            }
            loading += begun.elapsed();
        }
        let n_objects = n_pages * N_OBJECTS;
        println!(
            "{what:30}{:7.0} us an object, {:5.1} ms of processor time, {n_connections} connections of \
             the client and {} of the origin for {n_objects} objects",
            loading.as_secs_f64() * 1e6 / n_objects as f64,
            (ktrix.work() - work_before) as f64 * 10.0,
            N_ORIGIN_CONNECTIONS.load(Ordering::Relaxed) - n_before,
        );
    }
}

/// Whether ktrix has not closed a connection on which nothing is to come.
fn is_open(client: &TcpStream) -> bool {
    client.set_nonblocking(true).expect("a socket");
    let peeked = client.peek(&mut [0]);
    client.set_nonblocking(false).expect("a socket");
    peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// A directory, an origin and a port.
struct Place {
    dir: PathBuf,
    address: SocketAddr,
    origin: SocketAddr,
}

impl Place {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("ktrix-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        Self { dir, address: free.expect("a port"), origin: origin() }
    }

    fn cache(&self) -> PathBuf {
        self.dir.join("cache")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

struct Ktrix(Child);

impl Ktrix {
    fn start(place: &Place, cache: &str) -> Self {
        Self::start_with(place, cache, 2)
    }

    fn start_with(place: &Place, cache: &str, n_workers: usize) -> Self {
        let text = format!(
            "listen: [\"{}\"]\nworkers: {n_workers}\nlog: {{error: {}}}\ncache: {{path: {}, {cache}}}\n\
             upstream: \"{}\"\nsites: [{{routes: [{{path: /}}, {{path: /passed, cache: off}}]}}]\n",
            place.address,
            place.dir.join("error.log").display(),
            place.cache().display(),
            place.origin
        );
        Self::run(place, &text)
    }

    /// Starts it with this configuration.
    fn run(place: &Place, config_text: &str) -> Self {
        let config = place.dir.join("ktrix.yaml");
        std::fs::write(&config, config_text).expect("a configuration");
        let binary = std::env::var_os("KTRIX_BENCH_BINARY");
        let ktrix = Command::new(binary.unwrap_or(env!("CARGO_BIN_EXE_ktrix").into()))
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .expect("ktrix can be started");
        Self(ktrix)
    }

    /// The pids of the workers and the keeper.
    fn children(&self) -> String {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        std::fs::read_to_string(children).unwrap_or_default()
    }

    /// The processor time of its children, in clock ticks.
    fn work(&self) -> u64 {
        let ticks = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (_, rest) = stat.rsplit_once(')')?;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        };
        self.children().split_whitespace().filter_map(ticks).sum()
    }

    /// Ends the master and its children at once.
    fn crash(mut self) {
        let children = self.children();
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = Command::new("kill")
            .arg("-9")
            .args(children.split_whitespace())
            .stderr(Stdio::null())
            .status();
        // The next ktrix has to answer, not the rest of this one.
        let is_there = |pid: &str| Path::new("/proc").join(pid).join("exe").read_link().is_ok();
        while children.split_whitespace().any(is_there) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for Ktrix {
    fn drop(&mut self) {
        // After a crash there is no process to stop.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.0.id().to_string()).status();
            let _ = self.0.wait();
        }
    }
}

/// An origin with an answer for every request; it closes the connection after one for `/close`.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = |more: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=9999\r\n{more}Content-Length: {}\r\n\r\n{BODY}",
            BODY.len()
        )
    };
    let answers = (answer(""), answer("Connection: close\r\n"));
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            N_ORIGIN_CONNECTIONS.fetch_add(1, Ordering::Relaxed);
            let (answer, last_answer) = answers.clone();
            std::thread::spawn(move || {
                let (mut buf, mut n_kept) = (vec![0; 64 << 10], 0);
                while let Ok(n @ 1..) = socket.read(&mut buf[n_kept..]) {
                    if buf.starts_with(b"GET /close ") && buf[..n_kept + n].ends_with(b"\r\n\r\n") {
                        let _ = socket.write_all(last_answer.as_bytes());
                        break;
                    }
                    let n_asked =
                        buf[..n_kept + n].windows(4).filter(|it| it == b"\r\n\r\n").count();
                    // A head that came in parts is put together.
                    n_kept = if n_asked == 0 { n_kept + n } else { 0 };
                    if socket.write_all(answer.repeat(n_asked).as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// Connects as soon as ktrix listens.
fn connect(address: SocketAddr) -> TcpStream {
    loop {
        if let Ok(client) = TcpStream::connect(address)
            // A local port without a listener may be connected to itself.
            && client.local_addr().ok() != client.peer_addr().ok()
        {
            return client;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Takes numbers from `next` and asks for the pages of these numbers until there are enough.
fn ask_all(address: SocketAddr, next: &AtomicUsize, n_urls: usize) {
    let mut client = connect(address);
    let mut buf = Vec::new();
    loop {
        let first = next.fetch_add(BATCH, Ordering::Relaxed);
        if first >= n_urls {
            return;
        }
        let targets: Vec<String> = (first..first + BATCH).map(|n| format!("/{n}")).collect();
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        buf = ask(&mut client, &targets, buf).0;
    }
}

/// Sends requests for these pages at once and waits for all answers.
fn ask(client: &mut TcpStream, targets: &[&str], mut buf: Vec<u8>) -> (Vec<u8>, usize) {
    let asks: String =
        targets.iter().map(|it| format!("GET {it} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).collect();
    client.write_all(asks.as_bytes()).expect("ktrix reads");
    buf.clear();
    let mut part = [0; 64 << 10];
    let mut n_answers = 0;
    while n_answers < targets.len() {
        let n = client.read(&mut part).expect("ktrix answers");
        assert!(n > 0, "ktrix closed the connection");
        let from = buf.len().saturating_sub(END.len() - 1);
        buf.extend_from_slice(&part[..n]);
        n_answers += buf[from..].windows(END.len()).filter(|it| *it == END).count();
    }
    (buf, n_answers)
}

/// An index of this many objects, with sparse files of the right length.
fn fill(place: &Place, n_objects: usize) {
    let dir = place.cache();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o750).create(&dir).expect("a cache directory");
    let (index, _) = Index::open(&dir, n_objects).expect("an index");
    index.attach().expect("a row");
    let store = Store::open(&dir, index.epoch()).expect("a store");
    for fan in 0..256 {
        std::fs::create_dir_all(dir.join(format!("{fan:02x}"))).expect("a directory");
    }
    for n in 1..n_objects as u64 * 15 / 16 {
        let key = key_of(&n.to_le_bytes());
        sparse(&store.path(&key), 8_300);
        index.publish(&slot(key)).expect("published");
    }
    index.table().set_complete();
    assert!(index.mark_clean().expect("marked"));
}

fn now_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn sparse(path: &Path, len: u64) {
    File::create(path).and_then(|file| file.set_len(len)).expect("a sparse file");
}

fn slot(key: Key) -> NewSlot {
    NewSlot {
        key,
        state: State::Ready,
        flags: 0,
        status: 200,
        stored_s: now_s(),
        fresh_until_s: now_s() + 9_999,
        swr_until_s: 0,
        sie_until_s: 0,
        age_s: 0,
        head_len: 300,
        body_len: 8_000,
        stamp: 0,
    }
}

/// The connections that origins have accepted.
static N_ORIGIN_CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

const HOST: &str = "localhost";
const REAL: &str = "/real";
const BODY: &str =
    "a page of some words that is a hundred bytes long or so, and says where it ends ~end\n";
const END: &[u8] = b"~end\n";
const N_CLIENTS: usize = 8;
const BATCH: usize = 16;
