//! Sockets as the master makes them: listening ones, and the channels to its children.
//!
//! TCP addresses get one socket per worker (SO_REUSEPORT): the kernel spreads connections over all
//! that listen. A Unix socket and a socket of a systemd socket unit exist once and are shared. All
//! are close-on-exec and non-blocking; a child made by fork inherits them as they are.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrLike,
    SockaddrStorage, UnixAddr,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::privileges::Owner;

/// How many connections may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// A listening TCP socket that shares its address with others of ktrix (SO_REUSEPORT).
///
/// Accepted sockets inherit TCP_NODELAY from it, which saves a system call on each of them. An
/// IPv6 socket takes IPv6 only, so that `0.0.0.0:80` and `[::]:80` can stand side by side.
///
/// # Errors
/// An error of socket(2), bind(2) or listen(2).
pub(crate) fn listen_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp_socket(address)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether another program listens there. With SO_REUSEPORT the kernel would let both listen
/// without an error, and each would get a part of the connections.
///
/// # Errors
/// When the address cannot be bound for another reason: it is not of this machine, or needs root.
pub(crate) fn is_taken(address: SocketAddr) -> io::Result<bool> {
    if address.port() == 0 {
        return Ok(false);
    }
    match tcp_socket(address)?.bind(&address.into()) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(true),
        Err(error) => Err(error),
    }
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Whether this machine speaks IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    tcp_socket(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        .and_then(|socket| socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()))
        .is_ok()
}

/// A listening Unix socket with this mode and owner. A socket file without a listener is
/// replaced.
///
/// # Errors
/// `AddrInUse` when a process listens there; else what bind(2) and listen(2) say.
pub(crate) fn listen_unix(path: &Path, mode: u32, owner: Owner) -> io::Result<OwnedFd> {
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    // A client cannot connect before the socket listens.
    set_access(path, mode, owner)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Changes mode and owner of a Unix socket.
///
/// # Errors
/// An error of chown(2) or chmod(2).
pub(crate) fn set_access(path: &Path, mode: u32, owner: Owner) -> io::Result<()> {
    std::os::unix::fs::lchown(path, owner.uid, owner.gid)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BoundTo {
    /// An address and port.
    Ip(SocketAddr),
    /// A path in the file system.
    Unix(PathBuf),
}

impl BoundTo {
    /// The address, for the log.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Ip(address) => address.to_string(),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

/// Where this socket is bound; a port of 0 has become the one that the kernel chose.
///
/// # Errors
/// When it is neither a TCP nor a named Unix socket.
pub(crate) fn bound_to(socket: BorrowedFd<'_>) -> io::Result<BoundTo> {
    let name: SockaddrStorage = nix::sys::socket::getsockname(socket.as_raw_fd())?;
    if let Some(v4) = name.as_sockaddr_in() {
        return Ok(BoundTo::Ip(SocketAddr::V4((*v4).into())));
    }
    if let Some(v6) = name.as_sockaddr_in6() {
        return Ok(BoundTo::Ip(SocketAddr::V6((*v6).into())));
    }
    match (name.family(), name.as_unix_addr().and_then(UnixAddr::path)) {
        (Some(AddressFamily::Unix), Some(path)) => Ok(BoundTo::Unix(path.to_owned())),
        _ => Err(io::Error::other("neither a TCP nor a named Unix socket")),
    }
}

/// Sets up a listening socket that another process has made, as the ones made here are.
///
/// # Errors
/// When it does not listen.
pub(crate) fn adopt(fd: OwnedFd) -> io::Result<OwnedFd> {
    let socket = Socket::from(fd);
    if !socket.is_listener()? {
        return Err(io::Error::other("it does not listen"));
    }
    socket.set_nonblocking(true)?;
    if socket.local_addr()?.is_ipv4() || socket.local_addr()?.is_ipv6() {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(socket.into())
}

/// The two ends of a channel that keeps messages whole and in order: first the master's, which
/// never blocks, then the child's.
///
/// # Errors
/// When descriptors run out.
pub(crate) fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    nix::sys::socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(io::Error::from)
}

/// Sends one message, with a copy of a descriptor if there is one; never blocks and never raises
/// SIGPIPE.
///
/// # Errors
/// `WouldBlock` when the other end does not read; `BrokenPipe` when it is gone.
pub(crate) fn send_message(
    channel: BorrowedFd<'_>,
    message: &[u8],
    file: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    send_with(channel, message, file.as_slice())
}

/// As [`send_message`], with copies of all these descriptors, or to another kind of socket.
///
/// # Errors
/// As there.
pub(crate) fn send_with(
    socket: BorrowedFd<'_>,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let parts = [IoSlice::new(message)];
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    nix::sys::socket::sendmsg::<()>(socket.as_raw_fd(), &parts, rights, flags, None)?;
    Ok(())
}

/// Receives one message into `buf`; gives its length and the descriptor that came with it, or
/// `None` when the other end has closed. A message that is longer than `buf` is cut.
///
/// # Errors
/// `WouldBlock` when there is none yet.
pub(crate) fn receive_message(
    channel: BorrowedFd<'_>,
    buf: &mut [u8],
) -> io::Result<Option<(usize, Option<OwnedFd>)>> {
    let mut parts = [IoSliceMut::new(buf)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received =
        nix::sys::socket::recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut space), flags);
    match received {
        Ok(message) if message.bytes == 0 => Ok(None),
        Ok(message) => {
            // Without a free descriptor in this process, the kernel cuts the control part.
            let controls = message.cmsgs().ok();
            let file = controls.into_iter().flatten().find_map(|control| match control {
                ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                _ => None,
            });
            // SAFETY: the kernel has just made this descriptor for this process, and there is room
            // for one only, so nothing else owns it.
            let file = file.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            Ok(Some((message.bytes, file)))
        }
        Err(Errno::ECONNRESET) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};
    use std::os::fd::AsFd;

    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    use crate::sys::process::{self, ExitStatus};
    use std::os::unix::net::UnixListener;

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    fn port_of(fd: &OwnedFd) -> u16 {
        match bound_to(fd.as_fd()).unwrap() {
            BoundTo::Ip(address) => address.port(),
            BoundTo::Unix(path) => panic!("{path:?} is no port"),
        }
    }

    #[test]
    fn two_sockets_share_a_port_and_a_foreign_one_is_noticed() {
        let first = listen_tcp(local(0)).unwrap();
        let port = port_of(&first);
        let second = listen_tcp(local(port)).unwrap();
        assert_eq!(port_of(&second), port);
        assert!(is_taken(local(port)).unwrap());
        TcpStream::connect(local(port)).unwrap();
        drop((first, second));
        assert!(!is_taken(local(0)).unwrap());
    }

    #[test]
    fn a_dead_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ktrix.sock");
        drop(UnixListener::bind(&path).unwrap());
        let live = listen_unix(&path, 0o600, Owner::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bound_to(live.as_fd()).unwrap(), BoundTo::Unix(path.clone()));
        assert_eq!(
            listen_unix(&path, 0o600, Owner::default()).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }

    #[test]
    fn messages_stay_whole_and_the_end_is_seen() {
        let (master, child) = channel().unwrap();
        let mut buf = [0; 64];
        let empty = receive_message(child.as_fd(), &mut buf).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        send_message(master.as_fd(), b"release 3", None).unwrap();
        send_message(master.as_fd(), b"drain", None).unwrap();
        assert_eq!(receive_message(child.as_fd(), &mut buf).unwrap().unwrap().0, 9);
        assert_eq!(&buf[..9], b"release 3");
        assert_eq!(receive_message(child.as_fd(), &mut buf).unwrap().unwrap().0, 5);
        drop(master);
        assert!(receive_message(child.as_fd(), &mut buf).unwrap().is_none());
        assert_eq!(
            send_message(child.as_fd(), b"ready", None).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn a_descriptor_goes_with_its_message_and_no_other() {
        use std::io::{Read, Seek, Write};
        let (master, child) = channel().unwrap();
        let file = tempfile::tempfile().unwrap();
        send_message(master.as_fd(), b"access-log", Some(file.as_fd())).unwrap();
        send_message(master.as_fd(), b"drain", None).unwrap();
        let mut buf = [0; 64];
        let (len, got) = receive_message(child.as_fd(), &mut buf).unwrap().unwrap();
        assert_eq!(&buf[..len], b"access-log");
        let mut got = fs::File::from(got.unwrap());
        (&file).write_all(b"a line").unwrap();
        got.rewind().unwrap();
        let mut text = String::new();
        got.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a line");
        assert!(receive_message(child.as_fd(), &mut buf).unwrap().unwrap().1.is_none());
    }

    #[test]
    fn a_message_whose_descriptor_finds_no_room_comes_without_it() {
        let (left, right) = channel().unwrap();
        let file = tempfile::tempfile().unwrap();
        send_message(left.as_fd(), b"take this", Some(file.as_fd())).unwrap();
        send_message(left.as_fd(), b"and this", Some(file.as_fd())).unwrap();
        let child = || {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
            let mut buf = [0; 32];
            let without = receive_message(right.as_fd(), &mut buf).unwrap();
            let is_whole = buf.starts_with(b"take this") && matches!(without, Some((9, None)));
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
            let with = receive_message(right.as_fd(), &mut buf).unwrap();
            i32::from(!(is_whole && matches!(with, Some((8, Some(_))))))
        };
        let pid = process::fork_child(&[], child).unwrap();
        assert_eq!(process::wait_for(pid).unwrap(), ExitStatus::Exit(0));
    }
}
