//! One call: the last check, the POST, what it means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{Level, error, info, warn};

use super::{Tenant, intervals, lease::Lease, millis};
use crate::chance::Chance;
use crate::clock::{BootInstant, Clock};
use crate::config::Retry;
use crate::domain::answer::{Evidence, asks_to_wait, meaning};
use crate::domain::lifecycle::{CallState, EntryEffect, Recording, TenantEffect};
use crate::domain::retry::{Ended, RetryPolicy, Sent, verdict};
use crate::failpoint;
use crate::graph::{Fence, Outgoing};
use crate::store::{Answer, Intent};

/// A call whose intent is committed.
pub(super) struct Call {
    pub(super) tenant: Arc<Tenant>,
    pub(super) lease: Arc<Lease>,
    pub(super) retry: Retry,
    pub(super) policy: RetryPolicy,
    pub(super) send_within: Duration,
    pub(super) intent: Intent,
    /// Before commit 1 was asked for, by the clock that never stands still: its intent is no older than this says.
    pub(super) intended_at: BootInstant,
    /// When it was committed.
    pub(super) committed_at: BootInstant,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) chance: Arc<dyn Chance>,
    /// The database's now at commit 1.
    pub(super) database_now: DateTime<Utc>,
    pub(super) waits_in_a_row: u32,
}

/// What came of a call: the only evidence there is, kept until the database has it.
pub(super) struct Answered {
    pub(super) recording: Recording,
    pub(super) evidence: Evidence,
    /// How often the database has not taken it.
    pub(super) failures: u32,
    /// Whether that has been logged.
    pub(super) told: bool,
    /// When it is to be given to the database again.
    pub(super) again_at: BootInstant,
}

impl Answered {
    /// As the store takes it.
    pub(super) fn given(&self) -> Answer<'_> {
        Answer { recording: &self.recording, evidence: &self.evidence }
    }
}

impl Call {
    /// Makes the call.
    pub(super) async fn run(self) -> Answered {
        let devices: Vec<_> = self.intent.entries.iter().map(|entry| entry.device).collect();
        let outgoing =
            Outgoing { call: self.intent.call_id, devices: devices.clone(), cloud_pcs: self.intent.cloud_pcs.clone() };
        failpoint::reach("after-intent");
        let in_flight = self.tenant.metrics.calls_in_flight.with_label_values(&[self.tenant.name.as_str()]);
        in_flight.inc();
        let mut unanswered = Unanswered(Some(&self));
        let reply = self.tenant.graph.reprovision(&outgoing, self.fence()).await;
        unanswered.0 = None;
        in_flight.dec();
        failpoint::reach("after-answer");
        let now = self.now();
        let meaning = meaning(&reply.exchange, self.tenant.action, &devices, reply.renewed_token, now);
        let sent: Vec<Sent> = self
            .intent
            .entries
            .iter()
            .map(|entry| Sent { request_id: entry.request_id, attempts: entry.attempts, expires_at: entry.expires_at })
            .collect();
        let ended = Ended {
            call_id: self.intent.call_id,
            sent: &sent,
            waits_in_a_row: self.waits_in_a_row,
            asks_to_wait: asks_to_wait(&reply.exchange, now),
            now,
        };
        let recording = verdict(meaning, &ended, &self.policy, &mut |n| self.delay(n));
        self.tenant.hold(&recording.tenant);
        self.tenant.hold(&recording.wait());
        self.count(&recording);
        self.log(&recording, &reply.evidence);
        Answered { recording, evidence: reply.evidence, failures: 0, told: false, again_at: self.clock.now() }
    }

    /// The last question before the bytes leave. Graph cannot turn away a late sender, so this must.
    fn fence(&self) -> Fence {
        let (lease, tenant, clock) = (Arc::clone(&self.lease), Arc::clone(&self.tenant), Arc::clone(&self.clock));
        let (intended_at, send_within) = (self.intended_at, self.send_within);
        Box::new(move || {
            if !lease.holds() {
                Err("dropped before it was sent: this worker's lease has lapsed".to_owned())
            } else if clock.now().since(intended_at) > send_within {
                Err(format!(
                    "dropped before it was sent: its intent is older than worker.send_within ({send_within:?})"
                ))
            } else if tenant.held() {
                Err("dropped before it was sent: another call's answer says that the tenant must wait".to_owned())
            } else {
                Ok(())
            }
        })
    }

    fn delay(&self, n: u32) -> Duration {
        intervals::delay(&self.retry, n, &*self.chance)
    }

    /// The database's now, carried on by a clock that counts stopped time.
    fn now(&self) -> DateTime<Utc> {
        let gone = TimeDelta::from_std(self.clock.now().since(self.committed_at)).unwrap_or_default();
        self.database_now.checked_add_signed(gone).unwrap_or(self.database_now)
    }

    fn count(&self, recording: &Recording) {
        let (metrics, tenant) = (&self.tenant.metrics, self.tenant.name.as_str());
        let action = self.tenant.action.as_str();
        metrics.calls.with_label_values(&[tenant, action, recording.state.as_str()]).inc();
        let took = self.clock.now().since(self.committed_at);
        metrics.call_duration.with_label_values(&[tenant, action]).observe(took.as_secs_f64());
        for (_, effect) in &recording.entries {
            metrics.devices.with_label_values(&[tenant, outcome(effect)]).inc();
            if !matches!(effect, EntryEffect::Requeue { .. }) {
                metrics.attempts.with_label_values(&[tenant]).inc();
            }
        }
    }

    /// The one line of this call, whatever came of it.
    fn log(&self, recording: &Recording, evidence: &Evidence) {
        let surplus = recording.surplus.len();
        let doubt = recording.entries.iter().find_map(|(_, effect)| match effect {
            EntryEffect::Unknown { detail } => Some(detail.as_str()),
            _ => None,
        });
        let mut line = Line { outcome: recording.state, surplus, wait: recording.leave_alone, ..Line::new(evidence) };
        for (_, effect) in &recording.entries {
            *line.counts.entry(outcome(effect)).or_default() += 1;
        }
        let (level, text) = match (&recording.tenant, recording.state) {
            (TenantEffect::Wait { delay, code, reason }, state) => {
                (line.wait_code, line.wait, line.error) = (Some(code.as_str()), Some(*delay), Some(reason.as_str()));
                let in_part = "call carried out in part, the tenant waits before the rest goes";
                let not = "call not carried out, the tenant waits";
                (Level::WARN, if state == CallState::Answered { in_part } else { not })
            }
            (TenantEffect::None, CallState::NotCarriedOut) => {
                (Level::INFO, "devices looked up: their Cloud PCs are known now, and they go with the next call")
            }
            (TenantEffect::Block { code, reason, probe_after }, _) => {
                (line.block_code, line.wait, line.error) =
                    (Some(code.as_str()), Some(*probe_after), Some(reason.as_str()));
                (Level::ERROR, "call not carried out, the tenant is blocked until this is mended")
            }
            (_, CallState::Unknown) => {
                line.error = doubt;
                (Level::WARN, IN_DOUBT)
            }
            (_, CallState::NotCarriedOut) => {
                line.error = evidence.error_message.as_deref();
                (Level::WARN, "call refused because of what it holds: its devices go again in calls of half the size")
            }
            _ if surplus > 0 => (
                Level::WARN,
                "call answered, and the answer names devices that were not asked for; they are kept on the call",
            ),
            _ => (Level::INFO, "call answered"),
        };
        self.say(level, text, &line);
    }

    fn say(&self, level: Level, text: &str, line: &Line<'_>) {
        let count = |word| line.counts.get(word).copied();
        macro_rules! say {
            ($level:ident) => {
                $level!(
                    tenant = %self.tenant.name,
                    call_id = %self.intent.call_id,
                    action = self.tenant.action.as_str(),
                    devices = self.intent.entries.len(),
                    outcome = line.outcome.as_str(),
                    successful = count("successful"),
                    failed = count("failed"),
                    not_found = count("not_found"),
                    not_supported = count("not_supported"),
                    unknown = count("unknown"),
                    queued_again = count("queued_again"),
                    failed_tried_again = count("failed_tried_again"),
                    surplus = (line.surplus > 0).then_some(line.surplus),
                    attempt = self.intent.entries.iter().map(|entry| entry.attempts).max().unwrap_or_default() + 1,
                    duration_ms = millis(self.clock.now().since(self.committed_at)),
                    http_status = line.evidence.http_status,
                    graph_request_id = line.evidence.graph_request_id.as_deref(),
                    error_code = line.evidence.error_code.as_deref(),
                    wait_code = line.wait_code,
                    block_code = line.block_code,
                    wait_ms = line.wait.map(millis),
                    error = line.error,
                    "{text}"
                )
            };
        }
        match level {
            Level::ERROR => say!(error),
            Level::WARN => say!(warn),
            _ => say!(info),
        }
    }
}

const IN_DOUBT: &str = "call in doubt: it may have been carried out, its devices are not sent again without evidence";

/// What the line of a call says beside which call it is.
struct Line<'a> {
    outcome: CallState,
    /// Devices by what came of them.
    counts: BTreeMap<&'static str, usize>,
    /// Devices in the answer that were not asked for.
    surplus: usize,
    evidence: &'a Evidence,
    wait_code: Option<&'a str>,
    block_code: Option<&'a str>,
    /// How long nothing more is sent to the tenant.
    wait: Option<Duration>,
    error: Option<&'a str>,
}

impl<'a> Line<'a> {
    /// Of a call of which nothing is known.
    fn new(evidence: &'a Evidence) -> Self {
        Self {
            outcome: CallState::Unknown,
            counts: BTreeMap::new(),
            surplus: 0,
            evidence,
            wait_code: None,
            block_code: None,
            wait: None,
            error: None,
        }
    }
}

/// Says of a call that is dropped without an answer, at the drain deadline, what the answer's line would have.
struct Unanswered<'a>(Option<&'a Call>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.0 {
            let evidence = Evidence::default();
            let mut line = Line { error: Some("no answer by the end of worker.drain_timeout"), ..Line::new(&evidence) };
            line.counts.insert("unknown", call.intent.entries.len());
            call.say(Level::WARN, IN_DOUBT, &line);
        }
    }
}

fn outcome(effect: &EntryEffect) -> &'static str {
    match effect {
        EntryEffect::Final { bucket, .. } => bucket.as_str(),
        EntryEffect::TryAgain { .. } => "failed_tried_again",
        EntryEffect::Requeue { .. } => "queued_again",
        EntryEffect::Unknown { .. } => "unknown",
    }
}
