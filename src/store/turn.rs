//! The steps of a turn: commit 2 of calls that have been answered, and commit 1 of those that go next.
//!
//! Locks are taken in the order that holds everywhere: calls, the tenant, entries. What the answers mean for the tenant is
//! written before the claim looks at it, so that none goes out against a wait that came in with them.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::late::{LateResults, SettledBefore};
use super::rows::{self, QueueColumns, ResultColumns};
use super::{Answer, Claim, Claimed, Decide, Intent, Recorded, StoreError, Turned};
use crate::domain::id::{CallId, RequestId};
use crate::domain::lifecycle::{Bucket, CallState, EntryEffect, EntryState, Source, TenantEffect};
use crate::domain::plan::{Entry, Facts, RateBudget, Snapshot};

/// The statements of a turn on one database, each about all that it is given.
#[async_trait]
pub(super) trait Steps: Send {
    /// Completes those of the calls that are in state `from`, and says of which tenant and how large they are.
    async fn complete(&mut self, answers: &[Answer<'_>], from: CallState) -> Result<Vec<Completed>, StoreError>;
    async fn tenant_effect(&mut self, tenant: &str, effect: &TenantEffect) -> Result<(), StoreError>;
    /// The requests of a call that was given up which are still in doubt, locked.
    async fn open_entries(&mut self, call: CallId) -> Result<Vec<i64>, StoreError>;
    /// How the others were settled.
    async fn settled_before(&mut self, call: CallId, open: &[i64]) -> Result<Vec<SettledBefore>, StoreError>;
    async fn late_results(&mut self, call: CallId, rows: &LateResults) -> Result<u64, StoreError>;
    async fn results(&mut self, rows: &ResultColumns) -> Result<u64, StoreError>;
    async fn leave_queue(&mut self, requests: &[i64]) -> Result<u64, StoreError>;
    async fn keep_in_queue(&mut self, rows: &QueueColumns) -> Result<u64, StoreError>;

    /// Locks the tenant's row; `false`: another has it, and this does not wait.
    async fn lock_tenant(&mut self, tenant: &str, waits: bool) -> Result<bool, StoreError>;
    async fn facts(&mut self, tenant: &str) -> Result<Option<Facts>, StoreError>;
    /// Entries whose time has come are ready from now on.
    async fn promote_due(&mut self, tenant: &str) -> Result<(), StoreError>;
    async fn due(&mut self, tenant: &str, fetch: usize) -> Result<Vec<Entry>, StoreError>;
    async fn overdue(&mut self, tenant: &str, now: DateTime<Utc>) -> Result<Vec<Entry>, StoreError>;
    /// Writes down calls, with which queued entries go, and charges them to the tenant's rate. Returns how many entries have gone.
    async fn intend(
        &mut self,
        claim: &Claim<'_>,
        intents: &[Intent],
        budget: Option<&RateBudget>,
    ) -> Result<u64, StoreError>;
    async fn expire(&mut self, requests: &[i64]) -> Result<u64, StoreError>;
}

/// A call that has just been completed.
#[derive(Debug)]
pub(super) struct Completed {
    pub(super) call: CallId,
    pub(super) tenant: String,
    pub(super) devices: i32,
}

/// The whole of a turn, but for the commit.
pub(super) async fn take(
    steps: &mut impl Steps,
    answers: &[Answer<'_>],
    claim: Option<(&Claim<'_>, &Decide<'_>)>,
) -> Result<Turned, StoreError> {
    let calls = if answers.is_empty() { Calls::default() } else { complete(steps, answers).await? };
    affect_tenants(steps, answers, &calls).await?;
    let claim = match claim {
        Some((claim, decide)) if steps.lock_tenant(claim.tenant.as_str(), claim.waits).await? => Some((claim, decide)),
        _ => None,
    };
    let recorded = record(steps, answers, &calls).await?;
    let claimed = match claim {
        Some((claim, decide)) => Some(self::claim(steps, claim, decide).await?),
        None => None,
    };
    Ok(Turned { recorded, claimed })
}

/// The calls that have been completed.
#[derive(Default)]
struct Calls {
    completed: HashMap<CallId, Completed>,
    /// Those among them that had been given up: only what is still in doubt is their answer's to settle.
    late: HashSet<CallId>,
}

async fn complete(steps: &mut impl Steps, answers: &[Answer<'_>]) -> Result<Calls, StoreError> {
    let mut calls =
        Calls { completed: by_call(steps.complete(answers, CallState::Sending).await?), ..Calls::default() };
    let missing = |answer: &&Answer<'_>| !calls.completed.contains_key(&answer.recording.call_id);
    let missing: Vec<Answer<'_>> = answers.iter().filter(missing).copied().collect();
    if !missing.is_empty() {
        let late = by_call(steps.complete(&missing, CallState::Unknown).await?);
        calls.late = late.keys().copied().collect();
        calls.completed.extend(late);
    }
    Ok(calls)
}

async fn record(steps: &mut impl Steps, answers: &[Answer<'_>], calls: &Calls) -> Result<Vec<Recorded>, StoreError> {
    let (mut effects, mut recorded) = (Effects::default(), Vec::new());
    for answer in answers {
        let recording = answer.recording;
        let Some(completed) = calls.completed.get(&recording.call_id) else {
            recorded.push(Recorded::Superseded);
            continue;
        };
        // Of every entry it says what becomes of it: one left out would be in `sending` for ever.
        let devices = u64::from(rows::count(completed.devices.into()));
        rows::expect_rows("record: entries of the call", recording.entries.len(), devices)?;
        if calls.late.contains(&recording.call_id) {
            let open = steps.open_entries(recording.call_id).await?;
            keep_late(steps, answer, &open).await?;
            // What settles nothing is kept on the call; its entries have been in doubt since it was given up.
            if recording.state != CallState::Unknown {
                effects.add(answer, |request| open.contains(&request));
            }
            recorded.push(match recording.entries.len().saturating_sub(open.len()) {
                0 => Recorded::Done,
                settled => Recorded::TooLateFor(settled),
            });
        } else {
            effects.add(answer, |_| true);
            recorded.push(Recorded::Done);
        }
    }
    effects.write(steps).await?;
    Ok(recorded)
}

fn by_call(completed: Vec<Completed>) -> HashMap<CallId, Completed> {
    completed.into_iter().map(|completed| (completed.call, completed)).collect()
}

/// Tenant by tenant, in the order of their names.
async fn affect_tenants(steps: &mut impl Steps, answers: &[Answer<'_>], calls: &Calls) -> Result<(), StoreError> {
    let tenant = |answer: &Answer<'_>| calls.completed.get(&answer.recording.call_id).map(|c| c.tenant.as_str());
    let mut effects: Vec<(&str, TenantEffect)> = Vec::new();
    for answer in answers {
        let Some(tenant) = tenant(answer) else { continue };
        effects.push((tenant, answer.recording.tenant.clone()));
        effects.push((tenant, answer.recording.wait()));
    }
    effects.retain(|(_, effect)| *effect != TenantEffect::None);
    effects.sort_by_key(|(tenant, _)| *tenant);
    // Of several waits each counts as one more that did not get through.
    effects.dedup_by(|one, other| one == other && matches!(one.1, TenantEffect::Clear | TenantEffect::Caution));
    for (tenant, effect) in effects {
        steps.tenant_effect(tenant, &effect).await?;
    }
    Ok(())
}

/// Keeps what a late answer says of requests whose doubt was settled before it came: of all but the `open` ones.
async fn keep_late(steps: &mut impl Steps, answer: &Answer<'_>, open: &[i64]) -> Result<(), StoreError> {
    let recording = answer.recording;
    let settled = steps.settled_before(recording.call_id, open).await?;
    let late = LateResults::of(&recording.entries, settled);
    if late.request_id.is_empty() {
        return Ok(());
    }
    let written = steps.late_results(recording.call_id, &late).await?;
    rows::expect_rows("record: what came late", late.request_id.len(), written)
}

/// What becomes of the entries of all answers.
#[derive(Default)]
struct Effects {
    /// Rows for `device_results`.
    results: ResultColumns,
    /// Entries that leave the queue.
    finals: Vec<i64>,
    /// Entries that stay in it.
    kept: QueueColumns,
}

impl Effects {
    /// The effects on the entries that `open` lets through.
    fn add(&mut self, answer: &Answer<'_>, open: impl Fn(i64) -> bool) {
        let call = answer.recording.call_id;
        for (RequestId(request), effect) in answer.recording.entries.iter().filter(|(request, _)| open(request.0)) {
            let (results, kept) = (&mut self.results, &mut self.kept);
            match effect {
                EntryEffect::Final { bucket, source, detail } => {
                    let charge = i32::from(matches!(source, Source::Answer | Source::ReadBack));
                    results.push(*request, call, (*bucket, *source), true, detail.as_deref(), charge);
                    self.finals.push(*request);
                }
                EntryEffect::TryAgain { detail, delay } => {
                    results.push(*request, call, (Bucket::Failed, Source::Answer), false, detail.as_deref(), 1);
                    kept.push(*request, call, EntryState::Queued, Some(*delay), "retry_failed", 1, None);
                }
                EntryEffect::Requeue { reason, max_batch } => {
                    let cap = max_batch.map(|cap| i32::try_from(cap).unwrap_or(i32::MAX));
                    kept.push(*request, call, EntryState::Queued, None, reason, 0, cap);
                }
                EntryEffect::Unknown { detail } => {
                    results.push(*request, call, (Bucket::Unknown, Source::Answer), false, Some(detail), 1);
                    kept.push(*request, call, EntryState::Unknown, None, detail, 1, None);
                }
            }
        }
    }

    async fn write(&self, steps: &mut impl Steps) -> Result<(), StoreError> {
        let expected = self.results.request_id.len();
        if expected > 0 {
            rows::expect_rows("record: results", expected, steps.results(&self.results).await?)?;
        }
        if !self.finals.is_empty() {
            let left = steps.leave_queue(&self.finals).await?;
            rows::expect_rows("record: finished requests leave the queue", self.finals.len(), left)?;
        }
        let expected = self.kept.request_id.len();
        if expected > 0 {
            rows::expect_rows("record: entries that stay", expected, steps.keep_in_queue(&self.kept).await?)?;
        }
        Ok(())
    }
}

async fn claim(steps: &mut impl Steps, claim: &Claim<'_>, decide: &Decide<'_>) -> Result<Claimed, StoreError> {
    let tenant = claim.tenant.as_str();
    let facts = steps.facts(tenant).await?.ok_or_else(|| rows::no_tenant(claim.tenant))?;
    let come = |at: Option<DateTime<Utc>>| at.is_some_and(|at| at <= facts.now);
    if come(facts.next_due) {
        steps.promote_due(tenant).await?;
    }
    let fetch = (claim.fetch)(&facts);
    let due = if fetch > 0 { steps.due(tenant, fetch).await? } else { Vec::new() };
    let overdue = if come(facts.next_expiry) { steps.overdue(tenant, facts.now).await? } else { Vec::new() };
    let entries = rows::merged(due, overdue);
    let decision = decide(Snapshot { now: facts.now, tenant: facts.tenant.clone(), entries });

    if !decision.intents.is_empty() {
        let go: usize = decision.intents.iter().map(|intent| intent.entries.len()).sum();
        let gone = steps.intend(claim, &decision.intents, decision.budget.as_ref()).await?;
        rows::expect_rows("claim: queued to sending", go, gone)?;
    }
    if !decision.expired.is_empty() {
        let requests = rows::request_ids(&decision.expired);
        let ended = steps.expire(&requests).await?;
        rows::expect_rows("claim: results of expired requests", requests.len(), ended)?;
        let left = steps.leave_queue(&requests).await?;
        rows::expect_rows("claim: expired requests leave the queue", requests.len(), left)?;
    }
    Ok(Claimed { facts, decision })
}
