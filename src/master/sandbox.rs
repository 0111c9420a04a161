//! A table of the rights of each role, and the steps by which a process gives up the rest.
//!
//! The master keeps what later configurations may need: any path and port, and the rights by which it
//! starts and ends children of another user. Its children keep what their own configuration names.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use caps::Capability;

use crate::config::{Config, ServerAddress};
use crate::sys::privileges::{self, Account};
use crate::sys::sandbox::filter::Calls;
use crate::sys::sandbox::{self, FileAccess, Paths};
use crate::worker::inherited::Role;

/// The rights of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The role that has them, in one word.
    who: &'static str,
    capabilities: &'static [Capability],
    /// Any path without a list.
    paths: Option<Paths>,
    network: &'static str,
    calls: Calls,
    is_core_dumped: bool,
}

/// The capabilities that root's master keeps: ports below 1024; files and sockets of other users, and their
/// owners; the users of its children, their bounds and their signals.
const OF_MASTER: &[Capability] = &[
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_CHOWN,
    Capability::CAP_FOWNER,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_KILL,
];

impl Rules {
    pub(crate) fn of_master(config: &Config) -> Self {
        Self {
            who: "master",
            capabilities: OF_MASTER,
            paths: None,
            network: "listens, and connects to Unix sockets",
            calls: Calls::Parent,
            is_core_dumped: config.core_dumps,
        }
    }

    /// Those of a child that caches in `cache`, if it does.
    pub(crate) fn of_child(role: Role, config: &Config, cache: Option<&Path>) -> Self {
        let is_resolver = role == Role::Keeper && resolves(config);
        let (who, network, calls) = match role {
            Role::Worker(_) => {
                ("worker", "accepts, and connects by TCP and Unix sockets", Calls::Server)
            }
            Role::Keeper => ("keeper", "connects by TCP, UDP and Unix sockets", Calls::Resolver),
        };
        let mut paths = paths_of_all(cache);
        if let Role::Worker(_) = role {
            paths.extend(paths_of_worker(config));
        }
        if is_resolver {
            let files = OF_RESOLVER.iter().map(|path| (PathBuf::from(path), FileAccess::Read));
            paths.extend(files);
        }
        let paths = Some(paths);
        let is_core_dumped = config.core_dumps;
        Self { who, capabilities: &[], paths, network, calls, is_core_dumped }
    }
}

/// Whether the keeper asks for names.
fn resolves(config: &Config) -> bool {
    let mut servers = config.servers().map(|(_, server)| &server.address);
    config.forward.is_some() || servers.any(|it| matches!(it, ServerAddress::Name { .. }))
}

/// The cache, or the folder for bodies that are too large for memory; the state of other processes;
/// the kernel's random bytes; and the authorities of the system, by which servers are verified.
fn paths_of_all(cache: Option<&Path>) -> Paths {
    let bodies = cache.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let mut paths = vec![(bodies, FileAccess::Change)];
    let mut read = |path: PathBuf| paths.push((path, FileAccess::Read));
    read("/proc".into());
    read("/dev/urandom".into());
    AUTHORITIES.iter().for_each(|path| read(path.into()));
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        let set = std::env::var_os(name).unwrap_or_default();
        std::env::split_paths(&set).filter(|path| !path.as_os_str().is_empty()).for_each(&mut read);
    }
    paths
}

/// The logs of requests, which a worker opens again if they are gone; the proofs for ACME; and what makes the name
/// of this instance.
fn paths_of_worker(config: &Config) -> Paths {
    let mut paths = vec![(PathBuf::from("/etc/machine-id"), FileAccess::Read)];
    for log in [&config.log.access, &config.log.slow].into_iter().flatten() {
        // A pipe or a terminal is not made again.
        let is_made = log.file.is_file() || !log.file.exists();
        let dir = log.file.parent().filter(|_| is_made);
        let dir = dir.map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
        paths.push((dir.unwrap_or(&log.file).to_owned(), FileAccess::Write));
    }
    paths.extend(config.acme.iter().map(|path| (path.clone(), FileAccess::Read)));
    paths
}

/// Where systems have the certificates of authorities. Some of these are links into others.
const AUTHORITIES: [&str; 7] = [
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/share/pki",
    "/usr/local/share/ca-certificates",
];

/// The settings of the C library's resolver, which other programs replace, so that their folders count,
/// and the folders of its modules.
const OF_RESOLVER: [&str; 12] = [
    "/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman",
    "/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/nix/store", "/gnu/store",
];

/// In the master, once it has read its configuration. What it gives up stays so until its end.
pub(super) fn enter_master(config: &Config) {
    let rules = Rules::of_master(config);
    let mut steps = vec![("core dumps", sandbox::limit_core(rules.is_core_dumped))];
    if config.sandbox {
        steps.push(("new privileges", privileges::set_no_new_privileges()));
        steps.push(("capabilities", sandbox::keep_capabilities(rules.capabilities)));
        steps.push(("system calls", sandbox::limit_calls(rules.calls)));
        for missing in sandbox::missing() {
            log::info!("sandbox: this kernel has no {missing}");
        }
    }
    tell(steps);
}

/// In a child: changes to its user, and gives up what its role does not need.
pub(super) fn enter_child(
    role: Role,
    config: &Config,
    account: Option<&Account>,
    cache: Option<&Path>,
) -> io::Result<()> {
    if config.sandbox {
        sandbox::bound_capabilities(&[]);
    }
    if let Some(account) = account {
        account.assume()?;
    }
    privileges::set_no_new_privileges()?;
    let rules = Rules::of_child(role, config, cache);
    let mut steps = vec![("core dumps", sandbox::dump_core(rules.is_core_dumped))];
    if config.sandbox {
        steps.push(("capabilities", sandbox::keep_capabilities(rules.capabilities)));
        steps.push(("paths", sandbox::limit_paths(rules.paths.as_deref().unwrap_or_default())));
        // Behind the others, for which calls are needed that nothing needs later.
        steps.push(("system calls", sandbox::limit_calls(rules.calls)));
    }
    tell(steps);
    Ok(())
}

fn tell(steps: Vec<(&str, io::Result<()>)>) {
    for (what, done) in steps {
        if let Err(error) = done {
            log::info!("sandbox: cannot limit {what}: {error}");
        }
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |names: Vec<String>| match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        };
        let capabilities = self.capabilities.iter().map(ToString::to_string).collect();
        writeln!(f, "{}:", self.who)?;
        writeln!(f, "  capabilities: {}", names(capabilities))?;
        match &self.paths {
            None => writeln!(f, "  paths: any")?,
            Some(paths) => {
                let kinds = [
                    ("changes", FileAccess::Change),
                    ("writes", FileAccess::Write),
                    ("reads", FileAccess::Read),
                ];
                for (word, kind) in kinds {
                    let of_kind = paths.iter().filter(|(path, it)| *it == kind && path.exists());
                    let of_kind: Vec<_> =
                        of_kind.map(|(path, _)| path.display().to_string()).collect();
                    if !of_kind.is_empty() {
                        writeln!(f, "  {word}: {}", of_kind.join(", "))?;
                    }
                }
            }
        }
        writeln!(f, "  network: {}", self.network)?;
        let calls = match self.calls.n_allowed() {
            Some(n) => format!("{n}; others fail, or end the process"),
            None => "all but those of administration".to_owned(),
        };
        writeln!(f, "  system calls: {calls}")?;
        writeln!(f, "  core dumps: {}", if self.is_core_dumped { "on" } else { "off" })
    }
}

/// The rights of each role, for people.
pub(crate) fn describe(config: &Config) -> String {
    if !config.sandbox {
        return "sandbox: off\n".to_owned();
    }
    let cache = config.cache.as_ref().map(|cache| &*cache.path);
    let mut text = Rules::of_master(config).to_string();
    for role in [Role::Worker(0), Role::Keeper] {
        let _ = write!(text, "{}", Rules::of_child(role, config, cache));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::Command;
    use std::thread;

    use caps::CapSet;
    use nix::sys::signal::Signal;
    use nix::unistd::getppid;
    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;
    use crate::sys::process::{ExitStatus, fork_child, send_signal, wait_for};

    fn config(dir: &Path, server: &str) -> Config {
        let dir = dir.display();
        let text = format!(
            "upstream: {server}\ncache: {dir}/cache\nacme: {dir}/acme\nlog: {dir}/log/access\n"
        );
        Config::load_for(Path::new("k"), &text, 1).unwrap()
    }

    /// The part of the sandbox that an attempt meets.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum By {
        /// None: it succeeds, or no kernel has less.
        Any,
        Paths,
        Signals,
        Calls,
    }

    impl By {
        fn is_there(self) -> bool {
            match self {
                Self::Any => true,
                Self::Paths => sandbox::landlock_version() >= 2,
                Self::Signals => sandbox::landlock_version() >= 6,
                Self::Calls => sandbox::has_calls(),
            }
        }
    }

    /// A name, what it meets, and what is tried in a directory of its own.
    type Attempt<'a> = (&'a str, By, &'a dyn Fn(&Path) -> bool);

    /// The names of the attempts that came out otherwise than `true`, of a child in this role. Those that
    /// this kernel has no rule for are left out.
    fn wrong_of(role: Role, attempts: &[Attempt<'_>]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for name in ["cache/tmp", "cache/ab", "acme", "log", "other"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("other/file"), "").unwrap();
        fs::write(dir.path().join("acme/file"), "").unwrap();
        let config = config(dir.path(), "app.example");
        let cache = dir.path().join("cache");
        let wrong = attempts.iter().filter(|(name, by, attempt)| {
            if !by.is_there() {
                eprintln!("skipped {name}: this kernel has no rules for {by:?}");
                return false;
            }
            let child = fork_child(&[], || {
                let entered = enter_child(role, &config, None, Some(&cache)).is_ok();
                i32::from(!(entered && attempt(dir.path())))
            });
            wait_for(child.unwrap()).unwrap() != ExitStatus::Exit(0)
        });
        wrong.map(|(name, ..)| (*name).to_owned()).collect()
    }

    fn is_denied<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| {
            matches!(error.raw_os_error(), Some(nix::libc::EPERM | nix::libc::EACCES))
        })
    }

    #[test]
    fn each_role_can_do_its_work_and_nothing_else() {
        let of_both: [Attempt<'_>; 13] = [
            ("shadow", By::Paths, &|_| is_denied(File::open("/proc/1/root/etc/shadow"))),
            ("other", By::Paths, &|dir| is_denied(File::open(dir.join("other/file")))),
            ("make", By::Paths, &|dir| is_denied(File::create(dir.join("other/new")))),
            ("outside", By::Paths, &|dir| is_denied(File::create(dir.join("new")))),
            ("cache", By::Any, &|dir| {
                let (from, to) = (dir.join("cache/tmp/1"), dir.join("cache/ab/2"));
                fs::write(&from, "x").is_ok()
                    && fs::rename(&from, &to).is_ok()
                    && fs::read(&to).is_ok_and(|read| read == b"x")
                    && fs::remove_file(&to).is_ok()
            }),
            ("stat", By::Any, &|_| {
                fs::read("/proc/self/stat").is_ok() && fs::read("/proc/1/stat").is_ok()
            }),
            ("raw", By::Calls, &|_| is_denied(Socket::new(Domain::IPV4, Type::RAW, None))),
            ("sctp", By::Calls, &|_| {
                let kinds = [Type::STREAM, Type::SEQPACKET];
                let sctp = Some(Protocol::from(nix::libc::IPPROTO_SCTP));
                [Domain::IPV4, Domain::IPV6].iter().all(|domain| {
                    kinds.iter().all(|kind| is_denied(Socket::new(*domain, *kind, sctp)))
                })
            }),
            ("listen", By::Calls, &|_| is_denied(TcpListener::bind("127.0.0.1:0"))),
            ("thread", By::Any, &|_| thread::spawn(|| 7).join().is_ok_and(|it| it == 7)),
            ("process", By::Calls, &|_| Command::new("/bin/true").status().is_err()),
            ("signal", By::Signals, &|_| is_denied(send_signal(getppid(), Signal::SIGCONT))),
            ("abilities", By::Any, &|_| {
                let sets = [CapSet::Effective, CapSet::Permitted, CapSet::Bounding];
                sets.iter().all(|set| caps::read(None, *set).is_ok_and(|it| it.is_empty()))
                    || !privileges::is_root()
            }),
        ];
        for role in [Role::Worker(0), Role::Keeper] {
            assert_eq!(wrong_of(role, &of_both), [""; 0], "{role}");
        }
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let of_worker: [Attempt<'_>; 6] = [
            ("tcp", By::Any, &move |_| TcpStream::connect(address).is_ok()),
            ("udp", By::Calls, &|_| is_denied(UdpSocket::bind("127.0.0.1:0"))),
            ("etc", By::Paths, &|_| is_denied(File::open("/etc/passwd"))),
            ("shadow", By::Paths, &|_| is_denied(File::open("/etc/shadow"))),
            ("acme", By::Paths, &|dir| {
                fs::read(dir.join("acme/file")).is_ok()
                    && is_denied(File::create(dir.join("acme/x")))
            }),
            ("log", By::Any, &|dir| File::create(dir.join("log/access")).is_ok()),
        ];
        assert_eq!(wrong_of(Role::Worker(0), &of_worker), [""; 0]);
        let of_keeper: [Attempt<'_>; 3] = [
            ("names", By::Any, &|_| {
                ("localhost", 80).to_socket_addrs().is_ok_and(|mut it| it.next().is_some())
            }),
            ("udp", By::Any, &|_| UdpSocket::bind("127.0.0.1:0").is_ok()),
            ("acme", By::Paths, &|dir| is_denied(fs::read(dir.join("acme/file")))),
        ];
        assert_eq!(wrong_of(Role::Keeper, &of_keeper), [""; 0]);
    }

    #[test]
    fn a_child_connects_to_unix_sockets_and_dies_of_an_execution() {
        if !sandbox::has_calls() {
            return eprintln!("skipped: this kernel has no rules for system calls");
        }
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "10.0.0.1");
        let _listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let enter = || enter_child(Role::Worker(0), &config, None, Some(dir.path())).is_ok();
        let child = fork_child(&[], || {
            i32::from(!(enter() && UnixStream::connect(dir.path().join("socket")).is_ok()))
        });
        assert_eq!(wait_for(child.unwrap()).unwrap(), ExitStatus::Exit(0));
        let child = fork_child(&[], || {
            enter();
            let _ = nix::unistd::execv(c"/bin/true", &[c"true"]);
            0
        });
        let ended = wait_for(child.unwrap()).unwrap();
        assert_eq!(ended, ExitStatus::Signal(Signal::SIGSYS as i32));
    }

    #[test]
    fn a_program_that_was_executed_under_the_rules_of_a_master_adds_none() {
        let n_filters = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
            line.and_then(|n| n.trim().parse::<u32>().ok())
        };
        let Some(before) = n_filters().filter(|_| sandbox::has_calls()) else {
            return eprintln!("skipped: this kernel counts no filters");
        };
        let config = config(Path::new("/nowhere"), "10.0.0.1");
        let child = fork_child(&[], || {
            let seen = [(); 3].map(|()| {
                enter_master(&config);
                n_filters()
            });
            i32::from(seen != [Some(before + 1); 3])
        });
        assert_eq!(wait_for(child.unwrap()).unwrap(), ExitStatus::Exit(0));
    }

    #[test]
    fn the_keeper_reads_settings_of_the_resolver_only_if_there_are_names() {
        let dir = Path::new("/nowhere");
        let reads = |server: &str| {
            let rules = Rules::of_child(Role::Keeper, &config(dir, server), None);
            rules.paths.unwrap().iter().any(|(path, _)| path == Path::new("/etc"))
        };
        assert!(reads("app.example") && !reads("10.0.0.1"));
        let text = describe(&config(dir, "10.0.0.1"));
        for part in ["master:", "CAP_NET_BIND_SERVICE", "worker:", "keeper:", "capabilities: none"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
