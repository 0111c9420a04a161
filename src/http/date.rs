//! `HTTP-date` (RFC 9110 section 5.6.7), to and from seconds since the Unix epoch.

use std::time::{SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

/// Length of a date in the form that ktrix writes.
pub const DATE_LEN: usize = 29;

/// `Sun, 06 Nov 1994 08:49:37 GMT`; a time after the year 9999 is shown as that year's last second.
pub fn format(unix_s: u64) -> [u8; DATE_LEN] {
    let unix_s = unix_s.min(UNIX_S_MAX);
    let (day, second) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, month_day) = civil(day);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut put = |at: usize, part: &[u8]| {
        text.iter_mut().skip(at).zip(part).for_each(|(octet, new)| *octet = *new);
    };
    put(0, name_of(&WEEKDAYS, day % 7));
    put(5, &two_digits(month_day));
    put(8, name_of(&MONTHS, month));
    put(12, &two_digits(year / 100));
    put(14, &two_digits(year % 100));
    put(17, &two_digits(second / 3600));
    put(20, &two_digits(second / 60 % 60));
    put(23, &two_digits(second % 60));
    text
}

/// Seconds since the Unix epoch of a date in any of the three forms.
///
/// Anything else is no date: another zone than GMT, names in another case, a weekday that is not
/// that day's, a time before the epoch.
pub fn parse(text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    let first_and_last = (text.as_bytes().first()?, text.as_bytes().last()?);
    if !(first_and_last.0.is_ascii_graphic() && first_and_last.1.is_ascii_graphic()) {
        return None;
    }
    let date: HttpDate = text.parse().ok()?;
    SystemTime::from(date).duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// The text of the current second, formatted once.
#[derive(Clone, Debug)]
pub struct DateText {
    unix_s: u64,
    text: [u8; DATE_LEN],
}

impl DateText {
    /// The text of this second.
    pub fn new(unix_s: u64) -> Self {
        Self { unix_s, text: format(unix_s) }
    }

    /// The text of this second; formats only when it differs from the last one.
    pub fn at(&mut self, unix_s: u64) -> &[u8; DATE_LEN] {
        if unix_s != self.unix_s {
            *self = Self::new(unix_s);
        }
        &self.text
    }
}

/// Year, month (from 0) and day of the month (from 1) of a day since the epoch.
///
/// Years are counted from March, so that the leap day is a year's last; 400 of them have 146,097
/// days.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + DAYS_FROM_MARCH_OF_YEAR_0;
    let (era, era_day) = (day / 146_097, day % 146_097);
    let era_year = (era_day - era_day / 1_460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let march_month = (5 * year_day + 2) / 153;
    let month_day = year_day - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    (era * 400 + era_year + u64::from(month < 2), month, month_day)
}

fn name_of(names: &[[u8; 3]], index: u64) -> &[u8] {
    usize::try_from(index).ok().and_then(|index| names.get(index)).map_or(b"", |name| name)
}

const fn two_digits(number: u64) -> [u8; 2] {
    [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

const DAYS_FROM_MARCH_OF_YEAR_0: u64 = 719_468;

/// The last second of the year 9999.
const UNIX_S_MAX: u64 = 253_402_300_799;

/// From the weekday of the epoch on.
const WEEKDAYS: [[u8; 3]; 7] = [*b"Thu", *b"Fri", *b"Sat", *b"Sun", *b"Mon", *b"Tue", *b"Wed"];

const MONTHS: [[u8; 3]; 12] = [
    *b"Jan", *b"Feb", *b"Mar", *b"Apr", *b"May", *b"Jun", *b"Jul", *b"Aug", *b"Sep", *b"Oct",
    *b"Nov", *b"Dec",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn all_three_forms_are_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn oddities_are_no_dates() {
        let table = [
            "",
            "0",
            "-1",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 gmt",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37",
            "sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            " Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT\n",
        ];
        for text in table {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_ends_of_time_are_safe() {
        assert_eq!(&format(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&format(951_782_400), b"Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(&format(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn the_text_follows_the_second() {
        let mut text = DateText::new(0);
        assert_eq!(text.at(0), &format(0));
        assert_eq!(text.at(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    proptest! {
        #[test]
        fn dates_agree_with_the_httpdate_crate(unix_s in 0u64..=UNIX_S_MAX) {
            let judge = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s));
            let text = format(unix_s);
            prop_assert_eq!(&text[..], judge.as_bytes());
            prop_assert_eq!(parse(&text), Some(unix_s));
        }

        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..48)) {
            let _ = parse(&text);
        }

        /// Near misses reach further into the parser than noise does.
        #[test]
        fn no_near_miss_panics(at in 0usize..29, octet in any::<u8>(), form in 0usize..3) {
            let forms: [&[u8]; 3] = [
                b"Sun, 06 Nov 1994 08:49:37 GMT",
                b"Sunday, 06-Nov-94 08:49:37 GMT",
                b"Sun Nov  6 08:49:37 1994",
            ];
            let mut text = forms[form].to_vec();
            let at = at % text.len();
            text[at] = octet;
            let _ = parse(&text);
            let _ = parse(&text[..at]);
        }
    }
}
