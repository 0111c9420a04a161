//! Why the state of a server changed.

use crate::policy::reason::fetch::FetchError;

reasons! {
    /// Why the state of a server changed.
    ServerReason {
        /// The number in the shared row of the server.
        code: u32,
    }
    Start: "start", "it is as configured", 0;
    Connect: "connect-failed", "it could not be reached", 1;
    ConnectTimeout: "connect-timeout", "it did not accept a connection in time", 2;
    Unresolved: "unresolved", "its name has no known address", 3;
    Closed: "origin-closed", "it closed connections without an answer", 4;
    BadResponse: "bad-response", "it sent invalid answers", 5;
    FirstByteTimeout: "first-byte-timeout", "it did not answer in time", 6;
    PauseOver: "pause-over", "its pause is over", 7;
    Answered: "answered", "it answers", 8;
    OtherAnswered: "common-failure", "all servers had failed, and one of them answers", 9;
    Command: "command", "by ktrix server", 10;
    CheckFailed: "check-failed", "its checks failed", 11;
    CheckPassed: "check-passed", "its checks passed", 12;
    Abandoned: "abandoned", "the request that tried it ended without an answer", 13;
    Resolved: "resolved", "its name has an address", 14;
    Accepted: "accepted", "it accepts connections", 15;
    Tls: "tls-failed", "its TLS handshake failed", 16;
    CertificateExpired: "certificate-expired", "its certificate is not valid at this time", 17;
    CertificateUntrusted: "certificate-untrusted", "no trusted authority has issued its certificate", 18;
    CertificateName: "certificate-name", "its certificate is for another name", 19;
    CertificateInvalid: "certificate-invalid", "its certificate is not acceptable", 20;
}

impl ServerReason {
    /// Whether no connection to the server could be made, so that one shows that it is back.
    pub(crate) const fn is_of_connecting(self) -> bool {
        matches!(
            self,
            Self::Connect
                | Self::ConnectTimeout
                | Self::Unresolved
                | Self::Tls
                | Self::CertificateExpired
                | Self::CertificateUntrusted
                | Self::CertificateName
                | Self::CertificateInvalid
        )
    }

    pub(crate) fn of_code(code: u32) -> Self {
        Self::ALL.iter().copied().find(|reason| reason.code() == code).unwrap_or(Self::Start)
    }
}

impl From<FetchError> for ServerReason {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Unresolved => Self::Unresolved,
            FetchError::ConnectTimeout => Self::ConnectTimeout,
            FetchError::Closed => Self::Closed,
            FetchError::BadResponse | FetchError::Truncated => Self::BadResponse,
            FetchError::FirstByteTimeout | FetchError::IdleTimeout => Self::FirstByteTimeout,
            FetchError::Tls => Self::Tls,
            FetchError::CertificateExpired => Self::CertificateExpired,
            FetchError::CertificateUntrusted => Self::CertificateUntrusted,
            FetchError::CertificateName => Self::CertificateName,
            FetchError::CertificateInvalid => Self::CertificateInvalid,
            _ => Self::Connect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lead_back_to_their_reasons() {
        for reason in ServerReason::ALL {
            assert_eq!(ServerReason::of_code(reason.code()), *reason);
        }
    }
}
