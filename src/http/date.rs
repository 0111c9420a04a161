//! `HTTP-date` (RFC 9110 section 5.6.7), to and from seconds since the Unix epoch.

use crate::base::chars::eq_ignore_case;

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
/// The case of names does not count (RFC 9111 section 4.2), and the day of the week need not be the
/// date's. Anything else is no date: another zone than GMT, a day that the month does not have, a
/// time before the epoch.
pub fn parse(text: &[u8]) -> Option<u64> {
    imf_fixdate(text).or_else(|| rfc850_date(text)).or_else(|| asctime_date(text))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &[u8]) -> Option<u64> {
    let mut text = Reader(text);
    text.one_of(&WEEKDAYS)?;
    text.literal(b", ")?;
    let month_day = text.digits(2)?;
    text.literal(b" ")?;
    let month = text.one_of(&MONTHS)?;
    text.literal(b" ")?;
    let year = text.digits(4)?;
    text.literal(b" ")?;
    let second = text.time()?;
    text.literal(b" GMT")?;
    text.end()?;
    unix_s(year, month, month_day, second)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
///
/// A year of two digits is one of 1970 to 2069. RFC 9110 section 5.6.7 has it at most 50 years from
/// now; a later date reads as one of the past, so that what it says is stale at once.
fn rfc850_date(text: &[u8]) -> Option<u64> {
    let mut text = Reader(text);
    text.one_of(&LONG_WEEKDAYS)?;
    text.literal(b", ")?;
    let month_day = text.digits(2)?;
    text.literal(b"-")?;
    let month = text.one_of(&MONTHS)?;
    text.literal(b"-")?;
    let year = text.digits(2)?;
    text.literal(b" ")?;
    let second = text.time()?;
    text.literal(b" GMT")?;
    text.end()?;
    unix_s(if year < 70 { 2000 + year } else { 1900 + year }, month, month_day, second)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime_date(text: &[u8]) -> Option<u64> {
    let mut text = Reader(text);
    text.one_of(&WEEKDAYS)?;
    text.literal(b" ")?;
    let month = text.one_of(&MONTHS)?;
    text.literal(b" ")?;
    let month_day = match text.literal(b" ") {
        Some(()) => text.digits(1)?,
        None => text.digits(2)?,
    };
    text.literal(b" ")?;
    let second = text.time()?;
    text.literal(b" ")?;
    let year = text.digits(4)?;
    text.end()?;
    unix_s(year, month, month_day, second)
}

/// The unread rest of a date. A method that gives `None` reads nothing.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// Reads these bytes, in any case.
    fn literal(&mut self, text: &[u8]) -> Option<()> {
        let (part, rest) = self.0.split_at_checked(text.len())?;
        if !eq_ignore_case(part, text) {
            return None;
        }
        self.0 = rest;
        Some(())
    }

    /// Reads one of these names and gives its index.
    fn one_of(&mut self, names: &[impl AsRef<[u8]>]) -> Option<u64> {
        (0..).zip(names).find_map(|(index, name)| self.literal(name.as_ref()).map(|()| index))
    }

    /// Reads a number of this many digits.
    fn digits(&mut self, n_digits: usize) -> Option<u64> {
        let (part, rest) = self.0.split_at_checked(n_digits)?;
        let number = part.iter().try_fold(0, |number, octet| {
            octet.is_ascii_digit().then(|| number * 10 + u64::from(octet - b'0'))
        })?;
        self.0 = rest;
        Some(number)
    }

    /// Reads `08:49:37`, as the second of its day; a leap second is the one before it.
    fn time(&mut self) -> Option<u64> {
        let hour = self.digits(2)?;
        self.literal(b":")?;
        let minute = self.digits(2)?;
        self.literal(b":")?;
        let second = self.digits(2)?;
        let second_of_minute = second.min(59);
        (hour < 24 && minute < 60 && second <= 60)
            .then_some(hour * 3600 + minute * 60 + second_of_minute)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
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

/// The opposite of [`civil`], in seconds; `None` if there is no such day, or it is before the epoch.
fn unix_s(year: u64, month: u64, month_day: u64, second: u64) -> Option<u64> {
    let march_year = year.checked_sub(u64::from(month < 2))?;
    let (era, era_year) = (march_year / 400, march_year % 400);
    let year_day = (153 * ((month + 10) % 12) + 2) / 5 + month_day.checked_sub(1)?;
    let era_day = era_year * 365 + era_year / 4 - era_year / 100 + year_day;
    let day = (era * 146_097 + era_day).checked_sub(DAYS_FROM_MARCH_OF_YEAR_0)?;
    (civil(day) == (year, month, month_day)).then_some(day * 86_400 + second)
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

const LONG_WEEKDAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

const MONTHS: [[u8; 3]; 12] = [
    *b"Jan", *b"Feb", *b"Mar", *b"Apr", *b"May", *b"Jun", *b"Jul", *b"Aug", *b"Sep", *b"Oct",
    *b"Nov", *b"Dec",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn all_three_forms_are_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun Nov 06 08:49:37 1994",
        ] {
            for text in [text.to_owned(), text.to_ascii_lowercase(), text.to_ascii_uppercase()] {
                assert_eq!(parse(text.as_bytes()), Some(784_111_777), "{text}");
            }
        }
    }

    #[test]
    fn a_wrong_day_of_the_week_does_not_count() {
        for text in [
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Wednesday, 06-Nov-94 08:49:37 GMT",
            "Sat Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn two_digits_are_a_year_from_1970_to_2069() {
        let year = |text: &[u8]| parse(text).map(|unix_s| civil(unix_s / 86_400).0);
        assert_eq!(year(b"Thursday, 01-Jan-70 00:00:00 GMT"), Some(1970));
        assert_eq!(year(b"Friday, 31-Dec-99 00:00:00 GMT"), Some(1999));
        assert_eq!(year(b"Tuesday, 31-Dec-69 00:00:00 GMT"), Some(2069));
    }

    #[test]
    fn a_leap_second_is_a_time() {
        assert_eq!(parse(b"Sat, 31 Dec 2016 23:59:60 GMT"), Some(1_483_228_799));
    }

    #[test]
    fn oddities_are_no_dates() {
        let table = [
            "",
            "0",
            "-1",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 23:60:00 GMT",
            "Sun, 06 Nov 1994 23:59:61 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 01 Jan 0000 08:49:37 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 1994 GMT",
            "Sun Nov  16 08:49:37 1994",
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
        fn each_form_of_a_date_means_the_same(unix_s in 0u64..3_155_760_000) {
            let text = String::from_utf8(format(unix_s).to_vec()).unwrap();
            let (weekday, day, month) = (&text[..3], &text[5..7], &text[8..11]);
            let (year, time) = (&text[12..16], &text[17..25]);
            let long = LONG_WEEKDAYS.iter().find(|name| name.starts_with(weekday)).unwrap();
            let asctime = format!("{weekday} {month} {:>2} {time} {year}", day.trim_start_matches('0'));
            prop_assert_eq!(parse(asctime.as_bytes()), Some(unix_s));
            let rfc850 = format!("{long}, {day}-{month}-{} {time} GMT", &year[2..]);
            let is_near = year < "2070";
            prop_assert_eq!(parse(rfc850.as_bytes()) == Some(unix_s), is_near);
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
