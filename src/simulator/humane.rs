//! Durations as people write them: `200ms`, `2s`, `5m`, `1h`. Used with `#[serde(with = "…")]` and by the command line.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

/// Parses a whole number and one of the units `ms`, `s`, `m`, `h`; `0` needs no unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let wrong =
        || format!("{text:?} is not a duration: write a whole number and a unit (ms, s, m, h), such as 200ms or 2s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let in_seconds = |unit: u64| number.checked_mul(unit).map(Duration::from_secs).ok_or_else(wrong);
    match text[digits..].trim_start() {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => in_seconds(1),
        "m" => in_seconds(60),
        "h" => in_seconds(3600),
        _ => Err(wrong()),
    }
}

pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{}ms", value.as_millis()))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    duration(&String::deserialize(from)?).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("5 m"), Ok(Duration::from_mins(5)));
        assert_eq!(duration("1h"), Ok(Duration::from_hours(1)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for text in ["", "s", "2", "-1s", "1.5s", "2 weeks", "99999999999999999999s", "9999999999999999999h"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }
}
