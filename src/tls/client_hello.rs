//! The name that a client asks for by TLS (SNI), read from its ClientHello without answering it.
//!
//! The message may be spread over several records, and each of them over several packets
//! (RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3). A message that breaks these rules is
//! refused, so that a server and ktrix cannot read two names from it.

/// The most bytes of a ClientHello with the headers of its records. Some 2 KiB are usual.
pub const HELLO_BYTES_MAX: usize = 32 << 10;

/// The first byte of a record that carries a handshake.
const HANDSHAKE: u8 = 22;

/// The major version of every record since SSL 3.0.
const MAJOR_VERSION: u8 = 3;

/// The most bytes in a record.
const RECORD_BYTES_MAX: usize = 1 << 14;

const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const NAME_BYTES_MAX: usize = 253;

/// The first bytes of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// TLS that asks for this name, in lower case.
    Named(String),
    /// TLS that asks for no name.
    Nameless,
    /// No TLS.
    Foreign,
}

/// The ClientHello breaks its rules, or is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHello;

/// Reads the first bytes of a connection; `None` means that more are needed.
///
/// # Errors
/// When no further byte can make it a ClientHello.
pub fn read(bytes: &[u8]) -> Result<Option<Hello>, BadHello> {
    if bytes.first().is_some_and(|first| *first != HANDSHAKE) {
        return Ok(Some(Hello::Foreign));
    }
    let bytes = bytes.get(..HELLO_BYTES_MAX).unwrap_or(bytes);
    match message(bytes)? {
        Some(body) => name_of(&mut Reader(&body)).map(Some),
        None if bytes.len() >= HELLO_BYTES_MAX => Err(BadHello),
        None => Ok(None),
    }
}

/// The ClientHello that the records carry, without its type and length.
fn message(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, BadHello> {
    let mut message = Vec::new();
    loop {
        let is_type = |first: &u8| *first == CLIENT_HELLO;
        if !message.first().is_none_or(is_type) {
            return Err(BadHello);
        }
        if let Some((&[_, high, middle, low], rest)) = message.split_first_chunk::<4>() {
            let len = u32::from_be_bytes([0, high, middle, low]) as usize;
            if len > HELLO_BYTES_MAX {
                return Err(BadHello);
            }
            if let Some(body) = rest.get(..len) {
                return Ok(Some(body.to_vec()));
            }
        }
        let is_prefix = bytes.iter().zip([HANDSHAKE, MAJOR_VERSION]).all(|(it, must)| *it == must);
        if !is_prefix {
            return Err(BadHello);
        }
        let Some((&[.., high, low], rest)) = bytes.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len == 0 || len > RECORD_BYTES_MAX {
            return Err(BadHello);
        }
        let part = rest.get(..len.min(rest.len())).unwrap_or_default();
        message.extend_from_slice(part);
        bytes = rest.get(len..).unwrap_or_default();
    }
}

fn name_of(hello: &mut Reader<'_>) -> Result<Hello, BadHello> {
    // The version and the random bytes.
    hello.take(2 + 32)?;
    if hello.vector8()?.0.len() > 32 {
        return Err(BadHello);
    }
    let suites = hello.vector16()?.0.len();
    if suites == 0 || suites % 2 != 0 || hello.vector8()?.0.is_empty() {
        return Err(BadHello);
    }
    if hello.0.is_empty() {
        return Ok(Hello::Nameless);
    }
    let mut extensions = hello.vector16()?;
    if !hello.0.is_empty() {
        return Err(BadHello);
    }
    let mut found = Hello::Nameless;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut extension = extensions.vector16()?;
        if kind != SERVER_NAME {
            continue;
        }
        let mut names = extension.vector16()?;
        // Other types of names were never defined.
        let is_host = names.take(1)? == [HOST_NAME];
        let name = names.vector16()?;
        let is_alone = names.0.is_empty() && extension.0.is_empty() && found == Hello::Nameless;
        if !is_host || !is_alone {
            return Err(BadHello);
        }
        found = Hello::Named(host_of(name.0).ok_or(BadHello)?);
    }
    Ok(found)
}

/// A host name in lower case, if the bytes are one.
fn host_of(name: &[u8]) -> Option<String> {
    let is_of_label = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
    let is_label = |label: &[u8]| (1..=63).contains(&label.len()) && label.iter().all(is_of_label);
    let is_host = name.len() <= NAME_BYTES_MAX && name.split(|octet| *octet == b'.').all(is_label);
    let name = str::from_utf8(name).ok().filter(|_| is_host)?;
    Some(name.to_ascii_lowercase())
}

/// The rest of a message.
struct Reader<'m>(&'m [u8]);

impl<'m> Reader<'m> {
    fn take(&mut self, len: usize) -> Result<&'m [u8], BadHello> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(BadHello)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, BadHello> {
        let bytes = self.take(2)?;
        Ok(bytes.iter().fold(0, |number, octet| number << 8 | u16::from(*octet)))
    }

    /// A vector with its length in one byte.
    fn vector8(&mut self) -> Result<Self, BadHello> {
        let len = self.take(1)?.first().copied().unwrap_or_default();
        self.take(usize::from(len)).map(Self)
    }

    /// A vector with its length in two bytes.
    fn vector16(&mut self) -> Result<Self, BadHello> {
        let len = self.u16()?;
        self.take(usize::from(len)).map(Self)
    }
}

#[cfg(test)]
#[path = "tests/client_hello.rs"]
mod tests;
