//! Durations as people write them: `250ms`, `30s`, `1m30s`, `2h`.

use std::time::Duration;

/// The units in the order in which they may follow each other, in milliseconds. No day: a day is not always 24 hours.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// What is wrong with a text that is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotADuration {
    #[error("a duration needs a unit")]
    NoUnit,
    #[error("not a duration")]
    Form,
    #[error("the units of a duration go from large to small, each once")]
    Order,
    #[error("longer than can be counted")]
    TooLong,
}

/// Whole numbers with units, from large to small: `1m30s`. `0s` is the only way to write none.
pub(super) fn parse(text: &str) -> Result<Duration, NotADuration> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut next_unit = 0;
    if rest.is_empty() {
        return Err(NotADuration::Form);
    }
    while !rest.is_empty() {
        let (digits, after) = split(rest, |c| c.is_ascii_digit());
        let (letters, after) = split(after, |c| c.is_ascii_alphabetic());
        rest = after;
        match (digits, letters, after) {
            ("", ..) => return Err(NotADuration::Form),
            (_, "", "") => return Err(NotADuration::NoUnit),
            _ => {}
        }
        let unit = UNITS.iter().position(|(name, _)| *name == letters).ok_or(NotADuration::Form)?;
        if unit < next_unit {
            return Err(NotADuration::Order);
        }
        next_unit = unit + 1;
        let count: u64 = digits.parse().map_err(|_| NotADuration::TooLong)?;
        total = count
            .checked_mul(UNITS[unit].1)
            .and_then(|millis| total.checked_add(millis))
            .ok_or(NotADuration::TooLong)?;
    }
    Ok(Duration::from_millis(total))
}

/// The shortest text that [`parse`] reads back as this duration; what is finer than a millisecond is dropped.
pub(super) fn show(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (name, millis) in UNITS {
        let count = rest / millis;
        rest %= millis;
        if count > 0 {
            parts.push(format!("{count}{name}"));
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.concat() }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_is_whole_numbers_with_units_from_large_to_small() {
        for (text, millis) in [("250ms", 250), ("30s", 30_000), ("1m30s", 90_000), ("2h", 7_200_000), ("0s", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, why) in [
            ("30", NotADuration::NoUnit),
            ("1m30", NotADuration::NoUnit),
            ("", NotADuration::Form),
            ("s", NotADuration::Form),
            ("-5s", NotADuration::Form),
            ("1.5s", NotADuration::Form),
            ("30 s", NotADuration::Form),
            ("30S", NotADuration::Form),
            ("2d", NotADuration::Form),
            ("٣s", NotADuration::Form),
            ("30s1m", NotADuration::Order),
            ("1s1s", NotADuration::Order),
            ("99999999999999999999s", NotADuration::TooLong),
            ("18446744073709551615h", NotADuration::TooLong),
        ] {
            assert_eq!(parse(text), Err(why), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back_as_the_same_duration(millis in 0..u64::MAX) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
