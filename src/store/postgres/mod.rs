//! The store on Postgres.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::migrate::Migrator;
use sqlx::{Executor as _, Row};
use tokio::sync::Notify;
use uuid::Uuid;

use connections::{Connections, Tx};

use super::rows;
use super::settled::Settlements;
use super::{
    AbandonedCall, Activity, Answer, CallRow, Claim, ClaimedCompletions, CompletionClaim, Condition, Decide, Depth,
    DeviceHistory, Enqueued, NewRequest, Outcome, Overview, ResultFilter, ResultPlace, ResultRow, Status, Store,
    StoreError, Turned, WorkerIdentity,
};
use crate::config::DatabaseUrl;
use crate::domain::completion::{Judgement, Watch};
use crate::domain::id::{CallId, ManagedDeviceId, TenantName, WorkerId};
use crate::domain::lifecycle::TenantEffect;
use crate::domain::operator::Order;
use crate::domain::plan::Facts;
use crate::domain::read_back::{Doubt, ReconcilePolicy, Settlement};

mod completions;
mod connections;
mod examine;
mod listen;
mod operator;
pub(super) mod sql;
mod turn;

/// Without sqlx's own lock, which is the session's: a pooler would give it to whoever gets the connection next.
static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("migrations/postgres");
    migrator.set_locking(false);
    migrator
});

/// Entries promoted, or ended as expired, in one claim.
const SWEEP: i64 = 1000;

pub(super) struct PostgresStore {
    connections: Arc<Connections>,
}

impl PostgresStore {
    pub(super) async fn open(url: &DatabaseUrl, patience: Duration) -> Result<Self, StoreError> {
        Ok(Self { connections: Connections::open(url, patience, false).await? })
    }

    /// For whoever looks on while a daemon works.
    pub(super) async fn open_to_watch(url: &DatabaseUrl, patience: Duration) -> Result<Self, StoreError> {
        Ok(Self { connections: Connections::open(url, patience, true).await? })
    }

    /// The transaction of a verb of the engine.
    async fn begin(&self) -> Result<Tx, StoreError> {
        self.connections.begin().await
    }
}

/// Binds what the statements over `device_results` take, in their order. They are planned for it each time: planned once for any
/// filter, after the first pages, they would read the whole range again for each.
macro_rules! filtered {
    ($query:expr, $after:expr, $filter:expr, $limit:expr) => {
        $query
            .bind($after.map(|place| place.recorded_at))
            .bind($after.map(|place| place.id))
            .bind($filter.all_attempts)
            .bind(&$filter.tenant)
            .bind($filter.device.map(|device| device.to_string()))
            .bind($filter.request.map(|request| request.0))
            .bind($filter.call.map(|call| call.0))
            .bind($filter.bucket.map(crate::domain::lifecycle::Bucket::as_str))
            .bind($filter.since)
            .bind($filter.until)
            .bind(i64::from($limit))
            .persistent(false)
    };
}
#[async_trait]
impl Store for PostgresStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        let mut tx = self.connections.begin_at_leisure().await?;
        tx.execute(sql::LOCK_MIGRATIONS).await?;
        // sqlx's own statements have names; without a cache of names, those of others may be in their way, and they in theirs.
        if !self.connections.named() {
            tx.execute("DEALLOCATE ALL").await?;
        }
        MIGRATOR.run_direct(None, tx.raw(), false).await?;
        if !self.connections.named() {
            tx.execute("DEALLOCATE ALL").await?;
        }
        tx.commit().await
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let applied: Vec<i64> = if sqlx::query_scalar(sql::HAS_MIGRATIONS).fetch_one(&mut *tx).await? {
            sqlx::query_scalar(sql::APPLIED).fetch_all(&mut *tx).await?
        } else {
            Vec::new()
        };
        tx.commit().await?;
        let known: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
        super::error::check_versions(&applied, &known)
    }

    async fn examine(&self) -> Result<Vec<Condition>, StoreError> {
        let mut tx = self.begin().await?;
        let conditions = examine::examine(&mut tx).await?;
        tx.commit().await?;
        Ok(conditions)
    }

    async fn register_tenants(&self, names: &[TenantName]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query(sql::REGISTER_TENANTS).bind(texts(names)).execute(&mut *tx).await?;
        tx.commit().await
    }

    async fn probe_blocked(&self, names: &[TenantName]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query(sql::PROBE_BLOCKED).bind(texts(names)).execute(&mut *tx).await?;
        tx.commit().await
    }

    async fn start_worker(&self, worker: &WorkerIdentity, lease: Duration) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query(sql::START_WORKER)
            .bind(worker.id.0)
            .bind(&worker.host)
            .bind(&worker.process)
            .bind(&worker.version)
            .bind(rows::millis(lease))
            .execute(&mut *tx)
            .await?;
        tx.commit().await
    }

    async fn renew_lease(&self, worker: WorkerId, lease: Duration) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let held: Option<bool> = sqlx::query_scalar(sql::RENEW_LEASE)
            .bind(worker.0)
            .bind(rows::millis(lease))
            .fetch_optional(&mut *tx)
            .await?;
        tx.commit().await?;
        held.ok_or_else(|| rows::no_worker(worker))
    }

    async fn stop_worker(&self, worker: WorkerId) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query(sql::STOP_WORKER).bind(worker.0).execute(&mut *tx).await?;
        tx.commit().await
    }

    async fn workers_with_open_calls(&self, host: &str) -> Result<Vec<WorkerIdentity>, StoreError> {
        let mut tx = self.begin().await?;
        let found = sqlx::query(sql::WORKERS_WITH_OPEN_CALLS).bind(host).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        found.iter().map(|row| Ok(rows::worker_identity!(row, Uuid))).collect()
    }

    async fn abandon_calls(&self) -> Result<Vec<AbandonedCall>, StoreError> {
        let mut tx = self.begin().await?;
        let calls = sqlx::query(sql::ABANDON_CALLS).fetch_all(&mut *tx).await?;
        let calls: Vec<AbandonedCall> =
            calls.iter().map(|row| Ok(rows::abandoned_call!(row, Uuid))).collect::<Result<_, StoreError>>()?;
        if calls.is_empty() {
            return Ok(calls);
        }
        let ids: Vec<Uuid> = calls.iter().map(|call| call.call_id.0).collect();
        let tenants: Vec<&str> = calls.iter().map(|call| call.tenant.as_str()).collect();
        sqlx::query(sql::ABANDON_TENANTS).bind(&tenants).execute(&mut *tx).await?;
        sqlx::query(sql::ABANDON_RESULTS).bind(&ids).execute(&mut *tx).await?;
        sqlx::query(sql::ABANDON_ENTRIES).bind(&ids).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(calls)
    }

    async fn release_unsent(&self, worker: WorkerId, under_way: &[CallId]) -> Result<u64, StoreError> {
        let under_way: Vec<Uuid> = under_way.iter().map(|call| call.0).collect();
        let mut tx = self.begin().await?;
        // A claim whose COMMIT is still under way somewhere holds its tenant until it is decided: only then is it known here.
        sqlx::query(sql::LOCK_TENANTS).bind(None::<&str>).execute(&mut *tx).await?;
        let released: Vec<Uuid> =
            sqlx::query_scalar(sql::RELEASE_CALLS).bind(worker.0).bind(&under_way).fetch_all(&mut *tx).await?;
        sqlx::query(sql::RELEASE_ENTRIES).bind(&released).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(released.len() as u64)
    }

    async fn facts(&self, tenants: &[TenantName]) -> Result<Vec<(TenantName, Facts)>, StoreError> {
        let mut tx = self.begin().await?;
        let found = match tenants {
            [one] => sqlx::query(sql::FACTS_OF).bind(one.as_str()).fetch_all(&mut *tx).await?,
            _ => sqlx::query(sql::FACTS).bind(texts(tenants)).fetch_all(&mut *tx).await?,
        };
        tx.commit().await?;
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
        tx.commit().await
    }

    async fn doubts(
        &self,
        tenant: &TenantName,
        policy: &ReconcilePolicy,
        limit: u32,
    ) -> Result<Vec<Doubt>, StoreError> {
        let mut tx = self.begin().await?;
        let found = sqlx::query(sql::DOUBTS)
            .bind(tenant.as_str())
            .bind(rows::millis(policy.first_after))
            .bind(rows::millis(policy.clock_margin))
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
        tx.commit().await?;
        found.iter().map(|row| Ok(rows::doubt!(row, Uuid))).collect()
    }

    async fn settle(&self, settled: &[(Doubt, Settlement)]) -> Result<u64, StoreError> {
        let Settlements { results, kept } = Settlements::of(settled);
        let mut tx = self.begin().await?;
        let requests: Vec<i64> = settled.iter().map(|(doubt, _)| doubt.request_id.0).collect();
        sqlx::query(sql::LOCK_DOUBTS).bind(&requests).execute(&mut *tx).await?;
        let written: Vec<(i64, bool)> = sqlx::query_as(sql::SETTLE_RESULTS)
            .bind(&results.request_id)
            .bind(&results.call_id)
            .bind(&results.bucket)
            .bind(&results.is_final)
            .bind(&results.detail)
            .bind(&results.evidence)
            .fetch_all(&mut *tx)
            .await?;
        let finals: Vec<i64> = written.iter().filter(|(_, is_final)| *is_final).map(|(request, _)| *request).collect();
        sqlx::query(sql::LEAVE_QUEUE).bind(&finals).execute(&mut *tx).await?;
        let stayed = sqlx::query(sql::SETTLE_ENTRIES)
            .bind(&kept.request_id)
            .bind(&kept.call_id)
            .bind(&kept.state)
            .bind(&kept.delay_ms)
            .bind(&kept.wait_reason)
            .execute(&mut *tx)
            .await?
            .rows_affected();
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
        listen::listen(&self.connections, &nudge).await
    }

    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        let mut tx = self.begin().await?;
        let now = sqlx::query_scalar(sql::NOW).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(now)
    }

    async fn enqueue(&self, requests: &[NewRequest]) -> Result<Enqueued, StoreError> {
        let mut inserted = 0;
        let mut tx = self.connections.begin_at_leisure().await?;
        for chunk in requests.chunks(rows::ENQUEUE_CHUNK) {
            let column = |get: fn(&NewRequest) -> Option<&str>| chunk.iter().map(get).collect::<Vec<_>>();
            inserted += sqlx::query(sql::ENQUEUE)
                .bind(column(|r| Some(&r.managed_device_id)))
                .bind(column(|r| r.tenant.as_deref()))
                .bind(column(|r| r.requested_by.as_deref()))
                .bind(column(|r| r.reason.as_deref()))
                .bind(column(|r| r.external_id.as_deref()))
                .bind(chunk.iter().map(|r| r.priority).collect::<Vec<_>>())
                .bind(chunk.iter().map(|r| r.not_before).collect::<Vec<_>>())
                .bind(chunk.iter().map(|r| r.expires_at).collect::<Vec<_>>())
                .bind(chunk.iter().map(|r| r.force).collect::<Vec<_>>())
                .execute(&mut *tx)
                .await?
                .rows_affected();
        }
        tx.commit().await?;
        Ok(rows::enqueued(requests.len(), inserted))
    }

    async fn depth(&self) -> Result<Depth, StoreError> {
        let mut tx = self.connections.begin_snapshot().await?;
        Ok(sqlx::query_as::<_, (i64, i64, i64, i64, i64)>(sql::DEPTH).fetch_one(&mut *tx).await?.into())
    }

    async fn status(&self) -> Result<Status, StoreError> {
        let mut tx = self.connections.begin_snapshot().await?;
        Ok(rows::status!(&mut *tx, sql, Uuid, true))
    }

    async fn results(
        &self,
        filter: &ResultFilter,
        after: Option<ResultPlace>,
        limit: u32,
    ) -> Result<Vec<ResultRow>, StoreError> {
        let mut tx = self.connections.begin_snapshot().await?;
        let statement = filter.narrowest(sql::RESULTS, sql::RESULTS_OF_BUCKET, sql::RESULTS_OF_DEVICES);
        let found = filtered!(sqlx::query(statement), after, filter, limit).fetch_all(&mut *tx).await?;
        found.iter().map(|row| Ok(rows::result_row!(row, Uuid))).collect()
    }

    async fn results_before(&self, filter: &ResultFilter, newest: u32) -> Result<Option<ResultPlace>, StoreError> {
        let mut tx = self.connections.begin_snapshot().await?;
        let statement =
            filter.narrowest(sql::RESULTS_BEFORE, sql::RESULTS_BEFORE_OF_BUCKET, sql::RESULTS_BEFORE_OF_DEVICES);
        let query = filtered!(sqlx::query_as(statement), None::<ResultPlace>, filter, newest);
        let found: Option<(DateTime<Utc>, i64)> = query.fetch_optional(&mut *tx).await?;
        Ok(found.map(|(recorded_at, id)| ResultPlace { recorded_at, id }))
    }

    async fn overview(&self) -> Result<Overview, StoreError> {
        let mut tx = self.connections.begin_snapshot().await?;
        let status = rows::status!(&mut *tx, sql, Uuid, false);
        let oldest = sqlx::query(sql::OLDEST_CALLS).fetch_all(&mut *tx).await?;
        let oldest = oldest.iter().map(|row| Ok(rows::oldest!(row))).collect::<Result<_, StoreError>>()?;
        let doubtful = sqlx::query(sql::DOUBTFUL).bind(super::DOUBTFUL_ROWS).fetch_all(&mut *tx).await?;
        let doubtful = doubtful.iter().map(|row| Ok(rows::doubtful!(row, Uuid))).collect::<Result<_, StoreError>>()?;
        Ok(Overview { status, oldest, doubtful })
    }

    async fn activity(&self, span: Duration, slot: Duration) -> Result<Vec<Activity>, StoreError> {
        let mut tx = self.connections.begin_snapshot().await?;
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
        let mut tx = self.connections.begin_snapshot().await?;
        let found = sqlx::query(sql::LAST_CALLS).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
        found.iter().map(|row| Ok(rows::call_row!(row, Uuid))).collect()
    }

    async fn device_history(&self, device: ManagedDeviceId, limit: u32) -> Result<DeviceHistory, StoreError> {
        let (device, limit) = (device.to_string(), i64::from(limit));
        let mut tx = self.connections.begin_snapshot().await?;
        let pending = sqlx::query(sql::PENDING_OF_DEVICE).bind(&device).bind(limit).fetch_all(&mut *tx).await?;
        let events = sqlx::query(sql::DEVICE_HISTORY).bind(&device).bind(limit).fetch_all(&mut *tx).await?;
        Ok(DeviceHistory {
            pending: pending.iter().map(|row| Ok(rows::pending_row!(row, Uuid))).collect::<Result<_, StoreError>>()?,
            events: events
                .iter()
                .rev()
                .map(|row| Ok(rows::history_row!(row, Uuid)))
                .collect::<Result<_, StoreError>>()?,
        })
    }

    async fn close(&self) {
        self.connections.close().await;
    }
}

fn texts(names: &[TenantName]) -> Vec<&str> {
    names.iter().map(TenantName::as_str).collect()
}
