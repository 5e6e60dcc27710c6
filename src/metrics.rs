//! What the process knows of its own work: counters, histograms, and how its loop and its tenants are. The engine writes it, `ops`
//! reads it. Labels are the configured tenants and words of this program only, so that their number is bounded.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::clock::BootInstant;

/// Seconds of a call to Graph.
const CALL: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Seconds of a question to the database.
const DATABASE: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// Seconds from due to claimed: milliseconds where nothing is in the way, hours where a tenant is throttled.
const WAKE_UP: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0, 3600.0, 43_200.0];

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    /// Calls that have ended, by tenant and by the state they are recorded with.
    pub calls: IntCounterVec,
    /// Seconds from the committed intent to the answer.
    pub call_duration: HistogramVec,
    /// Calls under way.
    pub calls_in_flight: IntGaugeVec,
    /// What calls, and the daemon itself, made of devices.
    pub devices: IntCounterVec,
    /// Attempts charged.
    pub attempts: IntCounterVec,
    /// Devices in doubt that reading back has settled or handed to a person.
    pub settled: IntCounterVec,
    /// Seconds from a request's becoming due to its claim, by the database's clock.
    pub wake_up: HistogramVec,
    /// Seconds of the work loop's questions to the database.
    pub database: HistogramVec,
    /// Those that failed.
    pub database_errors: IntCounterVec,
    /// Looks at the queue.
    pub turns: IntCounterVec,
    waits: prometheus::CounterVec,
    blocks: prometheus::CounterVec,
    state: Mutex<State>,
}

/// What is true now.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// When the work loop last began a turn.
    pub turned_at: Option<BootInstant>,
    /// Whether the process is to stop.
    pub stopping: bool,
    /// Until when this worker is believed alive.
    pub lease_until: Option<BootInstant>,
    /// What this process knows of its tenants.
    pub tenants: BTreeMap<String, TenantState>,
}

/// What is true now of one tenant.
#[derive(Debug, Clone, Default)]
pub struct TenantState {
    /// When the token at hand expires.
    pub token_expires_at: Option<BootInstant>,
    /// Why the last attempt at a token failed, if it did.
    pub token_problem: Option<String>,
    waits_until: Option<BootInstant>,
    blocked_until: Option<BootInstant>,
}

/// A family in the registry. Names are written out in this file, once each, and so neither malformed nor twice there.
macro_rules! family {
    ($registry:expr, $made:expr) => {{
        let family = $made.expect("a well-formed name");
        $registry.register(Box::new(family.clone())).expect("a name of its own");
        family
    }};
}

impl Metrics {
    /// For these tenants, all of whose counters begin at zero.
    pub fn new<'a>(tenants: impl IntoIterator<Item = &'a str>) -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let seconds =
            |name: &str, help: &str, labels: &[&str]| prometheus::CounterVec::new(Opts::new(name, help), labels);
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
        };
        let metrics = Self {
            calls: family!(
                registry,
                counter(
                    "reprovisiond_calls_total",
                    "Calls to Graph that have ended, by the state they are recorded with.",
                    &["tenant", "outcome"]
                )
            ),
            call_duration: family!(
                registry,
                histogram(
                    "reprovisiond_call_duration_seconds",
                    "Time of a call to Graph, from the committed intent to the answer.",
                    &["tenant"],
                    CALL
                )
            ),
            calls_in_flight: family!(
                registry,
                IntGaugeVec::new(
                    Opts::new("reprovisiond_calls_in_flight", "Calls to Graph under way in this process."),
                    &["tenant"]
                )
            ),
            devices: family!(
                registry,
                counter(
                    "reprovisiond_device_outcomes_total",
                    "Devices by what a call, or the daemon itself, made of them.",
                    &["tenant", "outcome"]
                )
            ),
            attempts: family!(
                registry,
                counter("reprovisiond_attempts_total", "Attempts that devices were charged with.", &["tenant"])
            ),
            settled: family!(
                registry,
                counter(
                    "reprovisiond_settled_devices_total",
                    "Devices in doubt that a read-back settled, or that were handed to a person.",
                    &["tenant", "outcome"]
                )
            ),
            wake_up: family!(
                registry,
                histogram(
                    "reprovisiond_wakeup_latency_seconds",
                    "Time from a request's becoming due to its claim, by the database's clock; waits of its tenant included.",
                    &["tenant"],
                    WAKE_UP
                )
            ),
            database: family!(
                registry,
                histogram(
                    "reprovisiond_database_operation_duration_seconds",
                    "Time of a question of the work loop, or of this page, to the database.",
                    &["operation"],
                    DATABASE
                )
            ),
            database_errors: family!(
                registry,
                counter("reprovisiond_database_errors_total", "Questions to the database that failed.", &["operation"])
            ),
            turns: family!(registry, counter("reprovisiond_work_loop_turns_total", "Looks at the queue.", &[])),
            waits: family!(
                registry,
                seconds(
                    "reprovisiond_wait_seconds_total",
                    "Time that this process was told to leave a tenant alone, counted when it is told; code throttled is Graph's Retry-After.",
                    &["tenant", "code"]
                )
            ),
            blocks: family!(
                registry,
                seconds(
                    "reprovisiond_blocked_seconds_total",
                    "Time until the next probe of a tenant that refuses calls, counted when it refuses.",
                    &["tenant", "code"]
                )
            ),
            state: Mutex::default(),
            registry,
        };
        metrics.turns.with_label_values(&[] as &[&str]);
        for tenant in tenants {
            metrics.begin(tenant);
        }
        metrics
    }

    /// A counter that appears with its first event hides that event from `rate`.
    fn begin(&self, tenant: &str) {
        for outcome in ["answered", "not_carried_out", "not_sent", "unknown"] {
            self.calls.with_label_values(&[tenant, outcome]);
        }
        for outcome in DEVICE_OUTCOMES {
            self.devices.with_label_values(&[tenant, outcome]);
        }
        for outcome in ["final", "queued_again", "held"] {
            self.settled.with_label_values(&[tenant, outcome]);
        }
        self.call_duration.with_label_values(&[tenant]);
        self.wake_up.with_label_values(&[tenant]);
        self.calls_in_flight.with_label_values(&[tenant]);
        self.attempts.with_label_values(&[tenant]);
        self.waits.with_label_values(&[tenant, "throttled"]);
        self.state().tenants.insert(tenant.to_owned(), TenantState::default());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is true now.
    pub fn now(&self) -> State {
        self.state().clone()
    }

    /// The work loop begins a turn.
    pub fn turned(&self, at: BootInstant) {
        self.turns.with_label_values(&[] as &[&str]).inc();
        self.state().turned_at = Some(at);
    }

    /// The process is to stop.
    pub fn stopping(&self) {
        self.state().stopping = true;
    }

    /// Others believe this worker alive until then.
    pub fn lease(&self, until: BootInstant) {
        self.state().lease_until = Some(until);
    }

    /// The token at hand.
    pub fn token(&self, tenant: &str, expires_at: Option<BootInstant>) {
        if let Some(state) = self.state().tenants.get_mut(tenant) {
            state.token_expires_at = expires_at;
            // Whatever failed before, there is one.
            if expires_at.is_some() {
                state.token_problem = None;
            }
        }
    }

    /// A token could not be had.
    pub fn no_token(&self, tenant: &str, problem: String) {
        if let Some(state) = self.state().tenants.get_mut(tenant) {
            state.token_problem = Some(problem);
        }
    }

    /// A tenant is left alone from `now` on for this long. Waits that overlap count once.
    pub fn waits(&self, tenant: &str, code: &str, now: BootInstant, time: Duration) {
        let added = self.lengthen(tenant, now, time, |state| &mut state.waits_until);
        self.waits.with_label_values(&[tenant, code]).inc_by(added.as_secs_f64());
    }

    /// A tenant refuses calls, and is probed again after this long.
    pub fn blocked(&self, tenant: &str, code: &str, now: BootInstant, time: Duration) {
        let added = self.lengthen(tenant, now, time, |state| &mut state.blocked_until);
        self.blocks.with_label_values(&[tenant, code]).inc_by(added.as_secs_f64());
    }

    fn lengthen(
        &self,
        tenant: &str,
        now: BootInstant,
        time: Duration,
        field: fn(&mut TenantState) -> &mut Option<BootInstant>,
    ) -> Duration {
        let mut state = self.state();
        let Some(state) = state.tenants.get_mut(tenant) else { return Duration::ZERO };
        let until = field(state);
        let (from, end) = (until.map_or(now, |until| until.max(now)), now.plus(time));
        *until = Some(from.max(end));
        end.since(from)
    }

    /// Notes how long a question to the database took, and whether it failed.
    pub fn asked<T, E>(&self, operation: &str, took: Duration, answer: &Result<T, E>) {
        self.database.with_label_values(&[operation]).observe(took.as_secs_f64());
        let errors = self.database_errors.with_label_values(&[operation]);
        if answer.is_err() {
            errors.inc();
        }
    }

    /// All of it in Prometheus's text format, followed by what `more` adds.
    pub fn text(&self, more: &Registry) -> Result<String, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(more.gather());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// The words of `reprovisiond_device_outcomes_total`.
const DEVICE_OUTCOMES: [&str; 8] =
    ["successful", "failed", "failed_tried_again", "not_found", "not_supported", "expired", "queued_again", "unknown"];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootInstant {
        BootInstant::after_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn waits_that_overlap_count_once() {
        let metrics = Metrics::new(["a"]);
        for (now, time) in [(100, 60), (110, 10), (110, 60), (500, 5)] {
            metrics.waits("a", "throttled", at(now), Duration::from_secs(time));
        }
        assert!((metrics.waits.with_label_values(&["a", "throttled"]).get() - 75.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_configured_has_no_state() {
        let metrics = Metrics::new(["a"]);
        metrics.no_token("b", "why".to_owned());
        assert_eq!(metrics.now().tenants.keys().collect::<Vec<_>>(), ["a"]);
    }
}
