//! Sizes and durations as people write them in a configuration: a number and its unit.
//!
//! A bare number is refused, because `timeout: 5` does not say its unit. Fractions are refused too;
//! the next smaller unit expresses the value exactly.

use std::time::Duration;

/// Why a text is not a size or a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Only a number.
    #[error("\"{text}\" has no unit (try \"{text}{example}\")")]
    NoUnit {
        /// The text as written.
        text: String,
        /// A unit that fits, with a space before it where that is how it is written.
        example: &'static str,
    },
    /// A number and something that is not a unit of this kind.
    #[error("\"{text}\" has an unknown unit \"{unit}\" (known are {known})")]
    UnknownUnit {
        /// The text as written.
        text: String,
        /// The part after the number.
        unit: String,
        /// Every unit of this kind.
        known: &'static str,
    },
    /// No number where one is expected.
    #[error("\"{text}\" is not a whole number and a unit (try \"{example}\")")]
    NoNumber {
        /// The text as written.
        text: String,
        /// A text of this kind.
        example: &'static str,
    },
    /// More than a 64 bit number of bytes or milliseconds holds.
    #[error("\"{text}\" is too large")]
    TooLarge {
        /// The text as written.
        text: String,
    },
}

/// Bytes of a size such as `10 GiB`, `64MiB`, `32 KiB`, `100 B`, `5 kB`.
///
/// # Errors
/// The text is not a whole number followed by one of the known units.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZE)
}

/// A duration such as `100ms`, `5s`, `1m`, `1h`, `7d`.
///
/// # Errors
/// The text is not a whole number followed by one of the known units.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, &DURATION).map(Duration::from_millis)
}

/// The shortest exact text of a size, in binary units: `10 GiB`, `1536 B`.
pub fn format_size(bytes: u64) -> String {
    let (name, factor) = largest_unit(bytes, &["GiB", "MiB", "KiB"], &SIZE).unwrap_or(("B", 1));
    format!("{} {name}", bytes / factor)
}

/// The shortest exact text of a duration, in whole milliseconds: `7d`, `90s`, `100ms`.
pub fn format_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (name, factor) = largest_unit(ms, &["d", "h", "m", "s"], &DURATION).unwrap_or(("ms", 1));
    let name = if ms == 0 { "s" } else { name };
    format!("{}{name}", ms / factor)
}

struct Kind {
    units: &'static [(&'static str, u64)],
    known: &'static str,
    /// A unit to propose for a bare number, and a whole text to propose for nonsense.
    unit_example: &'static str,
    example: &'static str,
}

const SIZE: Kind = Kind {
    units: &[
        ("B", 1),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ],
    known: "B, KiB, MiB, GiB, TiB, kB, MB, GB, TB",
    unit_example: " MiB",
    example: "64 MiB",
};

/// In milliseconds.
const DURATION: Kind = Kind {
    units: &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)],
    known: "ms, s, m, h, d",
    unit_example: "s",
    example: "5s",
};

fn parse(text: &str, kind: &Kind) -> Result<u64, UnitError> {
    let trimmed = text.trim();
    let n_digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = trimmed.split_at_checked(n_digits).unwrap_or((trimmed, ""));
    let unit = unit.trim_start();
    let text = || trimmed.to_owned();
    if digits.is_empty() {
        return Err(UnitError::NoNumber { text: text(), example: kind.example });
    }
    if unit.is_empty() {
        return Err(UnitError::NoUnit { text: text(), example: kind.unit_example });
    }
    if unit.starts_with(['.', ',', '_']) {
        return Err(UnitError::NoNumber { text: text(), example: kind.example });
    }
    let Some((_, factor)) = kind.units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::UnknownUnit {
            text: text(),
            unit: unit.to_owned(),
            known: kind.known,
        });
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(*factor))
        .ok_or_else(|| UnitError::TooLarge { text: text() })
}

/// The first of `names` (largest first) that divides the amount without a remainder.
fn largest_unit(amount: u64, names: &[&'static str], kind: &Kind) -> Option<(&'static str, u64)> {
    let unit = |name: &&str| kind.units.iter().copied().find(|(unit, _)| unit == name);
    names.iter().filter_map(unit).find(|(_, factor)| amount > 0 && amount.is_multiple_of(*factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read() {
        let table = [
            ("100 B", 100),
            ("0 B", 0),
            ("32 KiB", 32 << 10),
            ("64MiB", 64 << 20),
            ("10 GiB", 10 << 30),
            ("1 TiB", 1 << 40),
            ("5 kB", 5_000),
            ("5 MB", 5_000_000),
            ("5 GB", 5_000_000_000),
            ("  7   B ", 7),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn durations_are_read() {
        let table = [
            ("100ms", 100),
            ("5s", 5_000),
            ("1m", 60_000),
            ("1 h", 3_600_000),
            ("7d", 604_800_000),
        ];
        for (text, ms) in table {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn errors_propose_a_correction() {
        let table = [
            ("5", "\"5\" has no unit (try \"5s\")"),
            ("5 x", "\"5 x\" has an unknown unit \"x\" (known are ms, s, m, h, d)"),
            ("5S", "\"5S\" has an unknown unit \"S\" (known are ms, s, m, h, d)"),
            ("", "\"\" is not a whole number and a unit (try \"5s\")"),
            ("-5s", "\"-5s\" is not a whole number and a unit (try \"5s\")"),
            ("1.5s", "\"1.5s\" is not a whole number and a unit (try \"5s\")"),
            ("99999999999999999999s", "\"99999999999999999999s\" is too large"),
            ("99999999999999999d", "\"99999999999999999d\" is too large"),
        ];
        for (text, message) in table {
            assert_eq!(parse_duration(text).unwrap_err().to_string(), message);
        }
        let error = parse_size("64").unwrap_err();
        assert_eq!(error.to_string(), "\"64\" has no unit (try \"64 MiB\")");
    }

    #[test]
    fn formatting_takes_the_largest_exact_unit() {
        assert_eq!(format_size(10 << 30), "10 GiB");
        assert_eq!(format_size(1536), "1536 B");
        assert_eq!(format_size(0), "0 B");
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::from_secs(7 * 86_400)), "7d");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(format_duration(Duration::from_millis(1_500)), "1500ms");
    }

    proptest! {
        #[test]
        fn formatted_amounts_read_back(amount in any::<u64>(), shift in 0u32..64) {
            let amount = amount >> shift;
            prop_assert_eq!(parse_size(&format_size(amount)), Ok(amount));
            let duration = Duration::from_millis(amount);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = (parse_size(&text), parse_duration(&text));
        }
    }
}
