//! What really happened, by which tests judge the daemon: every reprovision, and every request to the action.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

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

/// One HTTP request to the action, carried out or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActionRequest {
    /// When it arrived, by the simulator's clock.
    pub at: DateTime<Utc>,
    /// Its `client-request-id`.
    pub client_request_id: Option<String>,
    /// The IDs in its body as they were written there; empty if the body is not what the action takes.
    pub managed_device_ids: Vec<String>,
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
    Pending,
    Active { since: DateTime<Utc> },
    Ended { at: DateTime<Utc> },
}

impl Pace {
    /// None while the action is not shown yet.
    pub(super) fn progress(self, started: DateTime<Utc>, now: DateTime<Utc>) -> Option<Progress> {
        let after = |wait: Duration| started + TimeDelta::from_std(wait).unwrap_or(TimeDelta::days(36_500));
        let (active, ended) = (after(self.pending), after(self.pending.saturating_add(self.active)));
        if now < after(self.read_back_lag) {
            None
        } else if now < active {
            Some(Progress::Pending)
        } else if now < ended {
            Some(Progress::Active { since: active })
        } else {
            Some(Progress::Ended { at: ended })
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<LedgerEntry>,
    of_device: HashMap<ManagedDeviceId, Vec<usize>>,
    requests: Vec<ActionRequest>,
}

impl Ledger {
    pub(super) fn record(
        &mut self,
        id: ManagedDeviceId,
        client_request_id: Option<String>,
        at: DateTime<Utc>,
    ) -> usize {
        let entry = self.entries.len();
        self.entries.push(LedgerEntry { managed_device_id: id, client_request_id, at, answered: false });
        self.of_device.entry(id).or_default().push(entry);
        entry
    }

    pub(super) fn answered(&mut self, entries: &[usize]) {
        for &entry in entries {
            self.entries[entry].answered = true;
        }
    }

    pub(super) fn entries(&self) -> &[LedgerEntry] {
        &self.entries
    }

    pub(super) fn of_device(&self, id: ManagedDeviceId) -> impl Iterator<Item = &LedgerEntry> {
        self.of_device.get(&id).into_iter().flatten().map(|&entry| &self.entries[entry])
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
