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
    SendTimeout: "send-timeout",
        "the client received nothing of its answer for timeouts.client-send";
    BadRequest: "bad-request", "the request broke the protocol";
    Finished: "finished", "the client or the answer asked for the end of the connection";
    Incomplete: "incomplete", "the answer could not be completed";
    Drain: "drain", "the worker finishes its connections and ends";
}
