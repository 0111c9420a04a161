//! A real ktrix: its configuration, its directory, its processes.
//!
//! A [`Plan`] outlives a process: the directory, the port and the configuration. A [`Ktrix`] is a
//! running master with its children; dropping it ends those, and only those.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::{Domain, Type};
use tempfile::TempDir;

use super::client::{Answer, Ask, Client};
use super::origin::Origin;
use super::panics;
use super::process::{self, Seen};
use super::quiet;
use super::socket::Address;
use super::tls;
use super::wait;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_ktrix");

/// The directory and configuration of a ktrix.
pub struct Plan {
    dir: TempDir,
    pub address: Address,
    /// Keeps the port from all sockets without SO_REUSEPORT, which ktrix uses.
    _reservation: socket2::Socket,
    sections: RefCell<Vec<(String, String)>>,
}

impl Plan {
    /// Two workers, a cache, an access log in JSON, and everything routed to this origin.
    pub fn new(origin: &Origin) -> Self {
        Self::to(&format!("{{servers: [\"{}\"]}}", origin.name()))
    }

    /// As [`Plan::new`], with the text of the upstream `app` as given.
    pub fn to(upstream: &str) -> Self {
        quiet::share();
        panics::announce();
        let dir = TempDir::with_prefix("ktrix-test.").expect("a temporary directory");
        let (reservation, ip) = reserve("127.0.0.1:0".parse().expect("an address"));
        tls::authority().write(dir.path(), "ktrix", &["127.0.0.1", "localhost"]);
        tls::unsecure(&ip);
        if tls::is_everywhere() {
            tls::secure(ip);
        }
        let plan = Self {
            dir,
            address: ip.into(),
            _reservation: reservation,
            sections: RefCell::default(),
        };
        plan.set("workers", "2")
            .set("pid", "$DIR/cache/ktrix.pid")
            .set("listen", &listen_at(ip))
            .set("log", "{access: {file: $DIR/access.log, format: json}, error: $DIR/error.log}")
            .set("cache", "{path: $DIR/cache, size: 1 GiB, objects: 10000, memory: 16 MiB}")
            .set("upstreams", &format!("{{app: {upstream}}}"))
            .set("sites", "[{routes: [{path: /, upstream: app}]}]")
    }

    /// The same with TLS: every client of the plan speaks it.
    pub fn with_tls(self) -> Self {
        let Address::Ip(ip) = self.address else { panic!("a plan has an IP address") };
        tls::secure(ip);
        self.set("listen", &listen_at(ip))
    }

    /// Sets a top-level section to this YAML; `$DIR` in it is the directory.
    pub fn set(self, key: &str, yaml: &str) -> Self {
        self.put(key, yaml);
        self
    }

    /// Takes a top-level section away.
    pub fn without(self, key: &str) -> Self {
        self.sections.borrow_mut().retain(|(k, _)| k != key);
        self
    }

    /// As [`Plan::set`], on a plan that is already in use.
    pub fn put(&self, key: &str, yaml: &str) {
        let mut sections = self.sections.borrow_mut();
        sections.retain(|(k, _)| k != key);
        sections.push((key.into(), yaml.into()));
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn cache_dir(&self) -> PathBuf {
        self.dir().join("cache")
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir().join("ktrix.yaml")
    }

    /// The configuration as it is now.
    pub fn config(&self) -> String {
        let mut text = String::new();
        for (key, yaml) in self.sections.borrow().iter() {
            let _ = writeln!(text, "{key}: {yaml}");
        }
        text.replace("$DIR", &self.dir().display().to_string())
    }

    pub fn write_config(&self) {
        fs::write(self.config_path(), self.config()).expect("write the configuration");
    }

    /// The cache's object files: relative paths, sorted.
    pub fn cache_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for shard in dirs(&self.cache_dir()) {
            let name = shard.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.len() == 2 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
                files.extend(fs::read_dir(shard).into_iter().flatten().flatten().map(|e| e.path()));
            }
        }
        files.sort();
        files
    }

    /// The files of unfinished objects in the directory.
    pub fn unfinished_files(&self) -> Vec<PathBuf> {
        let dir = fs::read_dir(self.cache_dir().join("tmp"));
        dir.into_iter().flatten().flatten().map(|e| e.path()).collect()
    }

    /// The access log's lines.
    pub fn access_lines(&self) -> Vec<String> {
        lines(&self.dir().join("access.log"))
    }

    pub fn error_log(&self) -> String {
        let log = fs::read_to_string(self.dir().join("error.log")).unwrap_or_default();
        let err = fs::read_to_string(self.dir().join("stderr")).unwrap_or_default();
        log + &err
    }

    /// Runs `ktrix` with these arguments to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        run(args, self.dir())
    }

    /// Runs `ktrix cache verify` over this cache; panics with its output if it finds a fault.
    #[track_caller]
    pub fn verify_cache(&self) {
        let config = self.config_path();
        let out = self.run(&["cache", "verify", "--config", &config.display().to_string()]);
        assert!(out.status.success(), "ktrix cache verify: {}", text(&out));
    }

    /// Starts ktrix on this plan and waits until it accepts connections.
    pub fn start(&self) -> Ktrix<'_> {
        self.write_config();
        let config = self.config_path().display().to_string();
        self.start_with(&[&config])
    }

    /// As [`Plan::start`], with these arguments instead of the configuration's path.
    pub fn start_with(&self, args: &[&str]) -> Ktrix<'_> {
        self.start_by(Command::new(BINARY).args(args))
    }

    /// As [`Plan::start`], from a shell that has run this before.
    pub fn start_after(&self, shell: &str) -> Ktrix<'_> {
        self.write_config();
        let script = format!("{shell}; exec \"$0\" \"$@\"");
        self.start_by(Command::new("sh").args(["-c", &script, BINARY]).arg(self.config_path()))
    }

    /// As [`Plan::start`], in a process group of its own.
    pub fn start_in_group(&self) -> Ktrix<'_> {
        self.write_config();
        self.start_by(Command::new(BINARY).arg(self.config_path()).process_group(0))
    }

    /// As [`Plan::start`], by this command.
    pub fn start_by(&self, command: &mut Command) -> Ktrix<'_> {
        let file = |name| {
            let path = self.dir().join(name);
            File::options().append(true).create(true).open(path).expect("a file for its output")
        };
        let child = command
            .current_dir(self.dir())
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("start ktrix");
        let master = Seen::now(child.id().cast_signed()).expect("the master's start time");
        let ktrix = Ktrix {
            plan: self,
            master,
            child: RefCell::new(child),
            known: RefCell::new(BTreeSet::new()),
        };
        ktrix.wait_ready();
        ktrix
    }
}

fn listen_at(ip: SocketAddr) -> String {
    match tls::is_secured(&ip) {
        true => format!("[{{address: \"{ip}\", tls: {{certificates: {CERTIFICATE}}}}}]"),
        false => format!("[\"{ip}\"]"),
    }
}

/// The certificate that every plan has in its directory.
pub const CERTIFICATE: &str = "{certificate: $DIR/ktrix.pem, key: $DIR/ktrix.key}";

/// A running ktrix.
pub struct Ktrix<'a> {
    pub plan: &'a Plan,
    pub master: Seen,
    child: RefCell<Child>,
    /// Every child, and child's child, that was ever seen, so that all can be ended at the end.
    known: RefCell<BTreeSet<Seen>>,
}

impl Ktrix<'_> {
    fn wait_ready(&self) {
        wait::until("ktrix to accept connections", wait::PATIENCE, || {
            if let Some(status) = self.exit_status() {
                panic!(
                    "ktrix ended at once: {status}\n{}\n{}",
                    self.plan.config(),
                    self.plan.error_log()
                );
            }
            self.children();
            Client::try_connect(&self.plan.address).ok()
        });
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::of_ktrix(&self.plan.address)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.client().get(target)
    }

    #[track_caller]
    pub fn ask(&self, ask: &Ask) -> Answer {
        self.client().ask(ask)
    }

    /// Requests until the answer is a stored one: the end of a fill and its publication are not the
    /// same moment.
    #[track_caller]
    pub fn wait_hit(&self, target: &str) -> Answer {
        wait::until(&format!("a hit for {target}"), wait::PATIENCE, || {
            let answer = self.get(target);
            answer.is_hit().then_some(answer)
        })
    }

    /// Living children of the master: workers and the keeper.
    pub fn children(&self) -> Vec<Seen> {
        let children = process::children(self.master.pid);
        let mut known = self.known.borrow_mut();
        for child in &children {
            known.extend(process::children(child.pid));
        }
        known.extend(children.iter().copied());
        children
    }

    /// Living workers, by the name of each process.
    pub fn workers(&self) -> Vec<Seen> {
        let mut workers = self.children();
        workers.retain(|child| child.name().contains("worker"));
        workers
    }

    /// Waits until the master has this many children.
    pub fn wait_children(&self, n: usize) -> Vec<Seen> {
        wait::until(&format!("{n} children"), wait::PATIENCE, || {
            let children = self.children();
            (children.len() == n).then_some(children)
        })
    }

    /// Sends the master a signal.
    pub fn signal(&self, signal: Signal) {
        self.master.signal(signal);
    }

    /// How the master ended, if it did.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.borrow_mut().try_wait().expect("wait for ktrix")
    }

    /// Waits for the master's end.
    pub fn wait_exit(&self) -> ExitStatus {
        wait::until("the master to end", Duration::from_secs(40), || self.exit_status())
    }

    /// Waits until all its processes are gone.
    pub fn wait_gone(&self) {
        wait::until("all processes of ktrix to end", Duration::from_secs(40), || {
            self.living().is_empty().then_some(())
        });
    }

    /// Every process of this ktrix that still lives.
    pub fn living(&self) -> Vec<Seen> {
        self.children();
        let known = self.known.borrow();
        known.iter().chain([&self.master]).copied().filter(|p| p.is_alive()).collect()
    }

    /// Stops it as a service manager would, and waits for the end of all its processes.
    pub fn stop(self) {
        self.children();
        self.signal(Signal::SIGTERM);
        self.wait_exit();
        self.wait_gone();
    }

    /// Waits for a text in the error log.
    pub fn wait_error(&self, part: &str) -> String {
        wait::until(&format!("{part:?} in the error log"), wait::PATIENCE, || {
            let log = self.plan.error_log();
            log.lines().find(|line| line.contains(part)).map(str::to_owned)
        })
    }

    /// Waits until the access log has this many lines, or more.
    pub fn wait_access_lines_at_least(&self, n: usize) {
        wait::until_true(&format!("{n} lines in the access log"), || {
            self.plan.access_lines().len() >= n
        });
    }

    /// Waits until the access log has `n` lines, and checks that there are no more.
    pub fn wait_access_lines(&self, n: usize) -> Vec<String> {
        wait::until(&format!("{n} lines in the access log"), wait::PATIENCE, || {
            let lines = self.plan.access_lines();
            assert!(lines.len() <= n, "{} lines, not {n}: {:?}", lines.len(), lines.last());
            (lines.len() == n).then_some(lines)
        })
    }
}

impl Drop for Ktrix<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("-- configuration --\n{}", self.plan.config());
            eprintln!("-- access log --\n{}", tail(&self.plan.access_lines().join("\n"), 10));
            eprintln!("-- error log --\n{}", tail(&self.plan.error_log(), 40));
        }
        self.children();
        if self.exit_status().is_none() {
            self.signal(Signal::SIGTERM);
            let deadline = std::time::Instant::now() + Duration::from_secs(3);
            while self.exit_status().is_none() && std::time::Instant::now() < deadline {
                self.children();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        for process in self.living() {
            process.signal(Signal::SIGKILL);
        }
        let _ = self.child.borrow_mut().wait();
    }
}

/// Runs ktrix with these arguments to its end.
pub fn run(args: &[&str], dir: &Path) -> Output {
    Command::new(BINARY)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("run ktrix")
}

/// Both outputs of a command, as text.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

/// A free port, held by a socket that never listens.
pub fn reserve(address: SocketAddr) -> (socket2::Socket, SocketAddr) {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&address.into()).expect("a free port");
    let bound = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("its address");
    (socket, bound)
}

/// Whole lines of a file; none if it is not there.
pub fn lines(path: &Path) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    // A line that is written at this moment may be there in part.
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    String::from_utf8_lossy(&text[..end]).lines().map(str::to_owned).collect()
}

fn dirs(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect()
}

fn tail(text: &str, n: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(n)..].join("\n")
}
