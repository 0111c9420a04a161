//! Every way in which a peer can break the protocol, each with a word.
//!
//! A flaw is expected, answered, counted and logged; it is never an error of ktrix. After a flaw
//! the framing of the connection cannot be trusted, so it is always closed.

use crate::http::status::Status;

macro_rules! flaws {
    ($($(#[$doc:meta])* $name:ident $word:literal $status:ident;)*) => {
        /// A violation of the protocol by a peer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Flaw {
            $($(#[$doc])* $name,)*
        }

        impl Flaw {
            /// Every flaw, for the tables of the manual and the metrics.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word used in logs, metrics and the manual.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// The status for a client that did this.
            ///
            /// The caller answers an origin's flaw with 502 instead.
            pub const fn status(self) -> Status {
                match self {
                    $(Self::$name => Status::$status,)*
                }
            }
        }
    };
}

flaws! {
    /// The method is not a token, or the request line begins with something else.
    BadMethod "bad-method" BAD_REQUEST;
    /// The method is longer than any that has a meaning.
    MethodTooLong "method-too-long" NOT_IMPLEMENTED;
    /// The request line is not method, space, target, space, version.
    BadRequestLine "bad-request-line" BAD_REQUEST;
    /// The target holds forbidden octets, or its form does not suit the method.
    BadTarget "bad-target" BAD_REQUEST;
    /// The target is over the limit.
    TargetTooLong "target-too-long" URI_TOO_LONG;
    /// The version is HTTP's, but not 1.x.
    UnknownVersion "unknown-version" VERSION_NOT_SUPPORTED;
    /// The status line is not version, space, three digits, space, phrase.
    BadStatusLine "bad-status-line" BAD_REQUEST;
    /// The head is over the limit in bytes.
    HeadTooLarge "head-too-large" FIELDS_TOO_LARGE;
    /// The head has more fields than the limit.
    TooManyFields "too-many-fields" FIELDS_TOO_LARGE;
    /// A line ends with LF alone.
    BareLf "bare-lf" BAD_REQUEST;
    /// A CR stands without its LF.
    BareCr "bare-cr" BAD_REQUEST;
    /// The head holds a NUL.
    Nul "nul" BAD_REQUEST;
    /// White space between a field's name and its colon.
    SpaceBeforeColon "space-before-colon" BAD_REQUEST;
    /// A field continues on the next line (obs-fold).
    FoldedField "folded-field" BAD_REQUEST;
    /// A field's name is not a token.
    BadFieldName "bad-field-name" BAD_REQUEST;
    /// A field's value holds a control character.
    BadFieldValue "bad-field-value" BAD_REQUEST;
    /// An HTTP/1.1 request without `Host`.
    HostMissing "host-missing" BAD_REQUEST;
    /// More than one `Host`.
    HostDoubled "host-doubled" BAD_REQUEST;
    /// `Host` is not a host with perhaps a port.
    BadHost "bad-host" BAD_REQUEST;
    /// `Host` is not the `:authority` of the same HTTP/2 request.
    HostDiffers "host-differs" BAD_REQUEST;
    /// `:protocol` is not one that is passed on.
    UnknownProtocol "unknown-protocol" NOT_IMPLEMENTED;
    /// `:scheme` is not that of the connection.
    BadScheme "bad-scheme" BAD_REQUEST;
    /// An HTTP/2 request with a field that belongs to a connection of HTTP/1.
    ConnectionField "connection-field" BAD_REQUEST;
    /// `Content-Length` beside `Transfer-Encoding`.
    LengthAndCoding "length-and-coding" BAD_REQUEST;
    /// More than one `Content-Length`, equal or not.
    LengthDoubled "length-doubled" BAD_REQUEST;
    /// `Content-Length` is not one decimal number.
    BadLength "bad-length" BAD_REQUEST;
    /// `Transfer-Encoding` is not a list of codings.
    BadCoding "bad-coding" BAD_REQUEST;
    /// A transfer coding that is not `chunked`.
    UnknownCoding "unknown-coding" NOT_IMPLEMENTED;
    /// `chunked` is applied twice.
    CodingDoubled "coding-doubled" BAD_REQUEST;
    /// `chunked` is not the last coding, so that the body has no end.
    CodingNotLast "coding-not-last" BAD_REQUEST;
    /// `Transfer-Encoding` in HTTP/1.0, which has none.
    CodingTooOld "coding-too-old" BAD_REQUEST;
    /// A response that has no body declares one.
    BodyNotAllowed "body-not-allowed" BAD_REQUEST;
    /// An expectation other than `100-continue`.
    UnknownExpectation "unknown-expectation" EXPECTATION_FAILED;
    /// A chunk's size is not one to sixteen hexadecimal digits.
    BadChunkSize "bad-chunk-size" BAD_REQUEST;
    /// A chunk's extension holds a control character.
    BadChunkExtension "bad-chunk-extension" BAD_REQUEST;
    /// Chunk extensions are over the limit, for one chunk or for the body.
    ChunkExtensionTooLarge "chunk-extension-too-large" BAD_REQUEST;
    /// A chunk's data does not end with CRLF where its size says.
    BadChunkEnd "bad-chunk-end" BAD_REQUEST;
    /// The trailer section is over the limit in bytes or fields.
    TrailersTooLarge "trailers-too-large" FIELDS_TOO_LARGE;
    /// The body is over the limit.
    BodyTooLarge "body-too-large" CONTENT_TOO_LARGE;
    /// The connection ended within a message.
    Truncated "truncated" BAD_REQUEST;
    /// Bytes follow where the message had ended.
    ExcessData "excess-data" BAD_REQUEST;
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.word())
    }
}

impl std::error::Error for Flaw {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_unique_and_kebab_case() {
        let words: HashSet<_> = Flaw::ALL.iter().map(|flaw| flaw.word()).collect();
        assert_eq!(words.len(), Flaw::ALL.len());
        for word in words {
            assert!(word.bytes().all(|c| c.is_ascii_lowercase() || c == b'-'), "{word}");
        }
    }

    #[test]
    fn every_flaw_has_an_error_status() {
        let allowed = [400, 413, 414, 417, 431, 501, 505];
        assert!(Flaw::ALL.iter().all(|flaw| allowed.contains(&flaw.status().0)));
    }
}
