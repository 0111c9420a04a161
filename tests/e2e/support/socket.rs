//! A connected stream, TCP or Unix, with a time-out on every read and write.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, Type};

use super::tls::{self, Secured};

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Ip(SocketAddr),
    Unix(PathBuf),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Secured>),
}

impl Socket {
    pub fn connect(address: &Address, limit: Duration) -> io::Result<Self> {
        let socket = match address {
            Address::Ip(ip) => {
                let stream = TcpStream::connect_timeout(ip, limit)?;
                stream.set_nodelay(true)?;
                if tls::is_secured(ip) {
                    stream.set_read_timeout(Some(limit))?;
                    return Ok(Self::Tls(Box::new(Secured::shake(stream, tls::any_client())?)));
                }
                Self::Tcp(stream)
            }
            Address::Unix(path) => Self::Unix(UnixStream::connect(path)?),
        };
        socket.set_patience(limit)?;
        Ok(socket)
    }

    /// As [`Socket::connect`], from this local address.
    pub fn connect_from(from: IpAddr, to: SocketAddr, limit: Duration) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), limit)?;
        let stream = TcpStream::from(socket);
        let socket = match tls::is_secured(&to) {
            true => Self::Tls(Box::new(Secured::shake(stream, tls::any_client())?)),
            false => Self::Tcp(stream),
        };
        socket.set_patience(limit)?;
        Ok(socket)
    }

    pub fn set_patience(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_read_timeout(Some(limit)).and(s.set_write_timeout(Some(limit))),
            Self::Unix(s) => s.set_read_timeout(Some(limit)).and(s.set_write_timeout(Some(limit))),
            Self::Tls(s) => {
                let stream = s.stream();
                stream.set_read_timeout(Some(limit)).and(stream.set_write_timeout(Some(limit)))
            }
        }
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(s) => Self::Tcp(s.try_clone()?),
            Self::Unix(s) => Self::Unix(s.try_clone()?),
            Self::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }

    pub fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(s) => s.shutdown(how),
            Self::Unix(s) => s.shutdown(how),
            Self::Tls(s) => s.shutdown(how),
        };
    }

    /// The TCP connection, if it is one.
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(s) => Some(s),
            Self::Unix(_) => None,
            Self::Tls(s) => Some(s.stream()),
        }
    }

    /// Closing this socket will send RST instead of FIN.
    pub fn reset_on_close(&self) {
        if let Some(s) = self.tcp() {
            let _ = socket2::SockRef::from(s).set_linger(Some(Duration::ZERO));
        }
    }

    /// Whether the other end, on this machine, has accepted the connection and read all bytes that
    /// were sent, according to /proc; TCP over IPv4 alone.
    pub fn is_taken(&self) -> bool {
        let Some(stream) = self.tcp() else { return false };
        let (Ok(SocketAddr::V4(ours)), Ok(SocketAddr::V4(theirs))) =
            (stream.local_addr(), stream.peer_addr())
        else {
            return false;
        };
        let text = |address: SocketAddrV4| {
            format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
        };
        let ends = [text(theirs), text(ours)];
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        table.lines().any(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let is_it = words.get(1..3).is_some_and(|it| it == ends);
            let is_empty = words.get(4).is_some_and(|queues| queues.ends_with(":00000000"));
            is_it && is_empty && words.get(9) != Some(&"0")
        })
    }

    pub fn set_receive_buffer(&self, bytes: usize) {
        if let Some(s) = self.tcp() {
            let _ = socket2::SockRef::from(s).set_recv_buffer_size(bytes);
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buf),
            Self::Unix(s) => s.read(buf),
            Self::Tls(s) => s.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(buf),
            Self::Unix(s) => s.write(buf),
            Self::Tls(s) => s.write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write_vectored(bufs),
            Self::Unix(s) => s.write_vectored(bufs),
            Self::Tls(s) => s.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
