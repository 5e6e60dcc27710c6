//! Spans of time as people write and read them: `90s`, `2 h`.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// Units from the longest, in seconds: as written on the command line, and as shown.
const UNITS: [(&str, &str, u64); 5] =
    [("w", "weeks", 604_800), ("d", "days", 86_400), ("h", "h", 3600), ("m", "min", 60), ("s", "s", 1)];

/// A span such as `2s`, `90m`, `7d`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "not a duration: write a whole number and a unit, such as 30s, 15m, 2h, 7d or 4w".to_owned();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let (_, _, seconds) = UNITS.iter().find(|(written, _, _)| *written == unit).ok_or_else(wrong)?;
    let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*seconds)).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

/// A point in time: RFC 3339, or a span back from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// As given.
    At(DateTime<Utc>),
    /// This long before the database's now.
    Ago(Duration),
}

impl When {
    /// Reads `2026-01-31T22:00:00Z` or `2h`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match DateTime::parse_from_rfc3339(text) {
            Ok(at) => Ok(Self::At(at.with_timezone(&Utc))),
            Err(_) => parse(text).map(Self::Ago).map_err(|_| {
                "not a time: write UTC such as 2026-01-31T22:00:00Z, or how long ago, such as 15m, 2h or 7d".to_owned()
            }),
        }
    }

    /// The instant, seen from `now`; a span that goes back past all time is the beginning of it.
    pub fn seen_from(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(at) => at,
            Self::Ago(span) => TimeDelta::from_std(span)
                .ok()
                .and_then(|span| now.checked_sub_signed(span))
                .map_or(DateTime::UNIX_EPOCH, |at| at.max(DateTime::UNIX_EPOCH)),
        }
    }
}

/// The time from `from` to `to` in its largest unit that counts at least two, such as `90 s` or `2 h`; never negative.
pub fn between(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let seconds = u64::try_from((to - from).num_seconds()).unwrap_or(0);
    let (_, unit, length) = UNITS.iter().find(|(_, _, length)| seconds >= 2 * length).unwrap_or(&UNITS[4]);
    format!("{} {unit}", seconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        assert_eq!(parse("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse("2h"), Ok(Duration::from_hours(2)));
        for text in ["", "2", "s", "-2s", "2 s", "1.5h", "2y", "99999999999999999999s", "9999999999999999999w"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_time_is_an_instant_or_a_span_back() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let seen = |text: &str| When::parse(text).map(|when| when.seen_from(now).timestamp());
        assert_eq!(seen("1970-01-02T00:00:00+01:00"), Ok(82_800));
        assert_eq!(seen("1h"), Ok(996_400));
        assert_eq!(seen("30000w"), Ok(0));
        assert!(seen("yesterday").is_err());
    }

    #[test]
    fn spans_are_shown_in_one_unit() {
        let shown = |seconds| between(DateTime::UNIX_EPOCH, DateTime::from_timestamp(seconds, 0).unwrap());
        let all: Vec<String> = [-5, 0, 1, 119, 120, 7199, 7200, 172_800, 1_209_600].into_iter().map(shown).collect();
        assert_eq!(all, ["0 s", "0 s", "1 s", "119 s", "2 min", "119 min", "2 h", "2 days", "2 weeks"]);
    }
}
