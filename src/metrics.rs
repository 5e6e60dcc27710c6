//! What the process knows of its own work: counters, histograms, and how its loop and its tenants are. The engine writes it, `ops`
//! reads it. Labels are the configured tenants and words of this program only, so that their number is bounded.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::clock::BootInstant;
use crate::domain::completion::CompletionState;

/// Seconds of a call to Graph.
const CALL: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Seconds of a question to the database.
const DATABASE: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// Seconds from due to claimed: milliseconds where nothing is in the way, hours where a tenant is throttled.
const WAKE_UP: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0, 3600.0, 43_200.0];

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    /// Calls that have ended, by tenant, by what was called and by the state they are recorded with.
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
    /// How accepted reprovisions ended that are followed.
    pub completions: IntCounterVec,
    /// Seconds from a request's becoming due to its claim, by the database's clock.
    pub wake_up: HistogramVec,
    /// Seconds of the work loop's questions to the database, and of the page's.
    pub database: HistogramVec,
    /// Those that failed.
    pub database_errors: IntCounterVec,
    /// Share of a tenant's rate that is used.
    pub rate: GaugeVec,
    /// Looks at the queue.
    pub looks: IntCounterVec,
    waits: CounterVec,
    blocks: CounterVec,
    state: Mutex<State>,
}

/// What is true now.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The work loop's last sign of life.
    pub beat_at: Option<BootInstant>,
    /// What came of the last look at the queue: nothing, or what was wrong. `None` before the first.
    pub look: Option<Result<(), String>>,
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
    wait: Option<Span>,
    block: Option<Span>,
}

/// A time to leave a tenant alone that is being counted.
#[derive(Debug, Clone)]
struct Span {
    code: String,
    /// What was before is counted.
    counted_to: BootInstant,
    until: BootInstant,
}

impl Span {
    /// What has passed of it since it was last asked.
    fn pass(&mut self, now: BootInstant) -> Duration {
        let to = now.min(self.until).max(self.counted_to);
        let passed = to.since(self.counted_to);
        self.counted_to = to;
        passed
    }
}

/// Makes families and puts each into a registry. Their names are written out in this file, and a test makes them all: none is
/// malformed or there twice.
struct Families(Registry);

impl Families {
    fn put<T: Collector + Clone + 'static>(&self, family: prometheus::Result<T>) -> T {
        let family = family.expect("a well-formed name");
        self.0.register(Box::new(family.clone())).expect("a name of its own");
        family
    }

    fn counter(&self, name: &str, labels: &[&str], help: &str) -> IntCounterVec {
        self.put(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn seconds(&self, name: &str, labels: &[&str], help: &str) -> CounterVec {
        self.put(CounterVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, labels: &[&str], buckets: &[f64], help: &str) -> HistogramVec {
        self.put(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }
}

const TENANT: &[&str] = &["tenant"];
const OUTCOME: &[&str] = &["tenant", "outcome"];
const CODE: &[&str] = &["tenant", "code"];
const OPERATION: &[&str] = &["operation"];
const NONE: &[&str] = &[];

impl Metrics {
    /// For these tenants, each with what is called there. All of their counters begin at zero.
    #[rustfmt::skip] // A line for each family: what it is called, by what it is told apart, what it says.
    pub fn new<'a>(tenants: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let made = Families(Registry::new());
        let metrics = Self {
            calls: made.counter("reprovisiond_calls_total", &["tenant", "action", "outcome"], "Calls to Graph that have ended, by what was called and by the state they are recorded with."),
            call_duration: made.histogram("reprovisiond_call_duration_seconds", &["tenant", "action"], CALL, "Time of a call to Graph, from the committed intent to the answer."),
            calls_in_flight: made.put(IntGaugeVec::new(Opts::new("reprovisiond_calls_in_flight", "Calls to Graph under way in this process."), TENANT)),
            devices: made.counter("reprovisiond_device_outcomes_total", OUTCOME, "Devices by what a call, or the daemon itself, made of them."),
            attempts: made.counter("reprovisiond_attempts_total", TENANT, "Attempts that devices were charged with."),
            settled: made.counter("reprovisiond_settled_devices_total", OUTCOME, "Devices in doubt that a read-back settled, or that were handed to a person."),
            completions: made.counter("reprovisiond_completions_total", &["tenant", "state"], "Accepted reprovisions that were followed, by how they ended."),
            wake_up: made.histogram("reprovisiond_wakeup_latency_seconds", TENANT, WAKE_UP, "Time from a request's becoming due to its claim, by the database's clock; waits of its tenant included."),
            database: made.histogram("reprovisiond_database_operation_duration_seconds", OPERATION, DATABASE, "Time of a question of the work loop, or of whoever looks on (ops), to the database."),
            database_errors: made.counter("reprovisiond_database_errors_total", OPERATION, "Questions to the database that failed."),
            rate: made.put(GaugeVec::new(Opts::new("reprovisiond_tenant_rate_ratio", "Share of limits.calls_per_period that is used, as this process last saw it: less than 1 after Graph has refused calls for their rate."), TENANT)),
            looks: made.counter("reprovisiond_work_loop_looks_total", NONE, "Looks at the queue that were begun."),
            waits: made.seconds("reprovisiond_wait_seconds_total", CODE, "Time that has passed while this process left a tenant alone; code throttled is Graph's Retry-After."),
            blocks: made.seconds("reprovisiond_blocked_seconds_total", CODE, "Time that has passed between a refusal that blocks a tenant and the next probe by this process."),
            state: Mutex::default(),
            registry: made.0,
        };
        metrics.looks.with_label_values(NONE);
        for (tenant, action) in tenants {
            metrics.begin(tenant, action);
        }
        metrics
    }

    /// A counter that appears with its first event hides that event from `rate`.
    fn begin(&self, tenant: &str, action: &str) {
        for outcome in ["answered", "not_carried_out", "not_sent", "unknown"] {
            self.calls.with_label_values(&[tenant, action, outcome]);
        }
        for outcome in DEVICE_OUTCOMES {
            self.devices.with_label_values(&[tenant, outcome]);
        }
        for outcome in ["final", "queued_again", "held"] {
            self.settled.with_label_values(&[tenant, outcome]);
        }
        for state in CompletionState::ALL.iter().filter(|state| **state != CompletionState::Followed) {
            self.completions.with_label_values(&[tenant, state.as_str()]);
        }
        self.call_duration.with_label_values(&[tenant, action]);
        self.wake_up.with_label_values(&[tenant]);
        self.calls_in_flight.with_label_values(&[tenant]);
        self.attempts.with_label_values(&[tenant]);
        self.waits.with_label_values(&[tenant, "throttled"]);
        self.rate.with_label_values(&[tenant]).set(1.0);
        self.state().tenants.insert(tenant.to_owned(), TenantState::default());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is true now.
    pub fn now(&self) -> State {
        self.state().clone()
    }

    /// The work loop has given a sign of life.
    pub fn beat(&self, at: BootInstant) {
        self.state().beat_at = Some(at);
    }

    /// The work loop begins a look at the queue.
    pub fn looks(&self) {
        self.looks.with_label_values(NONE).inc();
    }

    /// The look has ended.
    pub fn looked(&self, problem: Option<String>) {
        self.state().look = Some(problem.map_or(Ok(()), Err));
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

    /// A tenant is left alone from `now` on for this long. Waits that overlap count once, for the one that ends last.
    pub fn waits(&self, tenant: &str, code: &str, now: BootInstant, time: Duration) {
        self.begin_span(tenant, code, now, time, &self.waits, |state| &mut state.wait);
    }

    /// A tenant refuses calls, and is probed again after this long.
    pub fn blocked(&self, tenant: &str, code: &str, now: BootInstant, time: Duration) {
        self.begin_span(tenant, code, now, time, &self.blocks, |state| &mut state.block);
    }

    fn begin_span(
        &self,
        tenant: &str,
        code: &str,
        now: BootInstant,
        time: Duration,
        counter: &CounterVec,
        field: fn(&mut TenantState) -> &mut Option<Span>,
    ) {
        let mut state = self.state();
        let Some(state) = state.tenants.get_mut(tenant) else { return };
        let span = field(state);
        count(counter, tenant, span.as_mut(), now);
        let until = now.plus(time);
        // It is there from its first second on.
        counter.with_label_values(&[tenant, code]);
        if span.as_ref().is_none_or(|other| other.until < until) {
            *span = Some(Span { code: code.to_owned(), counted_to: now, until });
        }
    }

    /// Counts what has passed of every time to wait.
    fn pass(&self, now: BootInstant) {
        for (tenant, state) in &mut self.state().tenants {
            count(&self.waits, tenant, state.wait.as_mut(), now);
            count(&self.blocks, tenant, state.block.as_mut(), now);
        }
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
    ///
    /// # Errors
    /// A defect: two families of one name, or one that is not well-formed.
    pub fn text(&self, now: BootInstant, more: &Registry) -> Result<String, prometheus::Error> {
        self.pass(now);
        let mut families = self.registry.gather();
        families.extend(more.gather());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn count(counter: &CounterVec, tenant: &str, span: Option<&mut Span>, now: BootInstant) {
    if let Some(span) = span {
        let passed = span.pass(now);
        counter.with_label_values(&[tenant, &span.code]).inc_by(passed.as_secs_f64());
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

    fn waited(metrics: &Metrics, code: &str, now: u64) -> f64 {
        metrics.pass(at(now));
        metrics.waits.with_label_values(&["a", code]).get()
    }

    #[test]
    fn a_wait_is_counted_as_it_passes_and_no_further_than_its_end() {
        let metrics = Metrics::new([("a", "x")]);
        metrics.waits("a", "throttled", at(100), Duration::from_mins(1));
        for (now, seconds) in [(100, 0.0), (110, 10.0), (110, 10.0), (160, 60.0), (900, 60.0)] {
            assert!((waited(&metrics, "throttled", now) - seconds).abs() < 1e-9, "at {now}");
        }
    }

    #[test]
    fn waits_that_overlap_count_once_for_the_one_that_ends_last() {
        let metrics = Metrics::new([("a", "x")]);
        for (now, code, time) in
            [(100, "throttled", 60), (110, "no_token", 10), (120, "no_token", 60), (500, "throttled", 5)]
        {
            metrics.waits("a", code, at(now), Duration::from_secs(time));
        }
        for (code, seconds) in [("throttled", 25.0), ("no_token", 60.0)] {
            assert!((waited(&metrics, code, 900) - seconds).abs() < 1e-9, "{code}");
        }
    }

    #[test]
    fn what_is_not_configured_has_no_state() {
        let metrics = Metrics::new([("a", "x")]);
        metrics.no_token("b", "why".to_owned());
        assert_eq!(metrics.now().tenants.keys().collect::<Vec<_>>(), ["a"]);
    }
}
