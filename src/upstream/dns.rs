//! How long the addresses of a name may be used: the least TTL in an answer of a name server, RFC 1035
//! section 4.1.

/// The least TTL of the records that answer a question, in seconds; `None` if the message is no answer
/// with records.
pub fn least_ttl_s(message: &[u8]) -> Option<u32> {
    let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let (n_questions, n_answers) = (word(4)?, word(6)?);
    let mut at = HEADER_BYTES;
    for _ in 0..n_questions {
        at = end_of_name(message, at)? + QUESTION_BYTES;
    }
    let mut least = None;
    for _ in 0..n_answers {
        at = end_of_name(message, at)?;
        let ttl = u32::from_be_bytes(message.get(at + 4..at + 8)?.try_into().ok()?);
        // RFC 2181 section 8: a value with the highest bit set counts as 0.
        let ttl = i32::try_from(ttl).map_or(0, |_| ttl);
        least = Some(least.map_or(ttl, |least: u32| least.min(ttl)));
        at += RECORD_BYTES + usize::from(word(at + 8)?);
    }
    least
}

const HEADER_BYTES: usize = 12;
/// Type and class, behind the name.
const QUESTION_BYTES: usize = 4;
/// Type, class, TTL and the length of the data, behind the name.
const RECORD_BYTES: usize = 10;

/// The end of a name that begins here: labels and a zero, or a pointer to the rest.
fn end_of_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len if len >= 0xc0 => return Some(at + 2),
            len => at += 1 + usize::from(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer to one question, with a record of each TTL.
    fn answer(ttls: &[u32]) -> Vec<u8> {
        let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0, ttls.len() as u8, 0, 0, 0, 0];
        message.extend(b"\x03www\x04test\x00\x00\x01\x00\x01");
        for (n, ttl) in ttls.iter().enumerate() {
            message.extend(if n == 0 { &b"\xc0\x0c"[..] } else { b"\x01a\xc0\x10" });
            message.extend([0, 1, 0, 1]);
            message.extend(ttl.to_be_bytes());
            message.extend([0, 4, 127, 0, 0, n as u8]);
        }
        message
    }

    #[test]
    fn the_least_ttl_counts() {
        assert_eq!(least_ttl_s(&answer(&[300])), Some(300));
        assert_eq!(least_ttl_s(&answer(&[300, 5, 60])), Some(5));
        assert_eq!(least_ttl_s(&answer(&[300, u32::MAX])), Some(0));
        assert_eq!(least_ttl_s(&answer(&[])), None);
    }

    #[test]
    fn a_cut_message_says_nothing() {
        let whole = answer(&[300, 60]);
        for cut in 0..whole.len() - 4 {
            assert_eq!(least_ttl_s(&whole[..cut]), None, "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn no_message_panics(message: Vec<u8>) {
            let _ = least_ttl_s(&message);
        }
    }
}
