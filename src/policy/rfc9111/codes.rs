//! What a status code means to a cache, RFC 9110 section 15 and RFC 9111 section 3.

use crate::http::status::Status;

/// A final status whose response stands for the whole of what the URI names, whatever the request
/// asked of it: not a part, not an answer to a condition or a range.
pub const fn is_whole(status: Status) -> bool {
    status.0 >= 200 && !matches!(status.0, 206 | 304 | 412 | 416)
}

/// Statuses whose rules for caching are known here (RFC 9111 section 3, RFC 9110 section 15).
/// Others are stored by what their response says, unless it says `must-understand`.
pub const fn is_understood(status: Status) -> bool {
    matches!(status.0, 200..=205 | 300..=303 | 305..=308 | 400..=411 | 413..=415 | 417 | 421
        | 422 | 426 | 428 | 429 | 431 | 451 | 500..=505 | 511)
}

/// Status codes that may be stored and given a lifetime without the origin saying so, RFC 9110
/// section 15.1 (206 is not stored as a whole response).
pub const fn is_heuristically_cacheable(status: Status) -> bool {
    matches!(status.0, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_guessed_about_is_whole_and_understood() {
        for code in 0..=1000 {
            let status = Status(code);
            if is_heuristically_cacheable(status) {
                assert!(is_whole(status) && is_understood(status), "{code}");
            }
        }
        for code in [100, 103, 206, 304, 412, 416] {
            assert!(!is_whole(Status(code)) && !is_understood(Status(code)), "{code}");
        }
        assert!(is_whole(Status(299)) && !is_understood(Status(299)));
    }
}
