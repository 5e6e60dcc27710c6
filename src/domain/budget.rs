//! A budget of requests that need not leave evenly: a token bucket that holds some of them, kept as one time.
//!
//! [`super::rate`] lets one call go at a time, since its limit is all there is of it. What is spent here is a part of what
//! Graph allows, so it may leave in small bursts: a worker then asks the database once for several.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::rate::Rate;

/// So many requests in any such period, some of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// What is never exceeded in any period.
    pub rate: Rate,
}

impl Budget {
    /// Requests that may leave at once after a quiet time.
    pub fn burst(self) -> u32 {
        (self.rate.calls / 10).max(1)
    }

    /// Time from one request to the next. A burst and what follows it in the same period are together no more than the
    /// rate; and a hundredth more, for those that are late on their way.
    fn interval(self) -> TimeDelta {
        let steps = u128::from(self.rate.calls.max(1) - self.burst() + 1);
        let nanoseconds = self.rate.period.as_nanos() / steps / 100 * 101;
        TimeDelta::nanoseconds(i64::try_from(nanoseconds.max(1)).unwrap_or(i64::MAX))
    }

    /// Requests that may leave at `now`, if `next` is what [`Budget::after`] gave last.
    pub fn allowance(self, next: Option<DateTime<Utc>>, now: DateTime<Utc>) -> u32 {
        let used = self.used(next, now).num_nanoseconds().unwrap_or(i64::MAX);
        let interval = self.interval().num_nanoseconds().unwrap_or(i64::MAX);
        let free = interval.saturating_mul(self.burst().into()).saturating_sub(used);
        u32::try_from(free / interval).unwrap_or_default()
    }

    /// What is to be kept once `requests` of the allowance have left.
    pub fn after(self, next: Option<DateTime<Utc>>, now: DateTime<Utc>, requests: u32) -> DateTime<Utc> {
        let more = i32::try_from(requests).ok().and_then(|n| self.interval().checked_mul(n)).unwrap_or(TimeDelta::MAX);
        now.checked_add_signed(self.used(next, now)).and_then(|at| at.checked_add_signed(more)).unwrap_or(now)
    }

    /// Time until `requests` may leave at once, or as many as ever may.
    pub fn wait(self, next: Option<DateTime<Utc>>, now: DateTime<Utc>, requests: u32) -> Duration {
        let missing = self.burst().saturating_sub(requests);
        let earlier = i32::try_from(missing).ok().and_then(|n| self.interval().checked_mul(n)).unwrap_or_default();
        (self.used(next, now) - earlier).to_std().unwrap_or_default()
    }

    /// How far the budget is spent. Where the clock was set back, the time is further off than any budget can put it.
    fn used(self, next: Option<DateTime<Utc>>, now: DateTime<Utc>) -> TimeDelta {
        let most = self.interval().checked_mul(i32::try_from(self.burst()).unwrap_or(i32::MAX)).unwrap_or_default();
        next.map_or(TimeDelta::zero(), |next| (next - now).clamp(TimeDelta::zero(), most))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millisecond: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_000 + millisecond).unwrap()
    }

    fn budget(calls: u32, seconds: u64) -> Budget {
        Budget { rate: Rate { calls, period: Duration::from_secs(seconds) } }
    }

    #[test]
    fn a_tenth_may_leave_at_once_and_then_waits_for_more() {
        let budget = budget(300, 60);
        assert_eq!(budget.allowance(None, at(0)), 30);
        let next = Some(budget.after(None, at(0), 30));
        assert_eq!(budget.allowance(next, at(0)), 0);
        let wait = budget.wait(next, at(0), 8);
        assert_eq!(wait.as_millis(), 1788, "an interval is a 271st of the period and a hundredth more");
        assert_eq!(budget.allowance(next, at(i64::try_from(wait.as_millis()).unwrap() + 1)), 8);
        assert_eq!(budget.wait(next, at(0), 1000), budget.wait(next, at(0), 30), "more than a burst never may");
        assert_eq!(budget.wait(None, at(0), 30), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_was_set_back_by_a_day_costs_no_more_than_a_burst() {
        let budget = budget(300, 60);
        let day = Some(at(86_400_000));
        assert_eq!(budget.allowance(day, at(0)), 0);
        assert!(budget.wait(day, at(0), 30) < Duration::from_secs(7));
    }

    proptest! {
        #[test]
        fn no_period_ever_sees_more_than_the_rate_whenever_and_however_much_is_taken(
            calls in 1..200_u32, period in 1..5_u64,
            looks in proptest::collection::vec((0..20_000_i64, 1..50_u32), 1..300),
        ) {
            let budget = budget(calls, period);
            let mut looks = looks;
            looks.sort_unstable();
            let (mut next, mut left) = (None, Vec::new());
            for (now, wanted) in looks {
                let taken = budget.allowance(next, at(now)).min(wanted);
                left.extend(std::iter::repeat_n(now, taken as usize));
                // Databases keep milliseconds, and round up.
                let kept = budget.after(next, at(now), taken).timestamp_millis() + 1;
                next = Some(DateTime::from_timestamp_millis(kept).unwrap());
            }
            let window = i64::try_from(period * 1000).unwrap();
            for (n, first) in left.iter().enumerate() {
                let within = left[n..].iter().take_while(|time| **time - *first < window).count();
                prop_assert!(within <= calls as usize, "{within} of {calls}");
            }
        }
    }
}
