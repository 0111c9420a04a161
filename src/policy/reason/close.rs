//! Why the connection of a client ended.

reasons! {
    /// Why the connection of a client ended.
    CloseReason {}
    ClientClosed: "client-closed", "the client closed it, or it broke, between requests";
    ClientGone: "client-gone", "the client closed it, or it broke, during an exchange";
    IdleTimeout: "idle-timeout", "no request came within timeouts.client-idle";
    HeadTimeout: "head-timeout", "the head of a request took longer than timeouts.client-head";
    BodyTimeout: "body-timeout",
        "the body of a request paused for longer than timeouts.client-body";
    BodyRate: "body-rate",
        "the body of a request came more slowly than limits.body-rate";
    RequestTimeout: "request-timeout",
        "a request with its body took longer than timeouts.client-request";
    SendTimeout: "send-timeout",
        "the client received nothing of its answer for timeouts.client-send";
    BadRequest: "bad-request", "the request broke the protocol";
    BadFrame: "bad-frame", "a frame broke the rules of HTTP/2";
    FrameFlood: "frame-flood",
        "too many frames or bytes for one head, too many tiny ones, or too many streams reset at once";
    ControlFlood: "control-flood",
        "more control frames came over HTTP/2 than the requests and answers explain";
    ResetFlood: "reset-flood",
        "more streams of HTTP/2 were reset than limits.streams allows in a minute";
    Finished: "finished", "the client or the answer asked for the end of the connection";
    ServerGone: "server-gone", "the connection of a tunnel to its server broke";
    TunnelTimeout: "tunnel-timeout", "no byte went through a tunnel for timeouts.tunnel";
    Incomplete: "incomplete", "the answer could not be completed";
    ProxyRefused: "proxy-refused",
        "the peer is not in proxy-protocol of the listener, which requires a PROXY header";
    ProxyHeader: "proxy-header", "the PROXY header at the beginning is missing or invalid";
    ProxyTimeout: "proxy-timeout",
        "the PROXY header at the beginning took longer than timeouts.client-head";
    UnknownName: "unknown-name", "the client asked by TLS for no name that the listener knows";
    ClientHello: "client-hello", "the first bytes were no valid ClientHello";
    HelloTimeout: "client-hello-timeout",
        "the ClientHello took longer than timeouts.tls-handshake";
    Drain: "drain", "the worker finishes its connections and ends";
}

impl CloseReason {
    /// Whether the body of a request did not come in time, which a client is told with 408 (RFC 9110
    /// section 15.5.9).
    pub(crate) fn is_late(self) -> bool {
        matches!(self, Self::BodyTimeout | Self::BodyRate | Self::RequestTimeout)
    }

    /// Whether the client made ktrix do too much for nothing.
    pub(crate) fn is_flood(self) -> bool {
        matches!(self, Self::FrameFlood | Self::ControlFlood | Self::ResetFlood)
    }
}
