//! Status codes from the view of a cache, RFC 9110 section 15 and RFC 9111 section 3.

use crate::http::status::Status;

/// A final status of a whole response, and not of a part, a condition or a range.
pub(crate) const fn is_whole(status: Status) -> bool {
    status.0 >= 200 && !matches!(status.0, 206 | 304 | 412 | 416)
}

/// A status with rules for caching that ktrix knows (RFC 9111 section 3, RFC 9110 section 15).
/// `must-understand` allows to store no other.
pub(crate) const fn is_understood(status: Status) -> bool {
    matches!(status.0, 200..=205 | 300..=303 | 305..=308 | 400..=411 | 413..=415 | 417 | 421
        | 422 | 426 | 428 | 429 | 431 | 451 | 500..=505 | 511)
}

/// A status that may have a heuristic lifetime (RFC 9110 section 15.1), without 206, which is not a
/// whole response.
pub(crate) const fn is_heuristically_cacheable(status: Status) -> bool {
    matches!(status.0, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heuristically_cacheable_statuses_are_whole_and_understood() {
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
