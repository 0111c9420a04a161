//! Status codes (RFC 9110 section 15).

use crate::http::method::Method;

/// A three-digit status code; from the wire it is 100 to 999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u16);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident $code:literal $reason:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The phrase for the start line; empty for a code without a registered one.
            pub const fn reason(self) -> &'static str {
                match self.0 {
                    $($code => $reason,)*
                    _ => "",
                }
            }

            /// Every code with a registered phrase.
            pub const REGISTERED: &'static [Self] = &[$(Self($code),)*];
        }
    };
}

statuses! {
    /// 100: the client may send its body.
    CONTINUE 100 "Continue";
    /// 101: the connection speaks another protocol from here on.
    SWITCHING_PROTOCOLS 101 "Switching Protocols";
    /// 102.
    PROCESSING 102 "Processing";
    /// 103.
    EARLY_HINTS 103 "Early Hints";
    /// 200.
    OK 200 "OK";
    /// 201.
    CREATED 201 "Created";
    /// 202.
    ACCEPTED 202 "Accepted";
    /// 203.
    NON_AUTHORITATIVE 203 "Non-Authoritative Information";
    /// 204: success without content.
    NO_CONTENT 204 "No Content";
    /// 205.
    RESET_CONTENT 205 "Reset Content";
    /// 206: ranges of the content.
    PARTIAL_CONTENT 206 "Partial Content";
    /// 207.
    MULTI_STATUS 207 "Multi-Status";
    /// 208.
    ALREADY_REPORTED 208 "Already Reported";
    /// 226.
    IM_USED 226 "IM Used";
    /// 300.
    MULTIPLE_CHOICES 300 "Multiple Choices";
    /// 301.
    MOVED_PERMANENTLY 301 "Moved Permanently";
    /// 302.
    FOUND 302 "Found";
    /// 303.
    SEE_OTHER 303 "See Other";
    /// 304: the client's copy is still valid.
    NOT_MODIFIED 304 "Not Modified";
    /// 305.
    USE_PROXY 305 "Use Proxy";
    /// 307.
    TEMPORARY_REDIRECT 307 "Temporary Redirect";
    /// 308.
    PERMANENT_REDIRECT 308 "Permanent Redirect";
    /// 400: the request breaks the protocol.
    BAD_REQUEST 400 "Bad Request";
    /// 401.
    UNAUTHORIZED 401 "Unauthorized";
    /// 402.
    PAYMENT_REQUIRED 402 "Payment Required";
    /// 403.
    FORBIDDEN 403 "Forbidden";
    /// 404: no route or no such resource.
    NOT_FOUND 404 "Not Found";
    /// 405.
    METHOD_NOT_ALLOWED 405 "Method Not Allowed";
    /// 406.
    NOT_ACCEPTABLE 406 "Not Acceptable";
    /// 407.
    PROXY_AUTHENTICATION_REQUIRED 407 "Proxy Authentication Required";
    /// 408: the client took too long to send its request.
    REQUEST_TIMEOUT 408 "Request Timeout";
    /// 409.
    CONFLICT 409 "Conflict";
    /// 410.
    GONE 410 "Gone";
    /// 411.
    LENGTH_REQUIRED 411 "Length Required";
    /// 412: a condition of the request does not hold.
    PRECONDITION_FAILED 412 "Precondition Failed";
    /// 413: the request's body is over the limit.
    CONTENT_TOO_LARGE 413 "Content Too Large";
    /// 414: the request's target is over the limit.
    URI_TOO_LONG 414 "URI Too Long";
    /// 415.
    UNSUPPORTED_MEDIA_TYPE 415 "Unsupported Media Type";
    /// 416: none of the ranges asked for exists.
    RANGE_NOT_SATISFIABLE 416 "Range Not Satisfiable";
    /// 417: an expectation that ktrix does not know.
    EXPECTATION_FAILED 417 "Expectation Failed";
    /// 421.
    MISDIRECTED_REQUEST 421 "Misdirected Request";
    /// 422.
    UNPROCESSABLE_CONTENT 422 "Unprocessable Content";
    /// 423.
    LOCKED 423 "Locked";
    /// 424.
    FAILED_DEPENDENCY 424 "Failed Dependency";
    /// 425.
    TOO_EARLY 425 "Too Early";
    /// 426.
    UPGRADE_REQUIRED 426 "Upgrade Required";
    /// 428.
    PRECONDITION_REQUIRED 428 "Precondition Required";
    /// 429.
    TOO_MANY_REQUESTS 429 "Too Many Requests";
    /// 431: the request's head is over the limit.
    FIELDS_TOO_LARGE 431 "Request Header Fields Too Large";
    /// 451.
    UNAVAILABLE_FOR_LEGAL_REASONS 451 "Unavailable For Legal Reasons";
    /// 500.
    INTERNAL_SERVER_ERROR 500 "Internal Server Error";
    /// 501: a method or transfer coding that ktrix does not know.
    NOT_IMPLEMENTED 501 "Not Implemented";
    /// 502: the origin cannot be reached or broke the protocol.
    BAD_GATEWAY 502 "Bad Gateway";
    /// 503: no server, or a limit is reached; try again later.
    SERVICE_UNAVAILABLE 503 "Service Unavailable";
    /// 504: the origin took too long, or `only-if-cached` found nothing.
    GATEWAY_TIMEOUT 504 "Gateway Timeout";
    /// 505: not HTTP/1.
    VERSION_NOT_SUPPORTED 505 "HTTP Version Not Supported";
    /// 506.
    VARIANT_ALSO_NEGOTIATES 506 "Variant Also Negotiates";
    /// 507.
    INSUFFICIENT_STORAGE 507 "Insufficient Storage";
    /// 508.
    LOOP_DETECTED 508 "Loop Detected";
    /// 511.
    NETWORK_AUTHENTICATION_REQUIRED 511 "Network Authentication Required";
}

impl Status {
    /// 1xx: another response to the same request follows, but for 101.
    pub const fn is_interim(self) -> bool {
        self.0 >= 100 && self.0 < 200
    }

    /// 2xx.
    pub const fn is_success(self) -> bool {
        self.0 >= 200 && self.0 < 300
    }

    /// 4xx, 5xx and every code beyond.
    pub const fn is_error(self) -> bool {
        self.0 >= 400
    }

    /// 5xx and every code beyond (RFC 9110 section 15: to be treated as 5xx).
    pub const fn is_server_error(self) -> bool {
        self.0 >= 500
    }

    /// Whether a response with this code to this method ends with its head, whatever length the
    /// head declares (RFC 9112 section 6.3, rules 1 and 2).
    pub const fn has_no_body(self, request_method: Method) -> bool {
        matches!(request_method, Method::Head)
            || self.is_interim()
            || matches!(self.0, 204 | 304)
            || (matches!(request_method, Method::Connect) && self.is_success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_complete_in_itself() {
        assert!(Status::REGISTERED.is_sorted());
        assert!(Status::REGISTERED.iter().all(|status| !status.reason().is_empty()));
        assert_eq!(Status(299).reason(), "");
        assert_eq!(Status::OK.reason(), "OK");
    }

    #[test]
    fn responses_that_rfc_9112_names_have_no_body() {
        for status in [100, 101, 103, 204, 304] {
            assert!(Status(status).has_no_body(Method::Get), "{status}");
        }
        for status in [200, 205, 206, 301, 404, 500] {
            assert!(!Status(status).has_no_body(Method::Get), "{status}");
            assert!(Status(status).has_no_body(Method::Head), "{status}");
        }
        assert!(Status(200).has_no_body(Method::Connect));
        assert!(!Status(403).has_no_body(Method::Connect));
    }
}
