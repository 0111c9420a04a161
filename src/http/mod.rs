//! HTTP as pure functions of bytes: strict where a peer could mean two things.
//!
//! Bytes in, values out, and back; no sockets, no clock. The other floors use [`head::RequestHead`]
//! and [`head::ResponseHead`] with their [`fields::Fields`], for any protocol version; [`h1`] is
//! HTTP/1 on the wire, and [`h2`] checks the heads of HTTP/2. Every way in which a peer can break the rules is a [`flaw::Flaw`].

pub mod method;
pub mod status;
pub mod version;
pub mod scheme;
pub mod client_certificate;
pub mod tls;
pub mod flaw;
pub mod list;
pub mod fields;
pub mod cookie;
pub mod structured;
pub mod authority;
pub mod target;
pub mod reference;
pub mod head;
pub mod upgrade;
pub mod websocket;
pub mod date;
pub mod trailer;
pub mod h1;
pub mod h2;
pub mod via;
pub mod forwarded;
pub mod forward;
pub mod answer;
pub mod validator;
pub mod range;
pub mod content_range;
pub mod byteranges;
pub mod proxy_protocol;
