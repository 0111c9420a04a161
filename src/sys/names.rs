//! The questions that the C library asks name servers.

use std::ffi::{CString, c_char, c_int};

/// The kinds of records with addresses, RFC 1035 section 3.2.2 and RFC 3596.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RecordKind {
    A = 1,
    Aaaa = 28,
}

/// The class of the Internet.
const IN: c_int = 1;

/// Longer answers are cut.
const ANSWER_BYTES_MAX: usize = 4096;

// SAFETY: this is the declaration of resolv.h.
unsafe extern "C" {
    fn res_search(
        name: *const c_char,
        class: c_int,
        kind: c_int,
        answer: *mut u8,
        len: c_int,
    ) -> c_int;
}

/// The answer of a name server to a question for a name, as it came. The file resolv.conf says which
/// server is asked and which domains the name may be in. This may block for many seconds.
pub(crate) fn dns_answer(name: &str, kind: RecordKind) -> Option<Vec<u8>> {
    let name = CString::new(name).ok()?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    // SAFETY: the name ends with a zero, and `answer` is writable for the length that is given. The
    // state of the resolver belongs to the thread.
    let len = unsafe {
        res_search(name.as_ptr(), IN, kind as c_int, answer.as_mut_ptr(), ANSWER_BYTES_MAX as c_int)
    };
    // A longer answer has the length that it would have had.
    answer.truncate(usize::try_from(len).ok()?);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_one_has_no_answer() {
        for kind in [RecordKind::A, RecordKind::Aaaa] {
            assert_eq!(dns_answer("a\0b", kind), None);
            assert_eq!(dns_answer(&"x".repeat(300), kind), None);
        }
    }
}
