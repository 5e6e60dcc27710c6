//! Between the domain's types and rows, for both databases.

use std::time::Duration;

use crate::domain::action::Action;
use crate::domain::id::{CallId, ManagedDeviceId, RequestId, TenantName, WorkerId};
use crate::domain::lifecycle::{Bucket, EntryState, Recording, Source};
use crate::domain::plan::Entry;

use super::{Enqueued, StoreError, TenantStatus};

/// Columns of new `device_results` rows.
#[derive(Debug, Default)]
pub(super) struct ResultColumns {
    pub(super) request_id: Vec<i64>,
    pub(super) call_id: Vec<CallId>,
    pub(super) bucket: Vec<&'static str>,
    pub(super) source: Vec<&'static str>,
    pub(super) is_final: Vec<bool>,
    pub(super) detail: Vec<Option<String>>,
    /// 1 where this result charges an attempt that is not charged yet.
    pub(super) charge: Vec<i32>,
}

/// Columns of changed `reprovision_queue` rows.
#[derive(Debug, Default)]
pub(super) struct QueueColumns {
    pub(super) request_id: Vec<i64>,
    pub(super) call_id: Vec<CallId>,
    pub(super) state: Vec<&'static str>,
    /// Milliseconds until it is due again; `None` leaves `due_at` as it is.
    pub(super) delay_ms: Vec<Option<i64>>,
    pub(super) wait_reason: Vec<String>,
    pub(super) charge: Vec<i32>,
    pub(super) max_batch: Vec<Option<i32>>,
}

impl ResultColumns {
    pub(super) fn push(
        &mut self,
        request: i64,
        call: CallId,
        (bucket, source): (Bucket, Source),
        is_final: bool,
        detail: Option<&str>,
        charge: i32,
    ) {
        self.request_id.push(request);
        self.call_id.push(call);
        self.bucket.push(bucket.as_str());
        self.source.push(source.as_str());
        self.is_final.push(is_final);
        self.detail.push(detail.map(storable));
        self.charge.push(charge);
    }

    /// As JSON rows, for `json_each`.
    pub(super) fn json(&self) -> String {
        let row = |n: usize| {
            let (request, call) = (self.request_id[n], self.call_id[n]);
            (request, self.bucket[n], self.source[n], self.is_final[n], &self.detail[n], self.charge[n], call)
        };
        json((0..self.request_id.len()).map(row))
    }
}

impl QueueColumns {
    #[expect(clippy::too_many_arguments, reason = "a column each")]
    pub(super) fn push(
        &mut self,
        request: i64,
        call: CallId,
        state: EntryState,
        delay: Option<Duration>,
        wait_reason: &str,
        charge: i32,
        max_batch: Option<i32>,
    ) {
        self.request_id.push(request);
        self.call_id.push(call);
        self.state.push(state.as_str());
        self.delay_ms.push(delay.map(millis));
        self.wait_reason.push(storable(wait_reason));
        self.charge.push(charge);
        self.max_batch.push(max_batch);
    }

    /// As JSON rows, for `json_each`.
    pub(super) fn json(&self) -> String {
        let row = |n: usize| {
            let (request, call, delay) = (self.request_id[n], self.call_id[n], self.delay_ms[n]);
            (request, self.state[n], delay, &self.wait_reason[n], self.charge[n], self.max_batch[n], call)
        };
        json((0..self.request_id.len()).map(row))
    }
}

/// Values as one JSON array: how SQLite takes a list.
pub(super) fn json<T: serde::Serialize>(items: impl Iterator<Item = T>) -> String {
    serde_json::Value::Array(items.map(|item| serde_json::json!(item)).collect()).to_string()
}

impl TenantStatus {
    /// Notes how many final results a bucket has.
    pub(super) fn count(&mut self, bucket: Bucket, devices: i64) {
        let place = match bucket {
            Bucket::Successful => &mut self.successful,
            Bucket::Failed => &mut self.failed,
            Bucket::NotFound => &mut self.not_found,
            Bucket::NotSupported => &mut self.not_supported,
            Bucket::Expired => &mut self.expired,
            Bucket::Cancelled => &mut self.cancelled,
            Bucket::Suppressed => &mut self.suppressed,
            Bucket::Unknown => return,
        };
        *place = devices;
    }
}

/// Whole milliseconds, rounded up: a wait is never shortened.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX / 2)
}

/// Whole seconds.
pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A device id that the daemon's own trigger wrote.
pub(super) fn device(text: &str, request: i64) -> Result<ManagedDeviceId, StoreError> {
    text.parse().map_err(|error| StoreError::Corrupt {
        table: "reprovision_queue",
        row: format!("request_id {request}"),
        what: format!("managed_device_id {error}"),
    })
}

/// What the call of a request in doubt called.
pub(super) fn action(text: &str, request: i64) -> Result<Action, StoreError> {
    text.parse().map_err(|error| StoreError::Corrupt {
        table: "graph_calls",
        row: format!("the call of request {request}"),
        what: format!("action: {error}"),
    })
}

/// The Cloud PCs of an intent's devices, in their order.
pub(super) fn cloud_pc_ids(intent: &super::Intent) -> Option<Vec<Option<uuid::Uuid>>> {
    Some(intent.cloud_pcs.as_ref()?.iter().map(|id| id.map(|id| id.0)).collect())
}

/// A count or size that cannot be negative.
pub(super) fn count(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// A word of `device_results` that only a newer program or a hand could have changed.
pub(super) fn word<T: std::str::FromStr<Err = crate::domain::lifecycle::UnknownWord>>(
    text: &str,
    column: &'static str,
    row: i64,
) -> Result<T, StoreError> {
    text.parse().map_err(|error| StoreError::Corrupt {
        table: "device_results",
        row: format!("id {row}"),
        what: format!("{column}: {error}"),
    })
}

/// Due entries and overdue ones as one list, each once, the due ones' order kept.
pub(super) fn merged(due: Vec<Entry>, overdue: Vec<Entry>) -> Vec<Entry> {
    let seen: std::collections::HashSet<RequestId> = due.iter().map(|entry| entry.request_id).collect();
    due.into_iter().chain(overdue.into_iter().filter(|entry| !seen.contains(&entry.request_id))).collect()
}

/// The requests of entries, in their order.
pub(super) fn request_ids(entries: &[Entry]) -> Vec<i64> {
    entries.iter().map(|entry| entry.request_id.0).collect()
}

/// The devices of entries, in their order.
pub(super) fn device_ids(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.device.to_string()).collect()
}

/// The surplus ids of a recording as a JSON array, or nothing where there are none.
pub(super) fn surplus(recording: &Recording) -> Option<String> {
    (!recording.surplus.is_empty()).then(|| json(recording.surplus.iter().map(|item| storable(item))))
}

/// A tenant's name from the database.
pub(super) fn tenant_name(text: &str) -> Result<TenantName, StoreError> {
    text.parse().map_err(|error| StoreError::Corrupt {
        table: "tenants",
        row: format!("name {text:?}"),
        what: format!("{error}"),
    })
}

/// A tenant that is configured and yet not in the database.
pub(super) fn no_tenant(tenant: &TenantName) -> StoreError {
    StoreError::Conflict(format!(
        "table tenants has no row {tenant}, which this process registered at its start: restart it"
    ))
}

/// A worker whose row is gone.
pub(super) fn no_worker(worker: WorkerId) -> StoreError {
    StoreError::Conflict(format!(
        "table workers has no row {worker}, which this process registered at its start: restart it"
    ))
}

/// Requests in one INSERT: large enough that a statement's own cost does not count, small enough that what is bound for
/// it stays within a few megabytes. The transaction is one, however many statements it takes.
pub(super) const ENQUEUE_CHUNK: usize = 10_000;

/// How many of `given` rows went in.
pub(super) fn enqueued(given: usize, inserted: u64) -> Enqueued {
    Enqueued { inserted, already_there: u64::try_from(given).unwrap_or(u64::MAX).saturating_sub(inserted) }
}

/// The number of rows a statement should have changed and did.
pub(super) fn expect_rows(step: &str, expected: usize, changed: u64) -> Result<(), StoreError> {
    if u64::try_from(expected).ok() == Some(changed) {
        Ok(())
    } else {
        Err(StoreError::Conflict(format!("{step}: {changed} of {expected} rows")))
    }
}

/// A text without what Postgres cannot store.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$doc])* pub(super) const $name: &str = $sql;)*
        /// Every statement by name.
        pub(crate) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name),)*];
    };
}
pub(super) use statements;

/// Reads one kind of row from either database. `$id` is the type an id column decodes to: `Uuid` on Postgres,
/// `Hyphenated` (text) on SQLite. Macros, since sqlx's row types share no object-safe trait.
macro_rules! worker_identity {
    ($row:expr, $id:ty) => {
        crate::store::WorkerIdentity {
            id: crate::domain::id::WorkerId($row.try_get::<$id, _>("id")?.into()),
            host: $row.try_get("host")?,
            process: $row.try_get("process")?,
            version: $row.try_get("version")?,
        }
    };
}
pub(super) use worker_identity;

macro_rules! completed {
    ($row:expr, $id:ty) => {
        crate::store::turn::Completed {
            call: crate::domain::id::CallId($row.try_get::<$id, _>("id")?.into()),
            tenant: $row.try_get("tenant")?,
            devices: $row.try_get("device_count")?,
        }
    };
}
pub(super) use completed;

macro_rules! abandoned_call {
    ($row:expr, $id:ty) => {
        crate::store::AbandonedCall {
            call_id: crate::domain::id::CallId($row.try_get::<$id, _>("id")?.into()),
            tenant: $row.try_get("tenant")?,
            device_count: crate::store::rows::count($row.try_get::<i32, _>("device_count")?.into()),
            worker: crate::domain::id::WorkerId($row.try_get::<$id, _>("worker")?.into()),
        }
    };
}
pub(super) use abandoned_call;

macro_rules! facts {
    ($row:expr) => {
        crate::domain::plan::Facts {
            now: $row.try_get("now")?,
            tenant: crate::domain::plan::TenantState {
                paused: $row.try_get("paused")?,
                blocked_until: $row.try_get("probe_at")?,
                wait_until: $row.try_get("wait_until")?,
                next_call_at: $row.try_get("next_call_at")?,
                pace: crate::domain::rate::Pace {
                    thousandths: crate::store::rows::count($row.try_get("pace")?),
                    since: $row.try_get("paced_at")?,
                },
                throttled_at: $row.try_get("throttled_at")?,
                cautious: $row.try_get("cautious")?,
                calls_in_flight: crate::store::rows::count($row.try_get("calls_in_flight")?),
                open_doubts: crate::store::rows::count($row.try_get("open_doubts")?),
            },
            ready: $row.try_get("ready")?,
            next_due: $row.try_get("next_due")?,
            next_expiry: $row.try_get("next_expiry")?,
            waits_in_a_row: crate::store::rows::count($row.try_get::<i32, _>("waits_in_a_row")?.into()),
        }
    };
}
pub(super) use facts;

macro_rules! entry {
    ($row:expr) => {{
        let request: i64 = $row.try_get("request_id")?;
        crate::domain::plan::Entry {
            request_id: crate::domain::id::RequestId(request),
            device: crate::store::rows::device($row.try_get("managed_device_id")?, request)?,
            due_at: $row.try_get("due_at")?,
            expires_at: $row.try_get("expires_at")?,
            attempts: crate::store::rows::count($row.try_get::<i32, _>("attempts")?.into()),
            max_batch: $row.try_get::<Option<i32>, _>("max_batch")?.map(|cap| crate::store::rows::count(cap.into())),
        }
    }};
}
pub(super) use entry;

macro_rules! doubt {
    ($row:expr, $id:ty) => {{
        let request: i64 = $row.try_get("request_id")?;
        crate::domain::read_back::Doubt {
            request_id: crate::domain::id::RequestId(request),
            device: crate::store::rows::device($row.try_get("managed_device_id")?, request)?,
            call_id: crate::domain::id::CallId($row.try_get::<$id, _>("call_id")?.into()),
            action: crate::store::rows::action($row.try_get("action")?, request)?,
            cloud_pc: $row.try_get::<Option<$id>, _>("cloud_pc_id")?.map(|id| crate::domain::id::CloudPcId(id.into())),
            sent_at: $row.try_get("sent_at")?,
            given_up_at: $row.try_get("finished_at")?,
            attempts: crate::store::rows::count($row.try_get::<i32, _>("attempts")?.into()),
            explained: crate::store::rows::count($row.try_get("explained")?),
            now: $row.try_get("now")?,
            watched: std::time::Duration::ZERO,
            read_took: std::time::Duration::ZERO,
        }
    }};
}
pub(super) use doubt;

macro_rules! result_row {
    ($row:expr, $id:ty) => {{
        let id: i64 = $row.try_get("id")?;
        crate::store::ResultRow {
            id,
            request_id: crate::domain::id::RequestId($row.try_get("request_id")?),
            tenant: $row.try_get("tenant")?,
            managed_device_id: $row.try_get("managed_device_id")?,
            attempt: $row.try_get("attempt")?,
            bucket: crate::store::rows::word($row.try_get("bucket")?, "bucket", id)?,
            source: crate::store::rows::word($row.try_get("source")?, "source", id)?,
            r#final: $row.try_get("final")?,
            detail: $row.try_get("detail")?,
            requested_by: $row.try_get("requested_by")?,
            reason: $row.try_get("reason")?,
            recorded_at: $row.try_get("recorded_at")?,
            call_id: $row.try_get::<Option<$id>, _>("call_id")?.map(|call| crate::domain::id::CallId(call.into())),
            sent_at: $row.try_get("sent_at")?,
            http_status: $row.try_get("http_status")?,
            graph_request_id: $row.try_get("graph_request_id")?,
            evidence: $row.try_get("evidence")?,
            completion: match $row.try_get::<Option<&str>, _>("completion")? {
                Some(state) => Some(crate::store::rows::word(state, "completion", id)?),
                None => None,
            },
            completed_at: $row.try_get("completed_at")?,
            took_seconds: $row.try_get("took_seconds")?,
            completion_detail: $row.try_get("completion_detail")?,
        }
    }};
}
pub(super) use result_row;

/// The whole of `status`, inside a transaction that sees one moment; with `false` without the totals of all time.
macro_rules! status {
    ($tx:expr, $sql:ident, $id:ty, $totals:literal) => {{
        let mut status = crate::store::Status { now: chrono::DateTime::UNIX_EPOCH, ..crate::store::Status::default() };
        let mut at = std::collections::BTreeMap::new();
        for row in sqlx::query($sql::STATUS_TENANTS).fetch_all($tx).await? {
            status.now = row.try_get("now")?;
            let tenant: String = row.try_get("name")?;
            at.insert(tenant.clone(), status.tenants.len());
            status.tenants.push(crate::store::TenantStatus {
                tenant,
                paused_at: row.try_get("paused_at")?,
                paused_by: row.try_get("paused_by")?,
                pause_reason: row.try_get("pause_reason")?,
                wait_until: row.try_get("wait_until")?,
                wait_reason: row.try_get("wait_reason")?,
                blocked_at: row.try_get("blocked_at")?,
                block_code: row.try_get("block_code")?,
                block_reason: row.try_get("block_reason")?,
                probe_at: row.try_get("probe_at")?,
                cautious: row.try_get("cautious")?,
                ..crate::store::TenantStatus::default()
            });
        }
        let pauses = sqlx::query($sql::STATUS_PAUSES).fetch_one($tx).await?;
        status.paused_devices = pauses.try_get("devices")?;
        status.paused_requests = pauses.try_get("requests")?;
        for row in sqlx::query($sql::STATUS_QUEUE).fetch_all($tx).await? {
            let Some(tenant) = at.get(row.try_get::<&str, _>("tenant")?).and_then(|n| status.tenants.get_mut(*n))
            else {
                continue;
            };
            tenant.ready = row.try_get("ready")?;
            tenant.waiting = row.try_get("waiting")?;
            tenant.sending = row.try_get("sending")?;
            tenant.unknown = row.try_get("unknown")?;
            tenant.held = row.try_get("held")?;
            tenant.oldest_ready_at = row.try_get("oldest_ready_at")?;
            tenant.next_due_at = row.try_get("next_due_at")?;
            tenant.calls_in_doubt = row.try_get("calls_in_doubt")?;
        }
        let buckets = if $totals { sqlx::query($sql::STATUS_BUCKETS).fetch_all($tx).await? } else { Vec::new() };
        for row in buckets {
            let Some(tenant) = at.get(row.try_get::<&str, _>("tenant")?).and_then(|n| status.tenants.get_mut(*n))
            else {
                continue;
            };
            tenant.count(crate::store::rows::word(row.try_get("bucket")?, "bucket", 0)?, row.try_get("devices")?);
        }
        let mut completions = sqlx::query($sql::STATUS_FOLLOWED).fetch_all($tx).await?;
        if $totals {
            completions.extend(sqlx::query($sql::STATUS_COMPLETIONS).fetch_all($tx).await?);
        }
        for row in completions {
            let Some(tenant) = at.get(row.try_get::<&str, _>("tenant")?).and_then(|n| status.tenants.get_mut(*n))
            else {
                continue;
            };
            let state = crate::store::rows::word(row.try_get("state")?, "completion", 0)?;
            tenant.count_completions(state, row.try_get("devices")?);
        }
        for row in sqlx::query($sql::STATUS_WORKERS).fetch_all($tx).await? {
            status.workers.push(crate::store::WorkerStatus {
                id: crate::domain::id::WorkerId(row.try_get::<$id, _>("id")?.into()),
                host: row.try_get("host")?,
                version: row.try_get("version")?,
                started_at: row.try_get("started_at")?,
                heartbeat_at: row.try_get("heartbeat_at")?,
            });
        }
        status
    }};
}
pub(super) use status;

/// A row of `last_calls`.
macro_rules! call_row {
    ($row:expr, $id:ty) => {
        crate::store::CallRow {
            id: crate::domain::id::CallId($row.try_get::<$id, _>("id")?.into()),
            tenant: $row.try_get("tenant")?,
            action: $row.try_get("action")?,
            state: $row.try_get("state")?,
            device_count: $row.try_get("device_count")?,
            sent_at: $row.try_get("sent_at")?,
            finished_at: $row.try_get("finished_at")?,
            http_status: $row.try_get("http_status")?,
            graph_request_id: $row.try_get("graph_request_id")?,
            error_code: $row.try_get("error_code")?,
            error_message: $row.try_get("error_message")?,
        }
    };
}
pub(super) use call_row;

/// A row of `activity`.
macro_rules! activity {
    ($row:expr) => {
        crate::store::Activity {
            slot: $row.try_get("slot")?,
            of: $row.try_get("of")?,
            word: $row.try_get("word")?,
            count: $row.try_get("count")?,
        }
    };
}
pub(super) use activity;

/// A row of `OLDEST_CALLS`.
macro_rules! oldest {
    ($row:expr) => {
        crate::store::Oldest {
            tenant: $row.try_get("tenant")?,
            state: $row.try_get("state")?,
            sent_at: $row.try_get("sent_at")?,
        }
    };
}
pub(super) use oldest;

/// A request in doubt.
macro_rules! doubtful {
    ($row:expr, $id:ty) => {
        crate::store::Doubtful {
            request_id: crate::domain::id::RequestId($row.try_get("request_id")?),
            tenant: $row.try_get("tenant")?,
            managed_device_id: $row.try_get("managed_device_id")?,
            state: $row.try_get("state")?,
            call_id: $row.try_get::<Option<$id>, _>("call_id")?.map(|call| crate::domain::id::CallId(call.into())),
            sent_at: $row.try_get("sent_at")?,
        }
    };
}
pub(super) use doubtful;

/// A pending request of a device.
macro_rules! pending_row {
    ($row:expr, $id:ty) => {
        crate::store::PendingRow {
            request_id: crate::domain::id::RequestId($row.try_get("request_id")?),
            tenant: $row.try_get("tenant")?,
            state: $row.try_get("state")?,
            attempts: $row.try_get("attempts")?,
            detail: $row.try_get("detail")?,
            call_id: $row.try_get::<Option<$id>, _>("call_id")?.map(|call| crate::domain::id::CallId(call.into())),
            requested_at: $row.try_get("requested_at")?,
            due_at: $row.try_get("due_at")?,
        }
    };
}
pub(super) use pending_row;

/// A row of the view `device_history`.
macro_rules! history_row {
    ($row:expr, $id:ty) => {
        crate::store::HistoryRow {
            at: $row.try_get("at")?,
            event: $row.try_get("event")?,
            managed_device_id: $row.try_get("managed_device_id")?,
            tenant: $row.try_get("tenant")?,
            request_id: crate::domain::id::RequestId($row.try_get("request_id")?),
            attempt: $row.try_get("attempt")?,
            source: $row.try_get("source")?,
            r#final: $row.try_get("final")?,
            detail: $row.try_get("detail")?,
            requested_by: $row.try_get("requested_by")?,
            call_id: $row.try_get::<Option<$id>, _>("call_id")?.map(|call| crate::domain::id::CallId(call.into())),
            sent_at: $row.try_get("sent_at")?,
            http_status: $row.try_get("http_status")?,
            graph_request_id: $row.try_get("graph_request_id")?,
            evidence: $row.try_get("evidence")?,
        }
    };
}
pub(super) use history_row;
