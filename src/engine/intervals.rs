//! Where delays come from: exponential with full jitter, under a cap.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use crate::chance::Chance;
use crate::config::Retry;

/// The delay before the `n`-th repetition (from 1): uniform between nothing and a cap that starts at `first_delay`, grows
/// by `multiplier` and never passes `longest_delay`.
///
/// The crate gives the caps. The jitter is drawn here, since the crate's own cannot be repeated; and only
/// `next_backoff()` is used, since its `retry` futures let a server's delay escape the elapsed-time bound.
pub(super) fn delay(retry: &Retry, n: u32, chance: &dyn Chance) -> Duration {
    let mut intervals = ExponentialBackoff {
        current_interval: retry.first_delay,
        initial_interval: retry.first_delay,
        randomization_factor: 0.0,
        multiplier: retry.multiplier,
        max_interval: retry.longest_delay,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    let mut cap = Duration::ZERO;
    // Beyond this many steps the cap has long been reached.
    for _ in 0..n.clamp(1, 64) {
        cap = intervals.next_backoff().unwrap_or(retry.longest_delay);
    }
    cap.min(retry.longest_delay).mul_f64(chance.fraction())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry() -> Retry {
        Retry {
            first_delay: Duration::from_secs(2),
            longest_delay: Duration::from_secs(30),
            multiplier: 2.0,
            max_attempts: 3,
            failed: false,
            blocked_probe_interval: Duration::from_mins(15),
        }
    }

    #[test]
    fn delays_are_jittered_from_nothing_up_to_a_growing_cap() {
        for (n, cap) in [(1, 2), (2, 4), (3, 8), (4, 16), (5, 30), (50, 30), (u32::MAX, 30)] {
            let drawn: Vec<Duration> = (0..400).map(|_| delay(&retry(), n, &crate::chance::Random)).collect();
            let cap = Duration::from_secs(cap);
            let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
            assert!(*most <= cap + Duration::from_nanos(2), "{n}: {most:?}");
            assert!(
                *least < cap / 4 && *most > cap * 3 / 4,
                "{n}: {least:?} to {most:?} is no full jitter under {cap:?}"
            );
        }
    }
}
