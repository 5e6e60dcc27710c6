//! A tenant's rate budget: a token bucket that holds one token, kept as the time from which the next call may go; and how much
//! of it refusals have left.
//!
//! Source: Microsoft's throttling page: 100 write requests in 20 seconds per app and tenant for Intune services. The window
//! slides, so calls that leave evenly are the most that never meet a 429; a bucket that may be emptied at once would fit
//! twice the limit into one window.
//!
//! The limit is the app's and the tenant's, so others may use a part of it, and it may change. So a 429 lowers the rate at
//! once, and it rises again with time.

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

/// A call may leave this much before its time. A worker aims at that, so that waking up late costs nothing of the rate, and
/// where the rate is high it need not wake for each.
const TOLERANCE: TimeDelta = TimeDelta::milliseconds(50);

/// What a budget allows now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Calls that may leave at once.
    pub calls: usize,
    /// The time that the next is due at if none of these go.
    pub next: DateTime<Utc>,
}

impl Rate {
    /// Time from one call to the next. Three quarters of a hundredth more than it need be: of the published limit that is 150 ms a period,
    /// by which a call may be later on its way than another and meets no 429, which costs more.
    fn interval(self) -> TimeDelta {
        let nanoseconds = self.period.as_nanos() * 10_075 / 10_000 / u128::from(self.calls.max(1));
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

    /// The time that the next call is due at once `calls` have left.
    pub fn after(self, allowance: Allowance, calls: usize) -> DateTime<Utc> {
        let calls = i32::try_from(calls).unwrap_or(i32::MAX);
        self.interval()
            .checked_mul(calls)
            .and_then(|time| allowance.next.checked_add_signed(time))
            .unwrap_or(allowance.next)
    }

    /// When a call that is due at `next` may leave.
    pub fn opens(next: DateTime<Utc>) -> DateTime<Utc> {
        next.checked_sub_signed(TOLERANCE).unwrap_or(next)
    }

    /// So many thousandths of it.
    fn lowered(self, thousandths: u32) -> Self {
        Self { period: self.period.saturating_mul(1000) / thousandths.max(1), ..self }
    }
}

/// How much of a rate is used since Graph has refused a call for the rate, in any worker's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Thousandths of the rate, at the time `since`.
    pub thousandths: u32,
    /// When it was lowered last; `None`: never.
    pub since: Option<DateTime<Utc>>,
}

/// All of the rate.
const WHOLE: u32 = 1000;

/// However often Graph refuses, a call goes now and then: only so can it be found out that Graph takes more again.
const LEAST: u32 = 20;

/// What it rises by in each period, in thousandths. A refusal costs a wait of about a period, so that a limit which others use half
/// of is tried once in several periods.
const RISE: u32 = 50;

/// Periods after which a refusal is no sign any more that the limit is lower than it was thought to be.
const QUIET: u32 = 10;

impl Default for Pace {
    fn default() -> Self {
        Self { thousandths: WHOLE, since: None }
    }
}

impl Pace {
    /// What it is at a time: it rises evenly after it was lowered.
    pub fn at(self, now: DateTime<Utc>, rate: Rate) -> u32 {
        let Some(since) = self.since else { return self.thousandths };
        let gone = (now - since).to_std().unwrap_or_default().as_nanos();
        let risen = gone.saturating_mul(RISE.into()) / rate.period.as_nanos().max(1);
        u32::try_from(risen).unwrap_or(WHOLE).saturating_add(self.thousandths).min(WHOLE)
    }

    /// Lowered if Graph has refused a call since: by a twentieth, since that may be chance, a call that was late on its way;
    /// and by a quarter if it was lowered in the last ten periods too. Calls under way at the same time are refused together:
    /// that is one refusal.
    #[must_use]
    pub fn learn(self, refused_at: Option<DateTime<Utc>>, rate: Rate) -> Self {
        match refused_at {
            Some(at) if self.since.is_none_or(|since| at > since) => {
                let quiet = TimeDelta::from_std(rate.period.saturating_mul(QUIET)).unwrap_or(TimeDelta::MAX);
                let by_chance = self.since.is_none_or(|since| at - since > quiet);
                let used = self.at(at, rate);
                let left = if by_chance { used.saturating_sub(RISE) } else { used / 4 * 3 };
                Self { thousandths: left.max(LEAST), since: Some(at) }
            }
            _ => self,
        }
    }

    /// The rate that holds now.
    pub fn of(self, rate: Rate, now: DateTime<Utc>) -> Rate {
        rate.lowered(self.at(now, rate))
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
    fn the_published_limit_is_used_but_for_less_than_a_hundredth() {
        let left = taken(PUBLISHED, (0..200_000).map(at), 4);
        assert_eq!(left.len(), 2_000_000 / 2015 + 1);
    }

    #[test]
    fn a_worker_that_wakes_late_loses_nothing_of_the_rate() {
        let (mut next, mut now, mut left) = (None, at(0), 0);
        for n in 0.. {
            let allowance = PUBLISHED.allowance(next, now);
            left += allowance.calls;
            next = Some(PUBLISHED.after(allowance, allowance.calls));
            // Woken up to 45 ms after the call might have left.
            now = Rate::opens(next.unwrap()) + TimeDelta::milliseconds(n * 7 % 46);
            if now >= at(200_000) {
                break;
            }
        }
        assert_eq!(left, 2_000_000 / 2015 + 1);
    }

    #[test]
    fn one_refusal_lowers_the_rate_a_little_and_another_that_follows_by_a_quarter_and_time_raises_it() {
        let second = |n: i64| at(n * 1000);
        let pace = Pace::default();
        assert_eq!((pace.at(second(0), PUBLISHED), pace.learn(None, PUBLISHED)), (1000, pace));
        let lowered = pace.learn(Some(second(0)), PUBLISHED);
        assert_eq!(lowered, Pace { thousandths: 950, since: Some(second(0)) });
        assert_eq!(lowered.learn(Some(second(0)), PUBLISHED), lowered, "the same refusal");
        assert_eq!([0, 10, 20, 1000].map(|n| lowered.at(second(n), PUBLISHED)), [950, 975, 1000, 1000]);
        assert_eq!(lowered.learn(Some(second(201)), PUBLISHED).thousandths, 950, "long after");
        let again = lowered.learn(Some(second(4)), PUBLISHED);
        assert_eq!(again, Pace { thousandths: 720, since: Some(second(4)) });
        assert_eq!([4, 24, 44, 124].map(|n| again.at(second(n), PUBLISHED)), [720, 770, 820, 1000]);
        let rate = again.of(PUBLISHED, second(4));
        assert_eq!(rate.interval(), TimeDelta::nanoseconds(279_861_111));
    }

    #[test]
    fn however_often_it_is_refused_some_of_the_rate_is_left() {
        let lowest = (1..100).fold(Pace::default(), |pace, n| pace.learn(Some(at(n)), PUBLISHED));
        assert_eq!(lowest.thousandths, LEAST);
    }

    #[test]
    fn where_the_clock_was_set_back_the_rate_does_not_fall_below_what_it_was_lowered_to() {
        let lowered = Pace::default().learn(Some(at(86_400_000)), PUBLISHED);
        assert_eq!(lowered.at(at(0), PUBLISHED), 950);
    }

    /// A Graph that takes 60 calls in 20 s, of the 100 that are configured, and then wants to be left alone for 20 s.
    #[test]
    fn beside_others_that_use_a_part_of_the_limit_most_of_what_is_left_is_used_and_few_calls_are_refused() {
        let (mut next, mut pace, mut refused_at) = (None, Pace::default(), None);
        let (mut taken, mut refused) = (Vec::<DateTime<Utc>>::new(), 0);
        let mut wait_until = at(0);
        for now in (0..3_600_000).step_by(10).map(at) {
            if now < wait_until {
                continue;
            }
            pace = pace.learn(refused_at, PUBLISHED);
            let rate = pace.of(PUBLISHED, now);
            let allowance = rate.allowance(next, now);
            if allowance.calls == 0 {
                continue;
            }
            next = Some(rate.after(allowance, 1));
            let recent = taken.iter().rev().take_while(|at| now - **at < TimeDelta::seconds(20)).count();
            if recent < 60 {
                taken.push(now);
            } else {
                (refused, refused_at, wait_until) = (refused + 1, Some(now), now + TimeDelta::seconds(20));
            }
        }
        // An hour takes 10,800 of them.
        assert!(taken.len() > 6_000, "{} calls", taken.len());
        assert!(refused < 60, "{refused} refused");
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
            // The tolerance is within what is held back only for periods of seven seconds and more.
            let window = TimeDelta::milliseconds(period) - TOLERANCE;
            for (n, first) in left.iter().enumerate() {
                let within = left[n..].iter().take_while(|time| **time - *first < window).count();
                prop_assert!(within <= calls as usize, "{within} of {calls}");
            }
        }
    }
}
