//! The store on SQLite.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Row, Sqlite, Transaction};
use tokio::sync::Notify;
use uuid::fmt::Hyphenated;

use super::rows;
use super::settled::Settlements;
use super::{
    AbandonedCall, Activity, Answer, CallRow, Claim, ClaimedCompletions, CompletionClaim, Condition, Decide, Depth,
    DeviceHistory, Enqueued, NewRequest, Outcome, Overview, ResultFilter, ResultPlace, ResultRow, Status, Store,
    StoreError, Turned, WorkerIdentity,
};
use crate::domain::completion::{Judgement, Watch};
use crate::domain::id::{CallId, ManagedDeviceId, TenantName, WorkerId};
use crate::domain::lifecycle::TenantEffect;
use crate::domain::operator::Order;
use crate::domain::plan::Facts;
use crate::domain::read_back::{Doubt, ReconcilePolicy, Settlement};

mod completions;
mod examine;
mod operator;
pub(super) mod sql;
mod turn;
mod watch;

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// Entries promoted, or ended as expired, in one claim.
const SWEEP: i64 = 1000;

pub(super) struct SqliteStore {
    /// One connection: SQLite has one writer, and here it waits in a queue of ours instead of SQLite's busy loop.
    writer: SqlitePool,
    reader: SqlitePool,
    file: PathBuf,
}

impl SqliteStore {
    pub(super) async fn open(path: &Path, create: bool, patience: Duration) -> Result<Self, StoreError> {
        if !create {
            must_exist(path)?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What undoes a statement is a file otherwise, made and deleted for nearly each of ours.
            .pragma("temp_store", "memory")
            // KiB. Devices are random, so a call touches as many pages of an index as it has devices.
            .pragma("cache_size", "-16000")
            // Bytes. A checkpoint follows a commit when there are 1000 pages, so the file stays at 4 MB and a commit or two; while a
            // reader has an old snapshot it must grow, and without this it would stay as long as it was then.
            .pragma("journal_size_limit", "16777216")
            // Whoever waits for the writer waits for the write lock after it.
            .busy_timeout(patience / 3);
        let writer = pool(1, patience).connect_with(options.clone()).await?;
        let reader = pool(2, patience).connect_lazy_with(options.read_only(true));
        Ok(Self { writer, reader, file: path.to_owned() })
    }

    /// Cannot write: what `open` sets for good, such as the journal mode, stays as it is.
    pub(super) async fn open_to_look(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        must_exist(path)?;
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(patience / 3);
        let reader = pool(1, patience).connect_with(options.clone()).await?;
        Ok(Self { writer: pool(1, patience).connect_lazy_with(options), reader, file: path.to_owned() })
    }

    /// A transaction that has the write lock from its start, so that it never fails half way for want of it.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

fn must_exist(path: &Path) -> Result<(), StoreError> {
    if path.exists() {
        return Ok(());
    }
    Err(StoreError::Schema(format!(
        "no database at {}: check the path, or run `reprovisiond migrate` to create it",
        path.display()
    )))
}

fn pool(connections: u32, patience: Duration) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(patience)
        .idle_timeout(None)
        .max_lifetime(None)
        // One process, one file: a connection cannot silently die, so it is not asked before each use.
        .test_before_acquire(false)
        // After a failed write SQLite has rolled back by itself; sqlx counts on in a transaction that is no more,
        // and would refuse every BEGIN on this connection from then on.
        .before_acquire(|connection, _| {
            let fit = !connection.is_in_transaction();
            Box::pin(async move { Ok(fit) })
        })
}

/// Binds what the statements over `device_results` take, in their order.
macro_rules! filtered {
    ($query:expr, $after:expr, $filter:expr, $limit:expr) => {
        $query
            .bind($after.map(|place| instant(place.recorded_at)))
            .bind($after.map(|place| place.id))
            .bind($filter.all_attempts)
            .bind(&$filter.tenant)
            .bind($filter.device.map(|device| device.to_string()))
            .bind($filter.request.map(|request| request.0))
            .bind($filter.call.map(|call| text(call.0)))
            .bind($filter.bucket.map(crate::domain::lifecycle::Bucket::as_str))
            .bind($filter.since.map(instant))
            .bind($filter.until.map(instant))
            .bind(i64::from($limit))
    };
}
#[async_trait]
impl Store for SqliteStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        // Under the write lock from the first look to the last statement: sqlx itself locks nothing on SQLite.
        let mut tx = self.begin().await?;
        MIGRATOR.run_direct(None, &mut *tx, false).await?;
        Ok(tx.commit().await?)
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let applied: Vec<i64> = if sqlx::query_scalar(sql::HAS_MIGRATIONS).fetch_one(&self.reader).await? {
            sqlx::query_scalar(sql::APPLIED).fetch_all(&self.reader).await?
        } else {
            Vec::new()
        };
        let known: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
        super::error::check_versions(&applied, &known)
    }

    async fn examine(&self) -> Result<Vec<Condition>, StoreError> {
        examine::examine(&self.reader, &self.file).await
    }

    async fn register_tenants(&self, names: &[TenantName]) -> Result<(), StoreError> {
        sqlx::query(sql::REGISTER_TENANTS).bind(names_json(names)).execute(&self.writer).await?;
        Ok(())
    }

    async fn probe_blocked(&self, names: &[TenantName]) -> Result<(), StoreError> {
        sqlx::query(sql::PROBE_BLOCKED).bind(names_json(names)).execute(&self.writer).await?;
        Ok(())
    }

    async fn start_worker(&self, worker: &WorkerIdentity, lease: Duration) -> Result<(), StoreError> {
        sqlx::query(sql::START_WORKER)
            .bind(text(worker.id.0))
            .bind(&worker.host)
            .bind(&worker.process)
            .bind(&worker.version)
            .bind(rows::millis(lease))
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn renew_lease(&self, worker: WorkerId, lease: Duration) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let held: Option<bool> =
            sqlx::query_scalar(sql::LEASE_HELD).bind(text(worker.0)).fetch_optional(&mut *tx).await?;
        let held = held.ok_or_else(|| rows::no_worker(worker))?;
        sqlx::query(sql::RENEW_LEASE).bind(text(worker.0)).bind(rows::millis(lease)).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(held)
    }

    async fn stop_worker(&self, worker: WorkerId) -> Result<(), StoreError> {
        sqlx::query(sql::STOP_WORKER).bind(text(worker.0)).execute(&self.writer).await?;
        Ok(())
    }

    async fn workers_with_open_calls(&self, host: &str) -> Result<Vec<WorkerIdentity>, StoreError> {
        let found = sqlx::query(sql::WORKERS_WITH_OPEN_CALLS).bind(host).fetch_all(&self.reader).await?;
        found.iter().map(|row| Ok(rows::worker_identity!(row, Hyphenated))).collect()
    }

    async fn abandon_calls(&self) -> Result<Vec<AbandonedCall>, StoreError> {
        let mut tx = self.begin().await?;
        let calls = sqlx::query(sql::ABANDON_CALLS).fetch_all(&mut *tx).await?;
        let calls: Vec<AbandonedCall> =
            calls.iter().map(|row| Ok(rows::abandoned_call!(row, Hyphenated))).collect::<Result<_, StoreError>>()?;
        if calls.is_empty() {
            return Ok(calls);
        }
        let ids = rows::json(calls.iter().map(|call| call.call_id));
        let tenants = rows::json(calls.iter().map(|call| &call.tenant));
        sqlx::query(sql::ABANDON_TENANTS).bind(&tenants).execute(&mut *tx).await?;
        sqlx::query(sql::ABANDON_RESULTS).bind(&ids).execute(&mut *tx).await?;
        sqlx::query(sql::ABANDON_ENTRIES).bind(&ids).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(calls)
    }

    async fn release_unsent(&self, worker: WorkerId, under_way: &[CallId]) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let released: Vec<String> = sqlx::query_scalar(sql::RELEASE_CALLS)
            .bind(text(worker.0))
            .bind(rows::json(under_way.iter()))
            .fetch_all(&mut *tx)
            .await?;
        sqlx::query(sql::RELEASE_ENTRIES).bind(rows::json(released.iter())).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(released.len() as u64)
    }

    async fn facts(&self, tenants: &[TenantName]) -> Result<Vec<(TenantName, Facts)>, StoreError> {
        let found = sqlx::query(sql::FACTS).bind(names_json(tenants)).fetch_all(&self.reader).await?;
        found.iter().map(|row| Ok((rows::tenant_name(row.try_get("name")?)?, rows::facts!(row)))).collect()
    }

    async fn turn(
        &self,
        answers: &[Answer<'_>],
        claim: Option<(&Claim<'_>, &Decide<'_>)>,
    ) -> Result<Turned, StoreError> {
        turn::take(self.begin().await?, answers, claim).await
    }

    async fn defer_tenant(&self, tenant: &TenantName, effect: &TenantEffect) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        turn::tenant_effect(&mut tx, tenant.as_str(), effect).await?;
        Ok(tx.commit().await?)
    }

    async fn doubts(
        &self,
        tenant: &TenantName,
        policy: &ReconcilePolicy,
        limit: u32,
    ) -> Result<Vec<Doubt>, StoreError> {
        let found = sqlx::query(sql::DOUBTS)
            .bind(tenant.as_str())
            .bind(rows::millis(policy.first_after))
            .bind(rows::millis(policy.clock_margin))
            .bind(i64::from(limit))
            .fetch_all(&self.reader)
            .await?;
        found.iter().map(|row| Ok(rows::doubt!(row, Hyphenated))).collect()
    }

    async fn settle(&self, settled: &[(Doubt, Settlement)]) -> Result<u64, StoreError> {
        let Settlements { results, kept } = Settlements::of(settled);
        let mut tx = self.begin().await?;
        let written: Vec<(i64, bool)> =
            sqlx::query_as(sql::SETTLE_RESULTS).bind(results.json()).fetch_all(&mut *tx).await?;
        let finals: Vec<i64> = written.iter().filter(|(_, is_final)| *is_final).map(|(request, _)| *request).collect();
        sqlx::query(sql::LEAVE_QUEUE).bind(rows::json(finals.iter())).execute(&mut *tx).await?;
        let stayed = sqlx::query(sql::SETTLE_ENTRIES).bind(kept.json()).execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        Ok(finals.len() as u64 + stayed)
    }

    async fn track_completions(&self, names: &[TenantName], first_after: Option<Duration>) -> Result<u64, StoreError> {
        completions::track(self.begin().await?, names, first_after).await
    }

    async fn claim_completions(&self, claim: &CompletionClaim<'_>) -> Result<ClaimedCompletions, StoreError> {
        completions::claim(self.begin().await?, claim).await
    }

    async fn record_completions(
        &self,
        tenant: &TenantName,
        judged: &[(Watch, Judgement)],
        leave_alone: Option<Duration>,
    ) -> Result<u64, StoreError> {
        completions::record(self.begin().await?, tenant, judged, leave_alone).await
    }

    async fn order(&self, order: &Order) -> Result<Outcome, StoreError> {
        operator::carry_out(self.begin().await?, order).await
    }

    async fn watch(&self, nudge: Arc<Notify>) -> Result<(), StoreError> {
        let mut connection = self.reader.acquire().await?;
        watch::watch(&mut connection, &self.file, &nudge).await
    }

    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(sqlx::query_scalar(sql::NOW).fetch_one(&self.reader).await?)
    }

    async fn enqueue(&self, requests: &[NewRequest]) -> Result<Enqueued, StoreError> {
        let mut inserted = 0;
        let mut tx = self.begin().await?;
        for chunk in requests.chunks(rows::ENQUEUE_CHUNK) {
            let list = rows::json(chunk.iter().map(request_row));
            inserted += sqlx::query(sql::ENQUEUE).bind(list).execute(&mut *tx).await?.rows_affected();
        }
        tx.commit().await?;
        Ok(rows::enqueued(requests.len(), inserted))
    }

    async fn depth(&self) -> Result<Depth, StoreError> {
        Ok(sqlx::query_as::<_, (i64, i64, i64, i64, i64)>(sql::DEPTH).fetch_one(&self.reader).await?.into())
    }

    async fn status(&self) -> Result<Status, StoreError> {
        let mut tx = self.reader.begin().await?;
        Ok(rows::status!(&mut *tx, sql, Hyphenated, true))
    }

    async fn results(
        &self,
        filter: &ResultFilter,
        after: Option<ResultPlace>,
        limit: u32,
    ) -> Result<Vec<ResultRow>, StoreError> {
        let statement = filter.narrowest(sql::RESULTS, sql::RESULTS_OF_BUCKET, sql::RESULTS_OF_DEVICES);
        let found = filtered!(sqlx::query(statement), after, filter, limit).fetch_all(&self.reader).await?;
        found.iter().map(|row| Ok(rows::result_row!(row, Hyphenated))).collect()
    }

    async fn results_before(&self, filter: &ResultFilter, newest: u32) -> Result<Option<ResultPlace>, StoreError> {
        let statement =
            filter.narrowest(sql::RESULTS_BEFORE, sql::RESULTS_BEFORE_OF_BUCKET, sql::RESULTS_BEFORE_OF_DEVICES);
        let query = filtered!(sqlx::query_as(statement), None::<ResultPlace>, filter, newest);
        let found: Option<(DateTime<Utc>, i64)> = query.fetch_optional(&self.reader).await?;
        Ok(found.map(|(recorded_at, id)| ResultPlace { recorded_at, id }))
    }

    async fn overview(&self) -> Result<Overview, StoreError> {
        let mut tx = self.reader.begin().await?;
        let status = rows::status!(&mut *tx, sql, Hyphenated, false);
        let oldest = sqlx::query(sql::OLDEST_CALLS).fetch_all(&mut *tx).await?;
        let oldest = oldest.iter().map(|row| Ok(rows::oldest!(row))).collect::<Result<_, StoreError>>()?;
        let doubtful = sqlx::query(sql::DOUBTFUL).bind(super::DOUBTFUL_ROWS).fetch_all(&mut *tx).await?;
        let doubtful =
            doubtful.iter().map(|row| Ok(rows::doubtful!(row, Hyphenated))).collect::<Result<_, StoreError>>()?;
        Ok(Overview { status, oldest, doubtful })
    }

    async fn activity(&self, span: Duration, slot: Duration) -> Result<Vec<Activity>, StoreError> {
        let mut tx = self.reader.begin().await?;
        let mut activity = Vec::new();
        for statement in [sql::ACTIVITY_CALLS, sql::ACTIVITY_RESULTS, sql::ACTIVITY_COMPLETIONS] {
            let found = sqlx::query(statement)
                .bind(rows::seconds(span))
                .bind(rows::seconds(slot).max(1))
                .fetch_all(&mut *tx)
                .await?;
            for row in &found {
                activity.push(rows::activity!(row));
            }
        }
        Ok(activity)
    }

    async fn last_calls(&self, limit: u32) -> Result<Vec<CallRow>, StoreError> {
        let mut tx = self.reader.begin().await?;
        let found = sqlx::query(sql::LAST_CALLS).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
        found.iter().map(|row| Ok(rows::call_row!(row, Hyphenated))).collect()
    }

    async fn device_history(&self, device: ManagedDeviceId, limit: u32) -> Result<DeviceHistory, StoreError> {
        let (device, limit) = (device.to_string(), i64::from(limit));
        let mut tx = self.reader.begin().await?;
        let pending = sqlx::query(sql::PENDING_OF_DEVICE).bind(&device).bind(limit).fetch_all(&mut *tx).await?;
        let events = sqlx::query(sql::DEVICE_HISTORY).bind(&device).bind(limit).fetch_all(&mut *tx).await?;
        Ok(DeviceHistory {
            pending: pending
                .iter()
                .map(|row| Ok(rows::pending_row!(row, Hyphenated)))
                .collect::<Result<_, StoreError>>()?,
            events: events
                .iter()
                .rev()
                .map(|row| Ok(rows::history_row!(row, Hyphenated)))
                .collect::<Result<_, StoreError>>()?,
        })
    }

    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// A request's columns in the order of `sql::ENQUEUE`.
fn request_row(request: &NewRequest) -> impl serde::Serialize + '_ {
    (
        &request.managed_device_id,
        &request.tenant,
        &request.requested_by,
        &request.reason,
        &request.external_id,
        request.priority,
        request.not_before.map(instant_or_later),
        request.expires_at.map(instant),
        i32::from(request.force),
    )
}

/// How SQLite keeps a GUID: as text.
fn text(id: uuid::Uuid) -> Hyphenated {
    id.hyphenated()
}

/// How SQLite keeps an instant: text order is time order.
fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Rounded up: what may not begin before a time never begins a part of a millisecond early.
fn instant_or_later(at: DateTime<Utc>) -> String {
    instant(at.checked_add_signed(TimeDelta::nanoseconds(999_999)).unwrap_or(at))
}

/// Of what no other time is compared with as text: rounded to milliseconds, each call would lose a part of one.
fn precise(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn names_json(names: &[TenantName]) -> String {
    rows::json(names.iter())
}
