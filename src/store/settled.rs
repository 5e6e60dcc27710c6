//! Settlements as rows, for both databases.

use std::time::Duration;

use crate::domain::lifecycle::{Bucket, EntryState};
use crate::domain::read_back::{Doubt, Settlement};

use super::rows::{json, millis, storable};

/// Settlements as columns, ready for `UNNEST` or `json_each`.
#[derive(Debug, Default)]
pub(super) struct Settlements {
    /// Rows for `device_results`.
    pub(super) results: SettledResults,
    /// Entries that stay in the queue.
    pub(super) kept: SettledEntries,
}

/// Columns of `device_results` rows that stand on a read-back.
#[derive(Debug, Default)]
pub(super) struct SettledResults {
    pub(super) request_id: Vec<i64>,
    pub(super) call_id: Vec<uuid::Uuid>,
    pub(super) bucket: Vec<&'static str>,
    pub(super) is_final: Vec<bool>,
    pub(super) detail: Vec<String>,
    pub(super) evidence: Vec<String>,
}

/// Columns of entries whose doubt was looked at and that stay in the queue.
#[derive(Debug, Default)]
pub(super) struct SettledEntries {
    pub(super) request_id: Vec<i64>,
    pub(super) call_id: Vec<uuid::Uuid>,
    pub(super) state: Vec<&'static str>,
    pub(super) delay_ms: Vec<i64>,
    pub(super) wait_reason: Vec<String>,
}

impl Settlements {
    pub(super) fn of(settled: &[(Doubt, Settlement)]) -> Self {
        let mut columns = Self::default();
        for (doubt, settlement) in settled {
            match settlement {
                Settlement::Final { bucket, detail, evidence } => columns.result(doubt, *bucket, detail, evidence),
                Settlement::QueueAgain { detail, evidence } => {
                    columns.result(doubt, Bucket::Unknown, detail, evidence);
                    columns.keep(doubt, EntryState::Queued, Duration::ZERO, detail);
                }
                Settlement::Hold { detail, evidence } => {
                    columns.result(doubt, Bucket::Unknown, detail, evidence);
                    columns.keep(doubt, EntryState::Held, Duration::ZERO, detail);
                }
                Settlement::AskAgain { after, detail } => columns.keep(doubt, EntryState::Unknown, *after, detail),
            }
        }
        columns
    }

    fn result(&mut self, doubt: &Doubt, bucket: Bucket, detail: &str, evidence: &str) {
        let rows = &mut self.results;
        rows.request_id.push(doubt.request_id.0);
        rows.call_id.push(doubt.call_id.0);
        rows.bucket.push(bucket.as_str());
        rows.is_final.push(bucket != Bucket::Unknown);
        rows.detail.push(storable(detail));
        rows.evidence.push(storable(evidence));
    }

    fn keep(&mut self, doubt: &Doubt, state: EntryState, delay: Duration, detail: &str) {
        let rows = &mut self.kept;
        rows.request_id.push(doubt.request_id.0);
        rows.call_id.push(doubt.call_id.0);
        rows.state.push(state.as_str());
        rows.delay_ms.push(millis(delay));
        rows.wait_reason.push(storable(detail));
    }
}

impl SettledResults {
    /// As JSON rows, for `json_each`.
    pub(super) fn json(&self) -> String {
        let row = |n: usize| {
            let (request, call) = (self.request_id[n], self.call_id[n]);
            (request, call, self.bucket[n], self.is_final[n], &self.detail[n], &self.evidence[n])
        };
        json((0..self.request_id.len()).map(row))
    }
}

impl SettledEntries {
    /// As JSON rows, for `json_each`.
    pub(super) fn json(&self) -> String {
        let row =
            |n: usize| (self.request_id[n], self.call_id[n], self.state[n], self.delay_ms[n], &self.wait_reason[n]);
        json((0..self.request_id.len()).map(row))
    }
}
