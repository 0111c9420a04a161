//! How the TLS handshake of a client ended.

reasons! {
    /// How the TLS handshake of a client ended.
    HandshakeEnd {}
    Full: "full", "it was completed";
    Resumed: "resumed", "it was completed, by a session ticket";
    Plain: "plain", "the client does not speak TLS";
    Broken: "broken", "the client closed the connection, or it broke";
    Timeout: "timeout", "it took longer than timeouts.tls-handshake";
    Certificate: "certificate", "the certificate of the client could not be verified";
    Protocol: "protocol", "the two sides do not agree, or the client broke the protocol";
}
