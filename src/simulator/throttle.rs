//! Throttling as published: a sliding window in which refused calls count too, so that calling early prolongs it.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// How many calls of the action are let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttle {
    /// All of them.
    Off,
    /// At most this many in any window of this length, per app and tenant (the simulator has one of each).
    Limit {
        /// At least 1.
        calls: u32,
        /// More than zero.
        window: Duration,
    },
}

impl Throttle {
    /// Microsoft's figure for writes to Intune services: 100 in 20 seconds per app and tenant.
    pub const PUBLISHED: Self = Self::Limit { calls: 100, window: Duration::from_secs(20) };
}

impl FromStr for Throttle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no throttle: write published, off, or CALLS/SECONDS such as 10/5");
        match text {
            "published" => return Ok(Self::PUBLISHED),
            "off" => return Ok(Self::Off),
            _ => {}
        }
        let (calls, seconds) = text.split_once('/').ok_or_else(wrong)?;
        let calls = calls.parse().ok().filter(|&calls| calls > 0).ok_or_else(wrong)?;
        let seconds = seconds.parse().ok().filter(|&s: &u32| s > 0).ok_or_else(wrong)?;
        Ok(Self::Limit { calls, window: Duration::from_secs(seconds.into()) })
    }
}

#[derive(Debug)]
pub(super) struct Window {
    throttle: Throttle,
    /// The newest calls, at most as many as are let through: only they decide.
    recent: VecDeque<DateTime<Utc>>,
}

impl Window {
    pub(super) fn new(throttle: Throttle) -> Self {
        Self { throttle, recent: VecDeque::new() }
    }

    /// Counts a call; `Err` holds the whole seconds after which one would be let through if none came before.
    pub(super) fn admit(&mut self, now: DateTime<Utc>) -> Result<(), u64> {
        let Throttle::Limit { calls, window } = self.throttle else {
            return Ok(());
        };
        let window = TimeDelta::from_std(window).unwrap_or(TimeDelta::MAX);
        let full = self.recent.len() >= calls as usize;
        let refused = full && self.recent.front().is_some_and(|oldest| now - *oldest < window);
        if full {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        if !refused {
            return Ok(());
        }
        let free = self.recent.front().map_or(now, |oldest| *oldest + window);
        let nanoseconds = (free - now).num_nanoseconds().and_then(|n| u64::try_from(n).ok()).unwrap_or(u64::MAX);
        Err(nanoseconds.div_ceil(1_000_000_000).max(1))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn window(text: &str) -> Window {
        Window::new(text.parse().unwrap())
    }

    #[test]
    fn the_published_limit_lets_a_hundred_calls_through_in_twenty_seconds() {
        let mut published = window("published");
        for _ in 0..100 {
            assert_eq!(published.admit(at(0)), Ok(()));
        }
        assert!(published.admit(at(19)).is_err());
        assert_eq!(published.admit(at(40)), Ok(()));
    }

    #[test]
    fn the_window_slides() {
        let mut window = window("2/10");
        assert_eq!([window.admit(at(0)), window.admit(at(6))], [Ok(()), Ok(())]);
        assert_eq!(window.admit(at(11)), Ok(()));
        assert_eq!(window.admit(at(15)), Err(6), "the calls at 11 and 15 count until 21");
    }

    #[test]
    fn refused_calls_count_too_so_that_calling_early_prolongs_it() {
        let mut window = window("1/10");
        assert_eq!(window.admit(at(0)), Ok(()));
        assert_eq!(window.admit(at(9)), Err(10));
        assert_eq!(window.admit(at(12)), Err(10), "the first call is over by 10, the refused one is not");
        assert_eq!(window.admit(at(23)), Ok(()));
    }

    #[test]
    fn who_waits_as_told_gets_through() {
        let mut window = window("3/10");
        let mut now = 0;
        for _ in 0..50 {
            if let Err(seconds) = window.admit(at(now)) {
                now += i64::try_from(seconds).unwrap();
                assert_eq!(window.admit(at(now)), Ok(()));
            }
        }
    }

    #[test]
    fn a_throttle_is_written_as_published_off_or_calls_per_seconds() {
        assert_eq!("off".parse(), Ok(Throttle::Off));
        assert_eq!("3/5".parse(), Ok(Throttle::Limit { calls: 3, window: Duration::from_secs(5) }));
        for text in ["", "0/5", "3/0", "3", "-1/5", "3/5s"] {
            assert!(text.parse::<Throttle>().is_err(), "{text:?}");
        }
    }
}
