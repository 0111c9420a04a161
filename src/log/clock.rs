//! The texts of a second, made once per second.
//!
//! Lines of one second share their time's text, so the calendar is worked out once and copied
//! after that. All texts are UTC.

/// The last second's texts.
#[derive(Clone, Debug)]
pub struct LineClock {
    second: u64,
    common: [u8; COMMON_BYTES],
    iso: [u8; ISO_BYTES],
}

impl LineClock {
    /// A clock that shows the beginning of 1970.
    pub fn new() -> Self {
        let mut clock = Self { second: 0, common: [b' '; COMMON_BYTES], iso: [b' '; ISO_BYTES] };
        clock.set(0);
        clock
    }

    /// The common log format's time, `[21/Nov/2026:03:04:42 +0000]`, of `unix_s`.
    pub fn common(&mut self, unix_s: u64) -> &[u8; COMMON_BYTES] {
        self.turn_to(unix_s);
        &self.common
    }

    /// RFC 3339's time without fraction and zone, `2026-11-21T03:04:42`, of `unix_s`.
    pub fn iso(&mut self, unix_s: u64) -> &[u8; ISO_BYTES] {
        self.turn_to(unix_s);
        &self.iso
    }

    fn turn_to(&mut self, unix_s: u64) {
        if unix_s != self.second {
            self.set(unix_s);
        }
    }

    fn set(&mut self, unix_s: u64) {
        self.second = unix_s;
        let shown = unix_s.min(LAST_SECOND);
        let (year, month, day) = date_of(shown / DAY_S);
        let (hour, minute, second) = (shown / 3600 % 24, shown / 60 % 60, shown % 60);
        let month_name = MONTHS.get(month as usize - 1).copied().unwrap_or(b"Jan");

        let text = &mut self.common;
        text.copy_from_slice(b"[00/Jan/1970:00:00:00 +0000]");
        put_digits(&mut text[1..3], day);
        text[4..7].copy_from_slice(month_name);
        put_digits(&mut text[8..12], year);
        put_digits(&mut text[13..15], hour);
        put_digits(&mut text[16..18], minute);
        put_digits(&mut text[19..21], second);

        let text = &mut self.iso;
        text.copy_from_slice(b"1970-01-00T00:00:00");
        put_digits(&mut text[0..4], year);
        put_digits(&mut text[5..7], month);
        put_digits(&mut text[8..10], day);
        put_digits(&mut text[11..13], hour);
        put_digits(&mut text[14..16], minute);
        put_digits(&mut text[17..19], second);
    }
}

impl Default for LineClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes `value` with leading zeros; digits that do not fit are left out on the left.
fn put_digits(text: &mut [u8], mut value: u64) {
    for place in text.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month (1 to 12) and day (1 to 31) of a day since 1970, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is a year's last and every month's first
/// day follows from one line through (153 m + 2) / 5.
fn date_of(days: u64) -> (u64, u64, u64) {
    let day = days + 719_468; // since 0000-03-01
    let era = day / 146_097; // 400 years
    let of_era = day % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// Length of `[21/Nov/2026:03:04:42 +0000]`.
const COMMON_BYTES: usize = 28;
/// Length of `2026-11-21T03:04:42`.
const ISO_BYTES: usize = 19;
const DAY_S: u64 = 86_400;
/// 9999-12-31T23:59:59: a later time is shown as this one.
const LAST_SECOND: u64 = 253_402_300_799;
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn known_seconds_have_known_texts() {
        for (unix_s, common, iso) in [
            (0, "[01/Jan/1970:00:00:00 +0000]", "1970-01-01T00:00:00"),
            (951_782_400, "[29/Feb/2000:00:00:00 +0000]", "2000-02-29T00:00:00"),
            (1_795_230_282, "[21/Nov/2026:03:04:42 +0000]", "2026-11-21T03:04:42"),
            (4_107_542_399, "[28/Feb/2100:23:59:59 +0000]", "2100-02-28T23:59:59"),
            (4_107_542_400, "[01/Mar/2100:00:00:00 +0000]", "2100-03-01T00:00:00"),
            (u64::MAX, "[31/Dec/9999:23:59:59 +0000]", "9999-12-31T23:59:59"),
        ] {
            let mut clock = LineClock::new();
            assert_eq!(std::str::from_utf8(clock.common(unix_s)).unwrap(), common);
            assert_eq!(std::str::from_utf8(clock.iso(unix_s)).unwrap(), iso);
        }
    }

    #[test]
    fn a_clock_may_go_back() {
        let mut clock = LineClock::new();
        let later = *clock.iso(1_000_000_001);
        assert_ne!(later, *clock.iso(1_000_000_000));
        assert_eq!(later, *clock.iso(1_000_000_001));
    }

    proptest::proptest! {
        #[test]
        fn every_second_agrees_with_the_http_date(unix_s in 0..LAST_SECOND) {
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s));
            let mut clock = LineClock::new();
            let text = String::from_utf8(clock.common(unix_s).to_vec()).unwrap();
            // Sun, 06 Nov 1994 08:49:37 GMT
            let common = format!(
                "[{}/{}/{}:{} +0000]", &date[5..7], &date[8..11], &date[12..16], &date[17..25]
            );
            proptest::prop_assert_eq!(text, common);
        }
    }
}
