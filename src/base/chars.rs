//! The classes of octets that HTTP is made of, as one table, and functions on octets alone.
//!
//! The classes are those of RFC 9110 section 5.6 and RFC 3986; everything is by octet, nothing is
//! by locale, and letters are compared without regard to case as ASCII only.

use std::borrow::Cow;

/// `tchar` of RFC 9110 section 5.6.2: an octet of a token.
pub const fn is_token_char(octet: u8) -> bool {
    CLASSES[octet as usize] & TOKEN != 0
}

/// An octet of a field value (RFC 9110 section 5.5): visible, space, tab and obs-text.
pub const fn is_value_char(octet: u8) -> bool {
    CLASSES[octet as usize] & VALUE != 0
}

/// An octet that ktrix accepts in a request target: visible ASCII without `#`.
///
/// This is wider than RFC 3986 by `"<>\^` and others that browsers send raw and servers accept; an
/// octet that could end the target or the line early stays out.
pub const fn is_target_char(octet: u8) -> bool {
    CLASSES[octet as usize] & TARGET != 0
}

/// An octet of a registered name (RFC 3986 section 3.2.2), but for `%` and the comma.
///
/// A comma in a host is legal and only ever seen where two `Host` lines were joined to one.
pub const fn is_host_char(octet: u8) -> bool {
    CLASSES[octet as usize] & HOST != 0
}

/// Whether this is not empty and made of token characters only.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|octet| is_token_char(*octet))
}

/// Space or horizontal tab.
pub const fn is_ows(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

/// The value of a hexadecimal digit of either case.
pub const fn hex_value(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// Undoes percent-encoding once; an invalid encoding stays. A plus sign becomes `plus`.
pub fn percent_decoded(text: &[u8], plus: u8) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        if octet == b'%'
            && let [high, low, after @ ..] = after
            && let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(if octet == b'+' { plus } else { octet });
        }
    }
    Cow::Owned(out)
}

/// The digits that hexadecimal output uses.
pub const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Equality without regard to the case of ASCII letters.
pub fn eq_ignore_case(left: &[u8], right: &[u8]) -> bool {
    left.eq_ignore_ascii_case(right)
}

/// Equality of field names as CGI and similar interfaces map them to variables (RFC 3875 section
/// 4.1.18): without regard to case, and all octets that are neither letters nor digits count as
/// equal.
pub fn eq_as_variable(left: &[u8], right: &[u8]) -> bool {
    let fold = |octet: &u8| match octet.is_ascii_alphanumeric() {
        true => octet.to_ascii_lowercase(),
        false => b'_',
    };
    left.len() == right.len() && left.iter().map(fold).eq(right.iter().map(fold))
}

/// Whether a character could change how the line that it is in is shown: a control character (those
/// from U+0080 to U+009F too), a separator of lines or paragraphs, or one that controls the
/// direction of text (Unicode UAX 9).
pub fn is_unprintable(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{61C}'
                | '\u{200E}'
                | '\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// The text without the spaces and tabs around it (OWS of RFC 9110 section 5.6.3).
pub fn trim_ows(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let [first, tail @ ..] = rest
        && is_ows(*first)
    {
        rest = tail;
    }
    while let [head @ .., last] = rest
        && is_ows(*last)
    {
        rest = head;
    }
    rest
}

/// A number of 1 to 19 decimal digits and nothing else: no sign, no space, no overflow.
///
/// Nineteen digits always fit, so a longer number is refused even where its value would.
pub fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > DECIMAL_DIGITS_MAX {
        return None;
    }
    text.iter().try_fold(0u64, |sum, octet| match octet {
        b'0'..=b'9' => Some(sum * 10 + u64::from(octet - b'0')),
        _ => None,
    })
}

const DECIMAL_DIGITS_MAX: usize = 19;

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;
const HOST: u8 = 8;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut octet = 0usize;
    while octet < 256 {
        let c = octet as u8;
        if c.is_ascii_alphanumeric() {
            table[octet] |= TOKEN | HOST;
        }
        if matches!(c, b'\t' | b' '..=b'~' | 0x80..=0xff) {
            table[octet] |= VALUE;
        }
        if c.is_ascii_graphic() && c != b'#' {
            table[octet] |= TARGET;
        }
        octet += 1;
    }
    mark(mark(table, b"!#$%&'*+-.^_`|~", TOKEN), b"-._~!$&'()*+;=", HOST)
}

const fn mark(mut table: [u8; 256], octets: &[u8], class: u8) -> [u8; 256] {
    let mut i = 0;
    while i < octets.len() {
        table[octets[i] as usize] |= class;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_make_one_variable_are_equal() {
        for name in ["X-Original-URL", "x_original-url", "X_ORIGINAL_URL", "x.original.url"] {
            assert!(eq_as_variable(name.as_bytes(), b"x-original-url"), "{name}");
        }
        for name in ["X-Original-URI", "XOriginalURL", "X-Original-URL-", "x1original-url", ""] {
            assert!(!eq_as_variable(name.as_bytes(), b"x-original-url"), "{name}");
        }
    }

    #[test]
    fn tokens_hold_the_octets_that_the_rfc_lists() {
        let listed =
            b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for octet in 0..=255u8 {
            assert_eq!(is_token_char(octet), listed.contains(&octet), "octet {octet:#04x}");
        }
        assert!(!is_token(b"") && is_token(b"a") && !is_token(b"a b"));
    }

    #[test]
    fn values_have_no_controls_but_the_tab() {
        for octet in 0..=255u8 {
            let expected = octet == b'\t' || (octet >= b' ' && octet != 0x7f);
            assert_eq!(is_value_char(octet), expected, "octet {octet:#04x}");
        }
    }

    #[test]
    fn targets_have_no_space_no_fragment_and_no_foreign_letters() {
        for octet in 0..=255u8 {
            let expected = (0x21..=0x7e).contains(&octet) && octet != b'#';
            assert_eq!(is_target_char(octet), expected, "octet {octet:#04x}");
        }
    }

    #[test]
    fn hosts_have_no_delimiters() {
        for octet in b"/?#[]@:,% \"<>\\^`{|}\0\r\n" {
            assert!(!is_host_char(*octet), "octet {octet:#04x}");
        }
        assert!(b"a-z._~0".iter().all(|octet| is_host_char(*octet)));
    }

    #[test]
    fn trimming_takes_spaces_and_tabs_only() {
        let table: [(&[u8], &[u8]); 6] = [
            (b"", b""),
            (b" \t ", b""),
            (b" a ", b"a"),
            (b"\ta b\t", b"a b"),
            (b"\ra\n", b"\ra\n"),
            (b"a", b"a"),
        ];
        for (text, expected) in table {
            assert_eq!(trim_ows(text), expected);
        }
    }

    #[test]
    fn decimal_numbers_are_digits_only() {
        assert_eq!(parse_decimal(b"0"), Some(0));
        assert_eq!(parse_decimal(b"0042"), Some(42));
        assert_eq!(parse_decimal(b"9999999999999999999"), Some(9_999_999_999_999_999_999));
        for bad in ["", "+1", "-1", " 1", "1 ", "0x1", "1,1", "1.0", "10000000000000000000", "१"]
        {
            assert_eq!(parse_decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn hex_digits_read_back() {
        for octet in 0..=255u8 {
            let expected = (octet as char).to_digit(16).map(|digit| digit as u8);
            assert_eq!(hex_value(octet), expected, "octet {octet:#04x}");
        }
    }
}
