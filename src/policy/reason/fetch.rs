//! Why an origin gave no usable response.

use crate::http::status::Status;

reasons! {
    /// Why a fetch failed. The sentence is for clients.
    FetchError {
        /// The status of the answer, if no byte of one has been sent yet (RFC 9110 section 15.6).
        status: Status,
        /// The number in the shared table of fills; 0 if those who follow the fill have to fetch
        /// for themselves.
        code: u32,
        /// Whether no connection to the server could be made, so that it is skipped for a while.
        is_unreachable: bool,
    }
    // The upstream has no server with a known address.
    Unresolved: "upstream-unresolved", "no server is known for this site", Status(503), 1, true;
    // The checks of all servers fail.
    ChecksFailed: "checks-failed", "no server of this site passes its checks",
        Status(503), 13, true;
    // The forward proxy may not connect to any address of the host.
    Denied: "destination-denied", "the proxy may not connect to this host",
        Status(403), 19, false;
    // Refused or unreachable.
    Connect: "connect-failed", "the origin could not be reached", Status(502), 2, true;
    // Longer than `timeouts.connect`.
    ConnectTimeout: "connect-timeout", "the origin did not accept a connection in time",
        Status(504), 3, true;
    // The handshake of TLS failed.
    Tls: "tls-failed", "the origin could not be reached", Status(502), 14, true;
    // The certificate of the server has expired, or is not valid yet.
    CertificateExpired: "certificate-expired", "the origin could not be reached",
        Status(502), 15, true;
    // No trusted authority has issued the certificate of the server.
    CertificateUntrusted: "certificate-untrusted", "the origin could not be reached",
        Status(502), 16, true;
    // The certificate of the server is for another name.
    CertificateName: "certificate-name", "the origin could not be reached",
        Status(502), 17, true;
    // The certificate of the server is not acceptable for another reason.
    CertificateInvalid: "certificate-invalid", "the origin could not be reached",
        Status(502), 18, true;
    // More than the upstream's `pending`.
    PendingFull: "pending-full", "too many requests wait for the origin", Status(503), 4, false;
    // Longer than the upstream's `pending-timeout`.
    PendingTimeout: "pending-timeout", "too many requests wait for the origin",
        Status(503), 5, false;
    // No byte of a response came.
    Closed: "origin-closed", "the origin closed the connection without an answer",
        Status(502), 6, false;
    // Longer than `timeouts.first-byte`.
    FirstByteTimeout: "first-byte-timeout", "the origin did not answer in time",
        Status(504), 7, false;
    // A pause longer than `timeouts.idle` within a response.
    IdleTimeout: "origin-idle-timeout", "the origin did not answer in time",
        Status(504), 8, false;
    // The response ended too early.
    Truncated: "truncated-response", "the origin sent an invalid answer", Status(502), 9, false;
    // The response broke the protocol.
    BadResponse: "bad-response", "the origin sent an invalid answer", Status(502), 12, false;
    // The client's body ended too early, so that no client waits for an answer.
    RequestBody: "request-body-lost", "the request ended early", Status(400), 0, false;
    // The origin answered a validation with a 5xx status.
    BadStatus: "bad-status", "the origin failed", Status(502), 10, false;
    // The fill of another worker ended without a whole response.
    FillLost: "fill-lost", "the answer was lost on its way", Status(502), 0, false;
    // More than `limits.bodies`.
    BodiesFull: "bodies-full", "too many request bodies, try again later", Status(503), 0, false;
    // No memory or disk for the request's body, no descriptor, or no port to connect from.
    Resources: "no-resources", "out of resources, try again later", Status(503), 11, false;
}

impl FetchError {
    /// Whether a connection could not be made, with the TLS that is asked for.
    pub const fn is_of_connecting(self) -> bool {
        matches!(
            self,
            Self::Connect
                | Self::ConnectTimeout
                | Self::Resources
                | Self::Tls
                | Self::CertificateExpired
                | Self::CertificateUntrusted
                | Self::CertificateName
                | Self::CertificateInvalid
        )
    }

    /// The failure with this code, as the followers of a fill get it.
    pub fn of_code(code: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|error| code != 0 && error.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lead_back_to_their_failures() {
        for error in FetchError::ALL {
            let expected = (error.code() != 0).then_some(*error);
            assert_eq!(FetchError::of_code(error.code()), expected);
        }
    }
}
