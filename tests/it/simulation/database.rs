//! The tables and what each verb does to them: the meaning of `store/*/sql.rs`, without a database. What a constraint or a
//! trigger would refuse is a breach here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reprovisiond::domain::action::Action;
use reprovisiond::domain::id::{CallId, ManagedDeviceId, RequestId, TenantName, WorkerId};
use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryEffect, EntryState, Recording, TenantEffect, WaitCode};
use reprovisiond::domain::plan::{Entry, Facts, RateBudget, Snapshot, TenantState};
use reprovisiond::domain::rate::Pace;
use reprovisiond::domain::read_back::{Doubt, ReconcilePolicy, Settlement};
use reprovisiond::store::{AbandonedCall, Claim, Claimed, Decide, Recorded, StoreError};

/// A row of `reprovision_queue`.
pub(super) struct Queued {
    pub(super) tenant: TenantName,
    pub(super) device: ManagedDeviceId,
    pub(super) priority: i32,
    pub(super) state: EntryState,
    pub(super) ready: bool,
    pub(super) due_at: DateTime<Utc>,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) attempts: u32,
    pub(super) max_batch: Option<u32>,
    pub(super) call: Option<usize>,
    pub(super) wait_reason: String,
}

/// A row of `graph_calls`. Calls are known by their number in the table: their ids are random.
pub(super) struct CallRow {
    pub(super) id: CallId,
    pub(super) tenant: TenantName,
    pub(super) worker: WorkerId,
    pub(super) state: CallState,
    pub(super) entries: Vec<(i64, ManagedDeviceId)>,
    pub(super) sent_at: DateTime<Utc>,
    /// The same without any step of the database's clock.
    pub(super) intended: Duration,
    pub(super) finished_at: Option<DateTime<Utc>>,
    pub(super) abandoned: bool,
    /// Its COMMIT arrives after its connection broke: until then its own worker cannot see it.
    pub(super) committed: Duration,
}

/// The final row of `device_results`.
#[derive(Clone, Copy)]
pub(super) struct Final {
    pub(super) bucket: Bucket,
    pub(super) call: Option<usize>,
}

/// A row of `tenants`.
#[derive(Default)]
pub(super) struct TenantRow {
    wait_until: Option<DateTime<Utc>>,
    waits_in_a_row: u32,
    probe_at: Option<DateTime<Utc>>,
    next_call_at: Option<DateTime<Utc>>,
    pace: Pace,
    throttled_at: Option<DateTime<Utc>>,
    cautious: bool,
}

/// A row of `workers`.
pub(super) struct WorkerRow {
    pub(super) host: usize,
    heartbeat_at: DateTime<Utc>,
    lease_expires_at: DateTime<Utc>,
    /// When its lease lapses without any step of the database's clock.
    pub(super) lease_lapses: Duration,
    pub(super) stopped: bool,
}

/// Everything that is committed.
#[derive(Default)]
pub(super) struct Database {
    /// The database's now, and the same without its steps; the world sets both before each verb.
    pub(super) now: DateTime<Utc>,
    pub(super) time: Duration,
    /// A crash's calls go back to `queued`: the protocol, broken on purpose.
    pub(super) resends: bool,
    /// The devices of all requests; a request's id is its place, from 1.
    pub(super) requests: Vec<ManagedDeviceId>,
    pub(super) queue: BTreeMap<i64, Queued>,
    /// The queue by priority and age.
    order: BTreeSet<(i32, i64)>,
    /// Entries in `sending`, `unknown` or `held`, by device: the unique index.
    pub(super) busy: BTreeMap<ManagedDeviceId, i64>,
    pub(super) calls: Vec<CallRow>,
    call_numbers: HashMap<CallId, usize>,
    pub(super) sending: BTreeSet<usize>,
    pub(super) finals: BTreeMap<i64, Final>,
    /// Devices and the calls that results say succeeded for them.
    successes: BTreeSet<(ManagedDeviceId, usize)>,
    pub(super) tenants: BTreeMap<TenantName, TenantRow>,
    pub(super) workers: HashMap<WorkerId, WorkerRow>,
    pub(super) breaches: Vec<String>,
}

fn ahead(now: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    now + TimeDelta::from_std(by).unwrap()
}

impl Database {
    pub(super) fn number_of(&self, call: CallId) -> Option<usize> {
        self.call_numbers.get(&call).copied()
    }

    pub(super) fn insert(
        &mut self,
        tenant: &TenantName,
        device: ManagedDeviceId,
        priority: i32,
        not_before: Option<Duration>,
        expires_in: Option<Duration>,
    ) {
        self.requests.push(device);
        let id = i64::try_from(self.requests.len()).unwrap();
        let due_at = not_before.map_or(self.now, |wait| ahead(self.now, wait));
        let entry = Queued {
            tenant: tenant.clone(),
            device,
            priority,
            state: EntryState::Queued,
            ready: due_at <= self.now,
            due_at,
            expires_at: expires_in.map(|wait| ahead(self.now, wait)),
            attempts: 0,
            max_batch: None,
            call: None,
            wait_reason: String::new(),
        };
        self.order.insert((-priority, id));
        self.queue.insert(id, entry);
    }

    /// The one way a state changes, so that the unique index on busy devices is asked each time.
    fn set_state(&mut self, id: i64, state: EntryState) {
        let entry = self.queue.get_mut(&id).unwrap();
        entry.state = state;
        if state == EntryState::Queued {
            entry.call = None;
            if self.busy.get(&entry.device) == Some(&id) {
                self.busy.remove(&entry.device);
            }
        } else if let Some(other) = self.busy.insert(entry.device, id).filter(|other| *other != id) {
            self.breaches.push(format!("invariant 4: requests {other} and {id} of one device are both under way"));
        }
    }

    fn end(&mut self, id: i64, bucket: Bucket, call: Option<usize>) {
        let Some(entry) = self.queue.remove(&id) else {
            return self.breaches.push(format!("invariant 1: request {id} ends and is not in the queue"));
        };
        self.order.remove(&(-entry.priority, id));
        if self.busy.get(&entry.device) == Some(&id) {
            self.busy.remove(&entry.device);
        }
        if let (Bucket::Successful, Some(call)) = (bucket, call) {
            self.successes.insert((entry.device, call));
        }
        if self.finals.insert(id, Final { bucket, call }).is_some() {
            self.breaches.push(format!("invariant 1 and 6: request {id} has two final results"));
        }
    }

    pub(super) fn start_worker(&mut self, worker: WorkerId, host: usize, lease: Duration) {
        let row = WorkerRow {
            host,
            heartbeat_at: self.now,
            lease_expires_at: ahead(self.now, lease),
            lease_lapses: self.time + lease,
            stopped: false,
        };
        self.workers.insert(worker, row);
    }

    pub(super) fn renew_lease(&mut self, worker: WorkerId, lease: Duration) -> bool {
        let (now, time) = (self.now, self.time);
        let row = self.workers.get_mut(&worker).unwrap();
        let held = !row.stopped && row.lease_expires_at > now;
        row.heartbeat_at = now;
        row.lease_expires_at = ahead(now, lease);
        row.lease_lapses = time + lease;
        row.stopped = false;
        held
    }

    pub(super) fn stop_worker(&mut self, worker: WorkerId) {
        if let Some(row) = self.workers.get_mut(&worker) {
            row.stopped = true;
        }
    }

    pub(super) fn abandon_calls(&mut self) -> Vec<AbandonedCall> {
        let (now, set_back) = (self.now, ahead(self.now, Duration::from_secs(10)));
        let lives = |call: &CallRow| {
            let row = self.workers.get(&call.worker);
            row.is_some_and(|row| !row.stopped && row.lease_expires_at > now && row.heartbeat_at <= set_back)
        };
        let dead: Vec<usize> = self.sending.iter().copied().filter(|n| !lives(&self.calls[*n])).collect();
        let mut abandoned = Vec::new();
        for n in dead {
            self.sending.remove(&n);
            let call = &mut self.calls[n];
            call.state = CallState::Unknown;
            call.finished_at = Some(self.now);
            call.abandoned = true;
            abandoned.push(AbandonedCall {
                call_id: call.id,
                tenant: call.tenant.to_string(),
                device_count: u32::try_from(call.entries.len()).unwrap(),
                worker: call.worker,
            });
            self.tenants.get_mut(&call.tenant.clone()).unwrap().cautious = true;
            for id in self.entries_of(n, EntryState::Sending) {
                self.queue.get_mut(&id).unwrap().attempts += 1;
                self.set_state(id, if self.resends { EntryState::Queued } else { EntryState::Unknown });
            }
        }
        abandoned
    }

    fn entries_of(&self, call: usize, state: EntryState) -> Vec<i64> {
        let of_call = |id: &i64| self.queue.get(id).is_some_and(|e| e.call == Some(call) && e.state == state);
        self.calls[call].entries.iter().map(|(id, _)| *id).filter(of_call).collect()
    }

    pub(super) fn release_unsent(&mut self, worker: WorkerId, under_way: &[CallId]) -> u64 {
        let unsent = |n: &usize| {
            let call = &self.calls[*n];
            call.worker == worker && call.committed <= self.time && !under_way.contains(&call.id)
        };
        let released: Vec<usize> = self.sending.iter().copied().filter(unsent).collect();
        for n in &released {
            self.sending.remove(n);
            self.calls[*n].state = CallState::NotSent;
            self.calls[*n].finished_at = Some(self.now);
            for id in self.entries_of(*n, EntryState::Sending) {
                self.set_state(id, EntryState::Queued);
            }
        }
        released.len() as u64
    }

    /// Calls of a tenant whose whole outcome is in doubt.
    pub(super) fn open_doubts(&self, tenant: &TenantName) -> usize {
        let doubts: BTreeSet<usize> = self
            .busy
            .values()
            .map(|id| &self.queue[id])
            .filter(|e| e.tenant == *tenant && e.state != EntryState::Sending)
            .filter_map(|e| e.call)
            .filter(|call| self.calls[*call].state == CallState::Unknown)
            .collect();
        doubts.len()
    }

    pub(super) fn facts(&self, tenant: &TenantName) -> Option<Facts> {
        let row = self.tenants.get(tenant)?;
        let (mut ready, mut next_due, mut next_expiry) = (false, None, None);
        let sooner =
            |at: &mut Option<DateTime<Utc>>, other| *at = Some(at.map_or(other, |at: DateTime<Utc>| at.min(other)));
        for entry in self.queue.values().filter(|e| e.state == EntryState::Queued && e.tenant == *tenant) {
            if entry.ready {
                ready = true;
            } else {
                sooner(&mut next_due, entry.due_at);
            }
            if let Some(at) = entry.expires_at {
                sooner(&mut next_expiry, at);
            }
        }
        let in_flight = self.sending.iter().filter(|n| self.calls[**n].tenant == *tenant).count();
        Some(Facts {
            now: self.now,
            tenant: TenantState {
                paused: false,
                blocked_until: row.probe_at,
                wait_until: row.wait_until,
                next_call_at: row.next_call_at,
                pace: row.pace,
                throttled_at: row.throttled_at,
                cautious: row.cautious,
                calls_in_flight: u32::try_from(in_flight).unwrap(),
                open_doubts: u32::try_from(self.open_doubts(tenant)).unwrap(),
            },
            ready,
            next_due,
            next_expiry,
            waits_in_a_row: row.waits_in_a_row,
        })
    }

    pub(super) fn claim(&mut self, claim: &Claim<'_>, decide: &Decide<'_>) -> Claimed {
        let now = self.now;
        let of_tenant = |e: &Queued| e.tenant == *claim.tenant && e.state == EntryState::Queued;
        for entry in self.queue.values_mut().filter(|e| of_tenant(e) && !e.ready && e.due_at <= now) {
            entry.ready = true;
        }
        let facts = self.facts(claim.tenant).unwrap();
        let shown = |id: i64, e: &Queued| Entry {
            request_id: RequestId(id),
            device: e.device,
            due_at: e.due_at,
            expires_at: e.expires_at,
            attempts: e.attempts,
            max_batch: e.max_batch,
        };
        let ready = |(_, id): &(i32, i64)| {
            let entry = &self.queue[id];
            (of_tenant(entry) && entry.ready && !self.busy.contains_key(&entry.device)).then(|| shown(*id, entry))
        };
        let fetch = (claim.fetch)(&facts);
        let mut entries: Vec<Entry> = self.order.iter().filter_map(ready).take(fetch).collect();
        let due: BTreeSet<i64> = entries.iter().map(|e| e.request_id.0).collect();
        let overdue = |e: &Queued| of_tenant(e) && e.expires_at.is_some_and(|at| at <= now);
        entries
            .extend(self.queue.iter().filter(|(id, e)| overdue(e) && !due.contains(id)).map(|(id, e)| shown(*id, e)));
        let decision = decide(Snapshot { now, tenant: facts.tenant.clone(), entries });

        for intent in &decision.intents {
            let number = self.calls.len();
            self.calls.push(CallRow {
                id: intent.call_id,
                tenant: claim.tenant.clone(),
                worker: claim.worker,
                state: CallState::Sending,
                entries: intent.entries.iter().map(|e| (e.request_id.0, e.device)).collect(),
                sent_at: now,
                intended: self.time,
                finished_at: None,
                abandoned: false,
                committed: self.time,
            });
            self.call_numbers.insert(intent.call_id, number);
            self.sending.insert(number);
            for entry in &intent.entries {
                let row = self.queue.get_mut(&entry.request_id.0).unwrap();
                assert_eq!(row.state, EntryState::Queued, "the snapshot shows entries that are queued");
                row.call = Some(number);
                self.set_state(entry.request_id.0, EntryState::Sending);
            }
        }
        if let Some(RateBudget { next_call_at, pace }) = decision.budget {
            let row = self.tenants.get_mut(claim.tenant).unwrap();
            (row.next_call_at, row.pace) = (Some(next_call_at), pace);
        }
        for entry in &decision.expired {
            self.end(entry.request_id.0, Bucket::Expired, None);
        }
        Claimed { facts, decision }
    }

    pub(super) fn record(&mut self, recording: &Recording) -> Result<Recorded, StoreError> {
        let Some(number) = self.number_of(recording.call_id) else { return Ok(Recorded::Superseded) };
        let call = &mut self.calls[number];
        let late = match call.state {
            CallState::Sending => false,
            CallState::Unknown if call.abandoned => true,
            _ => return Ok(Recorded::Superseded),
        };
        if recording.entries.len() != call.entries.len() {
            return Err(StoreError::Conflict("record: entries of the call".to_owned()));
        }
        call.state = recording.state;
        call.finished_at = Some(self.now);
        call.abandoned = false;
        let tenant = call.tenant.clone();
        self.sending.remove(&number);
        self.tenant_effect(&tenant, &recording.tenant);
        self.tenant_effect(&tenant, &recording.wait());
        let mut too_late = 0;
        for (request, effect) in &recording.entries {
            let id = request.0;
            let state = self.queue.get(&id).filter(|e| e.call == Some(number)).map(|e| e.state);
            match state {
                Some(EntryState::Sending) if !late => self.entry_effect(id, number, effect, 0),
                // What settles nothing is kept on the call; its entries have been in doubt since it was given up.
                Some(EntryState::Unknown | EntryState::Held) if late && recording.state == CallState::Unknown => {}
                Some(EntryState::Unknown | EntryState::Held) if late => self.entry_effect(id, number, effect, 1),
                _ if late => {
                    too_late += 1;
                    if let EntryEffect::Final { bucket: Bucket::Successful, .. } = effect {
                        self.successes.insert((self.requests[usize::try_from(id - 1).unwrap()], number));
                    }
                }
                _ => return Err(StoreError::Conflict(format!("record: request {id} is {state:?}"))),
            }
        }
        Ok(if too_late == 0 { Recorded::Done } else { Recorded::TooLateFor(too_late) })
    }

    /// `charged`: attempts that were charged when the call was given up.
    fn entry_effect(&mut self, id: i64, call: usize, effect: &EntryEffect, charged: u32) {
        let (state, delay, charge, cap, reason) = match effect {
            EntryEffect::Final { bucket, .. } => return self.end(id, *bucket, Some(call)),
            EntryEffect::TryAgain { delay, .. } => (EntryState::Queued, Some(*delay), 1, None, "retry_failed"),
            EntryEffect::Requeue { reason, max_batch } => (EntryState::Queued, None, 0, *max_batch, *reason),
            EntryEffect::Unknown { detail } => (EntryState::Unknown, None, 1, None, detail.as_str()),
        };
        let now = self.now;
        let entry = self.queue.get_mut(&id).unwrap();
        reason.clone_into(&mut entry.wait_reason);
        entry.ready = delay.is_none();
        entry.due_at = delay.map_or(entry.due_at.min(now), |delay| ahead(now, delay));
        entry.attempts = entry.attempts + charge - charged;
        entry.max_batch = if charge == 1 { None } else { cap.or(entry.max_batch) };
        self.set_state(id, state);
    }

    pub(super) fn tenant_effect(&mut self, tenant: &TenantName, effect: &TenantEffect) {
        let now = self.now;
        let row = self.tenants.get_mut(tenant).unwrap();
        match effect {
            TenantEffect::None => {}
            TenantEffect::Caution => row.cautious = true,
            TenantEffect::Clear => {
                if row.wait_until.is_none_or(|at| at <= now) {
                    row.wait_until = None;
                    row.waits_in_a_row = 0;
                }
                row.probe_at = None;
                row.cautious = false;
            }
            TenantEffect::Wait { delay, code, .. } => {
                if *code == WaitCode::Throttled {
                    row.throttled_at = Some(now);
                }
                row.wait_until = row.wait_until.max(Some(ahead(now, *delay)));
                row.waits_in_a_row += 1;
            }
            TenantEffect::Block { probe_after, .. } => row.probe_at = Some(ahead(now, *probe_after)),
        }
    }

    pub(super) fn probe_blocked(&mut self, names: &[TenantName]) {
        let now = self.now;
        for (_, row) in self.tenants.iter_mut().filter(|(name, _)| names.contains(name)) {
            row.probe_at = row.probe_at.map(|at| at.min(now));
        }
    }

    pub(super) fn doubts(&self, tenant: &TenantName, policy: &ReconcilePolicy, limit: u32) -> Vec<Doubt> {
        let now = self.now;
        let read_from = now - TimeDelta::from_std(policy.first_after).unwrap();
        let near = TimeDelta::from_std(policy.clock_margin * 2).unwrap();
        let doubt = |id: &i64| {
            let entry = &self.queue[id];
            let call = &self.calls[entry.call?];
            let given_up_at = call.finished_at?;
            let due = entry.due_at <= now && given_up_at <= read_from;
            let in_the_future = call.sent_at.max(given_up_at) > ahead(now, policy.clock_margin);
            if entry.tenant != *tenant || entry.state != EntryState::Unknown || !(due || in_the_future) {
                return None;
            }
            let others = self.successes.iter().filter(|(device, n)| *device == entry.device && Some(*n) != entry.call);
            let near_this =
                others.filter(|(_, n)| self.calls[*n].finished_at.is_some_and(|at| at >= call.sent_at - near));
            Some(Doubt {
                request_id: RequestId(*id),
                device: entry.device,
                call_id: call.id,
                action: Action::BulkReprovisionCloudPc,
                cloud_pc: None,
                sent_at: call.sent_at,
                given_up_at,
                attempts: entry.attempts,
                explained: u32::try_from(near_this.count()).unwrap(),
                now,
                watched: Duration::ZERO,
                read_took: Duration::ZERO,
            })
        };
        let mut found: Vec<Doubt> = self.busy.values().filter_map(doubt).collect();
        found.sort_by_key(|d| (d.given_up_at, d.request_id));
        found.truncate(limit as usize);
        found
    }

    pub(super) fn settle(&mut self, settled: &[(Doubt, Settlement)]) -> u64 {
        let now = self.now;
        let mut changed = 0;
        for (doubt, settlement) in settled {
            let (id, call) = (doubt.request_id.0, self.number_of(doubt.call_id));
            let Some(entry) = self.queue.get_mut(&id) else { continue };
            if entry.call != call || entry.state != EntryState::Unknown {
                continue;
            }
            changed += 1;
            let (state, delay, detail) = match settlement {
                Settlement::Final { bucket, .. } => {
                    self.end(id, *bucket, call);
                    continue;
                }
                Settlement::QueueAgain { detail, .. } => (EntryState::Queued, Duration::ZERO, detail),
                Settlement::AskAgain { after, detail } => (EntryState::Unknown, *after, detail),
                Settlement::Hold { detail, .. } => (EntryState::Held, Duration::ZERO, detail),
            };
            detail.clone_into(&mut entry.wait_reason);
            entry.ready = state == EntryState::Queued;
            entry.due_at = ahead(now, delay);
            self.set_state(id, state);
        }
        changed
    }

    /// A person decides on what is held.
    pub(super) fn resolve(&mut self, id: i64, happened: bool) {
        if happened {
            let call = self.queue[&id].call;
            return self.end(id, Bucket::Successful, call);
        }
        let now = self.now;
        let entry = self.queue.get_mut(&id).unwrap();
        entry.ready = true;
        entry.due_at = now;
        self.set_state(id, EntryState::Queued);
    }
}
