//! What really happened, by which tests judge the daemon: every reprovision, and every request to an action.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::interface::Interface;
use crate::domain::id::ManagedDeviceId;

/// One reprovision that really happened: one wipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerEntry {
    /// The device that was reprovisioned.
    pub managed_device_id: ManagedDeviceId,
    /// The `client-request-id` of the call that did it; none if the call carried none.
    pub client_request_id: Option<String>,
    /// When, by the simulator's clock.
    pub at: DateTime<Utc>,
    /// Whether a 2xx answer to that call was handed to its connection in full. A reset, a time-out of the client's, a
    /// truncated or endless body and a 5xx after the work leave it false.
    pub answered: bool,
}

/// One HTTP request to an action, carried out or refused. A `$batch` that reprovisions is one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActionRequest {
    /// When it arrived, by the simulator's clock.
    pub at: DateTime<Utc>,
    /// Its `client-request-id`.
    pub client_request_id: Option<String>,
    /// Which of the actions.
    pub action: Interface,
    /// The managed devices that it is about: those in its body as they were written there, or those that the fleet gives
    /// to the Cloud PCs. Empty if the body is not what the action takes.
    pub managed_device_ids: Vec<String>,
    /// The Cloud PCs in its body or path, as they were written there; the action that this project is named for has none.
    pub cloud_pc_ids: Vec<String>,
    /// The status answered; none while it is not answered, and for ever if the answer never began.
    pub status: Option<u16>,
    /// The `Retry-After` header answered.
    pub retry_after: Option<String>,
    /// When the answer began.
    pub answered_at: Option<DateTime<Utc>>,
}

/// How long the states of a reprovision last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// `pending` for this long,
    pub pending: Duration,
    /// then `active` for this long, then `done` or `failed`.
    pub active: Duration,
    /// The read-back shows an action only after this long.
    pub read_back_lag: Duration,
}

impl Default for Pace {
    /// A few seconds in all, so that a person can watch it; Graph takes up to an hour.
    fn default() -> Self {
        Self { pending: Duration::from_secs(1), active: Duration::from_secs(4), read_back_lag: Duration::ZERO }
    }
}

/// How far a reprovision has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Pending { since: DateTime<Utc> },
    Active { since: DateTime<Utc> },
    Ended { at: DateTime<Utc> },
}

impl Pace {
    /// What a read-back shows: none while the action is not shown yet.
    pub(super) fn progress(self, started: DateTime<Utc>, now: DateTime<Utc>) -> Option<Progress> {
        (now >= after(started, self.read_back_lag)).then(|| self.reached(started, now))
    }

    /// How far it really is.
    pub(super) fn reached(self, started: DateTime<Utc>, now: DateTime<Utc>) -> Progress {
        let (active, ended) = (after(started, self.pending), after(started, self.pending.saturating_add(self.active)));
        if now < active {
            Progress::Pending { since: started }
        } else if now < ended {
            Progress::Active { since: active }
        } else {
            Progress::Ended { at: ended }
        }
    }
}

fn after(started: DateTime<Utc>, wait: Duration) -> DateTime<Utc> {
    started + TimeDelta::from_std(wait).unwrap_or(TimeDelta::days(36_500))
}

/// A reprovision of one Cloud PC as Graph's own records have it. Those that a bulk action took and did not carry out are
/// here, and not in the ledger.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) managed_device_id: ManagedDeviceId,
    pub(super) cloud_pc_id: Option<Uuid>,
    pub(super) at: DateTime<Utc>,
    /// Never shown by a read-back: a fault.
    pub(super) hidden: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<LedgerEntry>,
    attempts: Vec<Attempt>,
    of_device: HashMap<ManagedDeviceId, Vec<usize>>,
    of_cloud_pc: HashMap<Uuid, Vec<usize>>,
    requests: Vec<ActionRequest>,
}

impl Ledger {
    /// A wipe.
    pub(super) fn record(&mut self, attempt: Attempt, client_request_id: Option<String>) -> usize {
        let Attempt { managed_device_id, at, .. } = attempt;
        self.attempted(attempt);
        self.entries.push(LedgerEntry { managed_device_id, client_request_id, at, answered: false });
        self.entries.len() - 1
    }

    /// What a read-back shows; by itself, no wipe.
    pub(super) fn attempted(&mut self, attempt: Attempt) {
        let index = self.attempts.len();
        self.of_device.entry(attempt.managed_device_id).or_default().push(index);
        if let Some(cloud_pc_id) = attempt.cloud_pc_id {
            self.of_cloud_pc.entry(cloud_pc_id).or_default().push(index);
        }
        self.attempts.push(attempt);
    }

    pub(super) fn answered(&mut self, entries: &[usize]) {
        for &entry in entries {
            self.entries[entry].answered = true;
        }
    }

    pub(super) fn entries(&self) -> &[LedgerEntry] {
        &self.entries
    }

    pub(super) fn of_device(&self, id: ManagedDeviceId) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.of_device.get(&id).into_iter().flatten().map(|&index| &self.attempts[index])
    }

    pub(super) fn of_cloud_pc(&self, id: Uuid) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.of_cloud_pc.get(&id).into_iter().flatten().map(|&index| &self.attempts[index])
    }

    pub(super) fn arrived(&mut self, request: ActionRequest) -> usize {
        self.requests.push(request);
        self.requests.len() - 1
    }

    pub(super) fn answering(&mut self, request: usize, status: u16, retry_after: Option<String>, at: DateTime<Utc>) {
        let request = &mut self.requests[request];
        (request.status, request.retry_after, request.answered_at) = (Some(status), retry_after, Some(at));
    }

    pub(super) fn requests(&self) -> &[ActionRequest] {
        &self.requests
    }
}
