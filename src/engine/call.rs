//! One call: the last check, the POST, what it means, commit 2.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{debug, error, info, warn};

use super::{Tenant, intervals, lease::Lease, millis};
use crate::chance::Chance;
use crate::clock::{BootInstant, Clock};
use crate::config::Retry;
use crate::domain::answer::{Evidence, asks_to_wait, meaning};
use crate::domain::lifecycle::{CallState, EntryEffect, Recording, TenantEffect};
use crate::domain::retry::{Ended, RetryPolicy, Sent, verdict};
use crate::failpoint;
use crate::graph::{Fence, Outgoing};
use crate::store::{Intent, Recorded, Store};

/// An answer is in the process only until it is recorded: once the database is back it is not left there for long.
const LONGEST_KEPT: Duration = Duration::from_secs(5);

/// A call whose intent is committed.
pub(super) struct Call {
    pub(super) store: Arc<dyn Store>,
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

impl Call {
    /// Makes the call and records what came of it, however long the database takes.
    pub(super) async fn run(self) {
        let devices: Vec<_> = self.intent.entries.iter().map(|entry| entry.device).collect();
        let outgoing =
            Outgoing { call: self.intent.call_id, devices: devices.clone(), cloud_pcs: self.intent.cloud_pcs.clone() };
        failpoint::reach("after-intent");
        let in_flight = self.tenant.metrics.calls_in_flight.with_label_values(&[self.tenant.name.as_str()]);
        in_flight.inc();
        let reply = self.tenant.graph.reprovision(&outgoing, self.fence()).await;
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
        self.record(&recording, &reply.evidence).await;
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

    /// Commit 2. The answer is the only evidence there is: it is kept until the database has it.
    async fn record(&self, recording: &Recording, evidence: &Evidence) {
        let mut failures = 0_u32;
        loop {
            failpoint::reach("before-record");
            let asked_at = self.clock.now();
            let recorded = self.store.record(recording, evidence).await;
            self.tenant.metrics.asked("record", self.clock.now().since(asked_at), &recorded);
            failpoint::reach("after-record");
            match recorded {
                Ok(Recorded::Done) => break,
                Ok(Recorded::TooLateFor(devices)) => {
                    error!(
                        call.id = %self.intent.call_id,
                        tenant = %self.tenant.name,
                        devices,
                        "the answer came after its call was given up and these devices' doubt was settled: it is kept on the call, and with their results whether it agrees"
                    );
                    break;
                }
                // After a failure this may be our own COMMIT, whose answer was lost.
                Ok(Recorded::Superseded) if failures > 0 => {
                    info!(call.id = %self.intent.call_id, "the call was completed already");
                    break;
                }
                Ok(Recorded::Superseded) => {
                    error!(
                        call.id = %self.intent.call_id,
                        tenant = %self.tenant.name,
                        "the call was completed already by another worker; its answer is in this log only"
                    );
                    break;
                }
                Err(problem) => {
                    failures = failures.saturating_add(1);
                    let delay = self.delay(failures).min(LONGEST_KEPT);
                    if failures == 1 {
                        error!(
                            call.id = %self.intent.call_id,
                            tenant = %self.tenant.name,
                            error = problem.to_string(),
                            "the answer of a call could not be recorded yet; it is kept and tried again until it is"
                        );
                    } else {
                        debug!(call.id = %self.intent.call_id, error = problem.to_string(), "the answer of a call still could not be recorded");
                    }
                    tokio::time::sleep(delay).await;
                }
            }
        }
        if failures > 0 {
            info!(call.id = %self.intent.call_id, failures, "the answer is recorded");
        }
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

    /// The one line of this call.
    fn log(&self, recording: &Recording, evidence: &Evidence) {
        let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, effect) in &recording.entries {
            *outcomes.entry(outcome(effect)).or_default() += 1;
        }
        let devices = outcomes.iter().map(|(word, n)| format!("{word}={n}")).collect::<Vec<_>>().join(" ");
        macro_rules! line {
            ($level:ident, $text:literal, $($extra:tt)*) => {
                $level!(
                    call.id = %self.intent.call_id,
                    tenant = %self.tenant.name,
                    call.devices = self.intent.entries.len(),
                    call.outcome = %recording.state,
                    call.duration_ms = millis(self.clock.now().since(self.committed_at)),
                    http.status = evidence.http_status,
                    graph.request_id = evidence.graph_request_id.as_deref(),
                    devices,
                    $($extra)*
                    $text
                )
            };
        }
        if !recording.surplus.is_empty() {
            warn!(call.id = %self.intent.call_id, ids = recording.surplus.len(), "the answer names devices that were not asked for; they are kept on the call");
        }
        match (&recording.tenant, recording.state) {
            (TenantEffect::Wait { delay, code, reason }, CallState::Answered) => {
                line!(
                    warn,
                    "call carried out in part, the tenant waits before the rest goes",
                    wait.code = code,
                    wait.ms = millis(*delay),
                    reason,
                );
            }
            (TenantEffect::None, CallState::NotCarriedOut) => {
                line!(info, "devices looked up: their Cloud PCs are known now, and they go with the next call",);
            }
            (TenantEffect::Wait { delay, code, reason }, _) => {
                line!(
                    warn,
                    "call not carried out, the tenant waits",
                    wait.code = code,
                    wait.ms = millis(*delay),
                    reason,
                );
            }
            (TenantEffect::Block { code, reason, probe_after }, _) => {
                line!(
                    error,
                    "call not carried out, the tenant is blocked until this is mended",
                    block.code = code,
                    probe.after_ms = millis(*probe_after),
                    reason,
                );
            }
            (_, CallState::Unknown) => {
                let reason = recording.entries.iter().find_map(|(_, effect)| match effect {
                    EntryEffect::Unknown { detail } => Some(detail.as_str()),
                    _ => None,
                });
                line!(
                    warn,
                    "call in doubt: it may have been carried out, its devices are not sent again without evidence",
                    reason,
                );
            }
            (_, CallState::NotCarriedOut) => {
                line!(
                    warn,
                    "call refused because of what it holds: its devices go again in calls of half the size",
                    error.code = evidence.error_code.as_deref(),
                );
            }
            _ => line!(info, "call answered",),
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
