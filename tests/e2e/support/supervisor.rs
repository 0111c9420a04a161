//! A small service manager: systemd's protocol, with its store of descriptors.

use std::cell::RefCell;
use std::fs::File;
use std::io::{ErrorKind, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::ktrix::{BINARY, Ktrix, Plan};
use super::wait::{PATIENCE, until};

/// A service manager for one ktrix.
pub struct Supervisor {
    socket: UnixDatagram,
    address: String,
    heard: RefCell<Heard>,
}

#[derive(Default)]
struct Heard {
    /// Messages, and how many of them a test has waited for.
    messages: Vec<String>,
    n_waited: usize,
    last_beat: Option<Instant>,
    store: Vec<(String, OwnedFd)>,
}

impl Supervisor {
    /// One with a socket in the plan's directory.
    pub fn of(plan: &Plan) -> Self {
        let path = plan.dir().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self::over(socket, path.display().to_string())
    }

    /// One with a socket that has no file.
    pub fn abstracted(plan: &Plan) -> Self {
        let name = plan.dir().display().to_string();
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Self::over(socket, format!("@{name}"))
    }

    fn over(socket: UnixDatagram, address: String) -> Self {
        socket.set_nonblocking(true).expect("a socket that does not block");
        Self { socket, address, heard: RefCell::default() }
    }

    /// Starts ktrix as a service, with what is stored and these sockets of units.
    pub fn start<'p>(
        &self,
        plan: &'p Plan,
        watchdog_us: u64,
        units: &[(&str, BorrowedFd<'_>)],
    ) -> Ktrix<'p> {
        plan.write_config();
        let heard = self.heard.borrow();
        let stored = heard.store.iter().map(|(name, fd)| (&**name, fd.as_fd()));
        let passed: Vec<_> = units.iter().copied().chain(stored).collect();
        let names: Vec<&str> = passed.iter().map(|(name, _)| *name).collect();
        let fds: Vec<RawFd> = passed.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
        let script = "export LISTEN_PID=$$ WATCHDOG_PID=$$; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, BINARY]).arg(plan.config_path());
        command.env("NOTIFY_SOCKET", &self.address).env("LISTEN_FDS", fds.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        if watchdog_us > 0 {
            command.env("WATCHDOG_USEC", watchdog_us.to_string());
        }
        // SAFETY: the closure only makes system calls, and allocates nothing.
        unsafe { command.pre_exec(move || number(&fds)) };
        plan.start_by(&mut command)
    }

    /// Waits for the next message with this line, after those that were waited for before.
    #[track_caller]
    pub fn wait(&self, line: &str) -> String {
        until(&format!("{line:?} from ktrix"), PATIENCE, || {
            self.hear();
            let mut heard = self.heard.borrow_mut();
            let rest = heard.messages.get(heard.n_waited..).unwrap_or_default();
            let at = rest.iter().position(|it| it.lines().any(|it| it.starts_with(line)))?;
            heard.n_waited += at + 1;
            Some(heard.messages[heard.n_waited - 1].clone())
        })
    }

    /// When the last sign of life came.
    pub fn last_beat(&self) -> Option<Instant> {
        self.hear();
        self.heard.borrow().last_beat
    }

    /// The names of what is stored.
    pub fn stored(&self) -> Vec<String> {
        self.hear();
        self.heard.borrow().store.iter().map(|(name, _)| name.clone()).collect()
    }

    fn hear(&self) {
        let mut buf = [0; 4096];
        loop {
            let mut space = nix::cmsg_space!([RawFd; 253]);
            let mut parts = [IoSliceMut::new(&mut buf)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let fd = self.socket.as_raw_fd();
            let (len, fds) = match recvmsg::<()>(fd, &mut parts, Some(&mut space), flags) {
                Ok(message) => {
                    let controls = message.cmsgs().expect("a whole control message");
                    let fds = controls.flat_map(|control| match control {
                        ControlMessageOwned::ScmRights(fds) => fds,
                        _ => Vec::new(),
                    });
                    // SAFETY: the kernel has just made these descriptors for this process.
                    let fds = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
                    (message.bytes, fds.collect::<Vec<_>>())
                }
                Err(error) if std::io::Error::from(error).kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("cannot hear ktrix: {error}"),
            };
            let text = String::from_utf8(buf[..len].to_vec()).expect("text");
            self.heard.borrow_mut().take(text, fds);
        }
    }
}

impl Heard {
    fn take(&mut self, text: String, fds: Vec<OwnedFd>) {
        let value =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        if value("WATCHDOG") == Some("1") {
            self.last_beat = Some(Instant::now());
        }
        let name = value("FDNAME").unwrap_or("stored").to_owned();
        if value("FDSTOREREMOVE") == Some("1") {
            self.store.retain(|(it, _)| *it != name);
        }
        assert_eq!(value("FDSTORE") == Some("1"), !fds.is_empty(), "{text}");
        for fd in fds {
            // As systemd does, which keeps one of several copies.
            if !self.store.iter().any(|(_, it)| inode(it) == inode(&fd)) {
                self.store.push((name.clone(), fd));
            }
        }
        self.messages.push(text);
    }
}

fn inode(fd: &OwnedFd) -> (u64, u64) {
    let file = File::from(fd.try_clone().expect("a copy"));
    let found = file.metadata().expect("fstat");
    (found.dev(), found.ino())
}

/// Gives the descriptors the numbers from 3 on.
fn number(fds: &[RawFd]) -> std::io::Result<()> {
    const ABOVE: RawFd = 500;
    for (fd, n) in fds.iter().zip(0..) {
        // SAFETY: dup2 takes any numbers, and the process runs another program next.
        nix::Error::result(unsafe { nix::libc::dup2(*fd, ABOVE + n) })?;
    }
    for n in 0..fds.len() as RawFd {
        // SAFETY: as above.
        nix::Error::result(unsafe { nix::libc::dup2(ABOVE + n, 3 + n) })?;
        // SAFETY: as above.
        nix::Error::result(unsafe { nix::libc::close(ABOVE + n) })?;
    }
    Ok(())
}
