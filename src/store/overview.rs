//! What `ops` asks: the pages' and the metrics' rows. Each question's cost is bounded by the queue or by a time, never by the
//! history.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Status;
use crate::domain::id::{CallId, RequestId};

/// What holds now, without the totals of all time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// As `status` has it, but for the counts by bucket and of ended completions, which are zero here.
    pub status: Status,
    /// Per tenant and state of what has a call, since when the oldest has been in it.
    pub oldest: Vec<Oldest>,
    /// Requests that are held, then those in doubt, call by call, oldest first: the first 50.
    pub doubtful: Vec<Doubtful>,
}

/// Rows of [`Overview::doubtful`], at most.
pub(super) const DOUBTFUL_ROWS: i64 = 50;

/// A request whose call may have been carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doubtful {
    /// The request.
    pub request_id: RequestId,
    /// Its tenant.
    pub tenant: String,
    /// Its device.
    pub managed_device_id: String,
    /// `unknown` or `held`
    pub state: String,
    /// Its call: what was sent as `client-request-id`.
    pub call_id: Option<CallId>,
    /// When the call's intent was committed.
    pub sent_at: Option<DateTime<Utc>>,
}

/// The oldest call of a tenant whose entries are in `state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oldest {
    /// The tenant.
    pub tenant: String,
    /// `sending`, `unknown` or `held`.
    pub state: String,
    /// When it was sent.
    pub sent_at: DateTime<Utc>,
}

/// What happened in one slot of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// Slots back from now; 0 is the one that runs.
    pub slot: i64,
    /// `calls`, counted by the state they are in now; `results`, final ones by bucket; or `completions` by how they ended.
    pub of: String,
    /// The state or bucket.
    pub word: String,
    /// How many.
    pub count: i64,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallRow {
    /// What was sent as `client-request-id`.
    pub id: CallId,
    /// The tenant.
    pub tenant: String,
    /// What was called.
    pub action: String,
    /// `graph_calls.state`
    pub state: String,
    /// Devices in it.
    pub device_count: i32,
    /// When the intent was committed.
    pub sent_at: DateTime<Utc>,
    /// When it was completed or given up.
    pub finished_at: Option<DateTime<Utc>>,
    /// HTTP status.
    pub http_status: Option<i32>,
    /// Graph's `request-id`.
    pub graph_request_id: Option<String>,
    /// Graph's code, or the daemon's.
    pub error_code: Option<String>,
    /// What it says.
    pub error_message: Option<String>,
}

/// A device's past and present.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceHistory {
    /// Requests without a final result.
    pub pending: Vec<PendingRow>,
    /// Everything that happened, in order.
    pub events: Vec<HistoryRow>,
}

/// A request without a final result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PendingRow {
    /// The request.
    pub request_id: RequestId,
    /// Its tenant.
    pub tenant: String,
    /// `reprovision_queue.state`
    pub state: String,
    /// Attempts that it was charged with.
    pub attempts: i32,
    /// What it waits for.
    pub detail: Option<String>,
    /// Its call, if it is under way or in doubt.
    pub call_id: Option<CallId>,
    /// When it was asked.
    pub requested_at: DateTime<Utc>,
    /// When it may go.
    pub due_at: Option<DateTime<Utc>>,
}

/// A row of the view `device_history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryRow {
    /// When.
    pub at: DateTime<Utc>,
    /// `requested`, a bucket, or `completion_` and its state.
    pub event: String,
    /// The device.
    pub managed_device_id: String,
    /// The tenant.
    pub tenant: String,
    /// The request.
    pub request_id: RequestId,
    /// The attempt.
    pub attempt: Option<i32>,
    /// On whose word.
    pub source: Option<String>,
    /// Whether it ends the request.
    pub r#final: bool,
    /// Of a request why it was asked; else why the bucket.
    pub detail: Option<String>,
    /// Who asked.
    pub requested_by: Option<String>,
    /// What was sent as `client-request-id`.
    pub call_id: Option<CallId>,
    /// When the intent was committed.
    pub sent_at: Option<DateTime<Utc>>,
    /// HTTP status of the call.
    pub http_status: Option<i32>,
    /// Graph's `request-id`.
    pub graph_request_id: Option<String>,
    /// What was read back, as JSON.
    pub evidence: Option<String>,
}

impl HistoryRow {
    /// The columns of CSV, named as in the view.
    pub const COLUMNS: &[&str] = &[
        "at",
        "event",
        "managed_device_id",
        "tenant",
        "request_id",
        "attempt",
        "source",
        "final",
        "detail",
        "requested_by",
        "call_id",
        "sent_at",
        "http_status",
        "graph_request_id",
        "evidence",
    ];
}
