//! The header of the PROXY protocol, version 1 and 2: a proxy in front says before the first byte of
//! a connection between which addresses the connection of its client is.
//!
//! The rules are those of the specification (proxy-protocol.txt, version of 2025). Whatever it
//! leaves open is refused: a header that another parser might read differently could lend a client
//! the address of another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::http::tls::TlsFacts;

/// The most bytes of a header of version 1, its line end included (section 2.1).
const TEXT_BYTES_MAX: usize = 107;

/// The most bytes of a header of version 2. Type-length-values with certificates fit well.
pub const HEADER_BYTES_MAX: usize = 16 << 10;

const TEXT_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of the signature, the command, the family and the length.
const FIXED_BYTES: usize = 16;

/// The commands of version 2, with the version.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// The families of version 2: none, TCP over IPv4, TCP over IPv6.
const UNSPECIFIED: u8 = 0x00;
const INET: u8 = 0x11;
const INET6: u8 = 0x21;

/// The types of the values behind the addresses (section 2.2).
const TYPE_ALPN: u8 = 0x01;
const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_CRC32C: u8 = 0x03;
const TYPE_UNIQUE_ID: u8 = 0x05;
const TYPE_TLS: u8 = 0x20;
const TYPE_TLS_VERSION: u8 = 0x21;
const TYPE_TLS_COMMON_NAME: u8 = 0x22;
const TYPE_TLS_CIPHER: u8 = 0x23;

/// The content of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The connection is the proxy's own, as for a health check, or its addresses are of a kind that
    /// is not IP. The addresses of the socket count.
    Local,
    /// The connection of a client.
    Client {
        /// The client's address.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyFlaw {
    /// The connection begins with something else.
    Missing,
    /// It is longer than any header may be.
    TooLong,
    /// Its parts are not as the specification says.
    Malformed,
    /// Its checksum is wrong.
    Checksum,
}

impl ProxyFlaw {
    /// The words for the log.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Missing => "the connection does not begin with a PROXY header",
            Self::TooLong => "the PROXY header is too long",
            Self::Malformed => "the PROXY header is malformed",
            Self::Checksum => "the checksum of the PROXY header is wrong",
        }
    }
}

/// The header at the start of `bytes` and its length in bytes; `None` means that more bytes are
/// needed.
///
/// # Errors
/// The first flaw found, as early as no further byte can mend it.
pub fn parse(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyFlaw> {
    if is_prefix(bytes, SIGNATURE) {
        parse_binary(bytes)
    } else if is_prefix(bytes, TEXT_START) {
        parse_text(bytes)
    } else {
        Err(ProxyFlaw::Missing)
    }
}

/// Whether `bytes` begin as `start` does, as far as they go.
fn is_prefix(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(octet, expected)| octet == expected)
}

/// Section 2.1.
fn parse_text(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyFlaw> {
    let window = bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if window.len() < TEXT_BYTES_MAX { Ok(None) } else { Err(ProxyFlaw::TooLong) };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let words = line.and_then(|line| line.strip_prefix(TEXT_START));
    let header = words.and_then(|words| text_header(str::from_utf8(words).ok()?));
    header.map(|header| Some((header, end + 1))).ok_or(ProxyFlaw::Malformed)
}

fn text_header(words: &str) -> Option<ProxyHeader> {
    let mut words = words.split(' ');
    let is_v4 = match words.next()? {
        "TCP4" => true,
        "TCP6" => false,
        // Everything up to the end of the line is ignored.
        "UNKNOWN" => return Some(ProxyHeader::Local),
        _ => return None,
    };
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match is_v4 {
            true => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            false => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        }
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        let is_canonical = word == "0" || !word.starts_with(['0', '+']);
        is_canonical.then(|| word.parse().ok())?
    };
    let (source, destination) =
        (SocketAddr::new(source, port()?), SocketAddr::new(destination, port()?));
    words.next().is_none().then_some(ProxyHeader::Client { source, destination })
}

/// Section 2.2.
fn parse_binary(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyFlaw> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [.., command, family, len_high, len_low] = *fixed;
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    if FIXED_BYTES + len > HEADER_BYTES_MAX {
        return Err(ProxyFlaw::TooLong);
    }
    let is_known = family >> 4 <= 3 && family & 0xf <= 2;
    if !matches!((command, is_known), (LOCAL, _) | (PROXY, true)) {
        return Err(ProxyFlaw::Malformed);
    }
    let Some(variable) = rest.get(..len) else { return Ok(None) };
    let all = bytes.get(..FIXED_BYTES + len).unwrap_or_default();
    let (header, values) = match (command, family) {
        (PROXY, INET) => inet(variable).ok_or(ProxyFlaw::Malformed)?,
        (PROXY, INET6) => inet6(variable).ok_or(ProxyFlaw::Malformed)?,
        // LOCAL, or a family without an IP address of a TCP connection: what follows is skipped.
        _ => (ProxyHeader::Local, &[][..]),
    };
    check_values(all, values)?;
    Ok(Some((header, all.len())))
}

fn inet(variable: &[u8]) -> Option<(ProxyHeader, &[u8])> {
    let (source, rest) = variable.split_first_chunk::<4>()?;
    let (destination, rest) = rest.split_first_chunk::<4>()?;
    with_ports(Ipv4Addr::from(*source).into(), Ipv4Addr::from(*destination).into(), rest)
}

fn inet6(variable: &[u8]) -> Option<(ProxyHeader, &[u8])> {
    let (source, rest) = variable.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    with_ports(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), rest)
}

fn with_ports(source: IpAddr, destination: IpAddr, rest: &[u8]) -> Option<(ProxyHeader, &[u8])> {
    let (ports, rest) = rest.split_first_chunk::<4>()?;
    let [source_high, source_low, high, low] = *ports;
    let source = SocketAddr::new(source, u16::from_be_bytes([source_high, source_low]));
    let destination = SocketAddr::new(destination, u16::from_be_bytes([high, low]));
    Some((ProxyHeader::Client { source, destination }, rest))
}

/// Checks that the type-length-values fill their room exactly, and the checksum if there is one.
fn check_values(header: &[u8], mut values: &[u8]) -> Result<(), ProxyFlaw> {
    while !values.is_empty() {
        let (value, rest) = next_value(values).ok_or(ProxyFlaw::Malformed)?;
        if values.first() == Some(&TYPE_CRC32C) {
            let sent = <[u8; 4]>::try_from(value).map_err(|_| ProxyFlaw::Malformed)?;
            let behind = header.get(header.len() - rest.len()..).unwrap_or_default();
            let before = header.get(..header.len() - rest.len() - 4).unwrap_or_default();
            let crc = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
            if crc32c::crc32c_append(crc, behind) != u32::from_be_bytes(sent) {
                return Err(ProxyFlaw::Checksum);
            }
        }
        values = rest;
    }
    Ok(())
}

fn next_value(values: &[u8]) -> Option<(&[u8], &[u8])> {
    let ([_, high, low], rest) = values.split_first_chunk::<3>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))
}

/// The version of the header that an upstream is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary, with values behind the addresses.
    V2,
}

/// A client's connection, as an upstream is told of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told<'a> {
    /// The addresses of the client and of the listener, if both are known.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The identifier of the connection or of the request, up to 128 bytes.
    pub unique_id: &'a [u8],
    /// The TLS of the client, if it speaks any.
    pub tls: Option<&'a TlsFacts>,
    /// The protocol inside the TLS, as ALPN names it; empty if it is not known.
    pub protocol: &'a [u8],
    /// The name that the client asked for by TLS; empty if it is not told.
    pub authority: &'a [u8],
}

impl Version {
    /// The header for a connection of ktrix's own, such as a check.
    pub fn local(self) -> Vec<u8> {
        match self {
            Self::V1 => text_of(None).into_bytes(),
            Self::V2 => binary_of(LOCAL, UNSPECIFIED, &[]),
        }
    }

    /// The header for a client's connection.
    pub fn header(self, told: &Told<'_>) -> Vec<u8> {
        let addresses = told.addresses.map(canonical);
        if self == Self::V1 {
            return text_of(addresses).into_bytes();
        }
        let mut variable = Vec::new();
        let family = match addresses {
            Some((SocketAddr::V4(source), SocketAddr::V4(destination))) => {
                variable.extend(source.ip().octets());
                variable.extend(destination.ip().octets());
                INET
            }
            Some((SocketAddr::V6(source), SocketAddr::V6(destination))) => {
                variable.extend(source.ip().octets());
                variable.extend(destination.ip().octets());
                INET6
            }
            _ => UNSPECIFIED,
        };
        if let (INET | INET6, Some((source, destination))) = (family, addresses) {
            variable.extend(source.port().to_be_bytes());
            variable.extend(destination.port().to_be_bytes());
        }
        push_value(&mut variable, TYPE_UNIQUE_ID, told.unique_id);
        push_value(&mut variable, TYPE_AUTHORITY, told.authority);
        if let Some(tls) = told.tls {
            push_value(&mut variable, TYPE_ALPN, told.protocol);
            push_value(&mut variable, TYPE_TLS, &tls_value(tls));
        }
        binary_of(PROXY, family, &variable)
    }
}

/// The most bytes of a value: its header stays far below [`HEADER_BYTES_MAX`].
const VALUE_BYTES_MAX: usize = 1024;

/// The value that says that the client speaks TLS, how, and whether it has shown a certificate in
/// this session (section 2.2.6). A certificate that is not valid ends the handshake, so the one that
/// is told of is verified.
fn tls_value(tls: &TlsFacts) -> Vec<u8> {
    const SPEAKS_TLS: u8 = 0x01;
    const CERTIFICATE_IN_SESSION: u8 = 0x04;
    let (client, not_verified, name) = match &tls.client {
        Some(client) => (SPEAKS_TLS | CERTIFICATE_IN_SESSION, 0_u32, client.common_name()),
        None => (SPEAKS_TLS, 1, String::new()),
    };
    let mut value = vec![client];
    value.extend(not_verified.to_be_bytes());
    push_value(&mut value, TYPE_TLS_VERSION, tls.version.as_bytes());
    // Half of a longer name would be another name.
    if name.len() <= VALUE_BYTES_MAX / 2 {
        push_value(&mut value, TYPE_TLS_COMMON_NAME, name.as_bytes());
    }
    push_value(&mut value, TYPE_TLS_CIPHER, tls.cipher.as_bytes());
    value
}

/// Appends a value, of at most [`VALUE_BYTES_MAX`] bytes, unless it is empty.
fn push_value(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let value = value.get(..value.len().min(VALUE_BYTES_MAX)).unwrap_or_default();
    if !value.is_empty() {
        out.push(kind);
        out.extend((value.len() as u16).to_be_bytes());
        out.extend_from_slice(value);
    }
}

fn binary_of(command: u8, family: u8, variable: &[u8]) -> Vec<u8> {
    let len = (variable.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &len, variable].concat()
}

fn text_of(addresses: Option<(SocketAddr, SocketAddr)>) -> String {
    let Some((source, destination)) = addresses else { return "PROXY UNKNOWN\r\n".to_owned() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
}

/// Both addresses as IPv6 unless both are IPv4, IPv4-mapped ones included.
fn canonical((source, destination): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    let [plain_source, plain_destination] = [source, destination]
        .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()));
    if plain_source.is_ipv4() == plain_destination.is_ipv4() {
        return (plain_source, plain_destination);
    }
    let [source, destination] = [plain_source, plain_destination].map(|address| match address {
        SocketAddr::V4(it) => SocketAddr::new(it.ip().to_ipv6_mapped().into(), it.port()),
        SocketAddr::V6(_) => address,
    });
    (source, destination)
}

#[cfg(test)]
#[path = "tests/proxy_protocol.rs"]
mod tests;
