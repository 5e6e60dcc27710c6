//! A tenant's rate budget: a token bucket that holds one token, kept as the time from which the next call may go.
//!
//! Source: Microsoft's throttling page: 100 write requests in 20 seconds per app and tenant for Intune services. The window
//! slides, so calls that leave evenly are the most that never meet a 429; a bucket that may be emptied at once would fit
//! twice the limit into one window.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// `[limits]`: so many calls in any such period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Calls, at least 1.
    pub calls: u32,
    /// The period.
    pub period: Duration,
}

/// A call may leave this much before its time, so that a worker need not wake for each where the rate is high.
const TOLERANCE: TimeDelta = TimeDelta::milliseconds(50);

/// What a budget allows now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Calls that may leave at once.
    pub calls: usize,
    /// The time from which the next may go if none of these do.
    pub next: DateTime<Utc>,
}

impl Rate {
    /// Time from one call to the next. A hundredth more than it need be: calls that leave evenly do not arrive evenly, and
    /// one 429 costs more than a hundredth.
    fn interval(self) -> TimeDelta {
        let nanoseconds = self.period.as_nanos() / u128::from(self.calls.max(1)) / 100 * 101;
        TimeDelta::nanoseconds(i64::try_from(nanoseconds.max(1)).unwrap_or(i64::MAX))
    }

    /// What may leave at `now` if the next call may go from `next` on; `None`: none has gone yet.
    pub fn allowance(self, next: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Allowance {
        // Where the clock was set back, the time is further off than any budget can put it.
        let latest = now + self.interval().max(TimeDelta::from_std(self.period).unwrap_or(TimeDelta::MAX));
        let next = next.map_or(now, |next| next.clamp(now, latest));
        let early = now + TOLERANCE - next;
        let calls = if early < TimeDelta::zero() {
            0
        } else {
            let more =
                early.num_nanoseconds().unwrap_or(i64::MAX) / self.interval().num_nanoseconds().unwrap_or(i64::MAX);
            usize::try_from(more).unwrap_or(usize::MAX).saturating_add(1)
        };
        Allowance { calls, next }
    }

    /// The time from which the next call may go once `calls` have left.
    pub fn after(self, allowance: Allowance, calls: usize) -> DateTime<Utc> {
        let calls = i32::try_from(calls).unwrap_or(i32::MAX);
        self.interval()
            .checked_mul(calls)
            .and_then(|time| allowance.next.checked_add_signed(time))
            .unwrap_or(allowance.next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PUBLISHED: Rate = Rate { calls: 100, period: Duration::from_secs(20) };

    fn at(millisecond: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_000 + millisecond).unwrap()
    }

    /// Takes as much as it may at each of `looks`, and gives the times at which calls left.
    fn taken(rate: Rate, looks: impl Iterator<Item = DateTime<Utc>>, most: usize) -> Vec<DateTime<Utc>> {
        let (mut next, mut left) = (None, Vec::new());
        for now in looks {
            let allowance = rate.allowance(next, now);
            let calls = allowance.calls.min(most);
            left.extend(std::iter::repeat_n(now, calls));
            next = Some(rate.after(allowance, calls));
        }
        left
    }

    #[test]
    fn the_published_limit_is_used_to_the_hundredth() {
        let left = taken(PUBLISHED, (0..200_000).map(at), 4);
        assert_eq!(left.len(), 200_000 / 202 + 1);
    }

    #[test]
    fn a_clock_that_was_set_back_by_a_day_costs_one_period() {
        let day = Some(at(86_400_000));
        assert_eq!(PUBLISHED.allowance(day, at(0)), Allowance { calls: 0, next: at(20_000) });
        assert_eq!(PUBLISHED.allowance(None, at(0)).calls, 1);
    }

    proptest! {
        #[test]
        fn no_period_ever_sees_more_calls_than_its_limit_whenever_and_however_often_one_looks(
            calls in 1..40_u32, period in 1_000..5_000_i64, most in 1..20_usize,
            looks in proptest::collection::vec(0..40_000_i64, 1..400),
        ) {
            let rate = Rate { calls, period: Duration::from_millis(period.unsigned_abs()) };
            let mut looks = looks;
            looks.sort_unstable();
            let left = taken(rate, looks.into_iter().map(at), most);
            // The tolerance is within the hundredth that is held back only for windows of five seconds and more.
            let window = TimeDelta::milliseconds(period) - TOLERANCE;
            for (n, first) in left.iter().enumerate() {
                let within = left[n..].iter().take_while(|time| **time - *first < window).count();
                prop_assert!(within <= calls as usize, "{within} of {calls}");
            }
        }
    }
}
