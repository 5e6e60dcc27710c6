//! What is followed after Graph has accepted it, for both databases.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use super::rows::{json, millis, storable};
use super::{StoreError, TenantStatus};
use crate::domain::budget::Budget;
use crate::domain::completion::{Completion, CompletionState, Judgement, OtherCall, Watch};
use crate::domain::id::TenantName;

/// What is said of reprovisions that were followed when it was turned off.
pub(super) const NOT_FOLLOWED_ANY_MORE: &str = "completion.track was turned off before its end was shown";

/// Whose watches are to be looked at.
#[derive(Debug, Clone, Copy)]
pub struct CompletionClaim<'a> {
    /// The tenant.
    pub tenant: &'a TenantName,
    /// Watches at most.
    pub limit: u32,
    /// What all workers together may read.
    pub budget: Budget,
    /// No other worker looks at them for so long; a crash delays them by it.
    pub put_off: Duration,
}

/// Watches to be looked at now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimedCompletions {
    /// They are charged to the budget.
    pub watches: Vec<Watch>,
    /// Time until there may be more, among those that are there already.
    pub look_again_in: Option<Duration>,
}

/// The budget as it is kept, under the lock of its row.
pub(super) struct Spent {
    pub(super) now: DateTime<Utc>,
    pub(super) next_read_at: Option<DateTime<Utc>>,
    pub(super) wait_until: Option<DateTime<Utc>>,
}

impl Spent {
    /// Watches that may be taken.
    pub(super) fn allows(&self, claim: &CompletionClaim<'_>) -> u32 {
        let waits = self.wait_until.is_some_and(|until| until > self.now);
        if waits { 0 } else { claim.budget.allowance(self.next_read_at, self.now).min(claim.limit) }
    }

    /// What is to be kept once so many are taken.
    pub(super) fn charged(&self, claim: &CompletionClaim<'_>, taken: usize) -> DateTime<Utc> {
        claim.budget.after(self.next_read_at, self.now, u32::try_from(taken).unwrap_or(u32::MAX))
    }

    /// Time until something may be looked at, of which the next is due then.
    pub(super) fn look_again_in(
        &self,
        claim: &CompletionClaim<'_>,
        charged: Option<DateTime<Utc>>,
        next_due: Option<DateTime<Utc>>,
    ) -> Option<Duration> {
        let until = |at: DateTime<Utc>| (at - self.now).to_std().unwrap_or_default();
        let waits = self.wait_until.map(until).unwrap_or_default();
        let budget = claim.budget.wait(charged.or(self.next_read_at), self.now, claim.limit);
        next_due.map(|due| until(due).max(waits).max(budget))
    }
}

/// Judgements as columns, ready for `UNNEST` or `json_each`.
#[derive(Debug, Default)]
pub(super) struct Judgements {
    pub(super) ended: EndedColumns,
    pub(super) again_request_id: Vec<i64>,
    pub(super) again_after_ms: Vec<i64>,
}

/// Columns of `completions` rows.
#[derive(Debug, Default)]
pub(super) struct EndedColumns {
    pub(super) request_id: Vec<i64>,
    pub(super) state: Vec<&'static str>,
    pub(super) started_at: Vec<Option<DateTime<Utc>>>,
    pub(super) ended_at: Vec<Option<DateTime<Utc>>>,
    pub(super) took_seconds: Vec<Option<i64>>,
    pub(super) detail: Vec<Option<String>>,
    pub(super) evidence: Vec<String>,
}

impl Judgements {
    pub(super) fn of(judged: &[(Watch, Judgement)]) -> Self {
        let mut columns = Self::default();
        for (watch, judgement) in judged {
            match judgement {
                Judgement::Ended(completion) => columns.ended.push(watch.request_id.0, completion),
                Judgement::LookAgain { after, .. } => {
                    columns.again_request_id.push(watch.request_id.0);
                    columns.again_after_ms.push(millis(*after));
                }
            }
        }
        columns
    }

    /// What goes on, as JSON rows, for `json_each`.
    pub(super) fn again_json(&self) -> String {
        json(self.again_request_id.iter().zip(&self.again_after_ms))
    }
}

impl EndedColumns {
    fn push(&mut self, request: i64, completion: &Completion) {
        self.request_id.push(request);
        self.state.push(completion.state.as_str());
        self.started_at.push(completion.started_at);
        self.ended_at.push(completion.ended_at);
        self.took_seconds.push(completion.took_seconds);
        self.detail.push(completion.detail.as_deref().map(storable));
        self.evidence.push(storable(&completion.evidence));
    }

    /// As JSON rows, for `json_each`.
    pub(super) fn json(&self) -> String {
        let instant = |at: Option<DateTime<Utc>>| at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true));
        let row = |n: usize| {
            (
                self.request_id[n],
                self.state[n],
                instant(self.started_at[n]),
                instant(self.ended_at[n]),
                self.took_seconds[n],
                &self.detail[n],
                &self.evidence[n],
            )
        };
        json((0..self.request_id.len()).map(row))
    }
}

/// Other calls of a device, from the JSON that both databases make of them.
pub(super) fn other_calls(text: &str, request: i64) -> Result<Vec<OtherCall>, StoreError> {
    let calls: Vec<(DateTime<Utc>, DateTime<Utc>)> =
        serde_json::from_str(text).map_err(|error| StoreError::Corrupt {
            table: "graph_calls",
            row: format!("those of the device of request_id {request}"),
            what: format!("sent_at, finished_at: {error}"),
        })?;
    Ok(calls.into_iter().map(|(sent_at, finished_at)| OtherCall { sent_at, finished_at }).collect())
}

impl TenantStatus {
    /// Notes how many reprovisions are in a state.
    pub(super) fn count_completions(&mut self, state: CompletionState, devices: i64) {
        let place = match state {
            CompletionState::Followed => &mut self.completion_followed,
            CompletionState::Done => &mut self.completion_done,
            CompletionState::Failed => &mut self.completion_failed,
            CompletionState::Canceled => &mut self.completion_canceled,
            CompletionState::NotSupported => &mut self.completion_not_supported,
            CompletionState::Untracked => &mut self.completion_untracked,
        };
        *place = devices;
    }
}

/// Reads a row of either database; `$id` as in `rows`.
macro_rules! watch {
    ($row:expr, $id:ty) => {{
        let request: i64 = $row.try_get("request_id")?;
        crate::domain::completion::Watch {
            request_id: crate::domain::id::RequestId(request),
            device: crate::store::rows::device($row.try_get("managed_device_id")?, request)?,
            call_id: crate::domain::id::CallId($row.try_get::<$id, _>("call_id")?.into()),
            action: crate::store::rows::action($row.try_get("action")?, request)?,
            cloud_pc: $row.try_get::<Option<$id>, _>("cloud_pc_id")?.map(|id| crate::domain::id::CloudPcId(id.into())),
            sent_at: $row.try_get("sent_at")?,
            accepted_at: $row.try_get("accepted_at")?,
            others: crate::store::completions::other_calls($row.try_get("others")?, request)?,
            now: $row.try_get("now")?,
            read_took: std::time::Duration::ZERO,
        }
    }};
}
pub(super) use watch;

macro_rules! spent {
    ($row:expr) => {
        crate::store::completions::Spent {
            now: $row.try_get("now")?,
            next_read_at: $row.try_get("next_read_at")?,
            wait_until: $row.try_get("wait_until")?,
        }
    };
}
pub(super) use spent;
