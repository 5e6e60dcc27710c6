//! Which fault strikes which call: the script's entries first, then the seed's.

use std::time::Duration;

use uuid::Uuid;

use super::faults::{Effect, Endpoint, ErrorBody, Fault, FaultScript, RandomFaults, RetryAfter, StatusFault, Times};
use super::seeded;
use crate::domain::id::ManagedDeviceId;

/// What the script says about one call.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) latency: Duration,
    pub(super) effect: Option<Effect>,
    pub(super) device: Option<ManagedDeviceId>,
}

#[derive(Debug)]
pub(super) struct Faults {
    /// With the number of times each is still to be used.
    script: Vec<(Fault, Option<u64>)>,
    random: Option<RandomFaults>,
    calls: [u64; 6],
}

impl Faults {
    pub(super) fn new(script: FaultScript) -> Self {
        let mut faults = Self { script: Vec::new(), random: script.random, calls: [0; 6] };
        script.script.into_iter().for_each(|fault| faults.add(fault));
        faults
    }

    pub(super) fn add(&mut self, mut fault: Fault) {
        let mut times = fault.times.unwrap_or(Times::Count(1));
        if let Effect::Poison(device) = fault.effect {
            fault.device = Some(device);
            times = fault.times.unwrap_or(Times::Always);
        }
        let left = match times {
            Times::Count(count) => Some(count),
            Times::Always => None,
        };
        self.script.push((fault, left));
    }

    /// Counts the call and decides about it. `devices` is what its body or path holds, as far as that is readable.
    pub(super) fn decide(&mut self, endpoint: Endpoint, devices: &[Uuid]) -> Verdict {
        let nth = &mut self.calls[endpoint as usize];
        *nth += 1;
        let nth = *nth;
        let mut verdict = Verdict::default();
        for (fault, left) in &mut self.script {
            let strikes = fault.on == endpoint
                && *left != Some(0)
                && fault.nth.is_none_or(|n| n == nth)
                && fault.device.is_none_or(|device| devices.contains(&device.as_uuid()));
            if !strikes {
                continue;
            }
            if let Effect::Latency(latency) = fault.effect {
                verdict.latency += latency;
            } else if verdict.effect.is_none() {
                (verdict.effect, verdict.device) = (Some(fault.effect.clone()), fault.device);
            } else {
                continue;
            }
            *left = left.map(|count| count - 1);
        }
        self.script.retain(|(_, left)| *left != Some(0));
        if verdict.effect.is_none()
            && let Some(random) = self.random
        {
            match random.draw(endpoint, nth) {
                Some(Effect::Latency(latency)) => verdict.latency += latency,
                effect => verdict.effect = effect,
            }
        }
        verdict
    }
}

impl RandomFaults {
    /// Only what a real network and a real service show. `hang` is not among them: every client would wait for its
    /// whole time-out.
    fn draw(self, endpoint: Endpoint, nth: u64) -> Option<Effect> {
        let label = format!("{endpoint:?}");
        if seeded::fraction(self.seed, &label, nth) >= self.rate {
            return None;
        }
        let throttled = |code| StatusFault { code, retry_after: RetryAfter::Seconds(1), ..StatusFault::default() };
        let gateway = |code| StatusFault { code, body: ErrorBody::Html, ..StatusFault::default() };
        let plain = |code| StatusFault { code, ..StatusFault::default() };
        let slow = 50.0 + 450.0 * seeded::fraction(self.seed, "latency", nth);
        let effects = if endpoint == Endpoint::BatchItem {
            // Between Graph and its own services there is no proxy to speak HTML, and the client's network is not in it.
            vec![
                (3.0, Effect::Status(throttled(429))),
                (2.0, Effect::Status(throttled(503))),
                (1.0, Effect::Status(plain(500))),
                (1.0, Effect::Status(plain(504))),
                (1.0, Effect::DoneThenStatus(plain(500))),
                (2.0, Effect::DoneThenStatus(plain(504))),
            ]
        } else {
            vec![
                (3.0, Effect::Status(throttled(429))),
                (2.0, Effect::Status(throttled(503))),
                (1.0, Effect::Status(plain(500))),
                (1.0, Effect::Status(gateway(504))),
                (2.0, Effect::ResetBefore),
                (1.0, Effect::DoneThenStatus(plain(500))),
                (1.0, Effect::DoneThenStatus(gateway(502))),
                (2.0, Effect::DoneThenStatus(gateway(504))),
                (2.0, Effect::ResetAfter),
                (1.0, Effect::Truncated),
                (3.0, Effect::Latency(Duration::from_secs_f64(slow / 1000.0))),
            ]
        };
        let total: f64 = effects.iter().map(|(weight, _)| weight).sum();
        let mut drawn = total * seeded::fraction(self.seed, &format!("{label} effect"), nth);
        for (weight, effect) in effects {
            if drawn < weight {
                return Some(effect);
            }
            drawn -= weight;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn faults(json: &str) -> Faults {
        Faults::new(serde_json::from_str(&format!(r#"{{"script": {json}}}"#)).unwrap())
    }

    #[test]
    fn a_fault_is_used_once_unless_it_says_otherwise() {
        let mut faults =
            faults(r#"[{"effect": "hang"}, {"times": 2, "effect": "empty"}, {"effect": "huge", "times": "always"}]"#);
        let effects: Vec<_> = (0..5).map(|_| faults.decide(Endpoint::Action, &[]).effect.unwrap()).collect();
        assert_eq!(effects, [Effect::Hang, Effect::Empty, Effect::Empty, Effect::Huge, Effect::Huge]);
    }

    #[test]
    fn calls_are_counted_for_each_endpoint() {
        let mut faults = faults(r#"[{"nth": 2, "effect": "hang"}, {"on": "token", "nth": 2, "effect": "empty"}]"#);
        assert_eq!(faults.decide(Endpoint::Action, &[]).effect, None);
        assert_eq!(faults.decide(Endpoint::Token, &[]).effect, None);
        assert_eq!(faults.decide(Endpoint::ReadBack, &[]).effect, None);
        assert_eq!(faults.decide(Endpoint::Token, &[]).effect, Some(Effect::Empty));
        assert_eq!(faults.decide(Endpoint::Action, &[]).effect, Some(Effect::Hang));
    }

    #[test]
    fn a_device_is_poison_without_end_and_only_for_calls_that_hold_it() {
        let device: ManagedDeviceId = "30d0e128-de93-41dc-89ec-33d84bb662a0".parse().unwrap();
        let mut faults = Faults::new(FaultScript { script: vec![Effect::Poison(device).into()], random: None });
        for _ in 0..3 {
            assert_eq!(faults.decide(Endpoint::Action, &[]).effect, None);
            assert_eq!(faults.decide(Endpoint::Action, &[device.as_uuid()]).effect, Some(Effect::Poison(device)));
        }
    }

    #[test]
    fn latency_goes_together_with_another_effect() {
        let mut faults =
            faults(r#"[{"effect": {"latency": "2s"}}, {"effect": "hang"}, {"effect": {"latency": "1s"}}]"#);
        let verdict = faults.decide(Endpoint::Action, &[]);
        assert_eq!((verdict.latency, verdict.effect), (Duration::from_secs(3), Some(Effect::Hang)));
    }

    #[test]
    fn random_faults_are_the_same_for_the_same_seed_and_strike_at_their_rate() {
        let run = |seed, rate| -> Vec<_> {
            let random = Some(RandomFaults { seed, rate });
            let mut faults = Faults::new(FaultScript { script: Vec::new(), random });
            (0..500)
                .map(|_| faults.decide(Endpoint::Action, &[]))
                .map(|verdict| (verdict.effect, verdict.latency))
                .collect()
        };
        assert_eq!(run(7, 0.2), run(7, 0.2));
        assert_ne!(run(7, 0.2), run(8, 0.2));
        let quiet = (None, Duration::ZERO);
        let struck = run(7, 0.2).iter().filter(|verdict| **verdict != quiet).count();
        assert!((60..140).contains(&struck), "{struck} of 500");
        assert!(run(7, 0.0).iter().all(|verdict| *verdict == quiet));
        assert!(run(7, 1.0).iter().all(|verdict| *verdict != quiet));
    }

    #[test]
    fn random_faults_of_a_request_inside_a_batch_are_such_as_can_strike_one() {
        let random = Some(RandomFaults { seed: 7, rate: 1.0 });
        let mut faults = Faults::new(FaultScript { script: Vec::new(), random });
        for _ in 0..100 {
            let effect = faults.decide(Endpoint::BatchItem, &[]).effect.unwrap();
            assert_eq!(Fault::from(effect).on(Endpoint::BatchItem).mistake(), None);
        }
    }
}
