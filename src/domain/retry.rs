//! From what an answer means to what becomes of each entry, of the call and of the tenant.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::answer::{Beside, DeviceAnswer, Meaning};
use super::id::{CallId, RequestId};
use super::lifecycle::{Bucket, CallState, EntryEffect, Recording, Source, TenantEffect, WaitCode};

/// The part of the configuration that decides here.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Attempts a request may be charged with.
    pub max_attempts: u32,
    /// Whether a device in bucket `failed` is tried again.
    pub retry_failed: bool,
    /// Time between two probes of a blocked tenant.
    pub blocked_probe_interval: Duration,
}

/// One entry of the call, in the order of its device ids.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The request.
    pub request_id: RequestId,
    /// Attempts charged before this call.
    pub attempts: u32,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What is known when a call has ended.
#[derive(Debug)]
pub struct Ended<'a> {
    /// The call.
    pub call_id: CallId,
    /// Its entries.
    pub sent: &'a [Sent],
    /// How many calls of this tenant in a row did not get through before this one.
    pub waits_in_a_row: u32,
    /// How long the answer asks to be left alone.
    pub asks_to_wait: Option<Duration>,
    /// The database's now, near enough for expiry.
    pub now: DateTime<Utc>,
}

/// Decides. `delay(n)` draws the jittered delay before the n-th repetition (from 1); drawing is the caller's, so that
/// this stays a function.
pub fn verdict(
    meaning: Meaning,
    ended: &Ended<'_>,
    policy: &RetryPolicy,
    delay: &mut dyn FnMut(u32) -> Duration,
) -> Recording {
    let (mut surplus, mut asked_beside) = (Vec::new(), None);
    let waits = ended.waits_in_a_row.saturating_add(1);
    let requeue =
        |reason: &'static str, max_batch: Option<u32>| every(ended, |_| EntryEffect::Requeue { reason, max_batch });
    let (state, entries, tenant) = match meaning {
        Meaning::Answered { devices, surplus: unasked, beside } => {
            surplus = unasked;
            let (state, tenant) = answered(&devices, beside, waits, ended, policy, delay);
            let (tenant, asks) = if state == CallState::Unknown { in_doubt(tenant) } else { (tenant, None) };
            asked_beside = asks;
            let answers = ended.sent.iter().zip(devices);
            let entries = answers.map(|(sent, answer)| (sent.request_id, one(sent, answer, ended.now, policy, delay)));
            (state, entries.collect(), tenant)
        }
        Meaning::Unknown { reason } => (
            CallState::Unknown,
            every(ended, |_| EntryEffect::Unknown { detail: reason.clone() }),
            TenantEffect::Caution,
        ),
        Meaning::NotSent { reason } => (
            CallState::NotSent,
            requeue("not_sent", None),
            TenantEffect::Wait { delay: delay(waits), code: WaitCode::Unreachable, reason },
        ),
        trouble @ (Meaning::Throttled { .. } | Meaning::TokenRefused { .. } | Meaning::Blocked { .. }) => {
            let word = match &trouble {
                Meaning::Throttled { .. } => "throttled",
                Meaning::TokenRefused { .. } => "token_refused",
                _ => "blocked",
            };
            (CallState::NotCarriedOut, requeue(word, None), of_tenant(trouble, waits, ended, policy, delay))
        }
        Meaning::Refused { reason } => match u32::try_from(ended.sent.len()) {
            Ok(0 | 1) => (CallState::Answered, every(ended, |_| failed(&reason)), TenantEffect::Clear),
            Ok(devices) => {
                (CallState::NotCarriedOut, requeue("isolating", Some(devices.div_ceil(2))), TenantEffect::Clear)
            }
            Err(_) => (CallState::NotCarriedOut, requeue("isolating", Some(u32::MAX / 2)), TenantEffect::Clear),
        },
    };
    // A wait holds that already; beside anything else it holds all the same.
    let leave_alone = ended.asks_to_wait.max(asked_beside).filter(|_| !matches!(tenant, TenantEffect::Wait { .. }));
    Recording { call_id: ended.call_id, state, entries, tenant, leave_alone, surplus }
}

/// What an answer about devices makes of the call and of the tenant.
fn answered(
    devices: &[DeviceAnswer],
    beside: Beside,
    waits: u32,
    ended: &Ended<'_>,
    policy: &RetryPolicy,
    delay: &mut dyn FnMut(u32) -> Duration,
) -> (CallState, TenantEffect) {
    let placed = devices.iter().any(|device| matches!(device, DeviceAnswer::Bucket(..) | DeviceAnswer::Refused(_)));
    let doubted = devices.iter().any(|device| matches!(device, DeviceAnswer::Unknown(_)));
    match beside {
        Beside::Accepted => (CallState::Answered, TenantEffect::Clear),
        Beside::NotAsked => (if placed { CallState::Answered } else { CallState::NotCarriedOut }, TenantEffect::None),
        Beside::Nothing if placed => (CallState::Answered, TenantEffect::Clear),
        // An answer that places no device leaves the whole call in doubt; what it does say is kept all the same.
        Beside::Nothing => (CallState::Unknown, TenantEffect::Caution),
        Beside::Trouble(trouble) => {
            let state = match (placed, doubted) {
                (true, _) => CallState::Answered,
                (false, true) => CallState::Unknown,
                (false, false) => CallState::NotCarriedOut,
            };
            (state, of_tenant(*trouble, waits, ended, policy, delay))
        }
    }
}

/// A call in doubt makes its tenant cautious, also where it makes it wait: the wait comes beside that.
fn in_doubt(tenant: TenantEffect) -> (TenantEffect, Option<Duration>) {
    match tenant {
        TenantEffect::Wait { delay, .. } => (TenantEffect::Caution, Some(delay)),
        other => (other, None),
    }
}

/// What was not carried out, for a reason that holds for the tenant.
fn of_tenant(
    trouble: Meaning,
    waits: u32,
    ended: &Ended<'_>,
    policy: &RetryPolicy,
    delay: &mut dyn FnMut(u32) -> Duration,
) -> TenantEffect {
    match trouble {
        // Never less than Graph asks; more where the own schedule is further on.
        Meaning::Throttled { retry_after, reason } => {
            let delay = delay(waits).max(retry_after.unwrap_or_default());
            TenantEffect::Wait { delay, code: WaitCode::Throttled, reason }
        }
        Meaning::TokenRefused { reason } => {
            TenantEffect::Wait { delay: ended.asks_to_wait.unwrap_or_default(), code: WaitCode::TokenRefused, reason }
        }
        Meaning::Blocked { code, reason } => {
            TenantEffect::Block { code, reason, probe_after: policy.blocked_probe_interval }
        }
        _ => TenantEffect::None,
    }
}

fn every(ended: &Ended<'_>, effect: impl Fn(&Sent) -> EntryEffect) -> Vec<(RequestId, EntryEffect)> {
    ended.sent.iter().map(|sent| (sent.request_id, effect(sent))).collect()
}

fn failed(reason: &str) -> EntryEffect {
    EntryEffect::Final { bucket: Bucket::Failed, source: Source::Answer, detail: Some(reason.to_owned()) }
}

fn one(
    sent: &Sent,
    answer: DeviceAnswer,
    now: DateTime<Utc>,
    policy: &RetryPolicy,
    delay: &mut dyn FnMut(u32) -> Duration,
) -> EntryEffect {
    match answer {
        DeviceAnswer::Unknown(detail) => EntryEffect::Unknown { detail },
        DeviceAnswer::Refused(reason) => failed(&reason),
        DeviceAnswer::NotCarriedOut(reason) => EntryEffect::Requeue { reason, max_batch: None },
        DeviceAnswer::Bucket(Bucket::Failed, detail) if policy.retry_failed => {
            let seen = detail.unwrap_or_else(|| "in failedDeviceIds".to_owned());
            let attempt = sent.attempts.saturating_add(1);
            if attempt >= policy.max_attempts {
                return failed(&format!("{seen}, on attempt {attempt} of {}", policy.max_attempts));
            }
            let delay = delay(attempt);
            // A repetition that could only expire is none: the failure is the truer ending.
            let next = chrono::TimeDelta::from_std(delay).ok().and_then(|delay| now.checked_add_signed(delay));
            if sent.expires_at.is_some_and(|expiry| next.is_none_or(|next| next >= expiry)) {
                return failed(&format!("{seen}, and expires_at leaves no time for another attempt"));
            }
            EntryEffect::TryAgain { detail: Some(seen), delay }
        }
        DeviceAnswer::Bucket(bucket, detail) => EntryEffect::Final { bucket, source: Source::Answer, detail },
    }
}

#[cfg(test)]
mod tests;
